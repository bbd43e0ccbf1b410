//! SIGTERM while a device hangs: the daemon stops within a bound, and nothing that it has told anybody is lost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use scsi::Lun;

use super::lab::{AREA_BLOCKS, Lab, Node, key_of, lun};
use super::writer::Writer;
use crate::context::Context;
use crate::e2e::storage::failing_files::{FailingFiles, Fault, Release};
use crate::process::wait_for;
use crate::random::Random;
use crate::targets::Target;

const DEVICES: [&str; 4] = ["d1", "d2", "d3", "d4"];
const DEVICE_MIB: u64 = 128;
/// Sessions are given 5 s to end, and the devices a minute; the rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(90);
/// The device that hangs (one of two copies, or the only one), and whether a fence is asked for meanwhile.
const ROUNDS: [(&str, bool); 3] = [("d2", false), ("d2", true), ("d4", true)];

/// Rounds with another device each.
pub(super) fn run(context: &Context) -> Result<String> {
    let folder = context.folder("domains-hanging")?;
    let files = FailingFiles::mount(&folder)?;
    let mut lab = Lab::bare(context, &folder.join("daemon"))?;
    let result = scenario(&files, &mut lab, context.seed);
    // A process with operations that hang cannot be ended.
    for name in DEVICES {
        files.set(name, Fault::Gone);
        files.release(name, Release::Failed);
    }
    result.with_context(|| format!("the daemon said:\n{}", lab.daemon.log_tail()))
}

fn scenario(files: &FailingFiles, lab: &mut Lab, seed: u64) -> Result<String> {
    for name in DEVICES {
        let path = files.create(name, DEVICE_MIB)?;
        let path = path.to_str().context("a path in UTF-8")?;
        lab.daemon
            .cli_ok(&["device", "add", name, path, "--direct"])?;
    }
    let mut luns = Vec::new();
    for (name, options) in [
        ("both", ["--mirrors", "2", "--on", "d1,d2"].as_slice()),
        ("single", ["--on", "d4", "--keys-on", "d1,d2,d3"].as_slice()),
    ] {
        let create = ["volume", "create", name, "--size", "8M"];
        let created = lab.daemon.cli_json(&[&create, options].concat())?;
        luns.push(lun(&created["lun"])?);
    }
    lab.domain("web", &["both", "single"], &["a", "b"], &[])?;
    for volume in ["both", "single"] {
        let reader = super::lab::initiator_of("reader");
        lab.daemon.cli_ok(&["grant", volume, &reader, "ro"])?;
    }
    let mut random = Random::new(seed ^ 0x4a46);
    let mut slowest = Duration::ZERO;
    for (device, fence) in ROUNDS {
        let took = round(files, lab, &luns, (device, fence), &mut random)
            .with_context(|| format!("{device} hangs; with a fence: {fence}"))?;
        slowest = slowest.max(took);
    }
    Ok(format!(
        "SIGTERM with a device that hangs: {:.1} s",
        slowest.as_secs_f32()
    ))
}

fn round(
    files: &FailingFiles,
    lab: &mut Lab,
    luns: &[Lun],
    (device, fence): (&str, bool),
    random: &mut Random,
) -> Result<Duration> {
    let mut a = Node::join(lab, "a", luns)?;
    // What a has inherited in the round before goes: b is to hold it again.
    for lun in luns {
        a.session.clear(*lun, key_of("a"))?;
    }
    a.register()?;
    let mut b = Node::join(lab, "b", luns)?;
    b.reserve()?;
    let writers = [Writer::start(a, 0), Writer::start(b, 1)];
    std::thread::sleep(Duration::from_millis(300));
    files.set(device, Fault::Hangs);
    wait_for("an operation that hangs", BOUND, || {
        (files.hanging(device) > 0).then_some(())
    })?;
    let fencing = match fence {
        true => Some(lab.begin(&["fence", "web", "b"])?),
        false => None,
    };
    std::thread::sleep(Duration::from_millis(random.below(600) as u64));
    let stops = stops(lab)?;
    let begun = Instant::now();
    let pid = lab
        .daemon
        .pid()
        .and_then(|pid| Pid::from_raw(pid.cast_signed()));
    kill_process(pid.context("a daemon that runs")?, Signal::TERM)?;
    wait_for("the daemon to have stopped", BOUND, || {
        (self::stops(lab).ok()? > stops).then_some(())
    })?;
    let took = begun.elapsed();
    ensure!(files.hanging(device) > 0, "nothing hangs any more");
    // What hung lands now, when nobody waits for it any more, and the process can end.
    files.set(device, Fault::None);
    files.release(device, Release::Late);
    lab.daemon.terminate()?;
    let mut nodes = Vec::new();
    for writer in writers {
        nodes.push(writer.end()?.0);
    }
    let told = match fencing {
        Some(fencing) => fencing.end()?.0 == 0,
        None => false,
    };
    lab.daemon.start()?;
    let mut observer = Node::observer(lab, "reader", luns)?;
    for (node, area) in nodes.iter().zip(0..) {
        let found = observer.area(area)?;
        let written = node.written();
        ensure!(written > 0, "{} has written nothing", node.name);
        for number in written.saturating_sub(AREA_BLOCKS / 2).max(1)..=written {
            ensure!(
                node.has_record(&found, number),
                "record {number} of {}, of {written} that were acknowledged, is lost",
                node.name
            );
        }
    }
    let decided = lab.shown("web", "b")?["fence"].is_object();
    ensure!(decided || !told, "a fence that was answered is forgotten");
    ensure!(fence || !decided, "nobody asked for a fence");
    let mut b = Node::again(lab, "b", luns)?;
    for lun in luns {
        ensure!(
            b.is_fenced_on(*lun)? == decided,
            "b is fenced: {decided}; on {lun:?} it is not so"
        );
    }
    for volume in ["both", "single"] {
        let keys = lab.daemon.cli_json(&["keys", volume])?;
        let registrations = keys["registrations"].as_array().map_or(0, Vec::len);
        ensure!(
            registrations == if decided { 1 } else { 2 },
            "{volume}, with b fenced: {decided}: {keys}"
        );
    }
    if decided {
        lab.daemon.cli_ok(&["fence", "web", "b"])?;
        lab.daemon.cli_ok(&["unfence", "web", "b"])?;
    }
    if lab.daemon.cli_json(&["device", "show", device])?["state"] == "failed" {
        lab.daemon.cli_ok(&["device", "online", device])?;
    }
    wait_for("two copies", BOUND, || {
        let volume = lab.daemon.cli_json(&["volume", "show", "both"]).ok()?;
        (volume["health"] == "good").then_some(())
    })?;
    Ok(took)
}

/// How often the daemon has said that it has stopped.
fn stops(lab: &Lab) -> Result<usize> {
    let log = std::fs::read_to_string(lab.daemon.state().join("events.jsonl"))?;
    Ok(log
        .lines()
        .filter(|line| line.contains("\"daemon-stopped\""))
        .count())
}
