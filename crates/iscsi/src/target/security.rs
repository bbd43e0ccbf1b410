//! The target's side of the security negotiation stage: AuthMethod None and CHAP (RFC 7143 12.1).

use super::config::{ChapAccount, ChapConfig};
use super::response::LoginStatus;
use crate::chap::{Algorithm, Challenge, equal};
use crate::parameters::SessionType;
use crate::text;

/// Where the authentication stands.
#[derive(Debug)]
enum State {
    /// AuthMethod is not agreed yet.
    Start,
    /// CHAP was agreed; CHAP_A is awaited.
    Algorithm,
    /// The challenge is out; CHAP_N and CHAP_R are awaited.
    Response(Algorithm, Challenge),
    /// The initiator may go on; with the CHAP name that it has proved.
    Done(Option<String>),
}

/// Security negotiation under way.
#[derive(Debug)]
pub(super) struct Security {
    state: State,
    challenge_seed: [u8; 32],
    mutual: bool,
}

/// The keys of this stage (RFC 7143 12, 13), none of which is an operational key.
const KEYS: [&str; 7] = [
    "AuthMethod",
    "CHAP_A",
    "CHAP_I",
    "CHAP_C",
    "CHAP_N",
    "CHAP_R",
    "CHAP_T",
];

/// True for keys that only the security stage knows.
pub(super) fn is_security_key(key: &str) -> bool {
    KEYS.contains(&key)
}

fn find<'a>(pairs: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    pairs.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
}

impl Security {
    pub fn new(challenge_seed: [u8; 32]) -> Self {
        Self {
            state: State::Start,
            challenge_seed,
            mutual: false,
        }
    }

    /// Whether the target has proved itself too (mutual CHAP).
    pub fn is_mutual(&self) -> bool {
        self.mutual
    }

    /// The CHAP name that was proved.
    pub fn chap_name(&self) -> Option<&str> {
        match &self.state {
            State::Done(name) => name.as_deref(),
            _ => None,
        }
    }

    /// True when the stage may be left (or skipped): authenticated, or nothing is asked.
    pub fn is_satisfied(&self, chap: Option<&ChapConfig>, session_type: SessionType) -> bool {
        match &self.state {
            State::Done(name) => name.is_some() || required(chap, session_type).is_none(),
            State::Start => required(chap, session_type).is_none(),
            State::Algorithm | State::Response(..) => false,
        }
    }

    /// Takes the security keys of one exchange and appends the answers.
    pub fn exchange(
        &mut self,
        pairs: &[(&str, &str)],
        chap: Option<&ChapConfig>,
        session_type: SessionType,
        initiator_name: &str,
        answers: &mut Vec<u8>,
    ) -> Result<(), LoginStatus> {
        let chap = required(chap, session_type);
        match &self.state {
            State::Start => {
                let Some(methods) = find(pairs, "AuthMethod") else {
                    return match KEYS.iter().find_map(|key| find(pairs, key)) {
                        Some(_) => Err(LoginStatus::INITIATOR_ERROR), // CHAP keys before CHAP was agreed
                        None => Ok(()),
                    };
                };
                let wanted = if chap.is_some() { "CHAP" } else { "None" };
                if !methods.split(',').any(|method| method == wanted) {
                    return Err(LoginStatus::AUTHENTICATION_FAILURE);
                }
                text::put(answers, "AuthMethod", wanted);
                if chap.is_none() {
                    self.state = State::Done(None);
                    return Ok(());
                }
                // Some initiators send CHAP_A along with AuthMethod.
                self.state = State::Algorithm;
                if find(pairs, "CHAP_A").is_some() {
                    self.challenge(pairs, answers)?;
                }
                Ok(())
            }
            State::Algorithm => self.challenge(pairs, answers),
            State::Response(algorithm, challenge) => {
                let chap = chap.ok_or(LoginStatus::TARGET_ERROR)?;
                let name = verify(pairs, chap, *algorithm, challenge, initiator_name, answers)?;
                self.state = State::Done(Some(name));
                self.mutual = find(pairs, "CHAP_C").is_some();
                Ok(())
            }
            State::Done(_) => match KEYS.iter().find_map(|key| find(pairs, key)) {
                Some(_) => Err(LoginStatus::INITIATOR_ERROR),
                None => Ok(()),
            },
        }
    }

    /// CHAP_A=<list> is answered with the choice and the challenge.
    fn challenge(
        &mut self,
        pairs: &[(&str, &str)],
        answers: &mut Vec<u8>,
    ) -> Result<(), LoginStatus> {
        let algorithm = find(pairs, "CHAP_A")
            .and_then(Algorithm::choose)
            .ok_or(LoginStatus::AUTHENTICATION_FAILURE)?;
        let challenge = Challenge::new(algorithm, &self.challenge_seed);
        text::put(answers, "CHAP_A", &algorithm.number().to_string());
        text::put(answers, "CHAP_I", &challenge.identifier.to_string());
        text::put(answers, "CHAP_C", &text::to_hex(&challenge.bytes));
        self.state = State::Response(algorithm, challenge);
        Ok(())
    }
}

/// The CHAP configuration when this session needs it.
fn required(chap: Option<&ChapConfig>, session_type: SessionType) -> Option<&ChapConfig> {
    chap.filter(|chap| session_type == SessionType::Normal || chap.discovery)
}

/// Checks the initiator's response and, when it asks, answers its challenge (mutual CHAP). Gives the CHAP name.
fn verify(
    pairs: &[(&str, &str)],
    chap: &ChapConfig,
    algorithm: Algorithm,
    challenge: &Challenge,
    initiator_name: &str,
    answers: &mut Vec<u8>,
) -> Result<String, LoginStatus> {
    let failure = LoginStatus::AUTHENTICATION_FAILURE;
    let name = find(pairs, "CHAP_N").ok_or(failure)?;
    let response = find(pairs, "CHAP_R")
        .and_then(text::binary)
        .ok_or(failure)?;
    let account: &ChapAccount = chap.initiators.get(name).ok_or(failure)?;
    let expected = algorithm.response(challenge.identifier, &account.secret, &challenge.bytes);
    if !equal(&expected, &response) {
        return Err(failure);
    }
    if account
        .initiator_name
        .as_deref()
        .is_some_and(|only| only != initiator_name)
    {
        return Err(failure);
    }
    match (find(pairs, "CHAP_I"), find(pairs, "CHAP_C")) {
        (None, None) => {}
        (Some(identifier), Some(theirs)) => {
            let identifier = text::number(identifier)
                .and_then(|n| u8::try_from(n).ok())
                .ok_or(failure)?;
            let theirs = text::binary(theirs).ok_or(failure)?;
            // RFC 7143 12.1.3: a reflected challenge, or one secret for both directions, would let the initiator
            // have the target compute what it is itself asked for.
            if theirs == challenge.bytes {
                return Err(failure);
            }
            let (own_name, own_secret) = chap.target.as_ref().ok_or(failure)?;
            if *own_secret == account.secret {
                return Err(failure);
            }
            let proof = algorithm.response(identifier, own_secret, &theirs);
            text::put(answers, "CHAP_N", own_name);
            text::put(answers, "CHAP_R", &text::to_hex(&proof));
        }
        _ => return Err(LoginStatus::INITIATOR_ERROR),
    }
    Ok(name.to_owned())
}
