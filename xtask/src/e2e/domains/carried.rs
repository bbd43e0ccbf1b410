//! A domain that moves with its pool to another daemon: who is fenced stays out.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use initiator::Error;
use iscsi::initiator::Fatal;
use scsi::Lun;
use serde_json::{Value, json};

use super::lab::{BLOCK_BYTES, Lab, Node, until};
use crate::context::Context;
use crate::targets::Target;

const VOLUMES: [&str; 2] = ["w1", "w2"];
/// Where the first slot of the mailbox begins, in blocks.
const FIRST_SLOT: u64 = (128 << 10) / BLOCK_BYTES as u64;

/// One member is fenced by a race, another by `fabric`; then the pool is exported, and imported by another daemon, by the
/// same one once more, and after a kill by a third.
pub(super) fn run(context: &Context) -> Result<()> {
    let folder = context.folder("domains-carried")?;
    let mut home = Lab::start(context, "domains-home")?;
    let luns = home.volumes(&VOLUMES)?;
    let members = ["a", "b", "c"];
    let options = ["--quorum-device", "d1", "--window", "300ms"];
    home.domain("web", &VOLUMES, &members, &options)?;
    let mut nodes = Vec::new();
    for member in members {
        nodes.push(Node::join(&home, member, &luns)?);
    }
    nodes[2].reserve()?;
    home.exits(0, &["domain", "race", "web", "--as", "a", "--with", "b"])?;
    let fence = ["fence", "web", "b", "--method", "fabric"];
    home.daemon.cli_ok(&fence)?;
    let mailbox = lun_of_mailbox(&home)?;
    slot(&mut nodes[0], mailbox, Some(0x5c))?;
    let before = shown(&home)?;
    ensure!(before["domain"][1] == 2, "{before}");
    drop(nodes);
    let devices = devices(&home)?;
    home.daemon.cli_ok(&["pool", "export"])?;
    home.daemon.terminate()?;

    let mut away = Lab::bare(context, &folder.join("away"))?;
    // It is there before its volumes are, and is cut off with them.
    let mut early = away.login("b", 0)?;
    import(&away, &devices)?;
    ensure!(early.ping().is_err(), "a session of b goes on");
    as_before(&away, &before, &luns, "at another daemon")?;
    away.daemon.cli_ok(&["pool", "export"])?;
    import(&away, &devices)?;
    as_before(&away, &before, &luns, "at the same daemon once more")?;
    // It goes on from where it was.
    let mut c = Node::again(&away, "c", &luns)?;
    let after = away.daemon.cli_json(&["unfence", "web", "c"])?;
    ensure!(after["epoch"] == 3, "{after}");
    c.register()?;
    ensure!(!c.is_fenced_on(luns[0])?, "c is unfenced and cannot write");
    let done = away.daemon.cli_json(&["fence", "web", "c"])?;
    ensure!(
        done["epoch"] == 4 && c.is_fenced_on(luns[1])?,
        "c is fenced again: {done}"
    );
    let before = shown(&away)?;
    away.daemon.kill()?;

    let mut third = Lab::bare(context, &folder.join("third"))?;
    import(&third, &devices)?;
    as_before(&third, &before, &luns, "after a kill")?;
    third.daemon.terminate()?;
    Ok(())
}

fn devices(lab: &Lab) -> Result<Vec<PathBuf>> {
    let state = lab.daemon.state();
    let folder = state.parent().context("the daemon's folder")?;
    let files = ["d1", "d2", "d3"].map(|name| folder.join(format!("{name}.img")));
    Ok(files.to_vec())
}

fn import(lab: &Lab, devices: &[PathBuf]) -> Result<()> {
    let mut args = vec!["pool", "import"];
    for path in devices {
        args.push(path.to_str().context("a path in UTF-8")?);
    }
    lab.daemon.cli_ok(&args).map(drop)
}

/// What has to be the same everywhere.
fn shown(lab: &Lab) -> Result<Value> {
    let domain = lab.daemon.cli_json(&["domain", "show", "web"])?;
    let mut members = Vec::new();
    for member in domain["members"].as_array().context("members")? {
        let fields = [
            "member",
            "state",
            "initiators",
            "votes",
            "slot",
            "registered",
            "fence",
        ];
        members.push(fields.map(|field| member[field].clone()));
    }
    let mut volumes = Vec::new();
    for volume in VOLUMES {
        let keys = lab.daemon.cli_json(&["keys", volume])?;
        volumes.push(["generation", "reservation", "registrations"].map(|f| keys[f].clone()));
        let volume = lab.daemon.cli_json(&["volume", "show", volume])?;
        volumes.push(["naa", "domain", "fenced"].map(|field| volume[field].clone()));
    }
    let fields = [
        "name",
        "epoch",
        "state",
        "verdict",
        "votes_total",
        "volumes",
        "mailbox",
    ];
    let domain = fields.map(|field| domain[field].clone());
    Ok(json!({"domain": domain, "members": members, "volumes": volumes}))
}

fn lun_of_mailbox(lab: &Lab) -> Result<Lun> {
    let shown = lab.daemon.cli_json(&["domain", "show", "web"])?;
    super::lab::lun(&shown["mailbox"]["lun"])
}

/// Writes the slot of a, or reads what is in it.
fn slot(a: &mut Node, mailbox: Lun, write: Option<u8>) -> Result<u8> {
    a.session.clear_unit_attentions(mailbox)?;
    if let Some(byte) = write {
        let data = Bytes::from(vec![byte; 4096]);
        let written = a
            .session
            .write(mailbox, FIRST_SLOT, data, BLOCK_BYTES, false);
        written.context("a member writes its own slot")?;
    }
    let data = a.session.read(mailbox, FIRST_SLOT, 1, BLOCK_BYTES)?;
    Ok(data[0])
}

fn as_before(lab: &Lab, before: &Value, luns: &[Lun], when: &str) -> Result<()> {
    let now = shown(lab)?;
    ensure!(now == *before, "{when}:\n{now:#}\nwas\n{before:#}");
    for portal in 0..2 {
        let refused = lab.try_login("b", portal);
        ensure!(
            matches!(refused, Err(Error::Fatal(Fatal::LoginRefused(_)))),
            "{when}: b logs in at portal {portal}"
        );
    }
    let mut c = lab.login("c", 0)?;
    for lun in luns {
        let data = Bytes::from(vec![0xee; BLOCK_BYTES as usize]);
        let written = c.write(*lun, 0, data, BLOCK_BYTES, false);
        ensure!(
            written.is_err(),
            "{when}: the first command of c is carried out"
        );
    }
    let mut c = Node::again(lab, "c", luns)?;
    for lun in luns {
        ensure!(c.is_fenced_on(*lun)?, "{when}: c writes to {lun:?}");
        let registered = c.session.register_and_ignore(*lun, 5, false);
        ensure!(
            registered.is_err_and(|error| error.is_reservation_conflict()),
            "{when}: c registers"
        );
    }
    let mut a = Node::again(lab, "a", luns)?;
    for lun in luns {
        // By the key that it has registered elsewhere.
        ensure!(!a.is_fenced_on(*lun)?, "{when}: a cannot write to {lun:?}");
    }
    let mailbox = lun_of_mailbox(lab)?;
    ensure!(
        slot(&mut a, mailbox, None)? == 0x5c,
        "{when}: the mailbox is another one"
    );
    let beat = |a: &mut Node| -> Result<Bytes> {
        let head = a.session.read(mailbox, 0, 256, BLOCK_BYTES)?;
        ensure!(head.starts_with(b"RINGFMB"), "{when}: no mailbox");
        Ok(head.freeze())
    };
    let first = beat(&mut a)?;
    until("the head goes on writing to the mailbox", || {
        Ok(beat(&mut a)? != first)
    })
}
