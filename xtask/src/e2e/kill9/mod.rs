//! kill -9 of the daemon at random moments while nexuses register, reserve and preempt: after each restart the state
//! is the last acknowledged one, or the one that the command in flight was about to make.

pub mod model;
pub mod nexuses;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use self::model::Model;
use self::nexuses::{Field, Killed};
use crate::context::Context;
use crate::random::Random;
use crate::targets::Target;
use crate::targets::layout::Layout;
use crate::targets::loopback_portals;
use crate::targets::ringfence::Ringfence;

/// The kill comes at a random moment of this time after the first command.
const KILL_WITHIN: Duration = Duration::from_millis(40);

/// So many rounds on one volume of this layout, whose state goes on from round to round.
///
/// # Errors
/// When a restart finds another state, or a command is answered otherwise than SPC-4 says.
pub fn run(context: &Context, layout: Layout, rounds: u32) -> Result<String> {
    let mut random = Random::new(context.seed);
    let folder = context.folder(&format!("kill9-{}", layout.name()))?;
    let mut target =
        Ringfence::new(context.ringfence()?, &folder, loopback_portals(1)?)?.with_layout(layout);
    target.start()?;
    let lun = target.create_volume("keys", 16, 512)?;
    let mut acknowledged = Model::default();
    let (mut commands, mut in_flight_won) = (0, 0);
    for round in 0..rounds {
        let killed = kill_during_traffic(&mut target, lun, &mut acknowledged, &mut random)
            .with_context(|| format!("round {round} of seed {}", context.seed))?;
        commands += killed.acknowledged;
        target.start()?;
        let found =
            nexuses::read_state(&target, "keys").with_context(|| format!("round {round}"))?;
        let done = killed.settle(&mut acknowledged, found).with_context(|| {
            format!(
                "round {round} of seed {}\n{}",
                context.seed,
                target.log_tail()
            )
        })?;
        in_flight_won += u32::from(done);
    }
    ensure!(
        commands > u64::from(rounds),
        "only {commands} commands in {rounds} rounds show nothing"
    );
    Ok(format!(
        "{rounds} rounds, {commands} commands acknowledged, {in_flight_won} times the one in flight had been done"
    ))
}

/// The nexuses at work until the daemon is killed under them.
fn kill_during_traffic(
    target: &mut Ringfence,
    lun: u16,
    model: &mut Model,
    random: &mut Random,
) -> Result<Killed> {
    let field = Field {
        portal: target.portals()[0],
        target: target.name().into(),
        lun,
        reserve: true,
    };
    let mut sessions = nexuses::log_in(&field)?;
    let micros = random.below(usize::try_from(KILL_WITHIN.as_micros())?) as u64;
    let pid =
        rustix::process::Pid::from_raw(target.pid().context("a running daemon")?.cast_signed())
            .context("a pid")?;
    let kill_at = Instant::now() + Duration::from_micros(micros);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(kill_at.saturating_duration_since(Instant::now()));
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    });
    let killed = nexuses::traffic(&mut sessions, &field, model, random, &|| false);
    killer.join().ok().context("the killing thread")??;
    // Reaps the process.
    target.kill()?;
    killed
}
