//! From what the replicas say to what is current: one pure function.
//!
//! **Why it is right.** A commit is acknowledged when a majority of the members has it. An opening that will write
//! first *claims* an epoch above every claim it has read, on a majority, and its commits carry that epoch. So of two
//! epochs the higher one was opened by someone who had read every acknowledged commit of the lower, and the greatest
//! (epoch, sequence) that a majority of replicas shows contains every acknowledged commit. It may be one commit
//! further: the one in flight at a crash, which may be adopted as well as not. Two different contents under one
//! number, or two writers in one epoch, cannot come from any crash: that is a fork.

use uuid::Uuid;

use super::header::{Header, HeaderError};

/// What one replica says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRead {
    /// Its newest valid header.
    Valid(Box<Header>),
    /// No valid header, and why.
    Bad(HeaderError),
    /// The device did not answer.
    Unreadable(String),
}

/// The verdict on all replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The content of replica `best` is current.
    Current {
        /// Position of a replica that has it.
        best: usize,
        /// Positions of the members that do not have it: to be repaired.
        repair: Vec<usize>,
        /// A majority of the members has it already, and no member is silent that may have a later one, which a later
        /// opening could take. If not, it must be committed again before it is served.
        settled: bool,
    },
    /// Too few replicas could be read to know what is current.
    LostQuorum {
        /// Members with a valid header.
        valid: usize,
        /// Members needed.
        need: usize,
        /// Members in all.
        of: usize,
    },
    /// Two replicas disagree in a way that no crash explains.
    Fork {
        /// Position of one.
        left: usize,
        /// Position of the other.
        right: usize,
    },
    /// The area holds another store.
    Foreign(Uuid),
    /// A version that this program does not know.
    Unsupported(u32),
    /// No replica has a valid header, at least one has a damaged one.
    Torn,
    /// Nothing was ever written.
    Empty,
}

/// Smallest majority of `members`.
pub fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// Decides what is current from what every reachable replica says.
pub fn verdict(reads: &[HeaderRead]) -> Verdict {
    let valid: Vec<(usize, &Header)> = reads
        .iter()
        .enumerate()
        .filter_map(|(index, read)| match read {
            HeaderRead::Valid(header) => Some((index, header.as_ref())),
            _ => None,
        })
        .collect();
    let Some(&(best, newest)) = valid.iter().max_by_key(|(index, header)| {
        // Of equals the first: `max_by_key` would take the last.
        (
            header.content.epoch,
            header.content.sequence,
            std::cmp::Reverse(*index),
        )
    }) else {
        return nothing_valid(reads);
    };
    for (position, &(left, a)) in valid.iter().enumerate() {
        for &(right, b) in &valid[position + 1..] {
            let same_epoch = a.content.epoch == b.content.epoch;
            let same_number = same_epoch && a.content.sequence == b.content.sequence;
            if same_epoch && a.content.writer != b.content.writer
                || same_number && a.content != b.content
            {
                return Verdict::Fork { left, right };
            }
        }
    }
    let members = &newest.content.members;
    let is_member = |header: &Header| members.contains(&header.replica);
    let votes = valid.iter().filter(|(_, header)| is_member(header)).count();
    let need = majority(members.len());
    if votes < need {
        return Verdict::LostQuorum {
            valid: votes,
            need,
            of: members.len(),
        };
    }
    let has_it = |header: &Header| is_member(header) && header.content == newest.content;
    let current = valid.iter().filter(|(_, header)| has_it(header)).count();
    let repair = reads
        .iter()
        .enumerate()
        .filter(|(_, read)| match read {
            HeaderRead::Valid(header) => is_member(header) && !has_it(header),
            HeaderRead::Bad(HeaderError::Empty | HeaderError::Torn) => true,
            HeaderRead::Bad(_) | HeaderRead::Unreadable(_) => false,
        })
        .map(|(index, _)| index)
        .collect();
    Verdict::Current {
        best,
        repair,
        settled: current >= need && votes == members.len(),
    }
}

fn nothing_valid(reads: &[HeaderRead]) -> Verdict {
    if reads.is_empty() {
        // Nobody was asked: that says nothing about what there is.
        return Verdict::LostQuorum {
            valid: 0,
            need: 1,
            of: 0,
        };
    }
    let mut worst = Verdict::Empty;
    for read in reads {
        match read {
            HeaderRead::Unreadable(_) => {
                return Verdict::LostQuorum {
                    valid: 0,
                    need: majority(reads.len()),
                    of: reads.len(),
                };
            }
            HeaderRead::Bad(HeaderError::Foreign { uuid, .. }) => {
                worst = Verdict::Foreign(*uuid);
            }
            HeaderRead::Bad(HeaderError::Unsupported { version }) if worst == Verdict::Empty => {
                worst = Verdict::Unsupported(*version);
            }
            HeaderRead::Bad(HeaderError::Torn | HeaderError::Invalid { .. })
                if worst == Verdict::Empty =>
            {
                worst = Verdict::Torn;
            }
            _ => {}
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::super::header::{Content, RECORD_BYTES};
    use super::*;

    /// A replica's state in the table: `EPOCH.SEQUENCE` with an optional other writer (`'`) or other content (`*`)
    /// and an optional member list (`/AB`; the row's default without), or one of the words.
    fn read(position: usize, text: &str, members: &str) -> HeaderRead {
        match text {
            "empty" => return HeaderRead::Bad(HeaderError::Empty),
            "torn" => return HeaderRead::Bad(HeaderError::Torn),
            "io" => return HeaderRead::Unreadable("input/output error".into()),
            "v2" => return HeaderRead::Bad(HeaderError::Unsupported { version: 2 }),
            "other" => {
                return HeaderRead::Bad(HeaderError::Foreign {
                    what: "store",
                    uuid: Uuid::from_u128(77),
                });
            }
            _ => {}
        }
        let (text, members) = text.split_once('/').unwrap_or((text, members));
        let numbers = text.trim_end_matches(['\'', '*']);
        let (epoch, sequence) = numbers.split_once('.').unwrap();
        let epoch = epoch.parse().unwrap();
        let id = |c: char| Uuid::from_u128(c as u128);
        HeaderRead::Valid(Box::new(Header {
            content: Content {
                epoch,
                sequence: sequence.parse().unwrap(),
                writer: Uuid::from_u128(
                    u128::from(epoch) + if text.ends_with('\'') { 1000 } else { 0 },
                ),
                members: members.chars().map(id).collect(),
                record: [u8::from(text.ends_with('*')); RECORD_BYTES],
                pages: Vec::new(),
            },
            claim: epoch,
            replica: id((b'A' + position as u8) as char),
        }))
    }

    fn says(row: &str, members: &str) -> String {
        let reads: Vec<HeaderRead> = row
            .split_whitespace()
            .enumerate()
            .filter(|(_, text)| *text != "-")
            .map(|(position, text)| read(position, text, members))
            .collect();
        match verdict(&reads) {
            Verdict::Current {
                best,
                repair,
                settled,
            } => format!(
                "{} {}{}",
                best,
                if settled { "settled" } else { "commit again" },
                repair
                    .iter()
                    .map(|index| format!(", repair {index}"))
                    .collect::<String>()
            ),
            Verdict::LostQuorum { valid, need, of } => {
                format!("lost: {valid} of {of}, need {need}")
            }
            Verdict::Fork { left, right } => format!("fork {left} {right}"),
            Verdict::Foreign(_) => "foreign".into(),
            Verdict::Unsupported(_) => "unsupported".into(),
            Verdict::Torn => "torn".into(),
            Verdict::Empty => "empty".into(),
        }
    }

    /// One column a replica; `-` is not there at all. Positions in the verdict count the replicas that are there.
    #[test]
    fn truth_table() {
        #[rustfmt::skip]
        let table = [
            // nobody is there
            ("A",   "-",                  "lost: 0 of 0, need 1"),
            // one replica
            ("A",   "1.5",                "0 settled"),
            ("A",   "empty",              "empty"),
            ("A",   "torn",               "torn"),
            ("A",   "other",              "foreign"),
            ("A",   "v2",                 "unsupported"),
            ("A",   "io",                 "lost: 0 of 1, need 1"),
            // three replicas, all there
            ("ABC", "1.5 1.5 1.5",        "0 settled"),
            ("ABC", "1.6 1.5 1.5",        "0 commit again, repair 1, repair 2"), // in flight at a crash
            ("ABC", "1.5 1.6 1.6",        "1 settled, repair 0"),                // A was away
            ("ABC", "1.5 1.6 2.6",        "2 commit again, repair 0, repair 1"),
            ("ABC", "1.9 2.6 2.6",        "1 settled, repair 0"),                // A never had a majority for 9
            ("ABC", "1.5 1.5 torn",       "0 commit again, repair 2"),           // who knows what C had
            ("ABC", "1.5 1.5 empty",      "0 commit again, repair 2"),
            ("ABC", "1.5 1.5 other",      "0 commit again"),                     // never overwritten
            ("ABC", "1.5 1.5 v2",         "0 commit again"),                     // never overwritten
            ("ABC", "1.5 1.5 io",         "0 commit again"),                     // C may have 1.6: not after this
            // a minority is missing
            ("ABC", "1.5 1.5 -",          "0 commit again"),
            ("ABC", "1.6 1.5 -",          "0 commit again, repair 1"),
            ("ABC", "1.6 - 2.6",          "1 commit again, repair 0"),
            // a majority is missing
            ("ABC", "1.5 - -",            "lost: 1 of 3, need 2"),
            ("ABC", "1.5 torn torn",      "lost: 1 of 3, need 2"),
            ("ABC", "1.5 io other",       "lost: 1 of 3, need 2"),
            ("ABC", "torn torn empty",    "torn"),
            ("ABC", "torn io empty",      "lost: 0 of 3, need 2"),
            // two replicas need each other
            ("AB",  "1.5 1.5",            "0 settled"),
            ("AB",  "1.6 1.5",            "0 commit again, repair 1"),
            ("AB",  "1.5 -",              "lost: 1 of 2, need 2"),
            // two of five away, and the epochs of openings that died
            ("ABCDE", "1.5 1.5 1.5 - -",  "0 commit again"),
            ("ABCDE", "1.5 1.5 2.6 - -",  "2 commit again, repair 0, repair 1"),
            ("ABCDE", "3.7 1.5 2.6 - -",  "0 commit again, repair 1, repair 2"),
            ("ABCDE", "1.5 1.5 - - -",    "lost: 2 of 5, need 3"),
            ("ABCDE", "3.7 3.7 3.7 1.5 2.6", "0 settled, repair 3, repair 4"),
            // no crash explains these
            ("ABC", "1.5 1.5* 1.5",       "fork 0 1"),
            ("ABC", "1.5 1.4' 1.5",       "fork 0 1"),
            ("ABC", "1.5 1.5 1.6'",       "fork 0 2"),
            // members come and go, one at a time
            ("A",   "1.5 1.6/AB",         "1 commit again, repair 0"),           // adding B was in flight
            ("A",   "1.5 -",              "0 settled"),
            ("AB",  "1.6/A 1.5",          "0 settled"),                          // B was removed
            ("AB",  "- 1.5",              "lost: 1 of 2, need 2"),
            ("ABC", "1.6/AB 1.5 1.5",     "0 commit again, repair 1"),           // removing C was in flight
            ("ABC", "- 1.5 1.5",          "0 commit again"),
            ("ABC", "1.6/AB 1.6/AB 1.5",  "0 settled"),
            ("ABC", "1.6/AB - 1.5",       "lost: 1 of 2, need 2"),               // C does not count any more
            ("ABC", "1.6/AB 1.6/AB empty", "0 settled, repair 2"),               // a candidate, not a member
            ("ABC", "1.5/AB 1.6/ABC -",   "1 commit again, repair 0"),           // adding C was in flight
            ("ABC", "1.5/AB - 1.6/ABC",   "1 commit again, repair 0"),
            ("ABC", "- - 1.6/ABC",        "lost: 1 of 3, need 2"),
            ("ABCD", "- 2.6/BCD 2.6/BCD 1.6/ABCD", "0 settled, repair 2"),       // A was removed
        ];
        for (members, row, expected) in table {
            assert_eq!(says(row, members), expected, "{members}: {row}");
        }
    }
}
