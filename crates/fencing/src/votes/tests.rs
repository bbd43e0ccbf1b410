//! The count as a table that can be read, and against a count by brute force.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{FenceCause, FencedMember, Quorum, QuorumPlace};
use crate::testing;

/// `"A1 B1* c1 !D1"`: members with their votes; small letters are not registered, `!` is fenced, `*` holds a reservation.
fn members(text: &str) -> (Domain, Survey) {
    let mut domain = testing::domain(&[]);
    let mut survey = Survey::default();
    for word in text.split_whitespace() {
        let (word, fenced) = match word.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (word, false),
        };
        let holds = word.ends_with('*');
        let letter = word[..1].to_owned();
        let name = letter.to_uppercase();
        let votes = word[1..].trim_end_matches('*').parse().unwrap();
        testing::add_member(&mut domain, &name, votes);
        if letter == name {
            survey.registered.insert(name.clone());
        }
        if holds {
            survey.holds.insert(name.clone(), 1);
        }
        if fenced {
            let methods = domain.members[&name].methods.clone();
            let fenced = FencedMember {
                epoch: 1,
                cause: FenceCause::Race,
                heirs: Vec::new(),
                methods,
                proven: None,
                incarnation: None,
            };
            domain.state.epoch = 1;
            domain.state.fenced.insert(name, fenced);
        }
    }
    (domain, survey)
}

fn group(text: &str) -> Group {
    text.chars().map(String::from).collect()
}

/// `"A:AB C:C"`: A claims for AB, then C for C.
fn claims(text: &str) -> Vec<Claim> {
    let claim = |word: &str| {
        let (member, with) = word.split_once(':').unwrap();
        Claim {
            id: Uuid::nil(),
            member: member.to_owned(),
            group: group(with),
            epoch: 0,
        }
    };
    text.split_whitespace().map(claim).collect()
}

fn quorum(votes: Option<u32>) -> Quorum {
    Quorum {
        place: QuorumPlace::Server {
            address: "192.0.2.1:1".into(),
            name: None,
        },
        votes,
    }
}

/// Members; votes of the quorum device (`-` for no device, `=` for the default); preference; claims; whom the device would
/// be offered to first; winners when it grants that; winners when it cannot be reached.
const TABLE: &[(&str, &str, Prefer, &str, &str, &str, &str)] = &[
    // Two equal halves: nobody without a device, the first to claim with one.
    ("A1 B1", "-", Prefer::Largest, "A:A B:B", "A", "", ""),
    ("A1 B1", "=", Prefer::Largest, "A:A B:B", "A", "A", ""),
    ("A1 B1", "=", Prefer::Largest, "B:B A:A", "B", "B", ""),
    // A lone survivor of three wins with the default votes of the device, and not with a tie-breaker.
    ("A1 B1 C1", "=", Prefer::Largest, "C:C", "C", "C", ""),
    ("A1 B1 C1", "1", Prefer::Largest, "C:C", "C", "", ""),
    // The majority of three.
    (
        "A1 B1 C1",
        "-",
        Prefer::Largest,
        "C:C A:AB",
        "AB",
        "AB",
        "AB",
    ),
    ("A1 B1 C1", "1", Prefer::Largest, "C:C A:AB", "AB", "AB", ""),
    ("A1 B1 C1", "=", Prefer::Largest, "C:C A:AB", "AB", "AB", ""),
    // A tie of four is broken.
    (
        "A1 B1 C1 D1",
        "1",
        Prefer::Largest,
        "C:CD A:AB",
        "CD",
        "CD",
        "",
    ),
    // Votes that differ.
    ("A5 B1 C1", "-", Prefer::Largest, "B:BC A:A", "BC", "A", "A"),
    ("A2 B1 C1", "1", Prefer::Largest, "A:A B:BC", "BC", "BC", ""),
    ("A3 B1 C1", "1", Prefer::Weight, "B:BC A:A", "A", "A", ""),
    ("A3 B1 C1", "1", Prefer::Largest, "B:BC A:A", "BC", "", ""),
    ("A0 B1", "=", Prefer::Largest, "A:A", "A", "", ""),
    // The holder's group, and nobody's when nobody holds.
    ("A1 B1 C1*", "=", Prefer::Holder, "A:AB C:C", "C", "C", ""),
    ("A1 B1 C1", "=", Prefer::Holder, "A:AB C:C", "AB", "AB", ""),
    // Without a key there is no vote and no claim; the total is smaller for it.
    ("A1 b1 c1", "-", Prefer::Largest, "A:A", "A", "A", "A"),
    ("a1 B1", "-", Prefer::Largest, "a:a A:A B:B", "B", "B", "B"),
    ("A1 b1 C1", "-", Prefer::Largest, "A:AB C:C", "AB", "", ""),
    // A fenced member has no vote, no claim and can be named by nobody.
    (
        "A1 B1 !C1",
        "-",
        Prefer::Largest,
        "C:C A:AB",
        "AB",
        "AB",
        "AB",
    ),
    ("A1 B1 !C1", "-", Prefer::Largest, "A:ABC", "", "", ""),
    // A silent member that two groups name votes for neither, one that claims for its own.
    ("A1 B1 C1", "-", Prefer::Largest, "A:AB C:BC", "AB", "", ""),
    (
        "A1 B1 C1",
        "-",
        Prefer::Largest,
        "A:AB C:BC B:BC",
        "AB",
        "BC",
        "BC",
    ),
    // Equal groups are one, a later claim of a member takes the place of its first.
    (
        "A1 B1 C1",
        "-",
        Prefer::Largest,
        "A:AB B:AB C:C",
        "AB",
        "AB",
        "AB",
    ),
    (
        "A1 B1 C1",
        "-",
        Prefer::Largest,
        "A:AC B:B A:AB B:AB",
        "AB",
        "AB",
        "AB",
    ),
    // Who leaves itself out, or names a stranger, claims nothing.
    ("A1 B1", "-", Prefer::Largest, "A:B", "", "", ""),
    ("A2 B1", "-", Prefer::Largest, "A:AX", "", "", ""),
    // Nobody has a vote.
    ("a1 b1", "-", Prefer::Largest, "A:AB", "", "", ""),
    // One sees the other, which does not see it: the larger group, and nobody is fenced.
    ("A1 B1", "=", Prefer::Largest, "A:A B:AB", "AB", "AB", ""),
];

#[test]
fn the_count_is_the_table() {
    for line @ (who, device, prefer, claimed, offered, with, without) in TABLE {
        let (mut domain, survey) = members(who);
        domain.prefer = *prefer;
        domain.quorum = match *device {
            "-" => None,
            "=" => Some(quorum(None)),
            votes => Some(quorum(Some(votes.parse().unwrap()))),
        };
        let claims = claims(claimed);
        let tallies = tally(&domain, &survey, &claims);
        let first = preferred(*prefer, &tallies).first().copied().cloned();
        assert_eq!(
            first.clone().unwrap_or_default(),
            group(offered),
            "{line:?}"
        );
        let decision = decide(&domain, &survey, &claims, first.as_ref());
        assert_eq!(decision.winners, group(with), "{line:?}");
        let alone = decide(&domain, &survey, &claims, None);
        assert_eq!(alone.winners, group(without), "{line:?}");
    }
}

#[test]
fn the_losers_are_all_others_that_have_access() {
    let (domain, survey) = members("A1 B1 C1 d1 !E1");
    let decision = decide(&domain, &survey, &claims("A:AB C:C"), None);
    assert_eq!(decision.losers, group("CD"));
    assert_eq!((decision.votes, decision.votes_total), (2, 3));
    let nobody = decide(&domain, &survey, &claims("A:A B:B C:C"), None);
    assert!(nobody.winners.is_empty() && nobody.losers.is_empty());
}

/// The count once more, over bits, member by member and group by group, as the issue words it.
struct Oracle {
    votes: Vec<u64>,
    registered: u32,
    fenced: u32,
    quorum: u64,
    /// (claimer, group)
    claims: Vec<(usize, u32)>,
    granted: Option<u32>,
}

impl Oracle {
    /// (winners, losers, votes, total)
    fn count(&self) -> (u32, u32, u64, u64) {
        let everybody = (1 << self.votes.len()) - 1;
        let voters = self.registered & !self.fenced;
        let mut standing: Vec<Option<u32>> = vec![None; self.votes.len()];
        for (claimer, group) in &self.claims {
            standing[*claimer] = Some(*group);
        }
        for (claimer, group) in standing.iter_mut().enumerate() {
            let bit = 1 << claimer;
            if group.is_some_and(|group| {
                voters & bit == 0 || group & bit == 0 || group & self.fenced != 0
            }) {
                *group = None;
            }
        }
        let mut total = self.quorum;
        let mut best = (0, 0, 0);
        for candidate in 1..=everybody {
            if !standing.contains(&Some(candidate)) {
                continue;
            }
            let mut votes = if self.granted == Some(candidate) {
                self.quorum
            } else {
                0
            };
            for voter in 0..self.votes.len() {
                let bit = 1 << voter;
                if voters & bit == 0 {
                    continue;
                }
                let rivals = (1..=everybody)
                    .filter(|other| standing.contains(&Some(*other)) && other & bit != 0);
                let mine = match standing[voter] {
                    Some(own) => own == candidate,
                    None => candidate & bit != 0 && rivals.count() == 1,
                };
                if mine {
                    votes += self.votes[voter];
                }
            }
            if votes > best.0 {
                best = (votes, candidate, everybody & !candidate & !self.fenced);
            }
        }
        for voter in 0..self.votes.len() {
            if voters & (1 << voter) != 0 {
                total += self.votes[voter];
            }
        }
        // Half of the total is not enough; in halves, so that nothing is rounded.
        if best.0 > total - best.0 {
            (best.1, best.2, best.0, total)
        } else {
            (0, 0, 0, total)
        }
    }
}

const LETTERS: [&str; 5] = ["A", "B", "C", "D", "E"];

fn bits(bits: u32) -> Group {
    let letters = LETTERS.iter().enumerate();
    letters
        .filter(|(place, _)| bits & (1 << place) != 0)
        .map(|(_, letter)| (*letter).to_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn the_count_is_that_of_brute_force(
        votes in prop::collection::vec(0u32..4, 1..6),
        registered in any::<u32>(),
        fenced in any::<u32>(),
        few_fenced in any::<bool>(),
        device in prop::option::of(prop::option::of(1u32..5)),
        claimed in prop::collection::vec((0usize..5, 1u32..32), 0..7),
        grant in 0usize..9,
    ) {
        let everybody = (1u32 << votes.len()) - 1;
        let registered = registered & everybody;
        let fenced = if few_fenced { fenced & fenced.rotate_left(7) & everybody & 3 } else { 0 };
        let claimed: Vec<(usize, u32)> = claimed
            .into_iter()
            .map(|(claimer, group)| (claimer % votes.len(), group & everybody))
            .filter(|(_, group)| *group != 0)
            .collect();
        let text: Vec<String> = votes
            .iter()
            .enumerate()
            .map(|(place, votes)| {
                let letter = if registered & (1 << place) != 0 {
                    LETTERS[place].to_owned()
                } else {
                    LETTERS[place].to_lowercase()
                };
                let mark = if fenced & (1 << place) != 0 { "!" } else { "" };
                format!("{mark}{letter}{votes}")
            })
            .collect();
        let (mut domain, survey) = members(&text.join(" "));
        domain.quorum = device.map(quorum);
        let claims: Vec<Claim> = claimed
            .iter()
            .map(|(claimer, group)| Claim {
                id: Uuid::nil(),
                member: LETTERS[*claimer].to_owned(),
                group: bits(*group),
                epoch: 0,
            })
            .collect();
        let granted = device.and_then(|_| claimed.get(grant).map(|(_, group)| *group));
        let quorum = match device {
            None => 0,
            Some(Some(votes)) => u64::from(votes),
            Some(None) => votes.iter().map(|votes| u64::from(*votes)).sum::<u64>().saturating_sub(1),
        };
        let oracle = Oracle {
            votes: votes.iter().map(|votes| u64::from(*votes)).collect(),
            registered,
            fenced,
            quorum,
            claims: claimed,
            granted,
        };
        let decision = decide(&domain, &survey, &claims, granted.map(bits).as_ref());
        let (winners, losers, of_winners, total) = oracle.count();
        prop_assert_eq!(&decision.winners, &bits(winners));
        prop_assert_eq!(&decision.losers, &bits(losers));
        prop_assert_eq!((decision.votes, decision.votes_total), (of_winners, total));
        prop_assert!(decision.winners.is_disjoint(&decision.losers));
    }
}
