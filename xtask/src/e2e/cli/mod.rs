//! The command line: every command, the shapes of `--json`, and the exit codes.

mod storage;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::context::Context;
use crate::process::{command, finish};
use crate::targets::Target;
use crate::targets::loopback_portals;
use crate::targets::ringfence::Ringfence;

const USAGE: i32 = 2;
const UNREACHABLE: i32 = 4;
const NOT_FOUND: i32 = 5;
const REFUSED: i32 = 6;
const BUSY: i32 = 7;
const VM: &str = "iqn.2026-11.com.example:vm1";

/// One daemon, every command.
///
/// # Errors
/// When a command answers something else than its help promises.
pub fn run(context: &Context) -> Result<String> {
    let folder = context.folder("cli")?;
    let mut daemon = Ringfence::new(context.ringfence()?, &folder, loopback_portals(2)?)?;
    expect_exit(&daemon, UNREACHABLE, &["volume", "list"])?;
    daemon.start()?;
    second_daemon_is_refused(context, &daemon)?;
    devices(&daemon)?;
    storage::run(&daemon)?;
    volumes(&daemon)?;
    grants(&daemon)?;
    keys_and_sessions(&daemon)?;
    events(&daemon)?;
    removal(&daemon)?;
    options(&daemon)?;
    daemon.check_running()?;
    let code = daemon.terminate()?;
    ensure!(
        code == 0,
        "SIGTERM ends the daemon with {code}:\n{}",
        daemon.log_tail()
    );
    ensure!(
        !daemon.state().join("control").exists(),
        "the control socket is left behind"
    );
    Ok("every command, --json, exit codes".into())
}

fn expect_exit(daemon: &Ringfence, code: i32, args: &[&str]) -> Result<()> {
    let finished = daemon.cli_finish(args)?;
    ensure!(
        finished.code == code,
        "ringfence {} exited with {} instead of {code}:\n{}",
        args.join(" "),
        finished.code,
        finished.text()
    );
    ensure!(
        !finished.stderr.trim().is_empty(),
        "ringfence {} failed without a word",
        args.join(" ")
    );
    let finished = daemon.cli_finish(&[args, &["--json"]].concat())?;
    let error: Value = serde_json::from_str(&finished.stderr)
        .with_context(|| {
            format!(
                "{} --json: not JSON on stderr: {}",
                args.join(" "),
                finished.stderr
            )
        })
        .or_else(|error| {
            if code == USAGE {
                Ok(Value::Null)
            } else {
                Err(error)
            }
        })?;
    ensure!(
        code == USAGE || error["error"]["message"].is_string(),
        "{error}"
    );
    Ok(())
}

/// Checks that a value is an object with these fields, of these JSON types.
fn expect_fields(value: &Value, fields: &[(&str, &str)]) -> Result<()> {
    for (name, kind) in fields {
        let field = value
            .get(name)
            .with_context(|| format!("no field '{name}' in {value}"))?;
        let seen = match field {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        ensure!(
            *kind == seen,
            "field '{name}' is {seen}, not {kind}, in {value}"
        );
    }
    Ok(())
}

fn only(list: &Value) -> Result<&Value> {
    match list.as_array().map(Vec::as_slice) {
        Some([one]) => Ok(one),
        _ => anyhow::bail!("a list of one, not {list}"),
    }
}

fn second_daemon_is_refused(context: &Context, daemon: &Ringfence) -> Result<()> {
    let portal = loopback_portals(1)?[0].to_string();
    let mut second = command(
        &context.ringfence()?.to_string_lossy(),
        ["serve", "--portal", &portal, "--state"],
    );
    second.arg(daemon.state());
    let finished = finish(&mut second, Duration::from_secs(20))?;
    ensure!(
        finished.code == BUSY && !finished.stderr.is_empty(),
        "a second daemon on the same state: {} {}",
        finished.code,
        finished.text()
    );
    Ok(())
}

fn devices(daemon: &Ringfence) -> Result<()> {
    ensure!(
        daemon.cli_json(&["device", "list"])? == Value::Array(vec![]),
        "a fresh pool has devices"
    );
    for name in ["d1", "d2", "spare"] {
        daemon.add_device(name, "256M")?;
    }
    let devices = daemon.cli_json(&["device", "list"])?;
    ensure!(devices.as_array().map(Vec::len) == Some(3), "{devices}");
    let device = daemon.cli_json(&["device", "show", "d1"])?;
    expect_fields(
        &device,
        &[
            ("name", "string"),
            ("path", "string"),
            ("uuid", "string"),
            ("state", "string"),
            ("size_bytes", "number"),
            ("used_bytes", "number"),
            ("free_bytes", "number"),
            ("volumes", "array"),
        ],
    )?;
    ensure!(
        device["name"] == "d1" && device["state"] == "online",
        "{device}"
    );
    expect_exit(daemon, NOT_FOUND, &["device", "show", "nosuch"])?;
    let path = device["path"].as_str().context("a path")?;
    let taken = daemon.cli_finish(&["device", "add", "again", path])?;
    ensure!(
        [REFUSED, BUSY].contains(&taken.code),
        "a device added twice: {} {}",
        taken.code,
        taken.text()
    );
    expect_exit(daemon, USAGE, &["device", "add", "d9"])
}

fn volumes(daemon: &Ringfence) -> Result<()> {
    let create = [
        "volume",
        "create",
        "v1",
        "--size",
        "64M",
        "--on",
        "d1",
        "--keys-on",
        "d2",
        "--block-size",
        "4096",
    ];
    let volume = daemon.cli_json(&create)?;
    expect_fields(
        &volume,
        &[
            ("name", "string"),
            ("lun", "number"),
            ("uuid", "string"),
            ("naa", "string"),
            ("state", "string"),
            ("size_bytes", "number"),
            ("block_size_bytes", "number"),
            ("devices", "array"),
            ("keys_on", "array"),
        ],
    )?;
    ensure!(
        volume["block_size_bytes"] == 4096 && volume["size_bytes"] == 64 << 20,
        "{volume}"
    );
    ensure!(volume["keys_on"] == serde_json::json!(["d2"]), "{volume}");
    expect_exit(daemon, REFUSED, &create)?;
    expect_exit(
        daemon,
        REFUSED,
        &["volume", "create", "huge", "--size", "10T"],
    )?;
    expect_exit(
        daemon,
        NOT_FOUND,
        &["volume", "create", "v2", "--size", "16M", "--on", "nosuch"],
    )?;
    expect_exit(daemon, USAGE, &["volume", "create", "v2", "--size", "many"])?;
    daemon.cli_ok(&[
        "volume",
        "create",
        "v2",
        "--size",
        "16M",
        "--persist",
        "always",
    ])?;
    let grown = daemon.cli_finish(&["volume", "grow", "v1", "96M"])?;
    ensure!(grown.code == 0, "{}", grown.text());
    let volume = daemon.cli_json(&["volume", "show", "v1"])?;
    ensure!(volume["size_bytes"] == 96 << 20, "{volume}");
    expect_exit(daemon, REFUSED, &["volume", "grow", "v1", "32M"])?;
    let luns = daemon.cli_json(&["volume", "list"])?;
    let luns: Vec<_> = luns
        .as_array()
        .context("a list")?
        .iter()
        .map(|volume| volume["lun"].as_u64())
        .collect();
    ensure!(luns.len() == 2 && luns[0] != luns[1], "{luns:?}");

    let map = daemon.cli_json(&["volume", "map", "v1"])?;
    let extents = map["extents"].as_array().context("extents")?;
    let length = |region: &str, device: &str| -> u64 {
        extents
            .iter()
            .filter(|extent| extent["region"] == region && extent["device"] == device)
            .filter_map(|extent| extent["length_bytes"].as_u64())
            .sum()
    };
    ensure!(length("public", "d1") == 96 << 20, "{map}");
    ensure!(length("private", "d2") > 0, "the keys are on d2: {map}");
    let one = daemon.cli_json(&["volume", "map", "v1", "1M"])?;
    only(&one["extents"]).map(drop)
}

fn grants(daemon: &Ringfence) -> Result<()> {
    daemon.cli_ok(&["grant", "v1", "*", "ro"])?;
    daemon.cli_ok(&["grant", "v1", VM, "rw"])?;
    let grants = daemon.cli_json(&["grants", "v1"])?;
    ensure!(
        grants["grants"]
            == serde_json::json!([
                {"volume": "v1", "initiator": "*", "access": "ro"},
                {"volume": "v1", "initiator": VM, "access": "rw"},
            ]),
        "{grants}"
    );
    expect_exit(daemon, NOT_FOUND, &["grant", "nosuch", "*", "rw"])?;
    expect_exit(daemon, USAGE, &["grant", "v1", "*", "everything"])
}

/// A session of `iscsi-perf` (the client at hand that stays) is listed and dropped.
fn keys_and_sessions(daemon: &Ringfence) -> Result<()> {
    let keys = daemon.cli_json(&["keys", "v1"])?;
    expect_fields(
        &keys,
        &[
            ("volume", "string"),
            ("generation", "number"),
            ("reservation", "null"),
            ("registrations", "array"),
            ("replicas", "array"),
        ],
    )?;
    let replica = only(&keys["replicas"])?;
    expect_fields(
        replica,
        &[
            ("device", "string"),
            ("state", "string"),
            ("sequence", "number"),
        ],
    )?;
    ensure!(replica["device"] == "d2", "{keys}");
    expect_exit(daemon, NOT_FOUND, &["keys", "nosuch"])?;

    let lun = daemon.cli_json(&["volume", "show", "v1"])?["lun"]
        .as_u64()
        .context("a LUN")?;
    let url = daemon.url(1, u16::try_from(lun)?);
    let perf = command("iscsi-perf", ["-i", VM, "-t", "30", "-b", "1", &url]);
    let mut perf =
        crate::process::Background::start(&perf, &daemon.state().join("../iscsi-perf.log"))?;
    let session =
        crate::process::wait_for("a session in the list", Duration::from_secs(10), || {
            let sessions = daemon.cli_json(&["session", "list"]).ok()?;
            sessions
                .as_array()?
                .iter()
                .find(|session| session["initiator"] == VM)
                .cloned()
        })?;
    expect_fields(
        &session,
        &[
            ("id", "number"),
            ("initiator", "string"),
            ("isid", "string"),
            ("target_port", "number"),
            ("portal", "string"),
            ("address", "string"),
            ("since", "string"),
        ],
    )?;
    ensure!(
        session["target_port"] == 2,
        "logged in at the second portal: {session}"
    );
    let id = session["id"].to_string();
    daemon.cli_ok(&["session", "drop", &id])?;
    let still = daemon.cli_json(&["session", "list"])?;
    let ids: Vec<&Value> = still
        .as_array()
        .context("a list")?
        .iter()
        .map(|session| &session["id"])
        .collect();
    ensure!(
        !ids.contains(&&session["id"]),
        "the dropped session is still listed: {still}"
    );
    expect_exit(daemon, NOT_FOUND, &["session", "drop", "999999"])?;
    perf.kill()
}

fn events(daemon: &Ringfence) -> Result<()> {
    let text = daemon.cli_ok(&["events"])?;
    ensure!(
        text.contains(VM),
        "the session is in the audit trail:\n{text}"
    );
    let lines = daemon.cli_ok(&["events", "--json"])?;
    let mut last = 0;
    for line in lines.lines() {
        let event: Value =
            serde_json::from_str(line).with_context(|| format!("events --json: {line}"))?;
        expect_fields(&event, &[("sequence", "number"), ("time", "string")])?;
        let sequence = event["sequence"].as_u64().unwrap_or(0);
        ensure!(sequence == last + 1, "event {sequence} after {last}");
        last = sequence;
    }
    ensure!(last > 0, "no events");
    let recent = daemon.cli_ok(&["events", "--since", "1h"])?;
    ensure!(recent == text, "everything happened within the hour");
    expect_exit(daemon, USAGE, &["events", "--since", "yesteryear"])
}

fn removal(daemon: &Ringfence) -> Result<()> {
    expect_exit(daemon, REFUSED, &["device", "remove", "d1"])?;
    daemon.cli_ok(&["volume", "delete", "v1"])?;
    expect_exit(daemon, NOT_FOUND, &["volume", "show", "v1"])?;
    daemon.cli_ok(&["volume", "delete", "v2"])?;
    for name in ["d1", "d2", "spare"] {
        daemon.cli_ok(&["device", "remove", name])?;
    }
    ensure!(
        daemon.cli_json(&["device", "list"])? == Value::Array(vec![]),
        "removed devices are listed"
    );
    Ok(())
}

/// `--json` and `--state` anywhere; help and version.
fn options(daemon: &Ringfence) -> Result<()> {
    let state = daemon.state();
    let state = state.to_string_lossy();
    for args in [
        ["--json", "--state", &state, "volume", "list"],
        ["volume", "--state", &state, "--json", "list"],
        ["volume", "list", "--json", "--state", &state],
    ] {
        let mut cli = daemon.cli(&args);
        cli.env_remove("RINGFENCE_STATE");
        let finished = finish(&mut cli, Duration::from_secs(20))?;
        ensure!(
            finished.code == 0 && finished.stdout.trim() == "[]",
            "{args:?}: {}",
            finished.text()
        );
    }
    ensure!(
        daemon
            .cli_ok(&["--help"])?
            .contains("ringfence volume create"),
        "--help teaches"
    );
    daemon.cli_ok(&["--version"])?;
    expect_exit(daemon, USAGE, &["frobnicate"])
}
