//! Races of all outcomes, while every member writes records with sequence numbers.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use scsi::Lun;
use serde_json::{Value, json};

use super::lab::{Lab, Node, initiator_of, key_of, last_record};
use super::writer::Writer;

const LOST: i32 = 3;
const NOT_FOUND: i32 = 5;
const REFUSED: i32 = 6;
const VOLUMES: [&str; 3] = ["v1", "v2", "v3"];
const MEMBERS: [&str; 3] = ["a", "b", "c"];

/// All outcomes.
pub(super) fn run(lab: &Lab) -> Result<String> {
    let luns = lab.volumes(&VOLUMES)?;
    let options = ["--quorum-device", "d1", "--window", "500ms"];
    lab.domain("web", &VOLUMES, &MEMBERS, &options)?;
    let shown = lab.daemon.cli_json(&["domain", "show", "web"])?;
    ensure!(
        shown["epoch"] == 0 && shown["votes_total"] == 2 && shown["state"] == "good",
        "three members without keys, and a quorum device of two votes: {shown}"
    );
    strangers_see_nothing(lab, luns[0])?;
    let mut nodes = Vec::new();
    for member in MEMBERS {
        nodes.push(Node::join(lab, member, &luns)?);
    }
    // The one that will lose holds the reservations.
    nodes[2].reserve()?;
    let records = majority_beats_minority(lab, nodes, &luns)?;
    claims_that_are_none(lab)?;
    come_back(lab, &luns)?;
    a_single_survivor_wins(lab, &luns)?;
    lab.daemon.cli_ok(&["unfence", "web", "a"])?;
    lab.daemon.cli_ok(&["unfence", "web", "c"])?;
    lab.daemon.cli_ok(&["domain", "delete", "web"])?;
    nobody_wins(lab, &luns)?;
    Ok(format!("{records} records of a loser, none after"))
}

/// Grants to a domain are for its members only.
fn strangers_see_nothing(lab: &Lab, lun: Lun) -> Result<()> {
    let mut stranger = lab.login("stranger", 0)?;
    ensure!(
        !stranger.report_luns()?.contains(&lun),
        "a stranger sees a volume that is granted to a domain"
    );
    lab.member("web", "stranger", &[])?;
    stranger.clear_unit_attentions(lun)?;
    ensure!(
        stranger.report_luns()?.contains(&lun),
        "a new member does not see the volumes of its domain"
    );
    lab.daemon
        .cli_ok(&["domain", "member", "remove", "web", "stranger"])?;
    ensure!(
        !stranger.report_luns()?.contains(&lun),
        "who is no member any more still sees the volumes"
    );
    Ok(())
}

/// a and b see each other, c sees nobody: c loses, and nothing of it lands after a was told.
fn majority_beats_minority(lab: &Lab, nodes: Vec<Node>, luns: &[Lun]) -> Result<u64> {
    let writers: Vec<Writer> = nodes
        .into_iter()
        .zip(0..)
        .map(|(node, area)| Writer::start(node, area))
        .collect();
    thread::sleep(Duration::from_millis(300));
    // Somebody who may read what the members write, and is none of them.
    let reader = initiator_of("reader");
    for volume in VOLUMES {
        lab.daemon.cli_ok(&["grant", volume, &reader, "ro"])?;
    }
    let mut observer = Node::observer(lab, "reader", luns)?;
    let loser = lab.begin(&["domain", "race", "web", "--as", "c"])?;
    let second = lab.begin(&["domain", "race", "web", "--as", "b", "--with", "a"])?;
    let winner = lab.exits(0, &["domain", "race", "web", "--as", "a", "--with", "b"])?;
    // From here on not one byte of c lands.
    let then = observer.area(2)?;
    ensure!(
        winner
            == json!({"domain": "web", "member": "a", "verdict": "won", "epoch": 1,
                      "winners": ["a", "b"], "fenced": ["c"]}),
        "{winner}"
    );
    let (code, verdict) = second.end()?;
    ensure!(code == 0 && verdict["verdict"] == "won", "{verdict}");
    let (code, verdict) = loser.end()?;
    ensure!(
        code == LOST && verdict["verdict"] == "lost" && verdict["fenced"] == json!(["c"]),
        "{code}: {verdict}"
    );
    thread::sleep(Duration::from_millis(300));
    let mut ended = Vec::new();
    for writer in writers {
        ended.push(writer.end()?);
    }
    let (mut c, error) = ended.pop().context("c")?;
    // Its last command was aborted (TASK ABORTED), or came later (RESERVATION CONFLICT).
    ensure!(
        matches!(error, Some(initiator::Error::Command(_))),
        "c goes on: {error:?}"
    );
    for (node, error) in &ended {
        // The registration of another one has gone, which is told once.
        ensure!(
            error.as_ref().is_none_or(|error| error.sense().is_some()),
            "{} was stopped as well: {error:?}",
            node.name
        );
    }
    for lun in luns {
        ensure!(c.is_fenced_on(*lun)?, "c still writes to {lun:?}");
    }
    ensure!(
        observer.area(2)? == then,
        "c wrote after a was told that it won"
    );
    let last = last_record(&then);
    ensure!(
        last == c.written() || last == c.written() + 1,
        "{} records of c were acknowledged, and the last on the volumes is {last}",
        c.written()
    );
    // It held the reservations: a survivor has them, of the same type.
    for volume in VOLUMES {
        let keys = lab.daemon.cli_json(&["keys", volume])?;
        let holder = keys["reservation"]["holder"].as_str().unwrap_or_default();
        ensure!(
            holder == initiator_of("a") || holder == initiator_of("b"),
            "{volume}: {keys}"
        );
        ensure!(
            keys["reservation"]["type"] == "write-exclusive-registrants-only"
                && keys["registrations"].as_array().map(Vec::len) == Some(2),
            "{volume}: {keys}"
        );
    }
    let refused = c.session.register_and_ignore(luns[0], key_of("c"), false);
    ensure!(
        refused.is_err_and(|error| error.is_reservation_conflict()),
        "who is fenced registers again"
    );
    Ok(last)
}

/// What is no claim, and what is answered without a race.
fn claims_that_are_none(lab: &Lab) -> Result<()> {
    let race = |member: &str, with: &str, code: i32| -> Result<Value> {
        let mut args = vec!["domain", "race", "web", "--as", member];
        if !with.is_empty() {
            args.extend(["--with", with]);
        }
        lab.exits(code, &args)
    };
    let verdict = race("c", "", LOST)?;
    ensure!(verdict["epoch"] == 1, "who is fenced has lost: {verdict}");
    let verdict = race("a", "b", 0)?;
    ensure!(
        verdict["epoch"] == 1,
        "a group that leaves nobody out has won already: {verdict}"
    );
    race("a", "c", REFUSED)?;
    race("a", "nobody", NOT_FOUND)?;
    race("nobody", "", NOT_FOUND)?;
    lab.exits(NOT_FOUND, &["domain", "race", "nowhere", "--as", "a"])?;
    let stale = lab.exits(
        0,
        &[
            "domain", "race", "web", "--as", "a", "--with", "b", "--epoch", "0",
        ],
    )?;
    ensure!(stale["epoch"] == 1, "a claim of an old epoch: {stale}");
    Ok(())
}

/// c is unfenced: it has no registration, may register, and may write again.
fn come_back(lab: &Lab, luns: &[Lun]) -> Result<()> {
    let shown = lab.daemon.cli_json(&["unfence", "web", "c"])?;
    ensure!(shown["epoch"] == 2 && shown["state"] == "good", "{shown}");
    let refused = lab.exits(REFUSED, &["domain", "race", "web", "--as", "c"])?;
    ensure!(
        refused["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("register")),
        "who has no key has no vote: {refused}"
    );
    let mut c = Node::join(lab, "c", luns)?;
    ensure!(!c.is_fenced_on(luns[0])?, "c is unfenced and cannot write");
    Ok(())
}

/// Default votes of the quorum device: one survivor of three wins.
fn a_single_survivor_wins(lab: &Lab, luns: &[Lun]) -> Result<()> {
    let mut a = Node::join(lab, "a", luns)?;
    let mut b = Node::join(lab, "b", luns)?;
    let verdict = lab.exits(0, &["domain", "race", "web", "--as", "b"])?;
    ensure!(
        verdict["fenced"] == json!(["a", "c"]) && verdict["winners"] == json!(["b"]),
        "{verdict}"
    );
    let shown = lab.daemon.cli_json(&["domain", "show", "web"])?;
    ensure!(
        shown["verdict"]["quorum_voted"] == true && shown["verdict"]["votes_total"] == 5,
        "{shown}"
    );
    for lun in luns {
        ensure!(a.is_fenced_on(*lun)?, "a still writes to {lun:?}");
        ensure!(!b.is_fenced_on(*lun)?, "b cannot write to {lun:?}");
    }
    let listed = lab.daemon.cli_json(&["session", "list"])?;
    let fenced = listed.as_array().is_some_and(|sessions| {
        sessions
            .iter()
            .any(|session| session["member"] == "web/a" && session["fenced"] == true)
    });
    ensure!(fenced, "session list does not say who is fenced: {listed}");
    let volume = lab.daemon.cli_json(&["volume", "show", "v1"])?;
    ensure!(
        volume["domain"] == "web" && volume["fenced"] == json!(["a", "c"]),
        "{volume}"
    );
    lab.exits(REFUSED, &["domain", "delete", "web"])?;
    lab.exits(REFUSED, &["volume", "delete", "v1"])?;
    lab.exits(REFUSED, &["volume", "delete", "web-mailbox"])?;
    Ok(())
}

/// A quorum device that only breaks ties: one of three cannot win, and nobody is fenced for it.
fn nobody_wins(lab: &Lab, luns: &[Lun]) -> Result<()> {
    let options = [
        "--quorum-device",
        "d2",
        "--quorum-votes",
        "1",
        "--window",
        "300ms",
    ];
    lab.domain("tie", &VOLUMES, &MEMBERS, &options)?;
    let mut nodes = Vec::new();
    for member in MEMBERS {
        nodes.push(Node::join(lab, member, luns)?);
    }
    let verdict = lab.exits(LOST, &["domain", "race", "tie", "--as", "a"])?;
    ensure!(
        verdict["winners"] == json!([]) && verdict["fenced"] == json!([]),
        "{verdict}"
    );
    for node in &mut nodes {
        ensure!(!node.is_fenced_on(luns[0])?, "{} is fenced", node.name);
    }
    let verdict = lab.exits(0, &["domain", "race", "tie", "--as", "a", "--with", "c"])?;
    ensure!(verdict["fenced"] == json!(["b"]), "{verdict}");
    lab.daemon.cli_ok(&["unfence", "tie", "b"])?;
    lab.daemon.cli_ok(&["domain", "delete", "tie"])?;
    Ok(())
}
