//! The real daemon, steered over its command line.

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::{Daemon, text};
use serde_json::{Value, json};

const VM1: &str = "iqn.2026-11.com.example:vm1";

#[test]
fn without_a_daemon_every_command_says_how_to_start_it() {
    let daemon = Daemon::without_process();
    for command in [
        &["device", "list"][..],
        &["volume", "list"],
        &["status"],
        &["keys", "v"],
        &["session", "list"],
        &["events", "--follow"],
        &["events"],
    ] {
        let output = daemon.run(command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{command:?}: {stderr}");
        assert!(stderr.contains("ringfence serve --state"), "{stderr}");
    }
}

#[test]
fn devices_come_and_go() {
    let daemon = Daemon::start();
    assert_eq!(daemon.json(&["device", "list"]), json!([]));
    let device = daemon.add_device("d1", "64M");
    assert_eq!(device["name"], "d1");
    assert_eq!(device["state"], "online");
    assert_eq!(device["size_bytes"], 64 << 20);
    assert_eq!(device["used_bytes"], 0);
    assert_eq!(device["volumes"], json!([]));
    assert_eq!(daemon.json(&["device", "show", "d1"]), device);

    let path = daemon.path("d1.img");
    assert!(
        daemon
            .fails(6, &["device", "add", "d1", "/nowhere"])
            .contains("already")
    );
    assert!(
        daemon
            .fails(6, &["device", "add", "d2", text(&path)])
            .contains("already")
    );
    let link = daemon.path("link.img");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(
        daemon
            .fails(6, &["device", "add", "d2", text(&link)])
            .contains("already")
    );
    assert!(
        daemon
            .fails(6, &["device", "add", "d2", text(&path), "--size", "64M"])
            .contains("already")
    );
    daemon.fails(5, &["device", "add", "d2", "/nowhere/at/all"]);
    daemon.fails(6, &["device", "add", "d2", "/dev/null"]);
    let small = daemon.path("small.img");
    daemon.fails(6, &["device", "add", "d2", text(&small), "--size", "4K"]);
    assert!(
        !small.exists(),
        "the file of a device that was refused is left behind"
    );
    daemon.fails(5, &["device", "show", "d2"]);
    daemon.fails(5, &["device", "remove", "d2"]);

    daemon.json(&["volume", "create", "v1", "--size", "16M"]);
    let message = daemon.fails(6, &["device", "remove", "d1"]);
    assert!(
        message.contains("v1"),
        "it says who uses the device: {message}"
    );
    daemon.json(&["volume", "delete", "v1"]);
    assert_eq!(
        daemon.json(&["device", "remove", "d1"]),
        json!({"removed": "d1"})
    );
    assert_eq!(daemon.json(&["device", "list"]), json!([]));
}

#[test]
fn volumes_grants_and_keys() {
    let daemon = Daemon::start();
    daemon.fails(6, &["volume", "create", "v1", "--size", "16M"]);
    daemon.add_device("d1", "64M");
    daemon.add_device("d2", "64M");
    let create = [
        "volume",
        "create",
        "v1",
        "--size",
        "16M",
        "--on",
        "d1",
        "--keys-on",
        "d2",
    ];
    let volume = daemon.json(&create);
    assert_eq!(volume["name"], "v1");
    assert_eq!(volume["state"], "online");
    assert_eq!(volume["size_bytes"], 16 << 20);
    assert_eq!(volume["block_size_bytes"], 512);
    assert_eq!(volume["devices"], json!(["d1"]));
    assert_eq!(volume["keys_on"], json!(["d2"]));
    assert_eq!(volume["persist"], "aptpl");
    assert_eq!(volume["reason"], Value::Null);
    assert_eq!(volume["naa"].as_str().map(str::len), Some(18));
    let second = daemon.json(&[
        "volume",
        "create",
        "v2",
        "--size",
        "16M",
        "--block-size",
        "4096",
        "--persist",
        "always",
    ]);
    assert_eq!(second["block_size_bytes"], 4096);
    assert_eq!(second["persist"], "always");
    assert_ne!(second["lun"], volume["lun"]);
    assert_eq!(daemon.json(&["volume", "list"]), json!([volume, second]));
    assert_eq!(daemon.json(&["volume", "show", "v1"]), volume);
    daemon.fails(6, &create);
    daemon.fails(6, &["volume", "create", "v3", "--size", "1T"]);
    daemon.fails(5, &["volume", "create", "v3", "--size", "1M", "--on", "d9"]);
    daemon.fails(5, &["volume", "show", "v9"]);

    let grown = daemon.json(&["volume", "grow", "v1", "+8M"]);
    assert_eq!(grown["size_bytes"], 24 << 20);
    daemon.fails(6, &["volume", "grow", "v1", "24M"]);
    daemon.fails(6, &["volume", "grow", "v1", "1T"]);
    let map = daemon.json(&["volume", "map", "v1"]);
    let sum = |region: &str, device: &str| -> u64 {
        let extents = map["extents"].as_array().unwrap().iter();
        extents
            .filter(|extent| extent["region"] == region && extent["device"] == device)
            .map(|extent| extent["length_bytes"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(sum("public", "d1"), 24 << 20);
    assert_eq!(sum("public", "d2"), 0);
    assert_eq!(sum("private", "d1"), 0);
    assert!(sum("private", "d2") > 0);
    let one = daemon.json(&["volume", "map", "v1", "1M"]);
    assert_eq!(one["extents"][0]["offset_bytes"], 1 << 20);
    daemon.fails(2, &["volume", "map", "v1", "24M"]);

    let everyone = json!({"volume": "v1", "initiator": "*", "access": "none"});
    assert_eq!(daemon.json(&["grants", "v1"])["grants"], json!([everyone]));
    let granted = daemon.json(&["grant", "v1", VM1, "rw"]);
    assert_eq!(
        granted,
        json!({"volume": "v1", "initiator": VM1, "access": "rw"})
    );
    assert_eq!(
        daemon.json(&["grants", "v1"])["grants"],
        json!([everyone, granted])
    );
    daemon.fails(5, &["grant", "v9", VM1, "rw"]);
    daemon.fails(2, &["grant", "v1", "vm1", "rw"]);

    let keys = daemon.json(&["keys", "v1"]);
    assert_eq!(keys["generation"], 0);
    assert_eq!(keys["reservation"], Value::Null);
    assert_eq!(keys["registrations"], json!([]));
    assert_eq!(keys["replicas"][0]["device"], "d2");
    assert_eq!(keys["replicas"][0]["state"], "current");
    daemon.fails(5, &["keys", "v9"]);

    assert_eq!(daemon.json(&["session", "list"]), json!([]));
    daemon.fails(5, &["session", "drop", "1"]);
    daemon.json(&["volume", "delete", "v1"]);
    daemon.fails(5, &["volume", "delete", "v1"]);
}

#[test]
fn everything_is_there_again_after_kill_and_after_term() {
    let mut daemon = Daemon::start();
    daemon.add_device("d1", "64M");
    let volume = daemon.json(&["volume", "create", "v1", "--size", "16M"]);
    daemon.json(&["grant", "v1", "*", "ro"]);
    let before = (
        daemon.json(&["device", "list"]),
        daemon.json(&["grants", "v1"]),
    );
    for how in ["kill", "term"] {
        match how {
            "kill" => daemon.kill(),
            _ => assert_eq!(daemon.terminate(), Some(0)),
        }
        daemon.restart(&["--portal", "127.0.0.1:0"]);
        assert_eq!(daemon.json(&["volume", "show", "v1"]), volume, "{how}");
        let after = (
            daemon.json(&["device", "list"]),
            daemon.json(&["grants", "v1"]),
        );
        assert_eq!(after, before, "{how}");
    }
    assert_eq!(daemon.terminate(), Some(0));
    assert!(!daemon.state().join("control.sock").exists());
    let device = daemon.path("d1.img");
    std::fs::rename(&device, daemon.path("away.img")).unwrap();
    let output = daemon.serve(&["--portal", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "it does not start empty");
    std::fs::rename(daemon.path("away.img"), &device).unwrap();
    daemon.restart(&["--portal", "127.0.0.1:0"]);
    assert_eq!(daemon.json(&["volume", "show", "v1"]), volume);
}

#[test]
fn a_second_daemon_is_refused_on_the_same_state_device_or_portal() {
    let daemon = Daemon::start();
    daemon.add_device("d1", "64M");
    let refused = |output: std::process::Output, why: &str| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    };
    let free = ["--portal", "127.0.0.1:0"];
    refused(daemon.serve(&free).output().unwrap(), "another daemon");

    let mut other = Daemon::without_process();
    let taken = ["--portal", daemon.portals[0].as_str()];
    refused(other.serve(&taken).output().unwrap(), "portal");
    other.restart(&free);
    let path = daemon.path("d1.img");
    other.fails(7, &["device", "add", "d1", text(&path)]);
    assert_eq!(other.terminate(), Some(0));
    let list = json!({"version": 1, "devices": [{"path": path}]});
    std::fs::write(other.state().join("devices.json"), list.to_string()).unwrap();
    refused(other.serve(&free).output().unwrap(), "in use");
}

#[test]
fn portals_status_and_files() {
    let mut daemon = Daemon::without_process();
    daemon.restart(&[
        "--portal",
        "127.0.0.1:0",
        "--portal",
        "[::1]:0",
        "--io",
        "epoll",
    ]);
    let status = daemon.json(&["status"]);
    assert_eq!(status["target_name"], "iqn.2026-11.dev.ringfence:test");
    assert_eq!(status["io"], "epoll");
    for (index, portal) in daemon.portals.iter().enumerate() {
        assert_eq!(status["portals"][index]["address"], *portal);
        assert_eq!(status["portals"][index]["target_port"], index + 1);
        std::net::TcpStream::connect(portal).unwrap();
    }
    assert!(daemon.portals[1].starts_with("[::1]:"));
    let mode = |name: &str| {
        let metadata = std::fs::metadata(daemon.state().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode(""), mode("control.sock"), mode("events.jsonl")),
        (0o700, 0o600, 0o600)
    );
}

#[test]
fn events_tell_who_did_what_also_when_the_daemon_is_gone() {
    let mut daemon = Daemon::start();
    daemon.add_device("d1", "64M");
    daemon.json(&["volume", "create", "v1", "--size", "16M"]);
    let mut follower = std::process::Command::new(common::BINARY)
        .args(["events", "--follow", "--json"])
        .env("RINGFENCE_STATE", daemon.state())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.json(&["grant", "v1", VM1, "rw"]);
    let stream = BufReader::new(follower.stdout.take().unwrap());
    let event = stream
        .lines()
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|event| event["event"] == "grant-changed")
        .unwrap();
    assert_eq!(event["by"]["uid"], rustix::process::geteuid().as_raw());
    follower.kill().unwrap();
    follower.wait().unwrap();

    daemon.json(&["volume", "delete", "v1"]);
    assert_eq!(daemon.terminate(), Some(0));
    let output = daemon.run(&["events", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let events: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    let wanted = [
        "daemon-started",
        "device-added",
        "volume-created",
        "grant-changed",
        "volume-deleted",
        "daemon-stopped",
    ];
    assert_eq!(names, wanted);
    for (event, sequence) in events.iter().zip(1..) {
        assert_eq!(event["sequence"], sequence);
    }
}

#[test]
fn chap_files_that_others_can_read_are_refused() {
    let daemon = Daemon::without_process();
    let file = daemon.path("chap");
    std::fs::write(&file, "vm1 secret-of-vm1-0\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let options = ["--portal", "127.0.0.1:0", "--chap-file", text(&file)];
    let output = daemon.serve(&options).output().unwrap();
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"));
}
