//! Nexuses that register, reserve and preempt at random, and what they know of the state afterwards.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};

use super::model::{self, Command, Model, NEXUSES, Outcome};
use crate::e2e::wire::{Identity, Session};
use crate::random::Random;
use crate::targets::ringfence::Ringfence;

/// Where the nexuses log in.
#[derive(Debug, Clone)]
pub struct Field {
    /// The portal.
    pub portal: SocketAddr,
    /// iSCSI name of the target.
    pub target: String,
    /// The volume.
    pub lun: u16,
    /// Whether they reserve, too: others cannot write then.
    pub reserve: bool,
}

/// How the traffic ended.
#[derive(Debug, Default)]
pub struct Killed {
    /// Commands answered before.
    pub acknowledged: u64,
    /// The command without an answer.
    pub in_flight: Option<Command>,
    /// The state that it leads to.
    pub possible: Option<Model>,
    /// What the nexus saw instead of an answer.
    pub error: String,
}

impl Killed {
    /// Takes the state that was found after the restart for the model, if it may be. Says whether the command in flight
    /// had been done.
    ///
    /// # Errors
    /// When it is neither the acknowledged state nor the one that the command in flight leads to.
    pub fn settle(&self, model: &mut Model, found: Model) -> Result<bool> {
        if found == *model {
            return Ok(false);
        }
        ensure!(
            Some(&found) == self.possible.as_ref(),
            "acknowledged {model:?}\nin flight {:?}\nwould give {:?}\nfound {found:?}",
            self.in_flight,
            self.possible,
        );
        *model = found;
        Ok(true)
    }
}

/// Logs all nexuses in.
///
/// # Errors
/// When the target refuses.
pub fn log_in(field: &Field) -> Result<Vec<Session>> {
    (0..NEXUSES)
        .map(|nexus| {
            let mut session = Session::login(field.portal, &identity(nexus), &field.target)?;
            session.clear_attentions(field.lun)?;
            Ok(session)
        })
        .collect()
}

/// Random commands from random nexuses, one after the other, until the daemon is gone or `stop` says so.
///
/// # Errors
/// When a command is answered otherwise than SPC-4 says.
pub fn traffic(
    sessions: &mut [Session],
    field: &Field,
    model: &mut Model,
    random: &mut Random,
    stop: &dyn Fn() -> bool,
) -> Result<Killed> {
    let mut killed = Killed::default();
    while !stop() {
        let command = Command::random(random, model);
        if command.reserves() && !field.reserve {
            continue;
        }
        let session = &mut sessions[command.nexus];
        let (after, expected) = model.step(&command);
        // Unit attentions of what the others did before come first; they do not execute the command.
        let answer = loop {
            let answer = session.command(field.lun, &command.cdb(), &command.parameters(), 0);
            match &answer {
                Ok(reply) if reply.status == 2 && reply.sense_codes().0 == 6 => {}
                _ => break answer,
            }
        };
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) => {
                killed.in_flight = Some(command);
                killed.possible = Some(after);
                killed.error = format!("{error:#}");
                break;
            }
        };
        let seen = match (reply.status, reply.sense_codes().0) {
            (0, _) => Outcome::Good,
            (0x18, _) => Outcome::Conflict,
            (2, 5) => Outcome::IllegalRequest,
            other => bail!("{command:?} ends with {other:?}"),
        };
        ensure!(
            seen == expected,
            "{command:?} in {model:?} ends with {seen:?} instead of {expected:?}"
        );
        *model = after;
        killed.acknowledged += 1;
    }
    Ok(killed)
}

fn identity(nexus: usize) -> Identity {
    // Nexuses 0 and 1 are one initiator with two ISIDs.
    Identity {
        initiator: format!("iqn.2026-11.com.example:host{}", nexus / 2),
        isid: [0x80, 0, 0, 0, 0, u8::try_from(nexus % 2).unwrap_or(0)],
    }
}

/// What `ringfence keys --json` reads back from the private region.
///
/// # Errors
/// When it cannot be read, or somebody else is registered.
pub fn read_state(target: &Ringfence, volume: &str) -> Result<Model> {
    let keys = target.cli_json(&["keys", volume])?;
    let mut model = Model {
        generation: u32::try_from(keys["generation"].as_u64().context("generation")?)?,
        ..Model::default()
    };
    let key = |text: &serde_json::Value| -> Result<u64> {
        let text = text
            .as_str()
            .and_then(|text| text.strip_prefix("0x"))
            .context("a key in hexadecimal")?;
        Ok(u64::from_str_radix(text, 16)?)
    };
    let mut holders = Vec::new();
    for registration in keys["registrations"].as_array().context("registrations")? {
        let nexus = (0..NEXUSES)
            .find(|nexus| {
                let identity = identity(*nexus);
                let isid: String = identity
                    .isid
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                registration["initiator"] == identity.initiator.as_str()
                    && registration["isid"] == format!("0x{isid}")
            })
            .with_context(|| format!("a registration of nobody: {registration}"))?;
        model.keys[nexus] = key(&registration["key"])?;
        if registration["holder"] == true {
            holders.push(nexus);
        }
    }
    if !keys["reservation"].is_null() {
        let kind = model::kind_of(keys["reservation"]["type"].as_str().context("a type")?)?;
        let holder = if kind >= 7 {
            None
        } else {
            holders.first().copied()
        };
        ensure!(kind >= 7 || holders.len() == 1, "one holder: {keys}");
        model.reservation = Some((kind, holder));
    }
    Ok(model)
}
