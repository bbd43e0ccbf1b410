//! Every operation on devices and layouts with an initiator attached: it stays logged in, goes on reading and writing, and
//! sees the same logical unit before and after: LUN, NAA, serial number, registrants with their TransportIDs, PRGENERATION.

use anyhow::{Context as _, Result, ensure};
use initiator::{ReservationType, Session};
use scsi::Lun;
use scsi::pr::{FullStatus, ReservationDescriptor};
use scsi::sense::{AdditionalSense, SenseKey};
use serde_json::Value;

use super::client::Client;
use super::lab::{BLOCK_SIZE_BYTES, LIMIT, Lab};
use crate::context::Context;
use crate::process::wait_for;
use crate::targets::Target;

const SIZE_MIB: u64 = 24;
const DEVICE_MIB: u64 = 128;
const DEVICES: [&str; 6] = ["d1", "d2", "d3", "d4", "d5", "d6"];
const KEY: u64 = 0x5eed_0000_0000_0001;
const HOLDER: &str = "iqn.2026-11.com.example:holder";
/// Exit code for a name that nothing has.
const NOT_FOUND: i32 = 5;
const UNIT_SERIAL_NUMBER: u8 = 0x80;
const DEVICE_IDENTIFICATION: u8 = 0x83;

/// Operations in the order in which they are done, as arguments of the CLI. What copies waits for its end.
const OPERATIONS: [&[&str]; 16] = [
    &["volume", "add-mirror", "data", "--on", "d2"],
    &["volume", "verify", "data"],
    &["device", "fail", "d1"],
    &["device", "online", "d1"],
    &["device", "replace", "d1", "d3"],
    &["volume", "add-mirror", "data", "--on", "d4"],
    &["volume", "remove-mirror", "data", "--plex", "0"],
    &["volume", "grow", "data", "+8M"],
    &[
        "volume",
        "migrate",
        "data",
        "--to",
        "d5,d6",
        "--layout",
        "striped",
        "--columns",
        "2",
        "--mirrors",
        "1",
    ],
    &["volume", "grow", "data", "+8M"],
    &["device", "evacuate", "d5"],
    &[
        "volume",
        "migrate",
        "data",
        "--to",
        "d2,d3,d4,d5",
        "--layout",
        "striped",
        "--columns",
        "2",
        "--mirrors",
        "2",
        "--keys-to",
        "d2,d4,d6",
    ],
    &["device", "fail", "d2"],
    &["device", "online", "d2"],
    &["volume", "verify", "data", "--repair"],
    &[
        "volume",
        "migrate",
        "data",
        "--to",
        "d6",
        "--layout",
        "linear",
        "--mirrors",
        "1",
    ],
];

/// The scenario.
///
/// # Errors
/// When an operation fails, or an initiator sees that something has happened.
pub fn run(context: &Context) -> Result<String> {
    let folder = context.folder("operations")?;
    let mut lab = Lab::start(context, &folder)?;
    lab.add_files(&DEVICES, DEVICE_MIB)?;
    let lun = lab.create("data", SIZE_MIB, &["--on", "d1", "--keys-on", "d1,d2,d3"])?;
    let mut client = lab.client(lun, SIZE_MIB, context.seed)?;

    // A holder, and the client registered with it: it goes on writing under the reservation.
    let mut holder_address = client.address().clone();
    holder_address.initiator = HOLDER.into();
    let unit = holder_address.unit();
    let mut holder = holder_address.log_in()?;
    holder.register(unit, 0, KEY, true)?;
    let mut registering = client.address().log_in()?;
    registering.register(unit, 0, KEY + 1, true)?;
    registering.logout()?;
    holder.reserve(unit, KEY, ReservationType::WriteExclusiveRegistrantsOnly)?;
    let before = Identity::of(&lab, &mut holder, unit, "data")?;

    for operation in OPERATIONS {
        let shown = operation.join(" ");
        let load = client.spawn();
        let done = lab.cli(operation).and_then(|()| settled(&lab, operation));
        let stopped = load.stop();
        let told = || {
            format!(
                "during: ringfence {shown}\nthe daemon's log:\n{}",
                lab.daemon.log_tail()
            )
        };
        client = stopped.with_context(told)?;
        done.with_context(told)?;
        client.verify().with_context(told)?;
        // It has logged in once, before all of it: it is told that a volume has grown, and nothing else.
        let attentions = unit_attentions(&mut holder, unit)?;
        let expected: &[AdditionalSense] = match operation[..2] {
            ["volume", "grow"] => &[AdditionalSense::CAPACITY_DATA_HAS_CHANGED],
            _ => &[],
        };
        ensure!(
            attentions == expected,
            "after ringfence {shown} the initiator is told {attentions:?}"
        );
        let after = Identity::of(&lab, &mut holder, unit, "data").with_context(told)?;
        ensure!(
            after == before,
            "after ringfence {shown} the initiator sees another logical unit:\n{after:#?}\nbefore:\n{before:#?}"
        );
    }
    renamed(&lab, &mut holder, unit, &before)?;
    refusals(&lab)?;
    ensure!(
        client.work().capacity_changes >= 2,
        "the client was told of {} changes of the capacity",
        client.work().capacity_changes
    );
    still_served(&mut client, &mut holder, unit)?;
    holder.clear(unit, KEY)?;
    holder.logout()?;
    lab.daemon.check_running()?;
    Ok(format!(
        "{} operations, {} commands of the client beside them, the longest wait {:.1} s",
        OPERATIONS.len() + 1,
        client.work().commands,
        client.work().longest.as_secs_f32()
    ))
}

/// The unit attention conditions that are pending, which ends them.
fn unit_attentions(session: &mut Session, unit: Lun) -> Result<Vec<AdditionalSense>> {
    let mut attentions = Vec::new();
    while let Err(error) = session.test_unit_ready(unit) {
        match error.sense() {
            Some(sense) if sense.key == SenseKey::UnitAttention => {
                attentions.push(sense.additional);
            }
            _ => return Err(error.into()),
        }
    }
    Ok(attentions)
}

/// After `device fail` the volume may be degraded; after everything else it is good.
fn settled(lab: &Lab, operation: &[&str]) -> Result<()> {
    if operation[..2] == ["device", "replace"] {
        let shown = || lab.daemon.cli_finish(&["device", "show", operation[2]]);
        let gone = || shown().ok().filter(|shown| shown.code == NOT_FOUND);
        wait_for("the replaced device to leave the pool", LIMIT, gone)?;
    }
    if operation[..2] != ["device", "fail"] {
        return lab.wait_until_good("data").map(drop);
    }
    let state = lab.device(operation[2])?["state"].clone();
    ensure!(state == "failed", "device fail leaves it {state}");
    lab.wait_for_volume("data", "degraded", |volume| volume["health"] == "degraded")
        .map(drop)
}

/// What an initiator knows a logical unit by, and what `ringfence` shows of it.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    luns: Vec<Lun>,
    serial: Vec<u8>,
    identification: Vec<u8>,
    generation: u32,
    registrants: Vec<FullStatus>,
    reservation: Option<ReservationDescriptor>,
    shown: [Value; 3],
}

impl Identity {
    fn of(lab: &Lab, session: &mut Session, unit: Lun, name: &str) -> Result<Self> {
        let volume = lab.volume(name)?;
        let (generation, registrants) = session.read_full_status(unit)?;
        let (_, reservation) = session.read_reservation(unit)?;
        Ok(Self {
            luns: session.report_luns()?,
            serial: session
                .vital_product_data(unit, UNIT_SERIAL_NUMBER)?
                .to_vec(),
            identification: session
                .vital_product_data(unit, DEVICE_IDENTIFICATION)?
                .to_vec(),
            generation,
            registrants,
            reservation,
            shown: ["lun", "naa", "uuid"].map(|field| volume[field].clone()),
        })
    }
}

fn renamed(lab: &Lab, holder: &mut Session, unit: Lun, before: &Identity) -> Result<()> {
    lab.cli(&["volume", "rename", "data", "renamed"])?;
    let after = Identity::of(lab, holder, unit, "renamed")?;
    ensure!(
        after == *before,
        "a rename changes {before:#?} to {after:#?}"
    );
    lab.cli(&["volume", "rename", "renamed", "data"])
}

/// What has to be refused, with the exit code for it and a reason.
fn refusals(lab: &Lab) -> Result<()> {
    let used = lab.volume("data")?["devices"][0].clone();
    let used = used.as_str().context("a device")?;
    let other = lab.file("foreign");
    std::fs::File::create(&other)?.set_len(64 << 20)?;
    crate::process::run(crate::process::command("mkfs.ext4", ["-q"]).arg(&other))?;
    let other = other.to_str().context("a path in UTF-8")?;
    let refused: [&[&str]; 5] = [
        &["device", "remove", used],
        &["device", "fail", used],
        &["volume", "remove-mirror", "data"],
        &[
            "volume",
            "create",
            "m",
            "--size",
            "4M",
            "--mirrors",
            "2",
            "--on",
            "d2",
        ],
        &["device", "add", "foreign", other],
    ];
    for args in refused {
        let finished = lab.daemon.cli_finish(args)?;
        ensure!(
            finished.code == 6 && !finished.stderr.is_empty(),
            "ringfence {} is not refused but exits with {}:\n{}",
            args.join(" "),
            finished.code,
            finished.text()
        );
    }
    lab.cli(&["device", "add", "foreign", other, "--force"])?;
    lab.cli(&["device", "remove", "foreign"])?;
    keys_are_needed(lab)
}

/// A device that has no data of a volume but the majority of its keys is failed only with `--force`, and comes back.
fn keys_are_needed(lab: &Lab) -> Result<()> {
    // Without a grant, so that no initiator hears of it.
    let create = ["volume", "create", "k", "--size", "4M"];
    lab.cli(&[&create[..], &["--on", "d3", "--keys-on", "d2"]].concat())?;
    // Those of the other volume are still coming back after its last move.
    lab.wait_for_keys("data", 3)?;
    let finished = lab.daemon.cli_finish(&["device", "fail", "d2", "--json"])?;
    let refused: Value = serde_json::from_str(&finished.stderr)?;
    let lost = &refused["error"]["would_lose"];
    let expected = serde_json::json!([{ "what": "keys", "volume": "k", "have": 0, "need": 1 }]);
    ensure!(
        finished.code == 6 && *lost == expected,
        "device fail takes the keys of a volume away and exits with {}:\n{}",
        finished.code,
        finished.text()
    );
    lab.cli(&["device", "fail", "d2", "--force"])?;
    let state = lab.device("d2")?["state"].clone();
    ensure!(state == "failed", "device fail --force leaves it {state}");
    lab.cli(&["device", "online", "d2"])?;
    lab.wait_until_good("k")?;
    lab.cli(&["volume", "delete", "k"])
}

/// The reservation still works both ways.
fn still_served(client: &mut Client, holder: &mut Session, unit: Lun) -> Result<()> {
    client.verify()?;
    let mut stranger = client.address().clone();
    stranger.initiator = "iqn.2026-11.com.example:stranger".into();
    let mut session = stranger.log_in()?;
    let written = session.write(unit, 0, vec![0; 512].into(), BLOCK_SIZE_BYTES, false);
    ensure!(
        written
            .as_ref()
            .is_err_and(initiator::Error::is_reservation_conflict),
        "a stranger's write under the reservation ends with {written:?}"
    );
    session.logout()?;
    Ok(holder.test_unit_ready(unit)?)
}
