//! What the head writes into a mailbox: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fencing::coordinator::Reply;
use fencing::mailbox::{
    Answer, AnswerVerdict, Directory, DirectoryMember, HeadArea, HeadMember, LastVerdict,
};
use fencing::{ClaimVerdict, Domain, SlotSet};
use reactor::FileDevice;
use uuid::Uuid;

use crate::daemon::domains::running::Observed;

/// The slots of these members; who is no member has none.
fn slots<'a>(domain: &Domain, names: impl IntoIterator<Item = &'a String>) -> SlotSet {
    let names = names.into_iter();
    names
        .filter_map(|name| Some(domain.members.get(name)?.slot))
        .collect()
}

/// The head area but for its heartbeat and what it says of the directory.
pub(super) fn head_area(
    domain: &Domain,
    registered: &BTreeSet<String>,
    observed: &Observed,
) -> HeadArea {
    let members = domain.members.iter().map(|(name, member)| {
        let fenced = domain.state.fenced.get(name);
        let said = HeadMember {
            name: name.clone(),
            votes: member.votes,
            registered: registered.contains(name),
            suspect: observed.suspects.contains(name),
            fenced: fenced.map(|fenced| fenced.epoch),
            unproven: fenced.is_some_and(|fenced| fenced.proven.is_none()),
        };
        (member.slot, said)
    });
    let answers = observed.answers.iter().filter_map(|(name, (id, reply))| {
        let slot = domain.members.get(name)?.slot;
        Some((slot, answer(domain, *id, reply)?))
    });
    HeadArea {
        name: domain.name.clone(),
        incarnation: Uuid::nil(),
        beat: 0,
        epoch: domain.state.epoch,
        secret: domain.secret.clone(),
        directory_sequence: 0,
        members: members.collect(),
        verdict: domain.state.verdict.as_ref().map(|verdict| LastVerdict {
            epoch: verdict.epoch,
            winners: slots(domain, &verdict.winners),
            fenced: slots(domain, &verdict.fenced),
        }),
        answers: answers.collect(),
    }
}

/// The answer to a claim in the mailbox's words.
fn answer(domain: &Domain, claim: Uuid, reply: &Reply) -> Option<Answer> {
    match reply {
        Reply::Claim(answer) => Some(Answer {
            claim,
            verdict: match answer.verdict {
                ClaimVerdict::Won => AnswerVerdict::Won,
                ClaimVerdict::Lost => AnswerVerdict::Lost,
                ClaimVerdict::Stale => AnswerVerdict::Stale,
            },
            epoch: answer.epoch,
            winners: slots(domain, &answer.winners),
            fenced: slots(domain, &answer.fenced),
            reason: None,
        }),
        Reply::ClaimRefused(refusal) => Some(Answer::refused(
            claim,
            domain.state.epoch,
            &refusal.to_string(),
        )),
        // Claims have no other answers.
        Reply::Fenced(_) | Reply::Unfenced { .. } | Reply::Changed | Reply::Refused(_) => None,
    }
}

/// The directory of a domain that has these volumes.
pub(super) fn directory(
    domain: &Domain,
    volumes: &[Arc<::volume::Volume<FileDevice>>],
) -> Directory {
    let members: BTreeMap<u16, DirectoryMember> = domain
        .members
        .iter()
        .map(|(name, member)| {
            let initiators = member.initiators.iter().cloned().collect();
            let name = name.clone();
            (member.slot, DirectoryMember { name, initiators })
        })
        .collect();
    let volumes = volumes
        .iter()
        .map(|volume| volume.record().naa.to_ascii_lowercase());
    Directory {
        members,
        volumes: volumes.collect(),
    }
}
