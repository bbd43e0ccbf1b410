//! What a quorum device remembers of a domain: to which group it gave its votes.
//!
//! The same rules hold for a region on a device of the pool and for a quorum server that several heads ask. A grant is durable
//! before it is answered, and is never taken back.
//!
//! - An epoch's votes go to one group: who asks again for the same group is granted again, any other is refused.
//! - Epochs only grow: who asks for an old one is refused, and told the last.
//! - As long as a verdict stands, which is until the head that was granted says that nobody is fenced for it any more, the votes go only
//!   to groups within the winners: two heads that serve one cluster cannot both have a winner, whatever epochs they count.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// To whom the votes went last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuorumRegister {
    /// The epoch of the last grant; 0 before the first.
    pub epoch: u64,
    /// The group that it went to.
    pub group: BTreeSet<String>,
    /// Somebody is fenced for it.
    pub stands: bool,
}

/// The answer of a quorum device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuorumAnswer {
    /// The group has the votes of this epoch.
    Granted,
    /// It does not: what was granted before stands in the way.
    Refused(QuorumRegister),
}

impl QuorumRegister {
    /// Asks for the votes of `epoch` for `group`: the answer, and what is to be durable before it is given (the same as
    /// now where nothing changes). An empty group is refused.
    pub fn grant(&self, epoch: u64, group: &BTreeSet<String>) -> (QuorumAnswer, Self) {
        let again = epoch == self.epoch && *group == self.group;
        let new = epoch > self.epoch && (!self.stands || group.is_subset(&self.group));
        if group.is_empty() || !(again || new) {
            return (QuorumAnswer::Refused(self.clone()), self.clone());
        }
        let next = if again {
            self.clone()
        } else {
            Self {
                epoch,
                group: group.clone(),
                stands: true,
            }
        };
        (QuorumAnswer::Granted, next)
    }

    /// Nobody is fenced for the verdict of `epoch` any more, or it had no winner. Of another epoch than the last it means nothing.
    pub fn close(&self, epoch: u64) -> Self {
        Self {
            stands: self.stands && epoch != self.epoch,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(members: &str) -> BTreeSet<String> {
        members.chars().map(String::from).collect()
    }

    #[test]
    fn the_rules() {
        let start = QuorumRegister::default();
        let (answer, one) = start.grant(1, &group("ab"));
        assert_eq!(answer, QuorumAnswer::Granted);
        // (epoch, group, granted)
        let table = [
            (1, "ab", true), // again
            (1, "a", false), // another group of the epoch
            (1, "c", false),
            (0, "ab", false), // an old epoch
            (2, "ab", true),
            (2, "b", true),   // within the winners
            (2, "bc", false), // a loser is in it
            (2, "c", false),
            (9, "c", false),
            (2, "", false),
        ];
        for (epoch, who, granted) in table {
            let (answer, next) = one.grant(epoch, &group(who));
            assert_eq!(answer == QuorumAnswer::Granted, granted, "{epoch} {who}");
            assert!(granted || next == one);
        }
        assert_eq!(one.close(2), one, "it is not the last");
        let whole = one.close(1);
        assert_eq!(whole.grant(2, &group("c")).0, QuorumAnswer::Granted);
        assert_ne!(whole.grant(1, &group("c")).0, QuorumAnswer::Granted);
    }

    proptest! {
        /// Two heads that ask in any order, with a memory of every grant as oracle.
        #[test]
        fn an_epoch_has_one_group_and_a_verdict_that_stands_no_rival(
            asks in prop::collection::vec((0u64..6, "[abc]{0,3}", any::<bool>()), 0..40),
        ) {
            let mut register = QuorumRegister::default();
            let mut granted: Vec<(u64, BTreeSet<String>)> = Vec::new();
            let mut closed = BTreeSet::new();
            for (epoch, members, close) in asks {
                if close {
                    register = register.close(epoch);
                    closed.insert(epoch);
                    continue;
                }
                let members = group(&members);
                let (answer, next) = register.grant(epoch, &members);
                if answer == QuorumAnswer::Granted {
                    for (other, others) in &granted {
                        prop_assert!(*other <= epoch);
                        prop_assert!(*other != epoch || *others == members);
                    }
                    if let Some((last, winners)) = granted.last() {
                        prop_assert!(closed.contains(last) || members.is_subset(winners));
                    }
                    if granted.last() != Some(&(epoch, members.clone())) {
                        closed.clear();
                        granted.push((epoch, members));
                    }
                }
                register = next;
            }
        }
    }
}
