//! Layouts, jobs, devices that come and go, and the pool as a whole.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{NOT_FOUND, REFUSED, USAGE, expect_exit, expect_fields};
use crate::targets::ringfence::Ringfence;

/// The last line of a command that waits for jobs, and that every job was done.
fn jobs_done(daemon: &Ringfence, args: &[&str]) -> Result<Value> {
    let text = daemon.cli_ok(&[args, &["--json"]].concat())?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)
            .with_context(|| format!("ringfence {}: {line}", args.join(" ")))?;
        lines.push(line);
    }
    let last = lines.pop().context("a last line")?;
    for line in &lines {
        expect_fields(
            &line["progress"],
            &[
                ("volume", "string"),
                ("job", "string"),
                ("state", "string"),
                ("done_bytes", "number"),
                ("total_bytes", "number"),
            ],
        )?;
    }
    let jobs = last["jobs"].as_array().context("jobs")?;
    ensure!(
        jobs.iter().all(|job| job["outcome"] == "done"),
        "ringfence {}: {last}",
        args.join(" ")
    );
    Ok(last)
}

/// Three devices d1, d2 and spare are there and empty, and are so again.
pub(super) fn run(daemon: &Ringfence) -> Result<()> {
    pool(daemon)?;
    layouts(daemon)?;
    jobs(daemon)?;
    devices(daemon)?;
    export_and_import(daemon)
}

fn pool(daemon: &Ringfence) -> Result<()> {
    let pool = daemon.cli_json(&["pool", "show"])?;
    expect_fields(
        &pool,
        &[
            ("uuid", "string"),
            ("state", "string"),
            ("devices", "array"),
            ("devices_missing", "array"),
            ("volumes", "number"),
            ("size_bytes", "number"),
            ("config", "object"),
        ],
    )?;
    ensure!(
        pool["state"] == "online" && pool["config"] == json!({"current": 3, "of": 3, "needed": 2}),
        "{pool}"
    );
    expect_exit(daemon, USAGE, &["pool", "import"])?;
    expect_exit(daemon, REFUSED, &["pool", "import", "/nowhere"])
}

fn layouts(daemon: &Ringfence) -> Result<()> {
    let volume = daemon.cli_json(&["volume", "create", "m1", "--size", "32M", "--mirrors", "2"])?;
    expect_fields(
        &volume,
        &[
            ("layout", "string"),
            ("columns", "number"),
            ("stripe_unit_bytes", "null"),
            ("mirrors", "number"),
            ("health", "string"),
            ("plexes", "array"),
            ("job", "null"),
        ],
    )?;
    ensure!(
        volume["mirrors"] == 2 && volume["health"] == "good",
        "{volume}"
    );
    ensure!(
        volume["keys_on"].as_array().map(Vec::len) == Some(3),
        "three copies of the keys: {volume}"
    );
    let striped = daemon.cli_json(&[
        "volume",
        "create",
        "s1",
        "--size",
        "32M",
        "--layout",
        "striped",
        "--columns",
        "3",
        "--stripe-unit",
        "128K",
    ])?;
    ensure!(
        striped["columns"] == 3 && striped["stripe_unit_bytes"] == 128 << 10,
        "{striped}"
    );
    for args in [
        ["volume", "create", "x", "--size", "1M", "--columns", "1"],
        [
            "volume",
            "create",
            "x",
            "--size",
            "1M",
            "--stripe-unit",
            "3K",
        ],
        ["volume", "create", "x", "--size", "1M", "--mirrors", "0"],
    ] {
        expect_exit(daemon, USAGE, &args)?;
    }
    let apart = ["volume", "create", "x", "--size", "1M", "--mirrors", "4"];
    expect_exit(daemon, REFUSED, &apart)?;
    daemon.cli_ok(&["volume", "rename", "s1", "s2"])?;
    expect_exit(daemon, NOT_FOUND, &["volume", "show", "s1"])?;
    expect_exit(daemon, REFUSED, &["volume", "rename", "s2", "m1"])?;
    daemon.cli_ok(&["volume", "grow", "s2", "48M"])?;
    daemon.cli_ok(&["volume", "grow", "m1", "48M"])?;
    let text = daemon.cli_ok(&["volume", "verify", "m1"])?;
    ensure!(text.contains("no difference"), "{text}");
    daemon.cli_ok(&["volume", "delete", "s2"]).map(drop)
}

fn jobs(daemon: &Ringfence) -> Result<()> {
    expect_exit(daemon, NOT_FOUND, &["job", "show", "m1"])?;
    expect_exit(daemon, NOT_FOUND, &["job", "cancel", "nosuch"])?;
    daemon.cli_ok(&["volume", "remove-mirror", "m1", "--plex", "1"])?;
    expect_exit(daemon, REFUSED, &["volume", "remove-mirror", "m1"])?;
    jobs_done(daemon, &["volume", "add-mirror", "m1"])?;
    daemon.cli_ok(&["volume", "remove-mirror", "m1"])?;
    let begun = daemon.cli_json(&["volume", "add-mirror", "m1", "--rate", "1M", "--detach"])?;
    expect_fields(
        &begun["jobs"][0],
        &[
            ("volume", "string"),
            ("id", "string"),
            ("job", "string"),
            ("to", "array"),
            ("state", "string"),
            ("done_bytes", "number"),
            ("total_bytes", "number"),
            ("percent", "number"),
            ("limit_bytes_per_second", "number"),
        ],
    )?;
    expect_exit(daemon, REFUSED, &["volume", "add-mirror", "m1"])?;
    ensure!(daemon.cli_json(&["job", "pause", "m1"])?["state"] == "paused");
    ensure!(daemon.cli_json(&["job", "resume", "m1"])?["state"] == "running");
    daemon.cli_ok(&["job", "list"])?;
    daemon.cli_ok(&["job", "rate", "m1", "auto"])?;
    jobs_done(daemon, &["job", "wait", "m1"])?;
    let begun = [
        "volume", "migrate", "m1", "--to", "d1,d2", "--rate", "64K", "--detach",
    ];
    daemon.cli_ok(&begun)?;
    daemon.cli_ok(&["volume", "migrate", "m1", "--cancel"])?;
    daemon.cli_ok(&["volume", "delete", "m1"]).map(drop)
}

fn devices(daemon: &Ringfence) -> Result<()> {
    daemon.cli_ok(&["volume", "create", "v", "--size", "16M"])?;
    let from = daemon.cli_json(&["volume", "show", "v"])?["devices"][0].clone();
    let from = from.as_str().context("a device")?;
    expect_exit(daemon, REFUSED, &["device", "fail", from])?;
    jobs_done(daemon, &["device", "evacuate", from])?;
    let volume = daemon.cli_json(&["volume", "show", "v"])?;
    ensure!(volume["devices"][0] != from, "it is still there: {volume}");
    daemon.cli_ok(&["device", "fail", from])?;
    let device = daemon.cli_json(&["device", "show", from])?;
    expect_fields(
        &device,
        &[
            ("reason", "string"),
            ("role", "string"),
            ("errors", "object"),
        ],
    )?;
    ensure!(device["state"] == "failed", "{device}");
    ensure!(daemon.cli_json(&["pool", "show"])?["state"] == "degraded");
    daemon.cli_ok(&["device", "online", from])?;
    expect_exit(daemon, NOT_FOUND, &["device", "online", "nosuch"])?;
    daemon.cli_ok(&["volume", "delete", "v"]).map(drop)
}

fn export_and_import(daemon: &Ringfence) -> Result<()> {
    daemon.cli_ok(&["volume", "create", "v", "--size", "16M"])?;
    let devices = daemon.cli_json(&["device", "list"])?;
    let paths: Vec<&str> = devices
        .as_array()
        .context("devices")?
        .iter()
        .filter_map(|device| device["path"].as_str())
        .collect();
    let pool = daemon.cli_json(&["pool", "export"])?;
    ensure!(
        daemon.cli_json(&["volume", "list"])? == json!([]),
        "exported"
    );
    ensure!(daemon.cli_json(&["pool", "show"])?["state"] == "empty");
    let imported = daemon.cli_json(&[&["pool", "import"], &paths[..]].concat())?;
    ensure!(imported["uuid"] == pool["uuid"], "{imported}");
    daemon.cli_ok(&["volume", "delete", "v"]).map(drop)
}
