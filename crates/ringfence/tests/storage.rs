//! The real daemon: layouts, mirrors, jobs, devices that fail, pools that move, keys that are lost. An initiator is
//! logged in meanwhile, and must not notice.
#![allow(clippy::unwrap_used)] // a test fails by panicking, in its helpers too

#[allow(dead_code)] // other tests use more of it
mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Daemon, text};
use initiator::{Config, ReservationType, Session};
use scsi::Lun;
use serde_json::{Value, json};

const TYPE: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
const VM: &str = "iqn.2026-11.com.example:vm1";
const PORTAL: [&str; 2] = ["--portal", "127.0.0.1:0"];
/// What is written and read at once.
const CHUNK_BYTES: usize = 64 << 10;

fn lun() -> Lun {
    Lun::new(0).unwrap()
}

/// A daemon with `devices` devices d1, d2, ... of 128 MiB.
fn daemon(devices: usize) -> Daemon {
    let daemon = Daemon::start();
    for number in 1..=devices {
        daemon.add_device(&format!("d{number}"), "128M");
    }
    daemon
}

/// The volume `v` with `options` of `volume create`, granted to the initiator.
fn volume(daemon: &Daemon, options: &[&str]) -> Value {
    let create = [&["volume", "create", "v", "--size", "32M"], options].concat();
    let volume = daemon.json(&create);
    assert_eq!(volume["lun"], 0);
    daemon.json(&["grant", "v", VM, "rw"]);
    volume
}

fn connect(daemon: &Daemon) -> Session {
    let kind = iscsi::initiator::Session::Normal {
        target_name: "iqn.2026-11.dev.ringfence:test".to_owned(),
    };
    let config = Config::new(VM.to_owned(), [0x80, 0, 0, 0, 0, 1], kind);
    Session::connect(daemon.portals[0].parse().unwrap(), config).unwrap()
}

fn log_in(daemon: &Daemon) -> Session {
    let mut session = connect(daemon);
    session.clear_unit_attentions(lun()).unwrap();
    session
}

/// Fills the first 8 MiB with what is told by `seed`.
fn fill(session: &mut Session, seed: u8) {
    for chunk in 0..128_u64 {
        let data = Bytes::from(vec![seed ^ chunk as u8; CHUNK_BYTES]);
        session.write(lun(), chunk * 128, data, 512, false).unwrap();
    }
    session.synchronize_cache(lun()).unwrap();
}

/// Checks what [`fill`] wrote.
fn check(session: &mut Session, seed: u8) {
    for chunk in 0..128_u64 {
        let data = session.read(lun(), chunk * 128, 128, 512).unwrap();
        assert!(
            data.iter().all(|byte| *byte == seed ^ chunk as u8),
            "chunk {chunk}"
        );
    }
}

/// A command that waits for jobs: its last line, after the lines of progress.
fn wait(daemon: &Daemon, arguments: &[&str]) -> Value {
    let output = daemon.run(&[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.pop().unwrap();
    for line in lines {
        assert!(line["progress"]["total_bytes"].is_u64(), "{line}");
    }
    last
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn events(daemon: &Daemon, name: &str) -> Vec<Value> {
    let output = daemon.run(&["events", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["event"] == name)
        .collect()
}

fn names(value: &Value) -> Vec<&str> {
    let names = value.as_array().unwrap().iter();
    names.map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn layouts_are_made_shown_and_grown() {
    let daemon = daemon(4);
    let made = volume(
        &daemon,
        &[
            "--layout",
            "striped",
            "--columns",
            "2",
            "--stripe-unit",
            "16K",
            "--mirrors",
            "2",
        ],
    );
    assert_eq!(made["layout"], "striped");
    assert_eq!((&made["columns"], &made["mirrors"]), (&json!(2), &json!(2)));
    assert_eq!(made["stripe_unit_bytes"], 16 << 10);
    assert_eq!(made["health"], "good");
    assert_eq!(made["job"], Value::Null);
    let plexes = made["plexes"].as_array().unwrap();
    assert_eq!(plexes.len(), 2);
    for plex in plexes {
        assert_eq!(plex["state"], "attached");
        assert_eq!(plex["synced_percent"], 100);
        assert_eq!(names(&plex["devices"]).len(), 2);
    }
    let (one, two) = (names(&plexes[0]["devices"]), names(&plexes[1]["devices"]));
    assert!(
        one.iter().all(|d| !two.contains(d)),
        "copies share a device"
    );
    assert_eq!(names(&made["keys_on"]).len(), 3, "three copies of the keys");

    let map = daemon.json(&["volume", "map", "v"]);
    let extents = map["extents"].as_array().unwrap();
    for (copy, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let lengths = extents
            .iter()
            .filter(|e| e["region"] == "public" && e["copy"] == copy && e["column"] == column)
            .map(|e| e["length_bytes"].as_u64().unwrap());
        assert!(lengths.sum::<u64>() >= 16 << 20, "{copy} {column}");
    }
    let at = daemon.json(&["volume", "map", "v", "16K"]);
    assert_eq!(
        at["extents"].as_array().unwrap().len(),
        2,
        "one for each copy"
    );

    let mut vm = log_in(&daemon);
    fill(&mut vm, 1);
    daemon.json(&["volume", "grow", "v", "48M"]);
    vm.clear_unit_attentions(lun()).unwrap();
    let blocks = vm.read_capacity(lun()).unwrap().last_lba + 1;
    assert_eq!(blocks, (48 << 20) / 512);
    check(&mut vm, 1);
    daemon.json(&["volume", "rename", "v", "w"]);
    let renamed = daemon.json(&["volume", "show", "w"]);
    assert_eq!(
        (&renamed["uuid"], &renamed["naa"]),
        (&made["uuid"], &made["naa"])
    );
    daemon.fails(5, &["volume", "show", "v"]);
    check(&mut vm, 1);
    daemon.fails(
        2,
        &[
            "volume",
            "create",
            "x",
            "--size",
            "1M",
            "--layout",
            "linear",
            "--columns",
            "2",
        ],
    );
    daemon.fails(
        6,
        &[
            "volume",
            "create",
            "x",
            "--size",
            "1M",
            "--mirrors",
            "4",
            "--on",
            "d1,d2",
        ],
    );
}

#[test]
fn a_mirror_is_added_verified_and_removed_under_an_initiator() {
    let daemon = daemon(3);
    volume(&daemon, &["--on", "d1"]);
    let mut vm = log_in(&daemon);
    fill(&mut vm, 2);
    let done = wait(&daemon, &["volume", "add-mirror", "v", "--on", "d2"]);
    assert_eq!(
        done["jobs"],
        json!([{"volume": "v", "job": "add-mirror", "outcome": "done", "reason": null}])
    );
    let shown = daemon.json(&["volume", "show", "v"]);
    assert_eq!(
        (&shown["mirrors"], &shown["health"]),
        (&json!(2), &json!("good"))
    );
    assert_eq!(shown["devices"], json!(["d1", "d2"]));
    fill(&mut vm, 3);
    let verified = wait(&daemon, &["volume", "verify", "v"]);
    assert_eq!(verified["verified"]["mismatched_bytes"], 0);
    assert_eq!(verified["verified"]["checked_bytes"], 32 << 20);

    let left = daemon.json(&["volume", "remove-mirror", "v", "--on", "d1"]);
    assert_eq!(
        (&left["mirrors"], &left["devices"]),
        (&json!(1), &json!(["d2"]))
    );
    check(&mut vm, 3);
    daemon.fails(6, &["volume", "remove-mirror", "v"]);
    daemon.fails(6, &["volume", "add-mirror", "v", "--on", "d2"]);
    daemon.fails(5, &["job", "show", "v"]);
    assert_eq!(daemon.json(&["job", "list"]), json!([]));
    assert_eq!(events(&daemon, "job-done")[0]["job"], "add-mirror");
    assert_eq!(
        events(&daemon, "mirror-removed")[0]["devices"],
        json!(["d1"])
    );
}

#[test]
fn a_volume_moves_with_its_keys_and_nobody_notices() {
    let daemon = daemon(6);
    volume(&daemon, &["--on", "d1", "--keys-on", "d1,d2,d3"]);
    let mut vm = log_in(&daemon);
    vm.register(lun(), 0, 0xa1, true).unwrap();
    vm.reserve(lun(), 0xa1, TYPE).unwrap();
    fill(&mut vm, 4);
    let identity = |volume: &Value| (volume["lun"].clone(), volume["naa"].clone());
    let before = (
        daemon.json(&["volume", "show", "v"]),
        daemon.json(&["keys", "v"]),
    );
    wait(
        &daemon,
        &[
            "volume",
            "migrate",
            "v",
            "--to",
            "d4,d5",
            "--keys-to",
            "d4,d5,d6",
            "--layout",
            "striped",
        ],
    );
    let after = (
        daemon.json(&["volume", "show", "v"]),
        daemon.json(&["keys", "v"]),
    );
    assert_eq!(identity(&after.0), identity(&before.0));
    assert_eq!(after.0["devices"], json!(["d4", "d5"]));
    assert_eq!(after.0["layout"], "striped");
    for field in ["generation", "reservation", "registrations"] {
        assert_eq!(after.1[field], before.1[field], "{field}");
    }
    let mut on = names(&after.0["keys_on"]);
    on.sort_unstable();
    assert_eq!(on, ["d4", "d5", "d6"]);
    check(&mut vm, 4);
    // The old devices hold nothing any more.
    for device in ["d1", "d2", "d3"] {
        daemon.json(&["device", "remove", device]);
    }
    check(&mut vm, 4);
    fill(&mut vm, 5);
}

#[test]
fn jobs_are_paused_limited_cancelled_and_outlive_the_daemon() {
    let mut daemon = daemon(2);
    volume(&daemon, &["--on", "d1"]);
    fill(&mut log_in(&daemon), 6);
    let migrate = [
        "volume", "migrate", "v", "--to", "d2", "--rate", "1M", "--detach",
    ];
    let begun = daemon.json(&migrate);
    assert_eq!(begun["jobs"][0]["job"], "migrate");
    let show = |daemon: &Daemon| daemon.json(&["job", "show", "v"]);
    let job = show(&daemon);
    assert_eq!(job["state"], "running");
    assert_eq!(job["limit_bytes_per_second"], 1 << 20);
    assert_eq!(job["to"], json!(["d2"]));
    assert_eq!(
        daemon.json(&["volume", "show", "v"])["job"]["job"],
        "migrate"
    );
    assert_eq!(
        daemon.json(&["volume", "migrate", "v", "--pause"])["state"],
        "paused"
    );
    daemon.fails(6, &["volume", "add-mirror", "v"]);
    daemon.kill();
    daemon.restart(&PORTAL);
    assert_eq!(show(&daemon)["state"], "paused", "also over a crash");
    daemon.json(&["job", "cancel", "v"]);
    eventually("the end of the job", || {
        daemon.json(&["job", "list"]) == json!([])
    });
    assert_eq!(
        daemon.json(&["volume", "show", "v"])["devices"],
        json!(["d1"])
    );

    daemon.json(&migrate);
    daemon.kill();
    daemon.restart(&PORTAL);
    assert_eq!(show(&daemon)["limit_bytes_per_second"], 1 << 20);
    daemon.json(&["job", "rate", "v", "auto"]);
    let done = wait(&daemon, &["job", "wait", "v"]);
    assert_eq!(done["jobs"][0]["outcome"], "done");
    assert_eq!(
        daemon.json(&["volume", "show", "v"])["devices"],
        json!(["d2"])
    );
    check(&mut log_in(&daemon), 6);
    daemon.fails(5, &["job", "cancel", "v"]);
}

#[test]
fn a_device_fails_comes_back_and_is_evacuated() {
    let daemon = daemon(4);
    volume(
        &daemon,
        &["--mirrors", "2", "--on", "d1,d2", "--keys-on", "d1,d2,d3"],
    );
    let mut vm = log_in(&daemon);
    fill(&mut vm, 7);
    let failed = daemon.json(&["device", "fail", "d2"]);
    assert_eq!(failed["state"], "failed");
    let shown = daemon.json(&["volume", "show", "v"]);
    assert_eq!(
        (&shown["health"], &shown["state"]),
        (&json!("degraded"), &json!("online"))
    );
    assert_eq!(daemon.json(&["pool", "show"])["state"], "degraded");
    let message = daemon.fails(6, &["device", "fail", "d1"]);
    assert!(
        message.contains('v'),
        "it says what would be lost: {message}"
    );
    fill(&mut vm, 8);
    let back = daemon.json(&["device", "online", "d2"]);
    assert_ne!(back["state"], "failed");
    eventually("the resync", || {
        daemon.json(&["volume", "show", "v"])["health"] == "good"
    });
    assert_eq!(
        wait(&daemon, &["volume", "verify", "v"])["verified"]["mismatched_bytes"],
        0
    );
    check(&mut vm, 8);
    for event in [
        "device-failed",
        "plex-detached",
        "device-back",
        "plex-attached",
    ] {
        assert!(!events(&daemon, event).is_empty(), "{event}");
    }
    assert!(events(&daemon, "device-failed")[0]["by"]["uid"].is_u64());

    daemon.fails(6, &["device", "remove", "d1"]);
    daemon.json(&["volume", "delete", "v", "--force"]);
    let create = ["volume", "create", "v", "--size", "32M", "--on", "d1"];
    daemon.json(&[&create[..], &["--keys-on", "d2,d3,d4"]].concat());
    let moved = wait(&daemon, &["device", "evacuate", "d1"]);
    assert_eq!(moved["jobs"][0]["job"], "evacuate");
    let devices = daemon.json(&["volume", "show", "v"])["devices"].clone();
    let from = names(&devices)[0];
    assert_ne!(from, "d1");
    daemon.json(&["device", "remove", "d1"]);
    daemon.add_device("d5", "128M");
    let replaced = wait(&daemon, &["device", "replace", from, "d5"]);
    assert_eq!(replaced["jobs"][0]["job"], "replace");
    assert_eq!(
        daemon.json(&["volume", "show", "v"])["devices"],
        json!(["d5"])
    );
    eventually("the replaced device leaves the pool", || {
        !events(&daemon, "device-replaced").is_empty()
    });
    daemon.fails(5, &["device", "show", from]);
}

#[test]
fn a_pool_moves_to_another_daemon_with_volumes_grants_and_keys() {
    let old = daemon(2);
    let devices = old.json(&["device", "list"]);
    let roles: Vec<&str> = devices
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["data", "data", "witness"]);
    volume(&old, &["--mirrors", "2"]);
    let mut vm = log_in(&old);
    vm.register(lun(), 0, 0xa1, false).unwrap();
    fill(&mut vm, 9);
    let before = (old.json(&["volume", "show", "v"]), old.json(&["keys", "v"]));
    let message = old.fails(6, &["pool", "export"]);
    assert!(message.contains(VM), "{message}");
    vm.logout().unwrap();
    let exported = old.json(&["pool", "export"]);
    assert_eq!(exported["volumes"], 1);
    assert_eq!(old.json(&["pool", "show"])["state"], "empty");
    assert_eq!(old.json(&["device", "list"]), json!([]));
    assert_eq!(old.json(&["volume", "list"]), json!([]));
    old.fails(6, &["pool", "export"]);

    let mut new = Daemon::start();
    let (d1, d2) = (old.path("d1.img"), old.path("d2.img"));
    new.fails(5, &["pool", "import", "/nowhere/at/all"]);
    let imported = new.json(&["pool", "import", text(&d1), text(&d2)]);
    assert_eq!(imported["uuid"], exported["uuid"]);
    new.fails(6, &["pool", "import", text(&d1), text(&d2)]);
    let mut vm = log_in(&new);
    check(&mut vm, 9);
    let after = (new.json(&["volume", "show", "v"]), new.json(&["keys", "v"]));
    for field in ["name", "lun", "uuid", "naa", "size_bytes", "mirrors"] {
        assert_eq!(after.0[field], before.0[field], "{field}");
    }
    for field in ["generation", "registrations"] {
        assert_eq!(
            after.1[field], before.1[field],
            "{field}: also without APTPL"
        );
    }
    // It is there again at the next start, with a witness of its own.
    eventually("a witness", || {
        let devices = new.json(&["device", "list"]);
        let mut devices = devices.as_array().unwrap().iter();
        devices.len() == 3 && devices.all(|device| device["state"] == "online")
    });
    new.kill();
    new.restart(&PORTAL);
    check(&mut log_in(&new), 9);
    // The old daemon can start a pool of its own, or take this one back.
    new.json(&["pool", "export"]);
    old.json(&["pool", "import", text(&d1), text(&d2)]);
    check(&mut log_in(&old), 9);
}

#[test]
fn either_of_two_disks_may_be_lost() {
    let mut daemon = daemon(2);
    volume(&daemon, &["--mirrors", "2"]);
    let mut vm = log_in(&daemon);
    vm.register(lun(), 0, 0xa1, true).unwrap();
    fill(&mut vm, 10);
    let keys = daemon.json(&["keys", "v"]);
    for lost in ["d1.img", "d2.img"] {
        assert_eq!(daemon.terminate(), Some(0));
        std::fs::rename(daemon.path(lost), daemon.path("away")).unwrap();
        daemon.restart(&PORTAL);
        let shown = daemon.json(&["volume", "show", "v"]);
        assert_eq!(shown["state"], "online", "{lost}: {shown}");
        assert_eq!(shown["health"], "degraded");
        assert_eq!(
            daemon.json(&["keys", "v"])["registrations"],
            keys["registrations"]
        );
        check(&mut log_in(&daemon), 10);
        std::fs::rename(daemon.path("away"), daemon.path(lost)).unwrap();
        let device = lost.strip_suffix(".img").unwrap();
        daemon.json(&["device", "online", device]);
        eventually("the resync", || {
            daemon.json(&["volume", "show", "v"])["health"] == "good"
        });
    }
    check(&mut log_in(&daemon), 10);
}

#[test]
fn lost_keys_stop_the_volume_and_a_person_recovers_them() {
    let mut daemon = daemon(5);
    volume(&daemon, &["--on", "d4", "--keys-on", "d1,d2,d3"]);
    let mut vm = log_in(&daemon);
    vm.register(lun(), 0, 0xa1, true).unwrap();
    vm.reserve(lun(), 0xa1, TYPE).unwrap();
    fill(&mut vm, 11);
    daemon.fails(6, &["keys", "recover", "v", "--from", "d1", "--yes"]);
    drop(vm);
    daemon.kill();
    for device in ["d1.img", "d2.img"] {
        std::fs::remove_file(daemon.path(device)).unwrap();
    }
    daemon.restart(&PORTAL);
    let shown = daemon.json(&["volume", "show", "v"]);
    assert_eq!(
        (&shown["state"], &shown["health"]),
        (&json!("not-served"), &json!("not-served"))
    );
    let keys = daemon.json(&["keys", "v"]);
    assert!(keys["reason"].is_string());
    assert_eq!(keys["generation"], Value::Null);
    assert_eq!(keys["quorum"], json!({"current": 0, "of": 3, "needed": 2}));

    let recover = ["keys", "recover", "v", "--from", "d3"];
    let shown = daemon.json(&[&recover[..], &["--dry-run"]].concat());
    assert_eq!(shown["chosen"]["devices"], json!(["d3"]));
    assert_eq!(shown["chosen"]["registrations"][0]["initiator"], VM);
    assert_eq!(shown["unreadable"].as_array().unwrap().len(), 2);
    let output = daemon.run(&recover);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(6),
        "nobody is there to ask: {stderr}"
    );
    assert!(
        stderr.contains(VM) && stderr.contains("AFTERWARDS (--until registered)"),
        "it shows first what goes and what comes: {stderr}"
    );
    daemon.fails(
        2,
        &[&recover[..], &["--clear", "--until", "replaced"]].concat(),
    );
    daemon.fails(2, &["keys", "recover", "v", "--until", "replaced"]);
    daemon.fails(6, &["keys", "recover", "v", "--from", "d4", "--dry-run"]);

    let output = daemon.run(&[&recover[..], &["--yes", "--json"]].concat());
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let shown = daemon.json(&["volume", "show", "v"]);
    assert_eq!(shown["state"], "online", "{shown}");
    let event = &events(&daemon, "keys-recovered")[0];
    assert_eq!(
        (&event["device"], &event["until"]),
        (&json!("d3"), &json!("registered"))
    );
    let keys = daemon.json(&["keys", "v"]);
    assert_eq!(
        (&keys["lost_until"], &keys["registrations"][0]["recovered"]),
        (&json!("registered"), &json!(true)),
        "{keys}"
    );
    let told = connect(&daemon).clear_unit_attentions(lun()).unwrap_err();
    let told = told.sense().unwrap().additional;
    assert_eq!((told.code, told.qualifier), (0x44, 0x01));
    daemon.fails(6, &["keys", "recover", "v", "--clear"]);
    daemon.json(&["keys", "recover", "v", "--clear", "--yes"]);
    check(&mut log_in(&daemon), 11);
    let keys = daemon.json(&["keys", "v"]);
    assert_eq!(keys["registrations"], json!([]));
    assert_eq!(
        (&keys["reason"], &keys["lost_until"]),
        (&Value::Null, &Value::Null)
    );
    daemon.fails(6, &["keys", "recover", "v", "--clear", "--yes"]);
}
