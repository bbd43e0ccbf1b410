//! The login phase of an initiator (RFC 7143 6.3, 11.12, 12.1).

use super::config::{Config, Session};
use super::connection::{Connection, Phase};
use super::event::{Event, Fatal};
use crate::chap::{Algorithm, Challenge, equal};
use crate::frame::Limits;
use crate::negotiate::{Ability, Negotiation};
use crate::parameters::SessionType;
use crate::pdu::{self, CONTINUE, LoginRequest, LoginResponse};
use crate::target::LoginStatus;
use crate::text::{self, MAX_TEXT_BYTES};

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// More rounds than any target needs.
const MAX_ROUNDS: u32 = 32;

/// The keys a target declares that are not negotiated (RFC 7143 13.6, 13.8, 13.9).
const DECLARED: [&str; 3] = ["TargetAlias", "TargetAddress", "TargetPortalGroupTag"];

/// What this end awaits in the security stage.
#[derive(Debug)]
enum Security {
    Method,
    Challenge,
    /// Our response is out; the target proves itself if it was asked to.
    Verdict(Option<(Algorithm, Challenge)>),
}

/// A Login Request to send: flags and text.
pub(super) type Request = (u8, Vec<u8>);

/// A login under way.
#[derive(Debug)]
pub(super) struct Login {
    stage: u8,
    security: Security,
    negotiation: Negotiation,
    gathered: Vec<u8>,
    challenge_seed: [u8; 32],
    rounds: u32,
    tsih: u16,
}

impl Login {
    pub fn new(config: &Config, challenge_seed: [u8; 32]) -> Self {
        let mut negotiation = Negotiation::new(Ability {
            header_digest: config.header_digest.list(),
            data_digest: config.data_digest.list(),
            max_recv_data_segment_length_bytes: config.max_recv_data_segment_length_bytes,
            max_burst_length_bytes: config.max_burst_length_bytes,
            first_burst_length_bytes: config.first_burst_length_bytes,
            max_outstanding_r2t: config.max_outstanding_r2t,
            initial_r2t: config.initial_r2t,
            immediate_data: config.immediate_data,
        });
        if config.session == Session::Discovery {
            negotiation.parameters.session_type = SessionType::Discovery;
        }
        Self {
            stage: if config.chap.is_some() {
                SECURITY
            } else {
                OPERATIONAL
            },
            security: Security::Method,
            negotiation,
            gathered: Vec::new(),
            challenge_seed,
            rounds: 0,
            tsih: 0,
        }
    }

    /// Who we are, and the opening of the first stage.
    pub fn first_request(&mut self, config: &Config) -> Request {
        let mut out = Vec::new();
        text::put(&mut out, "InitiatorName", &config.initiator_name);
        match &config.session {
            Session::Discovery => text::put(&mut out, "SessionType", "Discovery"),
            Session::Normal { target_name } => {
                text::put(&mut out, "SessionType", "Normal");
                text::put(&mut out, "TargetName", target_name);
            }
        }
        if self.stage == SECURITY {
            text::put(&mut out, "AuthMethod", "CHAP");
            return (SECURITY << 2, out);
        }
        self.open_operational(&mut out)
    }

    fn open_operational(&mut self, out: &mut Vec<u8>) -> Request {
        self.negotiation.offer(out);
        (to_full_feature(), std::mem::take(out))
    }

    /// Takes a response; gives the next request, or `None` when the login is complete.
    fn response(
        &mut self,
        response: &LoginResponse,
        data: &[u8],
        config: &Config,
    ) -> Result<Option<Request>, Fatal> {
        let status = LoginStatus::new(response.status_class(), response.status_detail());
        if status != LoginStatus::SUCCESS {
            return Err(Fatal::LoginRefused(status));
        }
        self.rounds += 1;
        let transit = response.has_flag(LoginRequest::TRANSIT);
        let in_order = !transit
            || matches!(
                (self.stage, response.next_stage()),
                (SECURITY, OPERATIONAL) | (OPERATIONAL, FULL_FEATURE)
            );
        if self.rounds > MAX_ROUNDS
            || response.current_stage() != self.stage
            || !in_order
            || self.gathered.len() + data.len() > MAX_TEXT_BYTES
        {
            return Err(Fatal::BadText);
        }
        self.gathered.extend_from_slice(data);
        if response.has_flag(CONTINUE) {
            return Ok(Some((self.stage << 2, Vec::new())));
        }
        let gathered = std::mem::take(&mut self.gathered);
        let mut pairs = text::parse(&gathered).map_err(|_| Fatal::BadText)?;
        pairs.retain(|(key, _)| !DECLARED.contains(key));
        let mut out = Vec::new();
        if self.stage == SECURITY {
            let flags = self.security(&pairs, config, &mut out)?;
            if !transit {
                return Ok(Some((flags, out)));
            }
            if !matches!(self.security, Security::Verdict(None)) {
                return Err(Fatal::Authentication);
            }
            self.stage = OPERATIONAL;
            return Ok(Some(self.open_operational(&mut out)));
        }
        self.negotiation.exchange(&pairs, &mut out)?;
        if transit {
            self.tsih = response.tsih();
            return Ok(None);
        }
        Ok(Some((to_full_feature(), out)))
    }

    /// One step of CHAP; gives the flags of the next request in this stage.
    fn security(
        &mut self,
        pairs: &[(&str, &str)],
        config: &Config,
        out: &mut Vec<u8>,
    ) -> Result<u8, Fatal> {
        let find = |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let chap = config.chap.as_ref().ok_or(Fatal::Authentication)?;
        let to_operational = LoginRequest::TRANSIT | SECURITY << 2 | OPERATIONAL;
        match &self.security {
            Security::Method => match find("AuthMethod") {
                Some("CHAP") => {
                    text::put(out, "CHAP_A", &chap.algorithms);
                    self.security = Security::Challenge;
                    Ok(SECURITY << 2)
                }
                _ => Err(Fatal::Authentication),
            },
            Security::Challenge => {
                let failure = Fatal::Authentication;
                let algorithm = find("CHAP_A")
                    .filter(|choice| chap.algorithms.split(',').any(|offer| offer == *choice))
                    .and_then(Algorithm::choose)
                    .ok_or(failure)?;
                let identifier = find("CHAP_I")
                    .and_then(text::number)
                    .and_then(|n| u8::try_from(n).ok())
                    .ok_or(failure)?;
                let theirs = find("CHAP_C").and_then(text::binary).ok_or(failure)?;
                let proof = algorithm.response(identifier, &chap.secret, &theirs);
                text::put(out, "CHAP_N", &chap.name);
                text::put(out, "CHAP_R", &text::to_hex(&proof));
                let own = chap
                    .target
                    .as_ref()
                    .map(|_| (algorithm, Challenge::new(algorithm, &self.challenge_seed)));
                if let Some((_, challenge)) = &own {
                    if challenge.bytes == theirs {
                        return Err(failure);
                    }
                    text::put(out, "CHAP_I", &challenge.identifier.to_string());
                    text::put(out, "CHAP_C", &text::to_hex(&challenge.bytes));
                }
                self.security = Security::Verdict(own);
                Ok(to_operational)
            }
            Security::Verdict(None) => Ok(to_operational),
            Security::Verdict(Some((algorithm, challenge))) => {
                let failure = Fatal::Authentication;
                let (name, secret) = chap.target.as_ref().ok_or(failure)?;
                let proof = find("CHAP_R").and_then(text::binary).ok_or(failure)?;
                let expected = algorithm.response(challenge.identifier, secret, &challenge.bytes);
                if find("CHAP_N") != Some(name) || !equal(&proof, &expected) {
                    return Err(failure);
                }
                self.security = Security::Verdict(None);
                Ok(to_operational)
            }
        }
    }
}

fn to_full_feature() -> u8 {
    LoginRequest::TRANSIT | OPERATIONAL << 2 | FULL_FEATURE
}

impl Connection {
    pub(super) fn send_login(&mut self, (flags, text): Request) {
        let request = LoginRequest::new()
            .set_byte0(LoginRequest::OPCODE | pdu::IMMEDIATE)
            .set_flags(flags)
            .set_isid(self.config.isid);
        let mut header = request.0;
        self.stamp(&mut header);
        self.out.push_copied(header, &text);
    }

    /// Takes a Login Response.
    pub(super) fn login_response(
        &mut self,
        response: &LoginResponse,
        data: &[u8],
    ) -> Result<(), Fatal> {
        let Phase::Login(login) = &mut self.phase else {
            return Err(Fatal::Unexpected {
                opcode: LoginResponse::OPCODE,
            });
        };
        let next = login.response(response, data, &self.config)?;
        self.exp_stat_sn = response.stat_sn().wrapping_add(1);
        self.exp_cmd_sn = response.exp_cmd_sn();
        self.max_cmd_sn = response.max_cmd_sn();
        match next {
            Some(request) => self.send_login(request),
            None => {
                self.parameters = login.negotiation.parameters.clone();
                let tsih = login.tsih;
                let parameters = Box::new(self.parameters.clone());
                self.framer.header_digest = parameters.header_digest;
                self.framer.data_digest = parameters.data_digest;
                self.out.header_digest = parameters.header_digest;
                self.out.data_digest = parameters.data_digest;
                self.framer.limits = Limits {
                    data_bytes: parameters.own_max_recv_data_segment_length_bytes,
                    ahs_bytes: 0,
                };
                self.login_deadline = None;
                self.phase = Phase::FullFeature;
                self.events.push_back(Event::LoggedIn { tsih, parameters });
            }
        }
        Ok(())
    }
}
