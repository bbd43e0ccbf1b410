//! Who votes, for whom, and which group has more than half.
//!
//! - A member has its votes if it has a key on a volume of the domain and is not fenced. The total is the votes of all those, and
//!   the quorum device's, whether or not it can be reached.
//! - A member's votes go to the group that it claims itself; a silent member's to the only group that names it; those of a silent
//!   member that several different groups name, or none, go to nobody.
//! - The quorum device's votes go to one group: the one that [`preferred`] puts first, if the device grants it.
//! - More than half of the total wins. The members outside of the winning group that have access lose it, registered or not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::claim::Claim;
use crate::domain::{Domain, Prefer};

/// Members of one side.
pub type Group = BTreeSet<String>;

/// What is on the volumes when a race is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    /// Members with a key on at least one volume of the domain.
    pub registered: BTreeSet<String>,
    /// On how many volumes a member holds the reservation; members that hold none may be left out.
    pub holds: BTreeMap<String, u32>,
}

impl Survey {
    /// Members that have a vote: registered, and not fenced.
    pub fn voters<'a>(&'a self, domain: &'a Domain) -> impl Iterator<Item = &'a String> {
        let unfenced = domain.unfenced().map(|(name, _)| name);
        unfenced.filter(|name| self.registered.contains(*name))
    }
}

/// What a group has without the quorum device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The group.
    pub group: Group,
    /// Votes of members for it.
    pub votes: u64,
    /// How many of it are registered.
    pub registered: usize,
    /// On how many volumes its members hold the reservation, added up.
    pub holds: u64,
}

/// The outcome of a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who goes on; empty when no group has more than half.
    pub winners: Group,
    /// Who is to be fenced; empty when there is no winner.
    pub losers: Group,
    /// Votes of the winners, 0 without.
    pub votes: u64,
    /// Votes that there are.
    pub votes_total: u64,
    /// The quorum device's votes are among those of the winners.
    pub quorum_voted: bool,
}

/// The groups that are claimed, in the order in which they were first claimed, with what they have.
///
/// `claims` are in the order in which they came. Of a member that claims again only the last claim counts; a claim of a member without
/// a vote, and one that leaves the claimer out or names a fenced member or a stranger, does not count.
pub fn tally(domain: &Domain, survey: &Survey, claims: &[Claim]) -> Vec<Tally> {
    let voters: BTreeSet<&String> = survey.voters(domain).collect();
    let names_members = |claim: &Claim| {
        let mut group = claim.group.iter();
        group.all(|name| domain.members.contains_key(name) && !domain.is_fenced(name))
    };
    let mut own: BTreeMap<&String, &Group> = BTreeMap::new();
    let mut groups: Vec<&Group> = Vec::new();
    for (place, claim) in claims.iter().enumerate() {
        let later = claims.iter().skip(place + 1);
        let last = !later.clone().any(|later| later.member == claim.member);
        let counts = last
            && voters.contains(&claim.member)
            && claim.group.contains(&claim.member)
            && names_members(claim);
        if counts {
            own.insert(&claim.member, &claim.group);
            if !groups.contains(&&claim.group) {
                groups.push(&claim.group);
            }
        }
    }
    let vote_of = |voter: &String| {
        own.get(voter).copied().or_else(|| {
            let mut naming = groups.iter().filter(|group| group.contains(voter));
            let first = naming.next().copied();
            first.filter(|_| naming.next().is_none())
        })
    };
    let votes: Vec<(Option<&Group>, u64)> = voters
        .iter()
        .map(|voter| {
            let votes = domain.members.get(*voter).map_or(0, |member| member.votes);
            (vote_of(voter), u64::from(votes))
        })
        .collect();
    let of = |group: &Group| Tally {
        group: group.clone(),
        votes: votes
            .iter()
            .filter(|(choice, _)| *choice == Some(group))
            .map(|(_, votes)| votes)
            .sum(),
        registered: group.iter().filter(|name| voters.contains(name)).count(),
        holds: group
            .iter()
            .map(|name| u64::from(survey.holds.get(name).copied().unwrap_or(0)))
            .sum(),
    };
    groups.into_iter().map(of).collect()
}

/// The groups in the order in which the quorum device's votes are offered to them: as the domain prefers, then first to claim.
pub fn preferred(prefer: Prefer, tallies: &[Tally]) -> Vec<&Group> {
    let mut order: Vec<&Tally> = tallies.iter().collect();
    // The sort is stable: equals stay in the order of their claims.
    order.sort_by_key(|tally| {
        Reverse(match prefer {
            Prefer::Largest => tally.registered as u64,
            Prefer::Weight => tally.votes,
            Prefer::Holder => tally.holds,
        })
    });
    order.into_iter().map(|tally| &tally.group).collect()
}

/// Counts: `claims` as for [`tally`], and the group that the quorum device has granted its votes, if it has.
pub fn decide(
    domain: &Domain,
    survey: &Survey,
    claims: &[Claim],
    granted: Option<&Group>,
) -> Decision {
    let quorum_votes = domain.quorum_votes();
    let member_votes: u64 = survey
        .voters(domain)
        .filter_map(|name| domain.members.get(name))
        .map(|member| u64::from(member.votes))
        .sum();
    let votes_total = member_votes + quorum_votes;
    let mut decision = Decision {
        winners: Group::new(),
        losers: Group::new(),
        votes: 0,
        votes_total,
        quorum_voted: false,
    };
    for tally in tally(domain, survey, claims) {
        let quorum_voted = domain.quorum.is_some() && granted == Some(&tally.group);
        let votes = tally.votes + if quorum_voted { quorum_votes } else { 0 };
        // Two groups cannot both have more than half: a voter votes once.
        if votes * 2 > votes_total {
            decision.losers = domain
                .unfenced()
                .map(|(name, _)| name.clone())
                .filter(|name| !tally.group.contains(name))
                .collect();
            decision.winners = tally.group;
            decision.votes = votes;
            decision.quorum_voted = quorum_voted;
        }
    }
    decision
}

#[cfg(test)]
mod tests;
