//! The login phase (RFC 7143 6.3, 11.12, 11.13): a pure machine from Login Request to answer.

use super::config::Config;
use super::event::LoginRequest;
use super::response::LoginStatus;
use super::security::{Security, is_security_key};
use crate::negotiate::{Ability, NOT_UNDERSTOOD, Negotiation, REJECT};
use crate::parameters::{DEFAULT_DATA_SEGMENT_BYTES, SessionParameters, SessionType};
use crate::pdu;
use crate::text::{self, MAX_TEXT_BYTES};

/// Stages as CSG and NSG number them (RFC 7143 11.12.3).
mod stage {
    pub const SECURITY: u8 = 0;
    pub const OPERATIONAL: u8 = 1;
    pub const FULL_FEATURE: u8 = 3;
}

/// The longest iSCSI name, in bytes (RFC 7143 4.2.7.1).
const MAX_NAME_BYTES: usize = 223;

/// What to do with a Login Request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Send a Login Response with these flags and this text.
    Respond { flags: u8, text: Vec<u8> },
    /// The last step: ask the application, then send [`Login::final_response`].
    AskApplication,
}

/// The fields that may not change during a login (RFC 7143 11.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leading {
    isid: [u8; 6],
    tsih: u16,
    cid: u16,
    itt: u32,
}

/// Who the initiator says it is, from the keys of the first request.
#[derive(Debug)]
struct Identity {
    initiator_name: String,
    initiator_alias: Option<String>,
    target_name: Option<String>,
}

/// A login under way.
#[derive(Debug)]
pub(super) struct Login {
    leading: Option<Leading>,
    stage: u8,
    /// Text of an exchange that continues (C bit).
    gathered: Vec<u8>,
    identity: Option<Identity>,
    security: Security,
    negotiation: Negotiation,
    declared: bool,
    /// Flags and text of the last response, kept while the application decides.
    last: (u8, Vec<u8>),
}

impl Login {
    pub fn new(config: &Config, challenge_seed: [u8; 32]) -> Self {
        Self {
            leading: None,
            stage: stage::SECURITY,
            gathered: Vec::new(),
            identity: None,
            security: Security::new(challenge_seed),
            negotiation: Negotiation::new(Ability {
                header_digest: vec![true, false],
                data_digest: vec![true, false],
                max_recv_data_segment_length_bytes: config.max_recv_data_segment_length_bytes,
                max_burst_length_bytes: config.max_burst_length_bytes,
                first_burst_length_bytes: config.first_burst_length_bytes,
                max_outstanding_r2t: config.max_outstanding_r2t,
                initial_r2t: config.initial_r2t,
                immediate_data: config.immediate_data,
            }),
            declared: false,
            last: (0, Vec::new()),
        }
    }

    /// Who the initiator says it is.
    pub fn initiator_name(&self) -> Option<&str> {
        let identity = self.identity.as_ref()?;
        Some(&identity.initiator_name)
    }

    /// What was agreed; complete when the login is.
    pub fn parameters(&self) -> &SessionParameters {
        &self.negotiation.parameters
    }

    /// The response that was put off until the application had decided: flags and text.
    pub fn final_response(&mut self) -> (u8, Vec<u8>) {
        std::mem::take(&mut self.last)
    }

    /// The question to the application; `None` before [`Answer::AskApplication`].
    pub fn application_request(&self) -> Option<LoginRequest> {
        let (leading, identity) = (self.leading.as_ref()?, self.identity.as_ref()?);
        Some(LoginRequest {
            initiator_name: identity.initiator_name.clone(),
            initiator_alias: identity.initiator_alias.clone(),
            isid: leading.isid,
            tsih: leading.tsih,
            cid: leading.cid,
            session_type: self.negotiation.parameters.session_type,
            target_name: identity.target_name.clone(),
            chap_name: self.security.chap_name().map(str::to_owned),
            mutual_chap: self.security.is_mutual(),
        })
    }

    /// Takes a Login Request with its data segment.
    ///
    /// # Errors
    /// The login is refused with this status.
    pub fn request(
        &mut self,
        request: &pdu::LoginRequest,
        data: &[u8],
        config: &Config,
    ) -> Result<Answer, LoginStatus> {
        let transit = request.has_flag(pdu::LoginRequest::TRANSIT);
        let goes_on = request.has_flag(pdu::LoginRequest::CONTINUE);
        self.check_header(request, transit, goes_on)?;
        if self.gathered.len() + data.len() > MAX_TEXT_BYTES {
            return Err(LoginStatus::INITIATOR_ERROR);
        }
        self.gathered.extend_from_slice(data);
        let csg = self.stage << 2;
        if goes_on {
            // RFC 7143 6.2: an empty response asks for the rest.
            return Ok(Answer::Respond {
                flags: csg,
                text: Vec::new(),
            });
        }
        let gathered = std::mem::take(&mut self.gathered);
        let pairs = text::parse(&gathered).map_err(|_| LoginStatus::INITIATOR_ERROR)?;
        let mut answers = Vec::new();
        let pairs = self.declarations(pairs, config, &mut answers)?;
        self.negotiate(&pairs, config, &mut answers)?;
        if answers.len() > DEFAULT_DATA_SEGMENT_BYTES as usize {
            return Err(LoginStatus::INITIATOR_ERROR);
        }
        let session_type = self.negotiation.parameters.session_type;
        if !transit
            || !self
                .security
                .is_satisfied(config.chap.as_ref(), session_type)
        {
            return Ok(Answer::Respond {
                flags: csg,
                text: answers,
            });
        }
        let next = request.next_stage();
        let flags = pdu::LoginRequest::TRANSIT | csg | next;
        if next == stage::FULL_FEATURE {
            self.last = (flags, answers);
            return Ok(Answer::AskApplication);
        }
        self.stage = next;
        Ok(Answer::Respond {
            flags,
            text: answers,
        })
    }

    /// Versions, stages, and what may not change (RFC 7143 11.12).
    fn check_header(
        &mut self,
        request: &pdu::LoginRequest,
        transit: bool,
        goes_on: bool,
    ) -> Result<(), LoginStatus> {
        if request.version_min() > 0 {
            return Err(LoginStatus::UNSUPPORTED_VERSION);
        }
        let (current, next) = (request.current_stage(), request.next_stage());
        let leading = Leading {
            isid: request.isid(),
            tsih: request.tsih(),
            cid: request.cid(),
            itt: request.itt(),
        };
        match self.leading {
            None => {
                self.leading = Some(leading);
                self.stage = current;
            }
            Some(first) if first != leading => return Err(LoginStatus::INITIATOR_ERROR),
            Some(_) => {}
        }
        let stages_in_order = matches!(
            (current, transit, next),
            (stage::SECURITY | stage::OPERATIONAL, false, _)
                | (
                    stage::SECURITY,
                    true,
                    stage::OPERATIONAL | stage::FULL_FEATURE
                )
                | (stage::OPERATIONAL, true, stage::FULL_FEATURE)
        );
        if current != self.stage || !stages_in_order || (transit && goes_on) {
            return Err(LoginStatus::INITIATOR_ERROR);
        }
        Ok(())
    }

    /// Takes the keys that are declared once, at the beginning, out of the pairs (RFC 7143 13.3 to 13.6, 13.21).
    fn declarations<'a>(
        &mut self,
        pairs: Vec<(&'a str, &'a str)>,
        config: &Config,
        answers: &mut Vec<u8>,
    ) -> Result<Vec<(&'a str, &'a str)>, LoginStatus> {
        const LEADING_KEYS: [&str; 4] = [
            "InitiatorName",
            "InitiatorAlias",
            "TargetName",
            "SessionType",
        ];
        let (leading, rest): (Vec<_>, Vec<_>) = pairs
            .into_iter()
            .partition(|(key, _)| LEADING_KEYS.contains(key));
        if self.identity.is_some() {
            // InitiatorAlias may be declared at any time; the others are leading only.
            return match leading.iter().all(|(key, _)| *key == "InitiatorAlias") {
                true => Ok(rest),
                false => Err(LoginStatus::INITIATOR_ERROR),
            };
        }
        let find = |name: &str| -> Result<Option<&str>, LoginStatus> {
            let mut values = leading.iter().filter(|(key, _)| *key == name);
            match (values.next(), values.next()) {
                (Some((_, value)), None) => Ok(Some(*value)),
                (None, _) => Ok(None),
                (Some(_), Some(_)) => Err(LoginStatus::INITIATOR_ERROR),
            }
        };
        let initiator_name = find("InitiatorName")?.ok_or(LoginStatus::MISSING_PARAMETER)?;
        if initiator_name.is_empty() || initiator_name.len() > MAX_NAME_BYTES {
            return Err(LoginStatus::INITIATOR_ERROR);
        }
        let session_type = match find("SessionType")? {
            None | Some("Normal") => SessionType::Normal,
            Some("Discovery") => SessionType::Discovery,
            Some(_) => return Err(LoginStatus::SESSION_TYPE_NOT_SUPPORTED),
        };
        let target_name = find("TargetName")?;
        match target_name {
            None if session_type == SessionType::Normal => {
                return Err(LoginStatus::MISSING_PARAMETER);
            }
            Some(name) if !config.target_names.iter().any(|known| known == name) => {
                return Err(LoginStatus::TARGET_NOT_FOUND);
            }
            _ => {}
        }
        self.identity = Some(Identity {
            initiator_name: initiator_name.to_owned(),
            initiator_alias: find("InitiatorAlias")?
                .filter(|alias| alias.len() <= 255)
                .map(str::to_owned),
            target_name: target_name.map(str::to_owned),
        });
        self.negotiation.parameters.session_type = session_type;
        // RFC 7143 13.9: in the first response of a normal session. TargetAlias: 13.6.
        if session_type == SessionType::Normal {
            let tag = config.target_portal_group_tag.to_string();
            text::put(answers, "TargetPortalGroupTag", &tag);
        }
        if let Some(alias) = &config.target_alias {
            text::put(answers, "TargetAlias", alias);
        }
        Ok(rest)
    }

    /// The keys of the current stage.
    fn negotiate(
        &mut self,
        pairs: &[(&str, &str)],
        config: &Config,
        answers: &mut Vec<u8>,
    ) -> Result<(), LoginStatus> {
        let session_type = self.negotiation.parameters.session_type;
        let (security, operational): (Vec<_>, Vec<_>) =
            pairs.iter().partition(|(key, _)| is_security_key(key));
        if self.stage == stage::SECURITY {
            let name = self
                .identity
                .as_ref()
                .map_or("", |identity| &identity.initiator_name);
            let chap = config.chap.as_ref();
            self.security
                .exchange(&security, chap, session_type, name, answers)?;
            // RFC 7143 6.3.2: operational keys have their own stage; MaxRecvDataSegmentLength has none.
            let (length, others): (Vec<_>, Vec<_>) = operational
                .iter()
                .partition(|(key, _)| *key == "MaxRecvDataSegmentLength");
            self.operational(&length, answers)?;
            for (key, _) in others {
                let answer = if Negotiation::knows(key) {
                    REJECT
                } else {
                    NOT_UNDERSTOOD
                };
                text::put(answers, key, answer);
            }
            return Ok(());
        }
        // Skipping the security stage is allowed to those who would need no authentication there.
        if !self
            .security
            .is_satisfied(config.chap.as_ref(), session_type)
        {
            return Err(LoginStatus::AUTHENTICATION_FAILURE);
        }
        for (key, _) in security {
            text::put(answers, key, REJECT);
        }
        self.operational(&operational, answers)?;
        if !self.declared {
            self.declared = true;
            self.negotiation.declare(answers);
        }
        Ok(())
    }

    fn operational(
        &mut self,
        pairs: &[(&str, &str)],
        answers: &mut Vec<u8>,
    ) -> Result<(), LoginStatus> {
        self.negotiation
            .exchange(pairs, answers)
            .map_err(|_| LoginStatus::INITIATOR_ERROR)
    }
}
