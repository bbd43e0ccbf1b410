//! A pool moved to another daemon: only its devices come along. Volumes, grants and keys are there; a missing minority
//! does not matter, a stale device is recognized and repaired, and too few devices are not believed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use initiator::ReservationType;
use serde_json::Value;

use super::client::Client;
use super::lab::Lab;
use crate::context::Context;
use crate::targets::Target;

const SIZE_MIB: u64 = 16;
const DEVICE_MIB: u64 = 96;
const DEVICES: [&str; 3] = ["d1", "d2", "d3"];
/// Registered with APTPL=1 on the first volume, with APTPL=0 on the second.
const KEYS: [(&str, u64, bool); 2] = [("kept", 0xa1, true), ("light", 0xb2, false)];
const VM: &str = "iqn.2026-11.com.example:vm";

/// The scenario.
///
/// # Errors
/// When something that was on the devices is not there afterwards, or something is believed that is not right.
pub fn run(context: &Context) -> Result<String> {
    let folder = context.folder("elsewhere")?;
    let home = Lab::start(context, &folder.join("home"))?;
    home.add_files(&DEVICES, DEVICE_MIB)?;
    let mut clients = make_volumes(&home, context.seed)?;
    let before = shown(&home)?;
    home.cli(&["pool", "export"])?;
    ensure!(
        home.daemon.cli_json(&["volume", "list"])? == Value::Array(Vec::new()),
        "volumes are left after the export"
    );

    let paths = move_files(&home, &folder, "first")?;
    let mut first = Lab::start(context, &folder.join("first-daemon"))?;
    import(&first, &paths)?;
    compare(&first, &before, "after a clean export")?;
    follow(&first, &mut clients)?;
    first.daemon.kill()?;

    // The machine is gone without an export, and one of its three devices with it.
    let mut second = Lab::start(context, &folder.join("second-daemon"))?;
    import(&second, &paths[..2])?;
    let pool = second.daemon.cli_json(&["pool", "show"])?;
    ensure!(
        pool["state"] == "degraded",
        "with a device missing the pool is {pool}"
    );
    // The daemon was killed on the same boot of the machine: even keys registered with APTPL=0 stay.
    compare(
        &second,
        &before,
        "after a crash, with one device of three missing",
    )?;
    follow(&second, &mut clients)?;
    clients = clients
        .into_iter()
        .map(|(name, client)| {
            let load = client.spawn();
            std::thread::sleep(Duration::from_millis(300));
            Ok((name, load.stop()?))
        })
        .collect::<Result<_>>()?;
    second.cli(&["grant", "kept", "iqn.2026-11.com.example:late", "ro"])?;
    let later = shown(&second)?;

    // It comes back, and knows nothing of what happened meanwhile.
    second.cli(&["device", "online", "d3", "--path", text(&paths[2])?])?;
    for (name, client) in &mut clients {
        second.wait_until_good(name)?;
        second.wait_for_keys(name, 3)?;
        client.verify()?;
        second.expect_equal_copies(name)?;
    }
    compare(&second, &later, "after the stale device has come back")?;
    let code = second.daemon.terminate()?;
    ensure!(code == 0, "SIGTERM ends the daemon with {code}");

    // A third daemon begins with the device that was stale: all three are equal again.
    let mut third = Lab::start(context, &folder.join("third-daemon"))?;
    import(
        &third,
        &[paths[2].clone(), paths[0].clone(), paths[1].clone()],
    )?;
    compare(&third, &later, "on the third daemon")?;
    follow(&third, &mut clients)?;
    third.daemon.kill()?;

    minority_is_refused(context, &folder, &paths)?;
    Ok(
        "three moves: after an export, after a crash with a device missing, and with it back"
            .into(),
    )
}

/// A mirror with keys on all three devices, and a linear volume; registrations and grants on both.
fn make_volumes(lab: &Lab, seed: u64) -> Result<Vec<(&'static str, Client)>> {
    let options: [&[&str]; 2] = [
        &["--mirrors", "2", "--on", "d1,d3", "--keys-on", "d1,d2,d3"],
        &["--on", "d1", "--keys-on", "d1,d2,d3"],
    ];
    let mut clients = Vec::new();
    for ((name, key, aptpl), options) in KEYS.into_iter().zip(options) {
        let lun = lab.create(name, SIZE_MIB, options)?;
        lab.cli(&["grant", name, VM, "ro"])?;
        let client = lab.client(lun, SIZE_MIB, seed ^ key)?;
        let mut session = client.address().log_in()?;
        let unit = client.address().unit();
        session.register(unit, 0, key, aptpl)?;
        session.reserve(unit, key, ReservationType::WriteExclusive)?;
        session.logout()?;
        clients.push((name, client));
    }
    Ok(clients)
}

/// What `ringfence` shows of volumes, grants and keys that has to be the same everywhere.
fn shown(lab: &Lab) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for (name, ..) in KEYS {
        let volume = lab.volume(name)?;
        let keys = lab.daemon.cli_json(&["keys", name])?;
        let of_volume = [
            "name",
            "lun",
            "uuid",
            "naa",
            "size_bytes",
            "block_size_bytes",
            "layout",
            "mirrors",
            "persist",
        ]
        .map(|field| volume[field].clone());
        let of_keys =
            ["generation", "reservation", "registrations"].map(|field| keys[field].clone());
        all.push(serde_json::json!({
            "volume": of_volume,
            "keys": of_keys,
            "grants": lab.daemon.cli_json(&["grants", name])?["grants"],
        }));
    }
    Ok(all)
}

fn compare(lab: &Lab, before: &[Value], when: &str) -> Result<()> {
    let now = shown(lab)?;
    for (now, before) in now.iter().zip(before) {
        ensure!(now == before, "{when}:\n{now:#}\nwas\n{before:#}");
    }
    Ok(())
}

/// The clients go on with the daemon that has the volumes now, and find what they left.
fn follow(lab: &Lab, clients: &mut [(&str, Client)]) -> Result<()> {
    for (name, client) in clients {
        let lun = client.address().lun;
        client.redirect(lab.daemon.portals()[0], lab.daemon.name(), lun);
        client
            .verify()
            .with_context(|| format!("volume {name} on the next daemon"))?;
    }
    Ok(())
}

/// Devices are elsewhere at the next daemon.
fn move_files(lab: &Lab, folder: &Path, to: &str) -> Result<Vec<PathBuf>> {
    let to = folder.join(to);
    std::fs::create_dir(&to)?;
    // Other names, too: what a device is called in the pool is on the device.
    DEVICES
        .iter()
        .enumerate()
        .map(|(index, device)| {
            let path = to.join(format!("disk-{index}"));
            std::fs::rename(lab.file(device), &path)?;
            Ok(path)
        })
        .collect()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn import(lab: &Lab, paths: &[PathBuf]) -> Result<()> {
    let mut args = vec!["pool", "import"];
    for path in paths {
        args.push(text(path)?);
    }
    lab.cli(&args)
}

/// One device of three says nothing for sure.
fn minority_is_refused(context: &Context, folder: &Path, paths: &[PathBuf]) -> Result<()> {
    let lab = Lab::start(context, &folder.join("minority"))?;
    let finished = lab
        .daemon
        .cli_finish(&["pool", "import", text(&paths[0])?])?;
    ensure!(
        finished.code != 0 && !finished.stderr.is_empty(),
        "one device of three was imported:\n{}",
        finished.text()
    );
    ensure!(
        lab.daemon.cli_json(&["volume", "list"])? == Value::Array(Vec::new()),
        "a refused import leaves volumes"
    );
    Ok(())
}
