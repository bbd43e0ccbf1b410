//! Fencing methods.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use initiator::Error;
use iscsi::initiator::Fatal;
use serde_json::{Value, json};

use super::lab::{Lab, Node, until};
use crate::targets::Target;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const REFUSED: i32 = 6;
const VOLUMES: [&str; 3] = ["v1", "v2", "v3"];

/// Each method, and what it leaves behind over a restart.
pub(super) fn run(lab: &mut Lab) -> Result<()> {
    let luns = lab.volumes(&VOLUMES)?;
    lab.domain("pair", &VOLUMES, &["a"], &[])?;
    configuration(lab)?;
    lab.member("pair", "b", &["--method", "fabric,reservation"])?;
    let mut a = Node::join(lab, "a", &luns)?;
    let mut b = Node::join(lab, "b", &luns)?;
    b.reserve()?;

    // reservation, by request.
    let fence = ["fence", "pair", "b", "--method", "reservation"];
    let done = lab.daemon.cli_json(&fence)?;
    ensure!(
        done == json!({"domain": "pair", "member": "b", "epoch": 1, "proven": "reservation",
                       "not_served": []}),
        "{done}"
    );
    for lun in &luns {
        ensure!(b.is_fenced_on(*lun)?, "b still writes to {lun:?}");
    }
    let keys = lab.daemon.cli_json(&["keys", "v2"])?;
    ensure!(
        keys["registrations"].as_array().map(Vec::len) == Some(1),
        "{keys}"
    );
    b.session.clear_unit_attentions(luns[0])?;
    let read = b.session.read(luns[0], 0, 1, 512);
    ensure!(
        read.is_err_and(|error| error.is_reservation_conflict()),
        "a fenced member reads"
    );
    mailbox(lab, &mut b)?;
    ensure!(
        lab.daemon.cli_json(&fence)?["epoch"] == 1,
        "fenced again, it is the same fence"
    );
    events_tell(lab)?;
    lab.daemon.cli_ok(&["unfence", "pair", "b"])?;
    ensure!(
        !b.is_fenced_on(luns[0])? || a.session.read_keys(luns[0])?.1.len() == 1,
        "b"
    );

    fabric(lab, &luns)?;
    a = Node::join(lab, "a", &luns)?;
    drop(a);
    reserve_release(lab, &luns)?;
    not_proven(lab)
}

/// A fenced member still reads its mailbox and writes its own slot, and nothing else of it; nobody can reserve it.
fn mailbox(lab: &Lab, b: &mut Node) -> Result<()> {
    const SLOTS: u64 = 128 << 10;
    let shown = lab.daemon.cli_json(&["domain", "show", "pair"])?;
    let mailbox = super::lab::lun(&shown["mailbox"]["lun"])?;
    let slot = lab.shown("pair", "b")?["slot"].as_u64().context("a slot")?;
    b.session.clear_unit_attentions(mailbox)?;
    until("the head has written to the mailbox", || {
        let head = b.session.read(mailbox, 0, 8, 512)?;
        Ok(head.starts_with(b"RINGFMB"))
    })?;
    let own = (SLOTS + slot * 8192) / 512;
    let data = || bytes::Bytes::from(vec![0; 4096]);
    b.session
        .write(mailbox, own, data(), 512, false)
        .context("a member writes its own slot")?;
    for elsewhere in [0, own - 8, own + 16, own + 12] {
        let written = b.session.write(mailbox, elsewhere, data(), 512, false);
        ensure!(
            written.is_err_and(|error| {
                error
                    .sense()
                    .is_some_and(|sense| sense.key == scsi::sense::SenseKey::DataProtect)
            }),
            "b writes block {elsewhere} of the mailbox"
        );
    }
    let registered = b.session.register_and_ignore(mailbox, 7, false);
    ensure!(registered.is_err(), "b registers at the mailbox");
    Ok(())
}

/// What cannot be configured is refused when it is configured.
fn configuration(lab: &Lab) -> Result<()> {
    let add = |initiator: &str, options: &[&str], code: i32| -> Result<Value> {
        let add = [
            "domain",
            "member",
            "add",
            "pair",
            "x",
            "--initiator",
            initiator,
        ];
        lab.exits(code, &[&add, options].concat())
    };
    let free = "iqn.2026-11.com.example:x";
    add(free, &["--method", "stonith:fence_of_nowhere"], REFUSED)?;
    add(free, &["--method", "shout"], USAGE)?;
    add("iqn.2026-11.com.example:a", &[], REFUSED)?;
    lab.exits(REFUSED, &["domain", "create", "other", "--volumes", "v1"])?;
    lab.exits(5, &["domain", "create", "other", "--volumes", "v9"])?;
    let volumes = lab.daemon.cli_json(&["volume", "list"])?;
    let mailboxes = volumes.as_array().map(|all| {
        let named = all.iter().filter_map(|volume| volume["name"].as_str());
        named.filter(|name| name.ends_with("-mailbox")).count()
    });
    ensure!(
        mailboxes == Some(1),
        "a mailbox was left behind by a domain that was refused: {volumes}"
    );
    Ok(())
}

/// The log has the fence from the decision to the proof.
fn events_tell(lab: &Lab) -> Result<()> {
    let text = lab.daemon.cli_ok(&["events", "--json"])?;
    let names: Vec<String> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|event| event["event"].as_str().map(str::to_owned))
        .collect();
    let at = |name: &str| names.iter().position(|event| event == name);
    let order = ["member-fenced", "fenced", "member-revoked", "fence-proven"];
    let found: Vec<Option<usize>> = order.iter().map(|name| at(name)).collect();
    ensure!(
        found.iter().all(Option::is_some) && found.is_sorted(),
        "{order:?} are at {found:?} of the events"
    );
    Ok(())
}

/// Sessions end, logins are refused on every portal, over a restart too, until unfenced.
fn fabric(lab: &mut Lab, luns: &[scsi::Lun]) -> Result<()> {
    let mut b = Node::join(lab, "b", luns)?;
    let done = lab.daemon.cli_json(&["fence", "pair", "b"])?;
    ensure!(done["proven"] == "fabric", "{done}");
    ensure!(
        b.session.ping().is_err(),
        "the session goes on after the fence"
    );
    for restart in [false, true] {
        if restart {
            lab.daemon.kill()?;
            lab.daemon.start()?;
        }
        for portal in 0..2 {
            refused(lab, "b", portal)?;
        }
    }
    lab.daemon.cli_ok(&["unfence", "pair", "b"])?;
    let mut b = Node::join(lab, "b", luns)?;
    ensure!(!b.is_fenced_on(luns[0])?, "b is unfenced and cannot write");
    Ok(())
}

/// Login status 0202h (RFC 7143 11.13.5): authorization failure.
fn refused(lab: &Lab, name: &str, portal: usize) -> Result<()> {
    match lab.try_login(name, portal) {
        Err(Error::Fatal(Fatal::LoginRefused(status))) => {
            let text = format!("{status:?}");
            ensure!(
                status == iscsi::target::LoginStatus::AUTHORIZATION_FAILURE,
                "portal {portal} refuses with {text}"
            );
            Ok(())
        }
        Err(other) => Err(other).context("another error than a refused login"),
        Ok(_) => anyhow::bail!("portal {portal} lets {name} in"),
    }
}

/// The other of two members owns every volume; nobody else gets at them, over a restart too.
fn reserve_release(lab: &mut Lab, luns: &[scsi::Lun]) -> Result<()> {
    for volume in VOLUMES {
        // Somebody who is no member and may write.
        let third = super::lab::initiator_of("third");
        lab.daemon.cli_ok(&["grant", volume, &third, "rw"])?;
    }
    for restart in [false, true] {
        if restart {
            lab.daemon.kill()?;
            lab.daemon.start()?;
        }
        let mut a = Node::observer(lab, "a", luns)?;
        for lun in luns {
            a.session.clear_unit_attentions(*lun)?;
        }
        if !restart {
            // With keys on a volume RESERVE is not possible, and not needed.
            for lun in luns {
                a.session.register_and_ignore(*lun, 1, false)?;
                a.session.clear(*lun, 1)?;
            }
            let fence = ["fence", "pair", "b", "--method", "reserve-release"];
            let done = lab.daemon.cli_json(&fence)?;
            ensure!(done["proven"] == "reserve-release", "{done}");
        }
        let mut third = lab.login("third", 1)?;
        for lun in luns {
            until("the other member owns the volume", || {
                let data = bytes::Bytes::from(vec![1; 512]);
                let written = third.write(*lun, 0, data, 512, false);
                Ok(written.is_err_and(|error| error.is_reservation_conflict()))
            })?;
            ensure!(!a.is_fenced_on(*lun)?, "the owner cannot write to {lun:?}");
        }
    }
    lab.daemon.cli_ok(&["unfence", "pair", "b"])?;
    let mut third = lab.login("third", 1)?;
    third.clear_unit_attentions(luns[0])?;
    third
        .write(luns[0], 0, bytes::Bytes::from(vec![1; 512]), 512, false)
        .context("after the fence the volumes are nobody's own")?;
    Ok(())
}

/// A method that cannot work: the access is gone, exit code 1 says that there is no proof, and the fence goes on.
fn not_proven(lab: &Lab) -> Result<()> {
    // Nobody of the other member is logged in who could own the volumes.
    let fence = [
        "fence",
        "pair",
        "b",
        "--method",
        "reserve-release",
        "--wait",
        "1s",
    ];
    let failure = lab.exits(FAILED, &fence)?;
    ensure!(
        failure["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("not proven")),
        "{failure}"
    );
    let b = lab.shown("pair", "b")?;
    ensure!(
        b["state"] == "fencing" && b["fence"]["proven"].is_null(),
        "{b}"
    );
    lab.exits(REFUSED, &["unfence", "pair", "b"])?;
    // Settling for less.
    let done = lab
        .daemon
        .cli_json(&["fence", "pair", "b", "--method", "reservation"])?;
    ensure!(done["proven"] == "reservation", "{done}");
    std::thread::sleep(Duration::from_millis(100));
    lab.daemon.cli_ok(&["unfence", "pair", "b"])?;
    Ok(())
}
