//! What a quorum device remembers of a domain: to which group it gave its votes, and who relies on that.
//!
//! The same rules hold for a region on a device of the pool and for a quorum server that several heads ask. A change is durable
//! before it is answered, and a grant is never taken back.
//!
//! - An epoch's votes go to one group: who asks again for the same group is granted again, any other is refused.
//! - Epochs only grow: who asks for an old one is refused, and told the last.
//! - As long as a verdict stands, which is until the head that was granted says that nobody is fenced for it any more, other heads
//!   are given the votes only for groups within the winners: two heads that serve one cluster cannot both have a winner, whatever
//!   epochs they count. The head itself may ask for any group: it knows whom it has fenced, and a grant that it never
//!   used because it crashed must not bind it for ever.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::Verdict;

/// How long the quorum device is waited for, in milliseconds; then it has no votes in this race.
pub const QUORUM_LIMIT_MS: u64 = 3_000;

/// To whom the votes went last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuorumRegister {
    /// The epoch of the last grant; 0 before the first.
    pub epoch: u64,
    /// The group that it went to.
    pub group: BTreeSet<String>,
    /// For which heads somebody may be fenced for it: identity of the domain there, and the epoch of its last grant.
    pub standing: BTreeMap<Uuid, u64>,
    /// The last verdict that was told: for people, and for whoever has to rebuild a configuration.
    pub verdict: Option<Verdict>,
}

/// A head asks for the votes of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuorumAsk {
    /// Identity of the domain that asks.
    pub by: Uuid,
    /// The epoch that the race would begin.
    pub epoch: u64,
    /// The group that would have the votes.
    pub group: BTreeSet<String>,
}

/// The answer of a quorum device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuorumAnswer {
    /// The group has the votes of this epoch.
    Granted,
    /// It does not: what was granted before stands in the way.
    Refused(QuorumRegister),
}

/// What may be asked of a quorum device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuorumRequest {
    /// For the votes of an epoch.
    Ask(QuorumAsk),
    /// What it remembers.
    Read,
    /// To let go of what the head `by` was granted up to `epoch`.
    Close {
        /// Identity of the domain there.
        by: Uuid,
        /// The epoch of its last grant for which somebody was fenced.
        epoch: u64,
    },
    /// To keep a verdict.
    Tell(Verdict),
}

/// The answer to a [`QuorumRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuorumReply {
    /// To [`QuorumRequest::Ask`].
    Answer(QuorumAnswer),
    /// To all others: what it remembers now.
    Register(QuorumRegister),
}

impl QuorumRegister {
    /// Carries a request out: the answer, and what is to be durable before it is given (the same as now where nothing
    /// changes).
    pub fn apply(&self, request: &QuorumRequest) -> (QuorumReply, Self) {
        let next = match request {
            QuorumRequest::Ask(ask) => {
                let (answer, next) = self.grant(ask);
                return (QuorumReply::Answer(answer), next);
            }
            QuorumRequest::Read => self.clone(),
            QuorumRequest::Close { by, epoch } => self.close(*by, *epoch),
            QuorumRequest::Tell(verdict) => self.tell(verdict),
        };
        (QuorumReply::Register(next.clone()), next)
    }

    /// Asks for votes: the answer, and what is to be durable before it is given (the same as now where nothing changes).
    /// An empty group is refused.
    pub fn grant(&self, ask: &QuorumAsk) -> (QuorumAnswer, Self) {
        if !self.would_grant(ask) {
            return (QuorumAnswer::Refused(self.clone()), self.clone());
        }
        let mut next = self.clone();
        next.epoch = ask.epoch;
        next.group.clone_from(&ask.group);
        next.standing.insert(ask.by, ask.epoch);
        (QuorumAnswer::Granted, next)
    }

    /// Whether the votes would be given.
    pub fn would_grant(&self, ask: &QuorumAsk) -> bool {
        let again = ask.epoch == self.epoch && ask.group == self.group;
        let rivals = self.standing.keys().any(|head| *head != ask.by);
        let new = ask.epoch > self.epoch && (!rivals || ask.group.is_subset(&self.group));
        !ask.group.is_empty() && (again || new)
    }

    /// With the head `by`, nobody is fenced any more for its grants up to that of `epoch`.
    pub fn close(&self, by: Uuid, epoch: u64) -> Self {
        let mut next = self.clone();
        next.standing
            .retain(|head, granted| *head != by || *granted > epoch);
        next
    }

    /// Keeps a verdict; one that is older than what is known changes nothing.
    pub fn tell(&self, verdict: &Verdict) -> Self {
        let mut next = self.clone();
        let known = self.verdict.as_ref().map_or(0, |known| known.epoch);
        if verdict.epoch > known {
            next.verdict = Some(verdict.clone());
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Uuid = Uuid::from_u128(1);
    const THERE: Uuid = Uuid::from_u128(2);

    fn group(members: &str) -> BTreeSet<String> {
        members.chars().map(String::from).collect()
    }

    fn ask(by: Uuid, epoch: u64, members: &str) -> QuorumAsk {
        let group = group(members);
        QuorumAsk { by, epoch, group }
    }

    #[test]
    fn the_rules() {
        let start = QuorumRegister::default();
        let (answer, one) = start.grant(&ask(HERE, 1, "ab"));
        assert_eq!(answer, QuorumAnswer::Granted);
        // (who, epoch, group, granted)
        let table = [
            (HERE, 1, "ab", true), // again
            (THERE, 1, "ab", true),
            (HERE, 1, "a", false), // another group of the epoch
            (HERE, 1, "c", false),
            (HERE, 0, "ab", false), // an old epoch
            (THERE, 2, "ab", true),
            (THERE, 2, "b", true),   // within the winners
            (THERE, 2, "bc", false), // a loser is in it
            (THERE, 9, "c", false),
            (HERE, 2, "c", true), // the head itself knows whom it has fenced
            (HERE, 2, "", false),
        ];
        for (by, epoch, who, granted) in table {
            let (answer, next) = one.grant(&ask(by, epoch, who));
            assert_eq!(answer == QuorumAnswer::Granted, granted, "{epoch} {who}");
            assert!(granted || next == one);
        }
        assert_eq!(one.close(HERE, 0), one, "that was before");
        assert_eq!(one.close(THERE, 1), one, "it has asked for nothing");
        let whole = one.close(HERE, 1);
        assert_eq!(whole.grant(&ask(THERE, 2, "c")).0, QuorumAnswer::Granted);
        assert_ne!(whole.grant(&ask(THERE, 1, "c")).0, QuorumAnswer::Granted);
    }

    proptest! {
        /// Two heads that ask in any order, with a memory of every grant as oracle.
        #[test]
        fn an_epoch_has_one_group_and_a_verdict_that_stands_no_rival_elsewhere(
            asks in prop::collection::vec((any::<bool>(), 0u64..6, "[abc]{0,3}", any::<bool>()), 0..40),
        ) {
            let mut register = QuorumRegister::default();
            let mut granted: Vec<(Uuid, u64, BTreeSet<String>)> = Vec::new();
            let mut open: BTreeMap<Uuid, u64> = BTreeMap::new();
            for (here, epoch, members, close) in asks {
                let by = if here { HERE } else { THERE };
                if close {
                    register = register.close(by, epoch);
                    if open.get(&by).is_some_and(|last| *last <= epoch) {
                        open.remove(&by);
                    }
                    continue;
                }
                let members = group(&members);
                let (answer, next) = register.grant(&QuorumAsk { by, epoch, group: members.clone() });
                let last = granted.last().cloned();
                let same = last.as_ref().is_some_and(|last| (last.1, &last.2) == (epoch, &members));
                let rivals = open.keys().any(|head| *head != by);
                let within = last.as_ref().is_none_or(|last| members.is_subset(&last.2));
                let newer = last.as_ref().is_none_or(|last| last.1 < epoch) && epoch > 0;
                let expected = !members.is_empty() && (same || newer && (!rivals || within));
                prop_assert_eq!(answer == QuorumAnswer::Granted, expected);
                if expected {
                    for (_, other, others) in &granted {
                        prop_assert!(*other <= epoch);
                        prop_assert!(*other != epoch || *others == members);
                    }
                    granted.push((by, epoch, members));
                    open.insert(by, epoch);
                }
                register = next;
            }
        }
    }
}
