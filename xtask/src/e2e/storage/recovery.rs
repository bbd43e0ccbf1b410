//! The keys lose their quorum: the volume is not served until a person chooses a copy, what is lost is shown first, and
//! no initiator goes on before it has been told, nor because another one has.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use initiator::{Error, ReservationType, Session};
use scsi::Lun;
use scsi::cdb::PersistentReserveOutAction;
use scsi::pr::{BasicParameters, OutParameters};
use scsi::sense::{AdditionalSense, SenseKey};
use serde_json::Value;

use super::client::{Address, Client};
use super::lab::{BLOCK_SIZE_BYTES, Lab};
use crate::context::Context;
use crate::random::Random;
use crate::targets::Target;

const SIZE_MIB: u64 = 16;
const DEVICE_MIB: u64 = 96;
const VOLUME: &str = "data";
const KEY: u64 = 0xfeed;
const NEW_KEY: u64 = 0xfeed_0002;
const SURVIVOR_KEY: u64 = 0x5afe;
/// PERSISTENT RESERVATION INFORMATION LOST (SPC-4 annex D).
const INFORMATION_LOST: AdditionalSense = AdditionalSense {
    code: 0x44,
    qualifier: 0x01,
};
/// A command that is refused as things stand.
const REFUSED: i32 = 6;

/// The scenario.
///
/// # Errors
/// When a volume is served whose keys nobody can prove, or an initiator is not told.
pub fn run(context: &Context) -> Result<String> {
    let folder = context.folder("recovery")?;
    let mut random = Random::new(context.seed);
    let mut lab = Lab::start(context, &folder)?;
    lab.add_files(&["d1", "d2", "d3"], DEVICE_MIB)?;
    let lun = lab.create(VOLUME, SIZE_MIB, &["--on", "d1", "--keys-on", "d1,d2,d3"])?;
    let mut client = lab.client(lun, SIZE_MIB, context.seed)?;
    let early = lab
        .daemon
        .cli_finish(&["keys", "recover", VOLUME, "--from", "d1", "--yes"])?;
    ensure!(
        early.code == REFUSED,
        "keys with a quorum are recovered: {} {}",
        early.code,
        early.text()
    );
    hold(&client, KEY)?;

    lose_quorum(&mut lab, &mut random).context("the first loss")?;
    with_replace_lost_reservation(&lab, &mut client)
        .with_context(|| format!("REPLACE LOST RESERVATION\n{}", lab.daemon.log_tail()))?;
    two_registrants(&client).context("two registrants")?;
    lose_quorum(&mut lab, &mut random).context("the second loss")?;
    if let Err(error) = with_new_registrations(&mut lab, &mut client) {
        return Err(error.context(format!("registering anew\n{}", lab.daemon.log_tail())));
    }
    let mut session = client.address().log_in()?;
    session.register_and_ignore(client.address().unit(), KEY, true)?;
    session.logout()?;
    lose_quorum(&mut lab, &mut random).context("the third loss")?;
    with_clear(&lab, &mut client).with_context(|| format!("--clear\n{}", lab.daemon.log_tail()))?;
    lab.daemon.check_running()?;
    Ok("not served without a quorum; recovered from one copy of three, three times".into())
}

/// The client registers and reserves.
fn hold(client: &Client, key: u64) -> Result<()> {
    let mut session = client.address().log_in()?;
    let unit = client.address().unit();
    session.register_and_ignore(unit, key, true)?;
    session.reserve(unit, key, ReservationType::WriteExclusive)?;
    Ok(session.logout()?)
}

/// Noise over two copies of three while no daemon runs: the volume is not served then, and the daemon says why.
fn lose_quorum(lab: &mut Lab, random: &mut Random) -> Result<()> {
    let mut replicas = Vec::new();
    for copy in 0..3 {
        replicas.push(lab.extents(VOLUME, "private", copy)?);
    }
    lab.daemon.terminate()?;
    for extent in replicas
        .iter()
        .flatten()
        .filter(|extent| extent.device != "d3")
    {
        let file = File::options().write(true).open(lab.file(&extent.device))?;
        let length = usize::try_from(extent.length_bytes)?;
        file.write_all_at(&random.bytes(length), extent.device_offset_bytes)?;
    }
    lab.daemon.start()?;
    let volume = lab.volume(VOLUME)?;
    ensure!(
        volume["state"] == "not-served" && volume["reason"].is_string(),
        "with one copy of three the volume is {volume}"
    );
    let keys = lab.daemon.cli_json(&["keys", VOLUME])?;
    let current = keys["replicas"].as_array().context("replicas")?;
    ensure!(
        current.len() == 3,
        "keys does not show every copy of a volume that is not served: {keys}"
    );
    Ok(())
}

/// What is shown first changes nothing; then d3's copy is taken.
fn recover(lab: &Lab, options: &[&str]) -> Result<()> {
    let recover = ["keys", "recover", VOLUME, "--from", "d3"];
    let shown = lab
        .daemon
        .cli_finish(&[&recover[..], &["--dry-run"]].concat())?;
    ensure!(
        shown.code == 0 && shown.text().contains("d1") && shown.text().contains("d2"),
        "--dry-run exits with {} and does not say which copies would be lost:\n{}",
        shown.code,
        shown.text()
    );
    ensure!(
        lab.volume(VOLUME)?["state"] == "not-served",
        "--dry-run recovers"
    );
    lab.cli(&[&recover[..], &["--yes"], options].concat())?;
    let volume = lab.volume(VOLUME)?;
    ensure!(volume["state"] == "online", "after the recovery: {volume}");
    let keys = lab.daemon.cli_json(&["keys", VOLUME])?;
    ensure!(keys["replicas"] != Value::Null, "{keys}");
    Ok(())
}

/// Every command but a few is refused until REPLACE LOST RESERVATION.
fn with_replace_lost_reservation(lab: &Lab, client: &mut Client) -> Result<()> {
    recover(lab, &["--until", "replaced"])?;
    expect_keys(lab, "replaced", &[(KEY, true)])?;
    let address = client.address().clone();
    let unit = address.unit();
    // Logging in takes unit attentions, which TEST UNIT READY cannot say here.
    let mut session = match address.log_in() {
        Ok(_) => bail!("TEST UNIT READY succeeds while reservations are lost"),
        Err(error) => {
            expect_lost("TEST UNIT READY", Err(error))?;
            raw_session(client)?
        }
    };
    // The unit attentions of the restart come first.
    while session
        .test_unit_ready(unit)
        .is_err_and(|error| is_attention(&error))
    {}
    expect_lost("REGISTER", session.register_and_ignore(unit, NEW_KEY, true))?;
    let data = Bytes::from(vec![0; BLOCK_SIZE_BYTES as usize]);
    expect_lost(
        "WRITE",
        session.write(unit, 0, data, BLOCK_SIZE_BYTES, false),
    )?;
    expect_lost("READ", session.read(unit, 0, 1, BLOCK_SIZE_BYTES).map(drop))?;
    let parameters = BasicParameters {
        service_action_reservation_key: NEW_KEY,
        aptpl: true,
        ..BasicParameters::default()
    };
    session
        .persistent_reserve_out(
            unit,
            PersistentReserveOutAction::ReplaceLostReservation,
            ReservationType::WriteExclusive as u8,
            OutParameters::Basic(parameters),
        )
        .context("REPLACE LOST RESERVATION")?;
    let (_, keys) = session.read_keys(unit)?;
    ensure!(
        keys == [NEW_KEY],
        "after REPLACE LOST RESERVATION the keys are {keys:x?}"
    );
    session.logout()?;
    client.verify()?;
    // All three copies are good again.
    lab.wait_until_good(VOLUME).map(drop)
}

/// The survivor of a cluster, and a host that was never in it.
fn others(client: &Client) -> [Address; 2] {
    ["survivor", "stranger"].map(|name| Address {
        initiator: format!("iqn.2026-11.dev.ringfence.test:{name}"),
        ..client.address().clone()
    })
}

/// The client holds Write Exclusive for registrants, and the survivor is registered too.
fn two_registrants(client: &Client) -> Result<()> {
    let unit = client.address().unit();
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    let mut session = client.address().log_in()?;
    session.clear(unit, NEW_KEY)?;
    session.register_and_ignore(unit, KEY, true)?;
    session.reserve(unit, KEY, kind)?;
    session.logout()?;
    let [survivor, _] = others(client);
    let mut session = survivor.log_in()?;
    session.register(unit, 0, SURVIVOR_KEY, true)?;
    Ok(session.logout()?)
}

/// Each is told until it registers anew, and nobody is let in by another, also over a crash of the daemon. That is over
/// when the survivor has preempted the other one.
fn with_new_registrations(lab: &mut Lab, client: &mut Client) -> Result<()> {
    recover(lab, &[])?;
    expect_keys(lab, "registered", &[(KEY, true), (SURVIVOR_KEY, true)])?;
    let unit = client.address().unit();
    let [survivor, stranger] = others(client);
    let lost = client.address().clone();
    for address in [&lost, &survivor, &stranger] {
        is_told(address).with_context(|| format!("{} at first", address.initiator))?;
    }
    let mut session = settled(&survivor)?;
    let preempt = session.preempt(
        unit,
        SURVIVOR_KEY,
        KEY,
        ReservationType::WriteExclusiveRegistrantsOnly,
    );
    expect_lost("PREEMPT by who has not registered anew", preempt)?;
    session
        .register(unit, SURVIVOR_KEY, SURVIVOR_KEY, true)
        .context("the survivor registers anew")?;
    rewrite(&mut session, unit).context("the survivor writes")?;
    session.logout()?;
    for address in [&lost, &stranger] {
        is_told(address).with_context(|| format!("{} then", address.initiator))?;
    }
    expect_keys(lab, "registered", &[(KEY, true), (SURVIVOR_KEY, false)])?;

    lab.daemon.kill()?;
    lab.daemon.start()?;
    for address in [&lost, &stranger] {
        is_told(address).with_context(|| format!("{} after a crash", address.initiator))?;
    }
    let mut session = survivor.log_in()?;
    rewrite(&mut session, unit).context("the survivor writes after a crash")?;
    ensure!(
        lab.events("lost-reservation-confirmed")?.is_empty(),
        "the loss is over while a recovered registration is left"
    );
    session
        .preempt_and_abort(
            unit,
            SURVIVOR_KEY,
            KEY,
            ReservationType::WriteExclusiveRegistrantsOnly,
        )
        .context("the survivor preempts the other one")?;
    rewrite(&mut session, unit).context("the survivor writes in the end")?;
    session.logout()?;
    ensure!(
        lab.events("lost-reservation-confirmed")?.len() == 1,
        "the end of the loss is not among the events"
    );
    let keys = lab.daemon.cli_json(&["keys", VOLUME])?;
    ensure!(
        keys["lost_until"].is_null(),
        "after the end of the loss: {keys}"
    );
    for address in [&lost, &stranger] {
        let mut session = settled(address)?;
        let result = write_zeroes(&mut session, unit);
        ensure!(
            matches!(&result, Err(error) if error.is_reservation_conflict()),
            "{} is not registered, and a WRITE ends with {result:?}",
            address.initiator
        );
        session.logout()?;
    }
    client.verify()?;
    lab.wait_until_good(VOLUME).map(drop)
}

/// What `keys` says: what ends the loss, and of each key whether it was recovered.
fn expect_keys(lab: &Lab, until: &str, expected: &[(u64, bool)]) -> Result<()> {
    let keys = lab.daemon.cli_json(&["keys", VOLUME])?;
    let mut found = Vec::new();
    for registration in keys["registrations"].as_array().context("registrations")? {
        let key = registration["key"].as_str().unwrap_or_default();
        let key = u64::from_str_radix(key.trim_start_matches("0x"), 16)?;
        found.push((key, registration["recovered"] == true));
    }
    found.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    ensure!(
        keys["lost_until"] == until && found == expected,
        "lost until {until} with {expected:x?} expected: {keys}"
    );
    Ok(())
}

/// Everything but the list of SPC-4 5.13.5.2 is refused with the reason.
fn is_told(address: &Address) -> Result<()> {
    let unit = address.unit();
    let mut session = settled(address)?;
    expect_lost("TEST UNIT READY", session.test_unit_ready(unit))?;
    expect_lost("WRITE", write_zeroes(&mut session, unit))?;
    expect_lost("READ", session.read(unit, 0, 1, BLOCK_SIZE_BYTES).map(drop))?;
    expect_lost("READ KEYS", session.read_keys(unit).map(drop))?;
    Ok(session.logout()?)
}

fn write_zeroes(session: &mut Session, unit: Lun) -> Result<(), Error> {
    let data = Bytes::from(vec![0; BLOCK_SIZE_BYTES as usize]);
    session.write(unit, 0, data, BLOCK_SIZE_BYTES, false)
}

/// Writes what is there already: the client knows what its volume holds.
fn rewrite(session: &mut Session, unit: Lun) -> Result<(), Error> {
    let data = session.read(unit, 0, 1, BLOCK_SIZE_BYTES)?.freeze();
    session.write(unit, 0, data, BLOCK_SIZE_BYTES, false)
}

/// A session without unit attentions, whatever TEST UNIT READY says beside them.
fn settled(address: &Address) -> Result<Session> {
    let mut session = address.connect()?;
    while session
        .test_unit_ready(address.unit())
        .is_err_and(|error| is_attention(&error))
    {}
    Ok(session)
}

/// `--clear`: nothing is registered any more, and whoever was is told.
fn with_clear(lab: &Lab, client: &mut Client) -> Result<()> {
    recover(lab, &["--clear"])?;
    let unit = client.address().unit();
    let mut session = raw_session(client)?;
    let told = (0..8).find_map(|_| match session.test_unit_ready(unit) {
        Err(error) => error.sense().map(|sense| sense.additional),
        Ok(()) => None,
    });
    ensure!(
        told.is_some(),
        "the registrant is told nothing of its lost registration"
    );
    session.clear_unit_attentions(unit)?;
    let (_, keys) = session.read_keys(unit)?;
    ensure!(keys.is_empty(), "after --clear the keys are {keys:x?}");
    session.register(unit, 0, KEY, true)?;
    session.logout()?;
    client.verify()?;
    lab.wait_until_good(VOLUME).map(drop)
}

/// A session without the TEST UNIT READY that [`super::client::Address::log_in`] sends.
fn raw_session(client: &Client) -> Result<Session> {
    Ok(client.address().connect()?)
}

fn is_attention(error: &Error) -> bool {
    error
        .sense()
        .is_some_and(|sense| sense.key == SenseKey::UnitAttention)
}

fn expect_lost(what: &str, result: Result<(), Error>) -> Result<()> {
    let sense = result.as_ref().err().and_then(Error::sense);
    ensure!(
        sense.is_some_and(
            |sense| sense.key == SenseKey::DataProtect && sense.additional == INFORMATION_LOST
        ),
        "{what} ends with {result:?} while reservation information is lost"
    );
    Ok(())
}
