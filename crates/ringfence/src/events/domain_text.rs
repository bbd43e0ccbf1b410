//! Events of fence domains in words, one line each.

use std::fmt;

use super::domain::DomainEvent;
use super::text::by_operator;

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nobody".to_owned()
    } else {
        names.join(", ")
    }
}

fn beside(not_served: &[String]) -> String {
    if not_served.is_empty() {
        String::new()
    } else {
        format!(" (nobody can use {})", not_served.join(", "))
    }
}

impl fmt::Display for DomainEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DomainCreated {
                domain,
                volumes,
                by,
            } => write!(
                f,
                "domain {domain} of {} created by {by}",
                volumes.join(", ")
            ),
            Self::DomainDeleted { domain, by } => write!(f, "domain {domain} deleted by {by}"),
            Self::DomainVolumeAdded { domain, volume, by } => {
                write!(f, "domain {domain}: volume {volume} added by {by}")
            }
            Self::DomainVolumeRemoved { domain, volume, by } => {
                write!(f, "domain {domain}: volume {volume} removed by {by}")
            }
            Self::MemberAdded {
                domain,
                member,
                initiators,
                votes,
                methods,
                by,
            } => write!(
                f,
                "domain {domain}: member {member} ({}, votes {votes}, fenced by {}) added by {by}",
                initiators.join(", "),
                methods.join(", ")
            ),
            Self::MemberRemoved { domain, member, by } => {
                write!(f, "domain {domain}: member {member} removed by {by}")
            }
            Self::RaceClaimed {
                domain,
                member,
                group,
                epoch,
                by,
            } => write!(
                f,
                "domain {domain}: {member} claims for {} in epoch {epoch}{}",
                list(group),
                by_operator(by)
            ),
            Self::RaceDecided {
                domain,
                epoch,
                winners,
                fenced,
                votes,
                votes_total,
                quorum_voted,
            } => {
                let quorum = if *quorum_voted {
                    ", the quorum device's among them"
                } else {
                    ""
                };
                if winners.is_empty() {
                    write!(
                        f,
                        "domain {domain}: race LOST BY ALL, epoch {epoch}: no group has more than half of {votes_total} votes"
                    )
                } else {
                    write!(
                        f,
                        "domain {domain}: race WON by {} with {votes} of {votes_total} votes{quorum}, epoch {epoch}; to be fenced: {}",
                        list(winners),
                        list(fenced)
                    )
                }
            }
            Self::MemberFenced {
                domain,
                member,
                epoch,
                cause,
                by,
            } => write!(
                f,
                "domain {domain}: {member} is to be FENCED ({cause}), epoch {epoch}{}",
                by_operator(by)
            ),
            Self::MemberRevoked {
                domain,
                member,
                volumes,
                not_served,
            } => write!(
                f,
                "domain {domain}: {member} has NO ACCESS to its {volumes} volumes any more and its I/O has ended{}",
                beside(not_served)
            ),
            Self::RevokeFailed {
                domain,
                member,
                reason,
            } => write!(
                f,
                "domain {domain}: the access of {member} could NOT be taken away everywhere: {reason}; it is tried again"
            ),
            Self::FenceAttempt {
                domain,
                member,
                method,
                attempt,
            } => write!(
                f,
                "domain {domain}: {method} on {member}, attempt {attempt}"
            ),
            Self::FenceAttemptFailed {
                domain,
                member,
                method,
                attempt,
                reason,
            } => write!(
                f,
                "domain {domain}: {method} on {member}, attempt {attempt}, FAILED: {reason}"
            ),
            Self::FenceProven {
                domain,
                member,
                method,
                proof,
            } => write!(
                f,
                "domain {domain}: {member} is FENCED, proven by {method}: {proof}"
            ),
            Self::FenceNotProven {
                domain,
                member,
                again_in_ms,
            } => write!(
                f,
                "domain {domain}: the fence of {member} is NOT PROVEN; all methods are tried again in {} s",
                again_in_ms / 1000
            ),
            Self::DomainNotWritten { domain, reason } => write!(
                f,
                "domain {domain}: its state could NOT be written: {reason}; it is tried again"
            ),
            Self::MemberUnfenced {
                domain,
                member,
                epoch,
                by,
            } => write!(
                f,
                "domain {domain}: {member} has access again, epoch {epoch}{}",
                by_operator(by)
            ),
            Self::QuorumDeviceLost { domain, reason } => {
                write!(f, "domain {domain}: QUORUM DEVICE LOST: {reason}")
            }
            Self::QuorumDeviceBack { domain } => {
                write!(f, "domain {domain}: the quorum device is back")
            }
            Self::MemberSuspect { domain, member } => write!(
                f,
                "domain {domain}: {member} is SUSPECT: its heartbeat on storage has stopped"
            ),
            Self::MemberBack { domain, member } => {
                write!(f, "domain {domain}: {member} beats on storage again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Operator, What};
    use super::*;

    fn race() -> DomainEvent {
        DomainEvent::RaceDecided {
            domain: "d".into(),
            epoch: 4,
            winners: vec!["a".into(), "b".into()],
            fenced: vec!["c".into()],
            votes: 4,
            votes_total: 5,
            quorum_voted: true,
        }
    }

    #[test]
    fn races_and_fences_in_words() {
        let (domain, member) = (|| "d".to_owned(), || "c".to_owned());
        let lines = [
            DomainEvent::RaceClaimed {
                domain: domain(),
                member: "a".into(),
                group: vec!["a".into(), "b".into()],
                epoch: 3,
                by: None,
            },
            race(),
            DomainEvent::MemberRevoked {
                domain: domain(),
                member: member(),
                volumes: 3,
                not_served: vec!["v3".into()],
            },
            DomainEvent::FenceAttemptFailed {
                domain: domain(),
                member: member(),
                method: "stonith:qmp".into(),
                attempt: 2,
                reason: "no such socket".into(),
            },
            DomainEvent::FenceProven {
                domain: domain(),
                member: member(),
                method: "fabric".into(),
                proof: "2 sessions ended".into(),
            },
            DomainEvent::MemberUnfenced {
                domain: domain(),
                member: member(),
                epoch: 5,
                by: Some(Operator::Local { uid: 0, pid: 9 }),
            },
        ]
        .map(|event| event.to_string());
        insta::assert_snapshot!(lines.join("\n"), @r"
        domain d: a claims for a, b in epoch 3
        domain d: race WON by a, b with 4 of 5 votes, the quorum device's among them, epoch 4; to be fenced: c
        domain d: c has NO ACCESS to its 3 volumes any more and its I/O has ended (nobody can use v3)
        domain d: stonith:qmp on c, attempt 2, FAILED: no such socket
        domain d: c is FENCED, proven by fabric: 2 sessions ended
        domain d: c has access again, epoch 5 by uid 0 (pid 9)
        ");
    }

    #[test]
    fn an_event_of_a_domain_is_a_line_like_any_other() {
        let event = Event {
            sequence: 7,
            time: "2026-11-23T14:30:00Z".parse().unwrap(),
            what: What::Domain(race()),
        };
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"sequence":7,"time":"2026-11-23T14:30:00Z","event":"race-decided","domain":"d","epoch":4,"#,
                r#""winners":["a","b"],"fenced":["c"],"votes":4,"votes_total":5,"quorum_voted":true}"#
            )
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        let unknown = line.replace("race-decided", "race-invented");
        assert!(serde_json::from_str::<Event>(&unknown).is_err());
    }
}
