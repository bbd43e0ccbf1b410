//! Negotiation of operational keys (RFC 7143 6.2 and 13), at either end.
//!
//! One table gives each key its kind. As responder an end computes the answer and the agreed value from an offer;
//! as proposer it makes offers and takes the answers.

use std::collections::HashSet;

use crate::parameters::{SessionParameters, SessionType};
use crate::text;

/// What this end is able and willing to do.
#[derive(Clone, Debug)]
pub(crate) struct Ability {
    /// HeaderDigest values in order of preference: true is CRC32C, false is None. As responder: those allowed.
    pub header_digest: Vec<bool>,
    /// DataDigest likewise.
    pub data_digest: Vec<bool>,
    pub max_recv_data_segment_length_bytes: u32,
    pub max_burst_length_bytes: u32,
    pub first_burst_length_bytes: u32,
    pub max_outstanding_r2t: u16,
    pub initial_r2t: bool,
    pub immediate_data: bool,
}

/// The numbers of keys that have no knob.
const MAX_CONNECTIONS: u64 = 1;
const ERROR_RECOVERY_LEVEL: u64 = 0;
const TIME2WAIT_S: u64 = 2;
const TIME2RETAIN_S: u64 = 0;
const PROTOCOL_LEVEL: u64 = 2;

/// The keys this module knows, in the order in which answers depend on one another (FirstBurstLength is bounded by
/// MaxBurstLength).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    HeaderDigest,
    DataDigest,
    MaxConnections,
    InitialR2T,
    ImmediateData,
    MaxRecvDataSegmentLength,
    MaxBurstLength,
    FirstBurstLength,
    DefaultTime2Wait,
    DefaultTime2Retain,
    MaxOutstandingR2T,
    DataPDUInOrder,
    DataSequenceInOrder,
    ErrorRecoveryLevel,
    TaskReporting,
    ProtocolLevel,
    Marker,
    MarkerInterval,
}

/// How the agreed value follows from the two ends' (RFC 7143 6.2).
enum Kind {
    /// The first of the proposer's list that the responder takes.
    List,
    /// Each end states its own.
    Declaration {
        min: u64,
        max: u64,
    },
    Minimum {
        min: u64,
        max: u64,
    },
    Maximum {
        min: u64,
        max: u64,
    },
    And,
    Or,
    /// Obsolete keys that still get a defined answer (RFC 7143 13.25).
    Obsolete(&'static str),
}

/// Key, name, kind, and whether it is irrelevant in discovery sessions.
const KEYS: &[(Key, &str, Kind, bool)] = {
    use Key::*;
    use Kind::*;
    const LENGTH: (u64, u64) = (512, 0xff_ffff);
    &[
        (HeaderDigest, "HeaderDigest", List, false),
        (DataDigest, "DataDigest", List, false),
        (
            MaxConnections,
            "MaxConnections",
            Minimum { min: 1, max: 65535 },
            true,
        ),
        (InitialR2T, "InitialR2T", Or, true),
        (ImmediateData, "ImmediateData", And, true),
        (
            MaxRecvDataSegmentLength,
            "MaxRecvDataSegmentLength",
            Declaration {
                min: LENGTH.0,
                max: LENGTH.1,
            },
            false,
        ),
        (
            MaxBurstLength,
            "MaxBurstLength",
            Minimum {
                min: LENGTH.0,
                max: LENGTH.1,
            },
            true,
        ),
        (
            FirstBurstLength,
            "FirstBurstLength",
            Minimum {
                min: LENGTH.0,
                max: LENGTH.1,
            },
            true,
        ),
        (
            DefaultTime2Wait,
            "DefaultTime2Wait",
            Maximum { min: 0, max: 3600 },
            false,
        ),
        (
            DefaultTime2Retain,
            "DefaultTime2Retain",
            Minimum { min: 0, max: 3600 },
            false,
        ),
        (
            MaxOutstandingR2T,
            "MaxOutstandingR2T",
            Minimum { min: 1, max: 65535 },
            true,
        ),
        (DataPDUInOrder, "DataPDUInOrder", Or, true),
        (DataSequenceInOrder, "DataSequenceInOrder", Or, true),
        (
            ErrorRecoveryLevel,
            "ErrorRecoveryLevel",
            Minimum { min: 0, max: 2 },
            false,
        ),
        (TaskReporting, "TaskReporting", List, true),
        (
            ProtocolLevel,
            "iSCSIProtocolLevel",
            Minimum { min: 0, max: 31 },
            true,
        ),
        (Marker, "IFMarker", Obsolete("No"), false),
        (Marker, "OFMarker", Obsolete("No"), false),
        (MarkerInterval, "IFMarkInt", Obsolete("Reject"), false),
        (MarkerInterval, "OFMarkInt", Obsolete("Reject"), false),
    ]
};

/// Constants that stand in the place of a value (RFC 7143 6.2).
pub(crate) const NOT_UNDERSTOOD: &str = "NotUnderstood";
pub(crate) const IRRELEVANT: &str = "Irrelevant";
pub(crate) const REJECT: &str = "Reject";

/// Why a negotiation cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// RFC 7143 6.2: neither end may negotiate a key twice.
    #[error("a key was negotiated twice")]
    Repeated,
    /// A declaration out of range, which cannot be answered.
    #[error("a declared value is invalid")]
    InvalidDeclaration,
    /// The responder chose what was not offered.
    #[error("the answer is not among what was offered")]
    InvalidAnswer,
}

/// A negotiation under way.
#[derive(Debug)]
pub(crate) struct Negotiation {
    pub ability: Ability,
    pub parameters: SessionParameters,
    /// Names that the peer has given a value.
    seen: HashSet<String>,
    /// Names that this end has offered and that are not answered yet.
    offered: HashSet<&'static str>,
}

impl Negotiation {
    pub fn new(ability: Ability) -> Self {
        Self {
            ability,
            parameters: SessionParameters::default(),
            seen: HashSet::new(),
            offered: HashSet::new(),
        }
    }

    /// True for the operational keys of RFC 7143 13.
    pub fn knows(name: &str) -> bool {
        KEYS.iter().any(|(_, known, ..)| *known == name)
    }

    /// Takes all pairs of an exchange as responder (or as answers to what was offered) and appends the answers.
    pub fn exchange(
        &mut self,
        pairs: &[(&str, &str)],
        answers: &mut Vec<u8>,
    ) -> Result<(), NegotiationError> {
        for (name, _) in pairs {
            if !self.seen.insert((*name).to_owned()) {
                return Err(NegotiationError::Repeated);
            }
        }
        // In table order, so that FirstBurstLength sees the MaxBurstLength of the same exchange.
        for (key, name, kind, irrelevant) in KEYS {
            let Some((_, value)) = pairs.iter().find(|(n, _)| n == name) else {
                continue;
            };
            if self.offered.remove(name) {
                self.conclude(*key, kind, value)?;
            } else if *irrelevant && self.parameters.session_type == SessionType::Discovery {
                text::put(answers, name, IRRELEVANT);
            } else if let Some(answer) = self.answer(*key, kind, value)? {
                text::put(answers, name, &answer);
            }
        }
        for (name, _) in pairs {
            if !Self::knows(name) {
                text::put(answers, name, NOT_UNDERSTOOD);
            }
        }
        Ok(())
    }

    /// Declares this end's MaxRecvDataSegmentLength.
    pub fn declare(&mut self, out: &mut Vec<u8>) {
        let length = self.ability.max_recv_data_segment_length_bytes;
        self.parameters.own_max_recv_data_segment_length_bytes = length;
        text::put(out, "MaxRecvDataSegmentLength", &length.to_string());
    }

    /// Offers everything, as an initiator does at the beginning of the operational stage.
    pub fn offer(&mut self, out: &mut Vec<u8>) {
        for (key, name, _, irrelevant) in KEYS {
            if *irrelevant && self.parameters.session_type == SessionType::Discovery {
                continue;
            }
            let value = match key {
                Key::HeaderDigest => digest_list(&self.ability.header_digest),
                Key::DataDigest => digest_list(&self.ability.data_digest),
                Key::InitialR2T => text::yes_no(self.ability.initial_r2t).to_owned(),
                Key::ImmediateData => text::yes_no(self.ability.immediate_data).to_owned(),
                Key::DataPDUInOrder | Key::DataSequenceInOrder => "Yes".to_owned(),
                Key::MaxRecvDataSegmentLength
                | Key::TaskReporting
                | Key::Marker
                | Key::MarkerInterval => continue,
                Key::MaxConnections
                | Key::MaxBurstLength
                | Key::FirstBurstLength
                | Key::DefaultTime2Wait
                | Key::DefaultTime2Retain
                | Key::MaxOutstandingR2T
                | Key::ErrorRecoveryLevel
                | Key::ProtocolLevel => self.own_number(*key).to_string(),
            };
            text::put(out, name, &value);
            self.offered.insert(name);
        }
        self.declare(out);
    }

    /// This end's number for a key.
    fn own_number(&self, key: Key) -> u64 {
        match key {
            Key::MaxBurstLength => u64::from(self.ability.max_burst_length_bytes),
            // RFC 7143 13.14: FirstBurstLength must not exceed MaxBurstLength.
            Key::FirstBurstLength => u64::from(
                self.ability
                    .first_burst_length_bytes
                    .min(self.ability.max_burst_length_bytes),
            ),
            Key::MaxOutstandingR2T => u64::from(self.ability.max_outstanding_r2t),
            Key::MaxConnections => MAX_CONNECTIONS,
            Key::ErrorRecoveryLevel => ERROR_RECOVERY_LEVEL,
            Key::DefaultTime2Wait => TIME2WAIT_S,
            Key::DefaultTime2Retain => TIME2RETAIN_S,
            Key::ProtocolLevel => PROTOCOL_LEVEL,
            _ => 0,
        }
    }

    /// The answer to an offer, or `None` for a declaration.
    fn answer(
        &mut self,
        key: Key,
        kind: &Kind,
        value: &str,
    ) -> Result<Option<String>, NegotiationError> {
        let reject = || Ok(Some(REJECT.to_owned()));
        let answer = match kind {
            Kind::Obsolete(answer) => (*answer).to_owned(),
            Kind::Declaration { min, max } => {
                let declared =
                    in_range(value, *min, *max).ok_or(NegotiationError::InvalidDeclaration)?;
                self.store_number(key, declared);
                return Ok(None);
            }
            Kind::Minimum { min, max } => {
                let Some(offer) = in_range(value, *min, *max) else {
                    return reject();
                };
                let mut agreed = offer.min(self.own_number(key));
                if key == Key::FirstBurstLength {
                    agreed = agreed.min(u64::from(self.parameters.max_burst_length_bytes));
                }
                self.store_number(key, agreed);
                agreed.to_string()
            }
            Kind::Maximum { min, max } => {
                let Some(offer) = in_range(value, *min, *max) else {
                    return reject();
                };
                let agreed = offer.max(self.own_number(key));
                self.store_number(key, agreed);
                agreed.to_string()
            }
            Kind::And | Kind::Or => {
                let Some(offer) = text::boolean(value) else {
                    return reject();
                };
                let own = self.own_boolean(key);
                let agreed = match kind {
                    Kind::And => offer && own,
                    _ => offer || own,
                };
                self.store_boolean(key, agreed);
                text::yes_no(agreed).to_owned()
            }
            Kind::List => {
                let Some(choice) = value.split(',').find(|choice| self.allows(key, choice)) else {
                    return reject();
                };
                self.store_choice(key, choice);
                choice.to_owned()
            }
        };
        Ok(Some(answer))
    }

    /// Takes the answer to an offer of this end.
    fn conclude(&mut self, key: Key, kind: &Kind, value: &str) -> Result<(), NegotiationError> {
        if [IRRELEVANT, NOT_UNDERSTOOD, REJECT].contains(&value) {
            return Ok(()); // the default stands
        }
        let invalid = NegotiationError::InvalidAnswer;
        match kind {
            Kind::Minimum { min, .. } => {
                let answer = in_range(value, *min, self.own_number(key)).ok_or(invalid)?;
                self.store_number(key, answer);
            }
            Kind::Maximum { max, .. } => {
                let answer = in_range(value, self.own_number(key), *max).ok_or(invalid)?;
                self.store_number(key, answer);
            }
            Kind::And | Kind::Or => {
                let answer = text::boolean(value).ok_or(invalid)?;
                let own = self.own_boolean(key);
                let possible = match kind {
                    Kind::And => own || !answer,
                    _ => answer || !own,
                };
                if !possible {
                    return Err(invalid);
                }
                self.store_boolean(key, answer);
            }
            Kind::List => {
                if !self.allows(key, value) {
                    return Err(invalid);
                }
                self.store_choice(key, value);
            }
            Kind::Declaration { .. } | Kind::Obsolete(_) => return Err(invalid),
        }
        Ok(())
    }

    fn own_boolean(&self, key: Key) -> bool {
        match key {
            Key::InitialR2T => self.ability.initial_r2t,
            Key::ImmediateData => self.ability.immediate_data,
            _ => true, // DataPDUInOrder, DataSequenceInOrder
        }
    }

    fn store_boolean(&mut self, key: Key, value: bool) {
        match key {
            Key::InitialR2T => self.parameters.initial_r2t = value,
            Key::ImmediateData => self.parameters.immediate_data = value,
            _ => {}
        }
    }

    /// Stores an agreed number, which its range has checked to fit.
    fn store_number(&mut self, key: Key, value: u64) {
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        let parameters = &mut self.parameters;
        match key {
            Key::MaxRecvDataSegmentLength => {
                parameters.peer_max_recv_data_segment_length_bytes = value;
            }
            Key::MaxBurstLength => {
                parameters.max_burst_length_bytes = value;
                parameters.first_burst_length_bytes =
                    parameters.first_burst_length_bytes.min(value);
            }
            Key::FirstBurstLength => parameters.first_burst_length_bytes = value,
            Key::MaxOutstandingR2T => parameters.max_outstanding_r2t = value as u16,
            Key::DefaultTime2Wait => parameters.time2wait_s = value as u16,
            Key::ProtocolLevel => parameters.protocol_level = value as u8,
            _ => {}
        }
    }

    fn allows(&self, key: Key, choice: &str) -> bool {
        match key {
            Key::HeaderDigest => allows_digest(&self.ability.header_digest, choice),
            Key::DataDigest => allows_digest(&self.ability.data_digest, choice),
            Key::TaskReporting => choice == "RFC3720",
            _ => false,
        }
    }

    fn store_choice(&mut self, key: Key, choice: &str) {
        match key {
            Key::HeaderDigest => self.parameters.header_digest = choice == "CRC32C",
            Key::DataDigest => self.parameters.data_digest = choice == "CRC32C",
            _ => {}
        }
    }
}

fn in_range(value: &str, min: u64, max: u64) -> Option<u64> {
    text::number(value).filter(|number| (min..=max).contains(number))
}

fn allows_digest(ability: &[bool], choice: &str) -> bool {
    match choice {
        "CRC32C" => ability.contains(&true),
        "None" => ability.contains(&false),
        _ => false,
    }
}

fn digest_list(ability: &[bool]) -> String {
    let names: Vec<_> = ability
        .iter()
        .map(|crc| if *crc { "CRC32C" } else { "None" })
        .collect();
    names.join(",")
}

#[cfg(test)]
mod tests;
