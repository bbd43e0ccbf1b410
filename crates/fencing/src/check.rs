//! What is wrong with what an operator says about a domain, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;
use uuid::Uuid;

use crate::domain::{Domain, MAX_MEMBERS, MAX_VOLUMES, MAX_VOTES, Member, Quorum, QuorumPlace};
use crate::method::Method;

/// Longest name of a domain: with `-mailbox` behind it, it is the name of a volume.
const MAX_DOMAIN_NAME: usize = 56;
/// Longest name of a member.
const MAX_MEMBER_NAME: usize = 63;
/// Most initiator names of a member.
const MAX_INITIATORS: usize = 64;
/// Longest iSCSI name (RFC 7143 4.2.7.1), in bytes.
const MAX_INITIATOR_NAME: usize = 223;
/// Most methods of a member.
const MAX_METHODS: usize = 8;

/// What is wrong with a domain, or with a change of it.
#[derive(Clone, Debug, Error, PartialEq, Eq, Hash)]
pub enum DomainError {
    /// No such member.
    #[error("{domain} has no member {member}; it has: {members}")]
    NoSuchMember {
        /// The domain.
        domain: String,
        /// Who was named.
        member: String,
        /// Who there is.
        members: String,
    },
    /// The name of a domain, a member or a quorum register cannot be one.
    #[error(
        "{name:?} cannot be the name of a {what}: give up to {longest} letters, digits, -, _ and ., beginning with a letter or digit"
    )]
    Name {
        /// What it is for.
        what: &'static str,
        /// What was given.
        name: String,
        /// Most characters.
        longest: usize,
    },
    /// There is such a member already.
    #[error("{domain} has a member {member} already; remove it first, or choose another name")]
    MemberExists {
        /// The domain.
        domain: String,
        /// The name.
        member: String,
    },
    /// The mailbox has no slot left.
    #[error("{0} has {MAX_MEMBERS} members already, which is the most; remove one first")]
    TooManyMembers(String),
    /// A member without initiators, or with too many.
    #[error("member {0} needs at least one --initiator, and at most {MAX_INITIATORS}")]
    InitiatorCount(String),
    /// Not an iSCSI name.
    #[error(
        "{0:?} is no iSCSI initiator name: give it as /etc/iscsi/initiatorname.iscsi does, such as iqn.2026-11.example.com:vm1"
    )]
    Initiator(String),
    /// An initiator belongs to somebody else.
    #[error(
        "initiator {initiator} belongs to member {member} of domain {domain}; an initiator can be one member of one domain only"
    )]
    InitiatorTaken {
        /// The name.
        initiator: String,
        /// Whose it is.
        member: String,
        /// Of which domain.
        domain: String,
    },
    /// Too many votes.
    #[error("{whose} cannot have {votes} votes: give {least} to {MAX_VOTES}")]
    Votes {
        /// Who.
        whose: String,
        /// How many.
        votes: u32,
        /// Least number.
        least: u32,
    },
    /// A member without methods, with too many, or with one twice.
    #[error("member {0} needs one to {MAX_METHODS} fencing methods, each once")]
    Methods(String),
    /// `reserve-release` in a domain that is no pair.
    #[error(
        "the method reserve-release of member {0} works between two members only, the other one owns the volumes; choose reservation or fabric"
    )]
    ReserveRelease(String),
    /// No volumes, or too many.
    #[error("a domain needs 1 to {MAX_VOLUMES} volumes")]
    VolumeCount,
    /// The mailbox among the volumes that are fenced.
    #[error(
        "volume {0} is the mailbox of the domain and cannot be one of its volumes: a fenced member reads its verdict there"
    )]
    MailboxAmongVolumes(Uuid),
    /// A volume of another domain.
    #[error("volume {volume} is fenced with domain {domain}; a volume can be in one domain only")]
    VolumeTaken {
        /// Identity of the volume.
        volume: Uuid,
        /// Whose it is.
        domain: String,
    },
    /// There is such a domain already.
    #[error("there is a domain {0} already; choose another name")]
    DomainExists(String),
    /// Not the address of a server.
    #[error("{0:?} is no address of a quorum server: give HOST:PORT, such as 192.0.2.7:3262")]
    Address(String),
    /// A time or number out of its limits.
    #[error("{what} cannot be {value}: give {least} to {most}")]
    Limit {
        /// What it is, with its unit.
        what: &'static str,
        /// What was given.
        value: u32,
        /// Least value.
        least: u32,
        /// Greatest value.
        most: u32,
    },
    /// Not a secret.
    #[error("the secret of a domain is 64 hexadecimal digits")]
    Secret,
    /// A member that is fenced cannot leave: its fence would be forgotten.
    #[error(
        "member {member} of {domain} is fenced; removing it would give up the fence: run `ringfence unfence {domain} {member}` first"
    )]
    Fenced {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
    },
    /// A volume is to leave while somebody is fenced on it.
    #[error(
        "a member of {0} is fenced; a volume can leave it when nobody is: see `ringfence domain show {0}`, and `ringfence unfence`"
    )]
    VolumesWhileFenced(String),
    /// The document of the domain contradicts itself.
    #[error("the record of domain {domain} contradicts itself: {what}")]
    Record {
        /// The domain.
        domain: String,
        /// In which way.
        what: String,
    },
}

impl Domain {
    /// Checks everything about the domain: what an operator said, and that what was decided is consistent. To be called
    /// before a domain is created, after each change and when it is read from the pool.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), DomainError> {
        check_name("domain", &self.name, MAX_DOMAIN_NAME)?;
        if self.volumes.is_empty() || self.volumes.len() > MAX_VOLUMES {
            return Err(DomainError::VolumeCount);
        }
        if self.volumes.contains(&self.mailbox) {
            return Err(DomainError::MailboxAmongVolumes(self.mailbox));
        }
        check_limit("the window in milliseconds", self.window_ms, 100, 60_000)?;
        check_limit(
            "the time of an attempt in milliseconds",
            self.attempt_timeout_ms,
            1_000,
            600_000,
        )?;
        check_limit("the number of attempts", self.attempts.into(), 1, 10)?;
        if let Some(quorum) = &self.quorum {
            check_quorum(quorum)?;
        }
        if self.members.len() > MAX_MEMBERS {
            return Err(DomainError::TooManyMembers(self.name.clone()));
        }
        let mut slots = BTreeSet::new();
        let mut owners = BTreeMap::new();
        for (name, member) in &self.members {
            self.check_member(name, member)?;
            if usize::from(member.slot) >= MAX_MEMBERS || !slots.insert(member.slot) {
                return Err(self.contradiction(format!(
                    "slot {} of member {name} is not its own",
                    member.slot
                )));
            }
            for initiator in &member.initiators {
                if let Some(other) = owners.insert(initiator, name) {
                    return Err(self.taken(initiator, other));
                }
            }
        }
        self.check_state()
    }

    /// Checks that nothing of it belongs to other domains of the pool.
    ///
    /// # Errors
    /// [`DomainError::DomainExists`], [`DomainError::VolumeTaken`], [`DomainError::InitiatorTaken`].
    pub fn check_beside<'a>(
        &self,
        others: impl IntoIterator<Item = &'a Domain>,
    ) -> Result<(), DomainError> {
        for other in others {
            if other.uuid == self.uuid {
                continue;
            }
            if other.name == self.name {
                return Err(DomainError::DomainExists(self.name.clone()));
            }
            if let Some(volume) = self.volumes.intersection(&other.volumes).next() {
                return Err(DomainError::VolumeTaken {
                    volume: *volume,
                    domain: other.name.clone(),
                });
            }
            for initiator in self.members.values().flat_map(|member| &member.initiators) {
                if let Some(owner) = other.member_of(initiator) {
                    return Err(other.taken(initiator, owner));
                }
            }
        }
        Ok(())
    }

    /// Adds a member in the lowest free slot of the mailbox. Initiator names are taken in any case and kept in lower case.
    ///
    /// # Errors
    /// What is wrong with it; then the domain is as it was.
    pub fn add_member(
        &mut self,
        name: &str,
        initiators: &[String],
        votes: u32,
        methods: &[Method],
    ) -> Result<(), DomainError> {
        if self.members.contains_key(name) {
            return Err(DomainError::MemberExists {
                domain: self.name.clone(),
                member: name.to_owned(),
            });
        }
        let taken: BTreeSet<u16> = self.members.values().map(|member| member.slot).collect();
        let slot = (0..MAX_MEMBERS as u16)
            .find(|slot| !taken.contains(slot))
            .ok_or_else(|| DomainError::TooManyMembers(self.name.clone()))?;
        let member = Member {
            initiators: initiators
                .iter()
                .map(|initiator| initiator.to_ascii_lowercase())
                .collect(),
            votes,
            methods: methods.to_vec(),
            slot,
        };
        let mut changed = self.clone();
        changed.members.insert(name.to_owned(), member);
        changed.check()?;
        *self = changed;
        Ok(())
    }

    /// Removes a member.
    ///
    /// # Errors
    /// [`DomainError::NoSuchMember`], and [`DomainError::Fenced`]: a fence is not given up in passing.
    pub fn remove_member(&mut self, name: &str) -> Result<(), DomainError> {
        self.member(name)?;
        if self.is_fenced(name) {
            return Err(DomainError::Fenced {
                domain: self.name.clone(),
                member: name.to_owned(),
            });
        }
        self.members.remove(name);
        Ok(())
    }

    fn check_member(&self, name: &str, member: &Member) -> Result<(), DomainError> {
        check_name("member", name, MAX_MEMBER_NAME)?;
        if member.initiators.is_empty() || member.initiators.len() > MAX_INITIATORS {
            return Err(DomainError::InitiatorCount(name.to_owned()));
        }
        for initiator in &member.initiators {
            check_initiator(initiator)?;
        }
        check_votes(&format!("member {name}"), member.votes, 0)?;
        self.check_methods(name, &member.methods)
    }

    /// Checks a list of methods for a member, also one of a request.
    ///
    /// # Errors
    /// [`DomainError::Methods`], [`DomainError::ReserveRelease`].
    pub fn check_methods(&self, name: &str, methods: &[Method]) -> Result<(), DomainError> {
        let different: BTreeSet<&Method> = methods.iter().collect();
        if methods.is_empty() || methods.len() > MAX_METHODS || different.len() < methods.len() {
            return Err(DomainError::Methods(name.to_owned()));
        }
        if methods.contains(&Method::ReserveRelease) && self.members.len() > 2 {
            return Err(DomainError::ReserveRelease(name.to_owned()));
        }
        Ok(())
    }

    fn check_state(&self) -> Result<(), DomainError> {
        let state = &self.state;
        for (name, fenced) in &state.fenced {
            if !self.members.contains_key(name) {
                return Err(self.contradiction(format!("{name} is fenced and no member")));
            }
            if fenced.epoch > state.epoch {
                return Err(self.contradiction(format!("{name} is fenced in a later epoch")));
            }
            if fenced.methods.is_empty() {
                return Err(self.contradiction(format!("{name} is fenced without a method")));
            }
            // A pair's method stands as long as the fence does.
            self.check_methods(name, &fenced.methods)?;
        }
        let verdict_fits = state.verdict.as_ref().is_none_or(|verdict| {
            verdict.epoch <= state.epoch && verdict.winners.is_disjoint(&verdict.fenced)
        });
        if verdict_fits {
            Ok(())
        } else {
            Err(self.contradiction("its verdict is of a later epoch, or fences its winners".into()))
        }
    }

    fn contradiction(&self, what: String) -> DomainError {
        DomainError::Record {
            domain: self.name.clone(),
            what,
        }
    }

    fn taken(&self, initiator: &str, member: &str) -> DomainError {
        DomainError::InitiatorTaken {
            initiator: initiator.to_owned(),
            member: member.to_owned(),
            domain: self.name.clone(),
        }
    }
}

fn check_name(what: &'static str, name: &str, longest: usize) -> Result<(), DomainError> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if first && rest && name.len() <= longest {
        Ok(())
    } else {
        Err(DomainError::Name {
            what,
            name: name.to_owned(),
            longest,
        })
    }
}

/// RFC 7143 4.2.7: a type, and characters that its preparation leaves as they are (letters in lower case).
fn check_initiator(initiator: &str) -> Result<(), DomainError> {
    let typed = ["iqn.", "eui.", "naa."]
        .iter()
        .any(|kind| initiator.len() > kind.len() && initiator.starts_with(kind));
    let characters = initiator.chars().all(|character| match character {
        '-' | '.' | ':' => true,
        _ if character.is_ascii() => character.is_ascii_lowercase() || character.is_ascii_digit(),
        _ => character.is_alphanumeric() && !character.is_uppercase(),
    });
    if typed && characters && initiator.len() <= MAX_INITIATOR_NAME {
        Ok(())
    } else {
        Err(DomainError::Initiator(initiator.to_owned()))
    }
}

fn check_quorum(quorum: &Quorum) -> Result<(), DomainError> {
    if let Some(votes) = quorum.votes {
        check_votes("the quorum device", votes, 1)?;
    }
    if let QuorumPlace::Server { address, name } = &quorum.place {
        if let Some(name) = name {
            check_name("quorum register", name, MAX_DOMAIN_NAME)?;
        }
        let fine = address.rsplit_once(':').is_some_and(|(host, port)| {
            let plain = host
                .strip_prefix('[')
                .and_then(|host| host.strip_suffix(']'))
                .map_or(!host.contains(':'), |host| {
                    host.parse::<std::net::Ipv6Addr>().is_ok()
                });
            let named = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
            plain && named && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !fine {
            return Err(DomainError::Address(address.clone()));
        }
    }
    Ok(())
}

fn check_votes(whose: &str, votes: u32, least: u32) -> Result<(), DomainError> {
    if (least..=MAX_VOTES).contains(&votes) {
        Ok(())
    } else {
        Err(DomainError::Votes {
            whose: whose.to_owned(),
            votes,
            least,
        })
    }
}

fn check_limit(what: &'static str, value: u32, least: u32, most: u32) -> Result<(), DomainError> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(DomainError::Limit {
            what,
            value,
            least,
            most,
        })
    }
}
