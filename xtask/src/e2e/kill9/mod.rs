//! kill -9 of the daemon at random moments while nexuses register, reserve and preempt: after each restart the state
//! is the last acknowledged one, or the one that the command in flight was about to make.

mod model;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use self::model::{Command, Model, NEXUSES, Outcome};
use crate::context::Context;
use crate::e2e::wire::{Identity, Session};
use crate::random::Random;
use crate::targets::Target;
use crate::targets::loopback_portals;
use crate::targets::ringfence::Ringfence;

const ROUNDS: u32 = 200;
/// The kill comes at a random moment of this time after the first command.
const KILL_WITHIN: Duration = Duration::from_millis(40);

/// 200 rounds on one volume, whose state goes on from round to round.
///
/// # Errors
/// When a restart finds another state, or a command is answered otherwise than SPC-4 says.
pub fn run(context: &Context) -> Result<String> {
    let mut random = Random::new(context.seed);
    let folder = context.folder("kill9")?;
    let mut target = Ringfence::new(context.ringfence()?, &folder, loopback_portals(1)?)?;
    target.start()?;
    let lun = target.create_volume("keys", 16, 512)?;
    let mut acknowledged = Model::default();
    let (mut commands, mut in_flight_won) = (0, 0);
    for round in 0..ROUNDS {
        let killed = traffic(&mut target, lun, &mut acknowledged, &mut random)
            .with_context(|| format!("round {round} of seed {}", context.seed))?;
        commands += killed.acknowledged;
        target.start()?;
        let found = read_state(&target).with_context(|| format!("round {round}"))?;
        if found == acknowledged {
            continue;
        }
        ensure!(
            Some(&found) == killed.possible.as_ref(),
            "round {round} of seed {}: acknowledged {acknowledged:?}\nin flight {:?}\nwould give {:?}\nfound {found:?}\n{}",
            context.seed,
            killed.in_flight,
            killed.possible,
            target.log_tail()
        );
        in_flight_won += 1;
        acknowledged = found;
    }
    ensure!(
        commands > u64::from(ROUNDS),
        "only {commands} commands in {ROUNDS} rounds show nothing"
    );
    Ok(format!(
        "{ROUNDS} rounds, {commands} commands acknowledged, {in_flight_won} times the one in flight had been done"
    ))
}

/// How a round ended.
#[derive(Debug, Default)]
struct Killed {
    /// Commands answered before.
    acknowledged: u64,
    /// The command without an answer.
    in_flight: Option<Command>,
    /// The state that it leads to.
    possible: Option<Model>,
}

/// Random commands from random nexuses, one after the other, until the daemon is killed under them.
fn traffic(
    target: &mut Ringfence,
    lun: u16,
    model: &mut Model,
    random: &mut Random,
) -> Result<Killed> {
    let mut sessions = (0..NEXUSES)
        .map(|nexus| {
            let mut session = Session::login(target.portals()[0], &identity(nexus), target.name())?;
            session.clear_attentions(lun)?;
            Ok(session)
        })
        .collect::<Result<Vec<_>>>()?;
    let micros = random.below(usize::try_from(KILL_WITHIN.as_micros())?) as u64;
    let kill_at = Instant::now() + Duration::from_micros(micros);
    let pid =
        rustix::process::Pid::from_raw(target.pid().context("a running daemon")?.cast_signed())
            .context("a pid")?;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(kill_at.saturating_duration_since(Instant::now()));
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    });
    let mut killed = Killed::default();
    loop {
        let command = Command::random(random, model);
        let session = &mut sessions[command.nexus];
        let (after, expected) = model.step(&command);
        // Unit attentions of what the others did before come first; they do not execute the command.
        let answer = loop {
            let answer = session.command(lun, &command.cdb(), &command.parameters(), 0);
            match &answer {
                Ok(reply) if reply.status == 2 && reply.sense_codes().0 == 6 => {}
                _ => break answer,
            }
        };
        let Ok(reply) = answer else {
            killed.in_flight = Some(command);
            killed.possible = Some(after);
            break;
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
    killer.join().ok().context("the killing thread")??;
    // Reaps the process.
    target.kill()?;
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
fn read_state(target: &Ringfence) -> Result<Model> {
    let keys = target.cli_json(&["keys", "keys"])?;
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
