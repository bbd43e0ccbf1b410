//! The story of the demo, chapter by chapter. Every outcome is checked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::narrator::Narrator;
use super::stage::Stage;
use super::vm::{Outcome, Vm};
use crate::failure::Failure;

const KEYS: [u64; 3] = [0xa1, 0xb2, 0xc3];
const VOLUME: &str = "shared";

/// Tells the story.
pub fn tell(narrator: &Narrator, stage: &Stage) -> Result<(), Failure> {
    narrator.say(
        "Three virtual machines share one disk, as in a failover cluster. When the cluster splits, the side that goes on\n\
         must be certain that the other side cannot write any more. ringfence sees to that, at the disk.",
    );
    let daemon = Daemon::start(stage, ([127, 0, 0, 1], 0).into())?;
    let portal = daemon.portal();
    let lun = make_volume(narrator, stage, &daemon)?;
    let mut vms = log_in(narrator, &daemon, lun)?;
    show_keys(
        narrator,
        &daemon,
        "The keys are in the volume's private region, beside the data, where no VM can write:",
    )?;
    split(narrator, &mut vms)?;
    show_keys(
        narrator,
        &daemon,
        "The private region after it, and the audit trail of the daemon:",
    )?;
    show_trail(narrator, &daemon)?;
    let daemon = crash(narrator, stage, daemon, portal)?;
    after(narrator, &daemon, vms, lun)?;
    daemon.stop()
}

fn make_volume(narrator: &Narrator, stage: &Stage, daemon: &Daemon<'_>) -> Result<u16, Failure> {
    narrator.chapter("A pool of two devices, and a volume");
    let disks =
        ["disk1", "disk2"].map(|name| stage.path(&format!("{name}.img")).display().to_string());
    run(
        narrator,
        daemon,
        &["device", "add", "disk1", &disks[0], "--size", "64M"],
    )?;
    run(
        narrator,
        daemon,
        &["device", "add", "disk2", &disks[1], "--size", "64M"],
    )?;
    run(
        narrator,
        daemon,
        &[
            "volume",
            "create",
            VOLUME,
            "--size",
            "16M",
            "--on",
            "disk1",
            "--keys-on",
            "disk2",
        ],
    )?;
    for index in 0..KEYS.len() {
        run(
            narrator,
            daemon,
            &["grant", VOLUME, &Vm::initiator_name(index), "rw"],
        )?;
    }
    let volume = daemon.json(&["volume", "show", VOLUME])?;
    volume["lun"]
        .as_u64()
        .and_then(|lun| u16::try_from(lun).ok())
        .ok_or_else(|| Failure::failed("the volume has no LUN"))
}

fn log_in(narrator: &Narrator, daemon: &Daemon<'_>, lun: u16) -> Result<Vec<Vm>, Failure> {
    narrator.chapter("Three VMs log in over iSCSI, register their keys, and write");
    let mut vms = Vec::new();
    for (index, key) in KEYS.into_iter().enumerate() {
        let mut vm = Vm::log_in(daemon.portal(), index, key, lun)?;
        expect(Outcome::Good, vm.register()?)?;
        narrator.act(vm.name(), &format!("REGISTER key {key:#x}"), "GOOD");
        vms.push(vm);
    }
    expect(Outcome::Good, vms[0].reserve()?)?;
    narrator.act(
        vms[0].name(),
        "RESERVE write exclusive, registrants only",
        "GOOD",
    );
    for vm in &mut vms {
        expect(Outcome::Good, vm.write(1)?)?;
        narrator.act(
            vm.name(),
            &format!("WRITE record 1 to its block {}", vm.block()),
            "GOOD",
        );
    }
    Ok(vms)
}

/// The VM on the losing side, as the other threads see it.
#[derive(Default)]
struct Loser {
    /// The last record that was written with GOOD.
    acknowledged: AtomicU64,
    /// The fence failed, and the demo with it.
    stop: AtomicBool,
}

fn split(narrator: &Narrator, vms: &mut Vec<Vm>) -> Result<(), Failure> {
    narrator.chapter(
        "The cluster splits: vm1 and vm2 see each other, vm3 is alone and goes on writing",
    );
    let mut vm3 = vms.pop().ok_or_else(|| Failure::failed("vm3 is missing"))?;
    let seen = Loser::default();
    let result = thread::scope(|scope| {
        let writer = scope.spawn(|| write_until_refused(&mut vm3, &seen));
        let result = fence(narrator, vms, &seen);
        seen.stop.store(result.is_err(), Ordering::Relaxed);
        let refused = writer
            .join()
            .map_err(|_| Failure::failed("the writer of vm3 panicked"))?;
        result.and_then(|fenced| refused.map(|refused| (fenced, refused)))
    });
    let (last_on_disk, refused) = result?;
    expect(Outcome::Conflict, refused)?;
    let acknowledged = seen.acknowledged.load(Ordering::Relaxed);
    narrator.act(
        vm3.name(),
        &format!("WRITE record {}", acknowledged + 1),
        "RESERVATION CONFLICT",
    );
    for _ in 0..3 {
        expect(Outcome::Conflict, vm3.write(acknowledged + 2)?)?;
    }
    narrator.act(vm3.name(), "WRITE three times more", "RESERVATION CONFLICT");
    let now = vms[0].read_record(vm3.block())?;
    if now != last_on_disk || now < acknowledged {
        return Err(Failure::failed(format!(
            "vm3's block changed after the fence: {last_on_disk}, then {now}; {acknowledged} was acknowledged"
        )));
    }
    narrator.act(
        vms[0].name(),
        "READ vm3's block",
        &format!("record {now}, as when PREEMPT returned"),
    );
    for vm in vms.iter_mut() {
        expect(Outcome::Good, vm.write(2)?)?;
        narrator.act(
            vm.name(),
            &format!("WRITE record 2 to its block {}", vm.block()),
            "GOOD",
        );
    }
    vms.push(vm3);
    Ok(())
}

/// vm1 fences vm3; gives the record that was in vm3's block at that moment.
fn fence(narrator: &Narrator, vms: &mut [Vm], seen: &Loser) -> Result<u64, Failure> {
    let patience = Instant::now() + Duration::from_secs(5);
    while seen.acknowledged.load(Ordering::Relaxed) < 100 {
        if Instant::now() > patience {
            return Err(Failure::failed("vm3 does not get its writes done"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    let before = seen.acknowledged.load(Ordering::Relaxed);
    narrator.act(
        "vm3",
        "WRITE, one after the other",
        &format!("{before} acknowledged"),
    );
    let [vm1, vm2, ..] = vms else {
        return Err(Failure::failed("vm1 and vm2 are missing"));
    };
    let begun = Instant::now();
    expect(Outcome::Good, vm1.preempt_and_abort(KEYS[2])?)?;
    let took = begun.elapsed();
    // Read by another session: what vm2 sees now is what the disk keeps.
    let on_disk = vm2.read_record(2)?;
    narrator.act(
        vm1.name(),
        &format!("PREEMPT AND ABORT key {:#x}", KEYS[2]),
        &format!("GOOD after {:.1} ms", took.as_secs_f64() * 1000.0),
    );
    Ok(on_disk)
}

fn write_until_refused(vm: &mut Vm, seen: &Loser) -> Result<Outcome, Failure> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut record = 1;
    loop {
        record += 1;
        match vm.write(record)? {
            Outcome::Good => seen.acknowledged.store(record, Ordering::Relaxed),
            // PREEMPT AND ABORT ended this one.
            Outcome::Aborted => {}
            // Told once that its registration is gone (SPC-4 5.13.11.2.6); the next write is refused.
            Outcome::Attention => record -= 1,
            refused => return Ok(refused),
        }
        if seen.stop.load(Ordering::Relaxed) || Instant::now() > deadline {
            return Ok(Outcome::Good);
        }
    }
}

fn show_keys(narrator: &Narrator, daemon: &Daemon<'_>, why: &str) -> Result<(), Failure> {
    narrator.say(&format!("\n{why}"));
    run(narrator, daemon, &["keys", VOLUME])
}

fn show_trail(narrator: &Narrator, daemon: &Daemon<'_>) -> Result<(), Failure> {
    let printed = daemon.command(&["events"])?;
    let fenced: Vec<&str> = printed
        .lines()
        .filter(|line| line.contains("PREEMPTED") || line.contains("FENCED"))
        .collect();
    if fenced.is_empty() {
        return Err(Failure::failed("the audit trail says nothing of the fence"));
    }
    narrator.command(&["events"], &format!("...\n{}", fenced.join("\n")));
    Ok(())
}

fn crash<'a>(
    narrator: &Narrator,
    stage: &'a Stage,
    daemon: Daemon<'a>,
    portal: std::net::SocketAddr,
) -> Result<Daemon<'a>, Failure> {
    narrator.chapter("The storage daemon crashes: kill -9");
    let before = daemon.json(&["keys", VOLUME])?;
    daemon.kill()?;
    narrator.say("   The daemon is gone. Starting it again on the same devices:");
    let daemon = Daemon::start(stage, portal)?;
    let after = daemon.json(&["keys", VOLUME])?;
    if before != after {
        return Err(Failure::failed(format!(
            "the keys changed in the crash: {before} became {after}"
        )));
    }
    run(narrator, &daemon, &["keys", VOLUME])?;
    narrator.say("   The same keys, the same reservation, the same generation.");
    Ok(daemon)
}

fn after(narrator: &Narrator, daemon: &Daemon<'_>, vms: Vec<Vm>, lun: u16) -> Result<(), Failure> {
    narrator.chapter("The VMs log in again, without registering anew");
    for (vm, index) in vms.into_iter().zip(0..) {
        let key = KEYS[index];
        drop(vm);
        let mut vm = Vm::log_in(daemon.portal(), index, key, lun)?;
        let (wanted, words) = if index == 2 {
            (
                Outcome::Conflict,
                "RESERVATION CONFLICT: fenced, crash or not",
            )
        } else {
            (Outcome::Good, "GOOD")
        };
        expect(wanted, vm.write(3)?)?;
        narrator.act(vm.name(), "WRITE record 3", words);
        vm.log_out()?;
    }
    Ok(())
}

fn run(narrator: &Narrator, daemon: &Daemon<'_>, arguments: &[&str]) -> Result<(), Failure> {
    let printed = daemon.command(arguments)?;
    narrator.command(arguments, &printed);
    Ok(())
}

fn expect(wanted: Outcome, came: Outcome) -> Result<(), Failure> {
    if wanted == came {
        Ok(())
    } else {
        Err(Failure::failed(format!(
            "{wanted:?} was expected and {came:?} came"
        )))
    }
}
