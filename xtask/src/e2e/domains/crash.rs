//! kill -9 of the daemon in the middle of a fence over 50 volumes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::lab::{Lab, Node, key_of};
use crate::random::Random;
use crate::targets::Target;

const VOLUMES: usize = 50;
const ROUNDS: usize = 12;

/// Rounds with another moment each. After a restart a member is fenced on all volumes or on none, before a portal lets it in.
pub(super) fn run(lab: &mut Lab, seed: u64) -> Result<String> {
    let names: Vec<String> = (0..VOLUMES).map(|number| format!("v{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let luns = lab.volumes(&names)?;
    lab.domain("many", &names, &["a", "b"], &["--quorum-device", "d1"])?;
    let mut random = Random::new(seed);
    let (mut fenced_rounds, mut told_rounds) = (0, 0);
    // How long a fence takes here, to hit its middle.
    let mut whole = Duration::from_millis(20);
    for round in 0..ROUNDS {
        let mut a = Node::join(lab, "a", &luns)?;
        // What a inherited in the round before goes: b is to hold it again.
        for lun in &luns {
            a.session.clear(*lun, key_of("a"))?;
        }
        a.register()?;
        let mut b = Node::join(lab, "b", &luns)?;
        b.reserve()?;
        if round == 0 {
            let begun = std::time::Instant::now();
            lab.daemon.cli_ok(&["fence", "many", "b"])?;
            whole = begun.elapsed();
            lab.daemon.cli_ok(&["unfence", "many", "b"])?;
            continue;
        }
        let fence = lab.begin(&["fence", "many", "b"])?;
        let share = random.below(1000) as u32;
        std::thread::sleep(whole * share / 1000);
        lab.daemon.kill()?;
        let (code, _) = fence.end()?;
        lab.daemon.start()?;
        let mut b = Node::again(lab, "b", &luns)?;
        let mut fenced = Vec::new();
        for lun in &luns {
            fenced.push(b.is_fenced_on(*lun)?);
        }
        let shown = lab.shown("many", "b")?;
        let decided = !shown["fence"].is_null();
        ensure!(
            fenced.iter().all(|fenced| *fenced == decided),
            "round {round}, after {share}/1000 of {whole:?}: b is fenced on {} of {VOLUMES} volumes; {shown}",
            fenced.iter().filter(|fenced| **fenced).count()
        );
        ensure!(
            code != 0 || decided,
            "round {round}: a fence that was answered is forgotten"
        );
        registrations(lab, decided)?;
        if decided {
            fenced_rounds += 1;
            told_rounds += usize::from(code == 0);
            // It goes on by itself until it is proven.
            let done = lab.daemon.cli_json(&["fence", "many", "b"])?;
            ensure!(done["proven"] == "reservation", "{done}");
            lab.daemon.cli_ok(&["unfence", "many", "b"])?;
        }
        drop(a.session.ping());
    }
    Ok(format!(
        "{} kills in {whole:?}, {fenced_rounds} with the fence decided, {told_rounds} of them told",
        ROUNDS - 1
    ))
}

/// On every volume the keys of b have gone, and the reservation it held with them, or none has.
fn registrations(lab: &Lab, gone: bool) -> Result<()> {
    let key = format!("0x{:016x}", key_of("b"));
    for volume in (0..VOLUMES).step_by(7) {
        let keys = lab.daemon.cli_json(&["keys", &format!("v{volume}")])?;
        let registrations = keys["registrations"].as_array().context("registrations")?;
        let has = registrations
            .iter()
            .any(|one: &Value| one["key"] == key.as_str());
        ensure!(has != gone, "v{volume}, fenced {gone}: {keys}");
    }
    Ok(())
}
