//! Devices that fail, hang, slow down and become read-only under load: the initiator sees no error, only a pause; the
//! keys stay and get a new copy elsewhere; a device that is back is brought up to date.
//!
//! The devices are used with direct I/O (`--direct`), so that what is written is on them and not in the page cache when they
//! break.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fuser::Errno;
use serde_json::Value;

use super::client::Client;
use super::failing_files::{FailingFiles, Fault, Release};
use super::lab::Lab;
use super::loops::LoopDevice;
use super::registrars::Registrars;
use crate::context::Context;
use crate::e2e::kill9::model::Model;
use crate::e2e::kill9::nexuses;
use crate::process::wait_for;
use crate::targets::Target;

const SIZE_MIB: u64 = 32;
const DEVICE_MIB: u64 = 160;
const VOLUME: &str = "data";
const LIMIT: Duration = Duration::from_secs(60);

/// Faults of the second device that end with its copy detached, by what they stand for.
const FAULTS: [(&str, Fault); 5] = [
    ("writes fail", Fault::Writes(Errno::EIO)),
    ("the file system is full", Fault::Writes(Errno::ENOSPC)),
    (
        "the file system became read-only",
        Fault::Writes(Errno::EROFS),
    ),
    ("the device is gone", Fault::Gone),
    ("the device hangs", Fault::Hangs),
];

/// The scenario.
///
/// # Errors
/// When the initiator sees an error or wrong data, or service or redundancy do not come back.
pub fn run(context: &Context) -> Result<String> {
    let folder = context.folder("failing")?;
    let files = FailingFiles::mount(&folder)?;
    let mut lab = Lab::start(context, &folder.join("daemon"))?;
    let result = scenario(context, &folder, &files, &mut lab);
    // A process with operations that hang cannot be ended.
    for name in ["d1", "d2", "d3", "d4"] {
        files.set(name, Fault::Gone);
        files.release(name, Release::Failed);
    }
    result
}

fn scenario(
    context: &Context,
    folder: &Path,
    files: &FailingFiles,
    lab: &mut Lab,
) -> Result<String> {
    for name in ["d1", "d2", "d3", "d4"] {
        lab.add_direct(name, &files.create(name, DEVICE_MIB)?)?;
    }
    // The pool chooses where the keys are: only then may it put a new copy elsewhere.
    let options = ["--mirrors", "2", "--on", "d1,d2"];
    let lun = lab.create(VOLUME, SIZE_MIB, &options)?;
    let mut world = World {
        client: Some(lab.client(lun, SIZE_MIB, context.seed)?),
        model: Model::default(),
        lun,
        seed: context.seed,
        reservations: 0,
    };
    for (name, fault) in FAULTS {
        broken_and_back(lab, files, &mut world, name, fault).with_context(|| told(lab, name))?;
    }
    reads(lab, files, &mut world).with_context(|| told(lab, "reads fail"))?;
    slow(lab, files, &mut world).with_context(|| told(lab, "a slow device"))?;
    read_only_block_device(lab, folder, &mut world)
        .with_context(|| told(lab, "a read-only block device"))?;
    last_copy(lab, files).with_context(|| told(lab, "the last copy fails"))?;
    lab.daemon.check_running()?;
    let work = world.client.context("a client")?.work();
    let code = lab.daemon.terminate()?;
    ensure!(code == 0, "SIGTERM ends the daemon with {code}");
    Ok(format!(
        "{} faults, {} commands and {} PERSISTENT RESERVE OUT without an error, the longest pause {:.1} s",
        FAULTS.len() + 4,
        work.commands,
        world.reservations,
        work.longest.as_secs_f32()
    ))
}

fn told(lab: &Lab, name: &str) -> String {
    format!(
        "{name}\nthe volume: {}\nthe devices: {}\nthe daemon's log:\n{}",
        lab.volume(VOLUME).unwrap_or(Value::Null),
        lab.daemon
            .cli_json(&["device", "list"])
            .unwrap_or(Value::Null),
        lab.daemon.log_tail()
    )
}

/// What goes on from fault to fault.
struct World {
    client: Option<Client>,
    model: Model,
    lun: u16,
    seed: u64,
    reservations: u64,
}

impl World {
    /// Runs `events` while client and nexuses are at work; then checks that neither has seen an error, the keys are the
    /// acknowledged ones, and the data are right.
    fn under_load(&mut self, lab: &Lab, events: impl FnOnce() -> Result<()>) -> Result<()> {
        let load = self.client.take().context("a client")?.spawn();
        let registrars = Registrars::start(lab, self.lun, &self.model, self.seed)?;
        let happened = events();
        let stopped = load.stop();
        self.reservations += registrars.stop(&mut self.model)?;
        let mut client = stopped?;
        happened?;
        client.verify()?;
        self.client = Some(client);
        let found = nexuses::read_state(&lab.daemon, VOLUME)?;
        ensure!(
            found == self.model,
            "acknowledged {:?}, found {found:?}",
            self.model
        );
        Ok(())
    }
}

/// The second device breaks under load; the volume goes on with the first. Then it is back, and everything is good.
fn broken_and_back(
    lab: &Lab,
    files: &FailingFiles,
    world: &mut World,
    name: &str,
    fault: Fault,
) -> Result<()> {
    let detached_before = lab.events("plex-detached")?.len();
    world.under_load(lab, || {
        std::thread::sleep(Duration::from_millis(300));
        files.set("d2", fault);
        lab.wait_for_volume(VOLUME, "degraded", |volume| volume["health"] != "good")?;
        wait_for("an event that tells of the plex", LIMIT, || {
            let events = lab.events("plex-detached").ok()?;
            (events.len() > detached_before).then_some(())
        })?;
        // Some traffic on the copy that is left.
        std::thread::sleep(Duration::from_millis(500));
        ensure!(
            fault != Fault::Hangs || files.hanging("d2") > 0,
            "nothing hangs"
        );
        Ok(())
    })?;
    if fault == Fault::Gone {
        keys_elsewhere(lab).context("a new copy of the keys")?;
    }
    world.under_load(lab, || {
        files.set("d2", Fault::None);
        // What hung lands now, long after the plex was given up.
        files.release("d2", Release::Late);
        std::thread::sleep(Duration::from_millis(200));
        back_online(lab, "d2")?;
        lab.wait_until_good(VOLUME).map(drop)
    })?;
    lab.expect_equal_copies(VOLUME)
        .with_context(|| format!("after: {name}"))
}

/// Brings a device back that does not come back by itself.
fn back_online(lab: &Lab, name: &str) -> Result<()> {
    if lab.device(name)?["state"] == "failed" {
        lab.cli(&["device", "online", name])?;
    }
    lab.wait_for_device(name, "online").map(drop)
}

/// The keys are on three devices that work, which takes another one than before.
fn keys_elsewhere(lab: &Lab) -> Result<()> {
    let mut last = Value::Null;
    wait_for(
        "three current copies of the keys on other devices",
        LIMIT,
        || {
            last = lab.daemon.cli_json(&["keys", VOLUME]).ok()?;
            let current = last["replicas"]
                .as_array()?
                .iter()
                .filter(|replica| replica["state"] == "current" && replica["device"] != "d2")
                .count();
            (current >= 3).then_some(())
        },
    )
    .with_context(|| format!("keys says {last}"))
}

/// What one copy does not give is read from the other; the device's errors are counted, and its copy is still written.
fn reads(lab: &Lab, files: &FailingFiles, world: &mut World) -> Result<()> {
    let errors = |lab: &Lab| lab.device("d2").ok()?["errors"]["read"].as_u64();
    let before = errors(lab).context("a count of read errors")?;
    world.under_load(lab, || {
        files.set("d2", Fault::Reads);
        wait_for("read errors of d2", LIMIT, || {
            errors(lab).filter(|count| *count > before)
        })?;
        std::thread::sleep(Duration::from_millis(500));
        files.set("d2", Fault::None);
        Ok(())
    })?;
    back_online(lab, "d2")?;
    lab.wait_until_good(VOLUME)?;
    lab.expect_equal_copies(VOLUME)
}

/// A device that is merely slow is not given up.
fn slow(lab: &Lab, files: &FailingFiles, world: &mut World) -> Result<()> {
    let before = lab.events("plex-detached")?.len();
    world.under_load(lab, || {
        files.set("d2", Fault::Slow(Duration::from_millis(40)));
        std::thread::sleep(Duration::from_secs(3));
        files.set("d2", Fault::None);
        Ok(())
    })?;
    ensure!(
        lab.events("plex-detached")?.len() == before,
        "a device was given up because each of its operations took 40 ms"
    );
    lab.wait_until_good(VOLUME)?;
    lab.expect_equal_copies(VOLUME)
}

/// A third copy on a block device that stops taking writes.
fn read_only_block_device(lab: &Lab, folder: &Path, world: &mut World) -> Result<()> {
    let device = LoopDevice::create(&folder.join("loop.img"), DEVICE_MIB)?;
    lab.add_path("loop", device.path())?;
    world.under_load(lab, || {
        lab.cli(&["volume", "add-mirror", VOLUME, "--on", "loop", "--detach"])?;
        lab.wait_until_good(VOLUME)?;
        device.set_read_only(true)?;
        lab.wait_for_volume(VOLUME, "degraded", |volume| volume["health"] != "good")?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    })?;
    world.under_load(lab, || {
        device.set_read_only(false)?;
        back_online(lab, "loop")?;
        lab.wait_until_good(VOLUME).map(drop)
    })?;
    lab.expect_equal_copies(VOLUME)?;
    lab.cli(&["volume", "remove-mirror", VOLUME, "--on", "loop"])?;
    lab.wait_until_good(VOLUME)?;
    lab.cli(&["device", "evacuate", "loop"])?;
    lab.cli(&["device", "remove", "loop"])
}

/// A volume with one copy: the device's error is the initiator's, and nothing is given up, so that the volume serves
/// again as soon as the device does.
fn last_copy(lab: &Lab, files: &FailingFiles) -> Result<()> {
    let lun = lab.create("single", 16, &["--on", "d4", "--keys-on", "d1,d3"])?;
    let mut client = lab.client(lun, 16, 1)?;
    let mut session = client.address().log_in()?;
    files.set("d4", Fault::Reads);
    let failed = session.read(client.address().unit(), 0, 8, super::lab::BLOCK_SIZE_BYTES);
    let sense = failed.as_ref().err().and_then(initiator::Error::sense);
    ensure!(
        sense.is_some_and(|sense| sense.key == scsi::sense::SenseKey::MediumError),
        "a read of the only copy, which fails, ends with {:?}",
        failed.map(|data| data.len())
    );
    files.set("d4", Fault::None);
    session.logout()?;
    client.verify().context("with the device well again")?;
    lab.cli(&["volume", "delete", "single"])
}
