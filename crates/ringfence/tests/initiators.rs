//! The real daemon with initiators that are logged in.
#![allow(clippy::unwrap_used)] // a test fails by panicking, in its helpers too

mod common;

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use common::{Daemon, text};
use initiator::{Chap, Config, Error, ReservationType, Session};
use scsi::Lun;
use serde_json::{Value, json};

const TYPE: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;

fn name(vm: &str) -> String {
    format!("iqn.2026-11.com.example:{vm}")
}

fn config(vm: &str) -> Config {
    let kind = iscsi::initiator::Session::Normal {
        target_name: "iqn.2026-11.dev.ringfence:test".to_owned(),
    };
    Config::new(name(vm), [0x80, 0, 0, 0, 0, 1], kind)
}

fn log_in(daemon: &Daemon, vm: &str) -> Session {
    let mut session = Session::connect(daemon.portals[0].parse().unwrap(), config(vm)).unwrap();
    session.clear_unit_attentions(lun()).unwrap();
    session
}

fn lun() -> Lun {
    Lun::new(0).unwrap()
}

fn write(session: &mut Session, byte: u8) -> Result<(), Error> {
    session.write(lun(), 0, Bytes::from(vec![byte; 512]), 512, false)
}

/// A daemon with the volume `v1`, granted to `vm1` and `vm2`.
fn daemon() -> Daemon {
    let daemon = Daemon::start();
    daemon.add_device("d1", "64M");
    let volume = daemon.json(&["volume", "create", "v1", "--size", "16M"]);
    assert_eq!(volume["lun"], 0);
    for vm in ["vm1", "vm2"] {
        daemon.json(&["grant", "v1", &name(vm), "rw"]);
    }
    daemon
}

fn events(daemon: &Daemon) -> Vec<Value> {
    let output = daemon.run(&["events", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn last(daemon: &Daemon, event: &str) -> Value {
    let all = events(daemon);
    let found = all.iter().rev().find(|e| e["event"] == event);
    found
        .unwrap_or_else(|| panic!("no {event} in {all:?}"))
        .clone()
}

#[test]
fn sessions_are_listed_and_dropped() {
    let daemon = daemon();
    let mut vm1 = log_in(&daemon, "vm1");
    let (local, _) = vm1.addresses().unwrap();
    let sessions = daemon.json(&["session", "list"]);
    let session = &sessions[0];
    assert_eq!(sessions.as_array().map(Vec::len), Some(1));
    assert_eq!(session["initiator"], name("vm1"));
    assert_eq!(session["isid"], "0x800000000001");
    assert_eq!(session["target_port"], 1);
    assert_eq!(session["portal"], daemon.portals[0]);
    assert_eq!(session["address"], local.to_string());
    assert_eq!(
        (&session["kind"], &session["auth"]),
        (&json!("normal"), &json!("none"))
    );
    assert_eq!(daemon.json(&["volume", "show", "v1"])["sessions"], 1);

    let id = session["id"].to_string();
    assert_eq!(
        daemon.json(&["session", "drop", &id])["dropped"],
        session["id"]
    );
    assert_eq!(daemon.json(&["session", "list"]), json!([]));
    assert!(vm1.test_unit_ready(lun()).is_err(), "the session is gone");
    daemon.fails(5, &["session", "drop", &id]);
    let dropped = last(&daemon, "session-dropped");
    assert_eq!(dropped["session"], session["id"]);
    assert_eq!(dropped["party"]["initiator"], name("vm1"));
    assert_eq!(last(&daemon, "session-ended")["session"], session["id"]);
    log_in(&daemon, "vm1").test_unit_ready(lun()).unwrap();
}

#[test]
fn registrations_outlive_session_and_daemon_and_protect_the_volume() {
    let mut daemon = daemon();
    let mut vm1 = log_in(&daemon, "vm1");
    vm1.register(lun(), 0, 0xa1, true).unwrap();
    vm1.reserve(lun(), 0xa1, TYPE).unwrap();
    let message = daemon.fails(6, &["volume", "delete", "v1"]);
    assert!(
        message.contains(&name("vm1")) && message.contains("1 registration"),
        "{message}"
    );
    vm1.logout().unwrap();
    let keys = daemon.json(&["keys", "v1"]);
    assert_eq!(
        keys["reservation"],
        json!({
            "type": "write-exclusive-registrants-only",
            "key": "0x00000000000000a1",
            "holder": name("vm1"),
        })
    );
    assert_eq!(
        keys["registrations"],
        json!([{
            "key": "0x00000000000000a1",
            "initiator": name("vm1"),
            "isid": "0x800000000001",
            "target_port": 1,
            "aptpl": true,
            "holder": true,
            "recovered": false,
        }])
    );
    let portal = daemon.portals[0].clone();
    daemon.kill();
    daemon.restart(&["--portal", &portal]);
    assert_eq!(daemon.json(&["keys", "v1"]), keys);
    assert!(
        write(&mut log_in(&daemon, "vm2"), 2)
            .unwrap_err()
            .is_reservation_conflict()
    );
    write(&mut log_in(&daemon, "vm1"), 1).unwrap();

    let message = daemon.fails(6, &["volume", "delete", "v1"]);
    assert!(message.contains("1 registration"), "{message}");
    daemon.json(&["volume", "delete", "v1", "--force"]);
    let deleted = last(&daemon, "volume-deleted");
    assert_eq!(
        (&deleted["volume"], &deleted["forced"]),
        (&json!("v1"), &json!(true))
    );
}

#[test]
fn the_audit_trail_says_who_fenced_whom_from_where() {
    let daemon = daemon();
    let mut vm1 = log_in(&daemon, "vm1");
    let mut vm2 = log_in(&daemon, "vm2");
    for (vm, key) in [(&mut vm1, 0xa1), (&mut vm2, 0xb2)] {
        vm.register(lun(), 0, key, true).unwrap();
    }
    vm1.reserve(lun(), 0xa1, TYPE).unwrap();
    write(&mut vm2, 2).unwrap();
    vm1.preempt_and_abort(lun(), 0xa1, 0xb2, TYPE).unwrap();
    vm2.clear_unit_attentions(lun()).unwrap();
    assert!(write(&mut vm2, 3).unwrap_err().is_reservation_conflict());

    let address = |vm: &Session| json!(vm.addresses().unwrap().0.to_string());
    let preempted = last(&daemon, "preempted");
    assert_eq!(preempted["volume"], "v1");
    assert_eq!(preempted["party"]["initiator"], name("vm2"));
    assert_eq!(preempted["party"]["key"], "0x00000000000000b2");
    assert_eq!(preempted["party"]["address"], address(&vm2));
    assert_eq!(preempted["by"]["initiator"], name("vm1"));
    assert_eq!(preempted["by"]["address"], address(&vm1));
    let fenced = last(&daemon, "fenced");
    assert_eq!(fenced["party"]["initiator"], name("vm2"));
    assert_eq!(fenced["by"]["initiator"], name("vm1"));
    assert_eq!(fenced["aborted"], true);
    for (event, key) in [("registered", "party"), ("reserved", "holder")] {
        assert_eq!(last(&daemon, event)["volume"], "v1", "{event}");
        assert!(
            last(&daemon, event)[key]["initiator"].is_string(),
            "{event}"
        );
    }
    drop(vm1);
    drop(vm2);
}

#[test]
fn a_grant_taken_away_fences_and_is_the_operators_doing() {
    let daemon = daemon();
    let mut vm1 = log_in(&daemon, "vm1");
    write(&mut vm1, 1).unwrap();
    daemon.json(&["grant", "v1", &name("vm1"), "ro"]);
    assert!(write(&mut vm1, 2).is_err(), "read only");
    daemon.json(&["grant", "v1", &name("vm1"), "none"]);
    assert!(vm1.read(lun(), 0, 1, 512).is_err(), "nothing");
    let fenced = last(&daemon, "fenced");
    assert_eq!(fenced["party"]["initiator"], name("vm1"));
    assert_eq!(fenced["by"]["uid"], rustix::process::geteuid().as_raw());
    daemon.json(&["grant", "v1", &name("vm1"), "rw"]);
    vm1.clear_unit_attentions(lun()).unwrap();
    let data = vm1.read(lun(), 0, 1, 512).unwrap();
    assert!(
        data.iter().all(|byte| *byte == 1),
        "what was written without the grant is there"
    );
}

#[test]
fn term_ends_sessions_and_exits_with_zero() {
    let mut daemon = daemon();
    let mut vm1 = log_in(&daemon, "vm1");
    write(&mut vm1, 1).unwrap();
    assert_eq!(daemon.terminate(), Some(0));
    assert!(vm1.test_unit_ready(lun()).is_err());
    let ended: Vec<Value> = events(&daemon)
        .into_iter()
        .filter(|event| event["event"] == "session-ended" || event["event"] == "daemon-stopped")
        .map(|event| event["event"].clone())
        .collect();
    assert_eq!(ended, ["session-ended", "daemon-stopped"]);
}

#[test]
fn chap_lets_in_who_knows_the_secret() {
    let mut daemon = Daemon::without_process();
    let file = daemon.path("chap");
    let lines = format!(
        "vm1 secret-of-vm1-0 head secret-of-the-head\nvm2 secret-of-vm2-0 initiator={}\n",
        name("vm2")
    );
    std::fs::write(&file, lines).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let options = ["--portal", "127.0.0.1:0", "--chap-file"].map(str::to_owned);
    let path = text(&file).to_owned();
    let options: Vec<&str> = options.iter().chain([&path]).map(String::as_str).collect();
    daemon.restart(&options);
    let portal = daemon.portals[0].parse().unwrap();
    let attempt = |vm: &str, chap: Option<Chap>| {
        let mut config = config(vm);
        config.chap = chap;
        Session::connect(portal, config)
    };
    assert!(attempt("vm1", None).is_err());
    assert!(attempt("vm1", Some(Chap::new("vm1", "a wrong secret"))).is_err());
    assert!(
        attempt("vm1", Some(Chap::new("vm2", "secret-of-vm2-0"))).is_err(),
        "bound to vm2"
    );
    let mut mutual = Chap::new("vm1", "secret-of-vm1-0");
    mutual.target = Some(("head".to_owned(), b"secret-of-the-head".to_vec()));
    let _one_way = attempt("vm2", Some(Chap::new("vm2", "secret-of-vm2-0"))).unwrap();
    let _mutual = attempt("vm1", Some(mutual)).unwrap();
    let sessions = daemon.json(&["session", "list"]);
    let auth: Vec<_> = sessions
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["auth"].clone())
        .collect();
    assert_eq!(auth, ["chap", "mutual-chap"]);
    let refused: Vec<Value> = events(&daemon)
        .into_iter()
        .filter(|event| event["event"] == "login-refused")
        .collect();
    assert_eq!(refused.len(), 3);
    for event in refused {
        assert_eq!(event["initiator"], name("vm1"));
        assert_eq!(event["reason"], "authentication failure (0201h)");
    }
}
