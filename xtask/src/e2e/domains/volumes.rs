//! Volumes that come into a domain, and leave it, while a member is fenced.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use scsi::Lun;
use serde_json::Value;

use super::lab::{Lab, Node, TYPE, initiator_of, key_of};
use super::writer::Writer;
use crate::random::Random;
use crate::targets::Target;

const REFUSED: i32 = 6;
const ROUNDS: usize = 6;
/// The area of the member that is fenced.
const AREA: u64 = 1;

/// A volume that joins is closed to who is fenced before the command returns, and stays so; one that is to leave stays.
pub(super) fn run(lab: &mut Lab, seed: u64) -> Result<String> {
    let luns = lab.volumes(&["v1", "v2", "late"])?;
    let (of_domain, late) = (&luns[..2], luns[2]);
    lab.domain(
        "web",
        &["v1", "v2"],
        &["a", "b"],
        &["--quorum-device", "d1"],
    )?;
    for member in ["a", "b"] {
        lab.daemon
            .cli_ok(&["grant", "late", &initiator_of(member), "rw"])?;
    }
    lab.daemon
        .cli_ok(&["grant", "late", &initiator_of("reader"), "ro"])?;
    // Both use the late volume already, and b holds its reservation.
    let mut a = Node::join(lab, "a", &[late])?;
    let mut b = at_work(lab, late)?;
    for lun in of_domain {
        b.session.clear_unit_attentions(*lun)?;
        b.session.register_and_ignore(*lun, key_of("b"), false)?;
    }
    lab.daemon.cli_ok(&["fence", "web", "b"])?;
    ensure!(
        !b.is_fenced_on(late)?,
        "b is fenced on a volume of no domain"
    );

    let mut observer = Node::observer(lab, "reader", &[late])?;
    let writer = Writer::start(b, AREA);
    std::thread::sleep(Duration::from_millis(200));
    lab.daemon
        .cli_ok(&["domain", "volume", "add", "web", "late"])?;
    // From here on not one byte of b lands.
    let then = observer.area(AREA)?;
    std::thread::sleep(Duration::from_millis(200));
    let (b, error) = writer.end()?;
    ensure!(
        matches!(error, Some(initiator::Error::Command(_))),
        "b goes on: {error:?}"
    );
    ensure!(
        observer.area(AREA)? == then && b.written() > 0,
        "b wrote after the volume had joined"
    );
    ensure!(
        b.has_record(&then, b.written()),
        "an acknowledged record of b is not there"
    );
    keys_of_b(lab, true)?;
    let keys = lab.daemon.cli_json(&["keys", "late"])?;
    ensure!(
        keys["reservation"]["holder"] == initiator_of("a").as_str(),
        "b held the reservation, and a is the heir: {keys}"
    );
    ensure!(!a.is_fenced_on(late)?, "a cannot write");
    drop(b);
    stays_closed(lab, late)?;
    leaving(lab, &luns)?;
    let decided = killed(lab, late, seed)?;
    Ok(format!(
        "{ROUNDS} kills while a volume joins, {decided} after it had"
    ))
}

/// b as the one that holds the reservation of a volume.
fn at_work(lab: &Lab, lun: Lun) -> Result<Node> {
    let mut b = Node::join(lab, "b", &[lun])?;
    b.session.reserve(lun, key_of("b"), TYPE)?;
    Ok(b)
}

fn keys_of_b(lab: &Lab, gone: bool) -> Result<()> {
    let key = format!("0x{:016x}", key_of("b"));
    let keys = lab.daemon.cli_json(&["keys", "late"])?;
    let registrations = keys["registrations"].as_array().context("registrations")?;
    let has = registrations.iter().any(|one: &Value| one["key"] == *key);
    ensure!(has != gone, "b has a key: {has}; {keys}");
    Ok(())
}

/// Over grants to it, a restart and a kill of the daemon.
fn stays_closed(lab: &mut Lab, late: Lun) -> Result<()> {
    lab.daemon
        .cli_ok(&["grant", "late", &initiator_of("b"), "rw"])?;
    lab.daemon.cli_ok(&["grant", "late", "domain:web", "rw"])?;
    closed(lab, late)?;
    lab.daemon.terminate()?;
    lab.daemon.start()?;
    closed(lab, late)?;
    lab.daemon.kill()?;
    lab.daemon.start()?;
    closed(lab, late)
}

/// The very first command that it can be, too.
fn closed(lab: &Lab, late: Lun) -> Result<()> {
    let mut b = lab.login("b", 0)?;
    let data = bytes::Bytes::from(vec![0xee; 512]);
    let written = b.write(late, 0, data, 512, false);
    ensure!(
        written.is_err(),
        "the first command of b is carried out: {written:?}"
    );
    let registered = b.register_and_ignore(late, key_of("b"), false);
    ensure!(registered.is_err(), "b registers");
    let mut b = Node::again(lab, "b", &[late])?;
    ensure!(b.is_fenced_on(late)?, "b writes");
    Ok(())
}

/// While somebody is fenced no volume leaves; after that a fence leaves alone what has left.
fn leaving(lab: &Lab, luns: &[Lun]) -> Result<()> {
    let leave = ["domain", "volume", "remove", "web", "late"];
    lab.exits(REFUSED, &leave)?;
    closed(lab, luns[2])?;
    lab.daemon.cli_ok(&["unfence", "web", "b"])?;
    lab.daemon.cli_ok(&leave)?;
    let mut b = at_work(lab, luns[2]).or_else(|_| Node::join(lab, "b", &luns[2..]))?;
    lab.daemon.cli_ok(&["fence", "web", "b"])?;
    ensure!(
        !b.is_fenced_on(luns[2])?,
        "b is fenced on a volume that has left"
    );
    keys_of_b(lab, false)?;
    let mut b = Node::again(lab, "b", luns)?;
    for lun in &luns[..2] {
        ensure!(b.is_fenced_on(*lun)?, "b writes to {lun:?}");
    }
    Ok(())
}

/// kill -9 while the volume joins: afterwards it is in the domain and closed to b, or neither.
fn killed(lab: &mut Lab, late: Lun, seed: u64) -> Result<usize> {
    let mut random = Random::new(seed ^ 0x70c1);
    let mut decided = 0;
    let mut whole = Duration::from_millis(50);
    for round in 0..ROUNDS {
        let join = ["domain", "volume", "add", "web", "late"];
        let begun = std::time::Instant::now();
        let running = lab.begin(&join)?;
        if round > 0 {
            let share = random.below(1000) as u32;
            std::thread::sleep(whole * share / 1000);
            lab.daemon.kill()?;
        }
        let (code, _) = running.end()?;
        if round == 0 {
            whole = begun.elapsed();
            lab.daemon.kill()?;
        }
        lab.daemon.start()?;
        let volume = lab.daemon.cli_json(&["volume", "show", "late"])?;
        let joined = volume["domain"] == "web";
        ensure!(
            code != 0 || joined,
            "round {round}: it was answered, and is forgotten: {volume}"
        );
        let fenced = Node::again(lab, "b", &[late])?.is_fenced_on(late)?;
        ensure!(
            fenced == joined,
            "round {round}: the volume has joined: {joined}, and b is kept out: {fenced}"
        );
        keys_of_b(lab, joined)?;
        if joined {
            decided += 1;
            lab.daemon.cli_ok(&["unfence", "web", "b"])?;
            lab.daemon
                .cli_ok(&["domain", "volume", "remove", "web", "late"])?;
            Node::join(lab, "b", &[late])?;
            lab.daemon.cli_ok(&["fence", "web", "b"])?;
        }
    }
    Ok(decided)
}
