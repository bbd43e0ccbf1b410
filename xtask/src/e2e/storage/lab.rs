//! A daemon with a pool of several devices, and questions to it that the scenarios have in common.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::client::{Address, Client};
use crate::context::Context;
use crate::process::wait_for;
use crate::targets::ringfence::Ringfence;
use crate::targets::{Target, loopback_portals};

/// Nothing that a scenario waits for takes as long as this, even on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Every volume of the scenarios has blocks of this many bytes unless told otherwise.
pub const BLOCK_SIZE_BYTES: u32 = 512;
/// iSCSI name of the client that writes and compares.
pub const CLIENT: &str = "iqn.2026-11.com.example:client";

/// A run of a volume on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The device's name.
    pub device: String,
    /// Where it begins on the device.
    pub device_offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
}

/// The daemon, its files and its pool.
#[derive(Debug)]
pub struct Lab {
    /// The daemon; it runs.
    pub daemon: Ringfence,
    folder: PathBuf,
}

impl Lab {
    /// Starts a daemon without devices, which keeps its state in `folder`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(context: &Context, folder: &Path) -> Result<Self> {
        let mut daemon = Ringfence::new(context.ringfence()?, folder, loopback_portals(2)?)?;
        daemon.start()?;
        Ok(Self {
            daemon,
            folder: folder.into(),
        })
    }

    /// Adds devices of these names in sparse files of `size_mib` MiB.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn add_files(&self, names: &[&str], size_mib: u64) -> Result<()> {
        names
            .iter()
            .try_for_each(|name| self.daemon.add_device(name, &format!("{size_mib}M")))
    }

    /// The file of a device that [`Lab::add_files`] made.
    pub fn file(&self, device: &str) -> PathBuf {
        self.folder.join(format!("{device}.img"))
    }

    /// Adds a file or block device that is there.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn add_path(&self, name: &str, path: &Path) -> Result<()> {
        let path = path.to_str().context("a path in UTF-8")?;
        self.cli(&["device", "add", name, path])
    }

    /// The same with direct I/O: what waits for such a device waits in the kernel, and no thread of the daemon with it.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn add_direct(&self, name: &str, path: &Path) -> Result<()> {
        let path = path.to_str().context("a path in UTF-8")?;
        self.cli(&["device", "add", name, path, "--direct"])
    }

    /// Makes a volume with these further options, which everyone may read and write; returns its LUN.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn create(&self, name: &str, size_mib: u64, options: &[&str]) -> Result<u16> {
        let size = format!("{size_mib}M");
        let create = ["volume", "create", name, "--size", &size];
        let created = self.daemon.cli_json(&[&create, options].concat())?;
        self.cli(&["grant", name, "*", "rw"])?;
        let lun = created["lun"].as_u64().context("a LUN")?;
        Ok(u16::try_from(lun)?)
    }

    /// A client of a volume made by [`Lab::create`], with every block written once.
    ///
    /// # Errors
    /// When a write fails.
    pub fn client(&self, lun: u16, size_mib: u64, seed: u64) -> Result<Client> {
        let mut client = Client::new(self.address(lun), size_mib << 20, seed);
        client.fill()?;
        Ok(client)
    }

    /// A volume by its LUN at the first portal.
    pub fn address(&self, lun: u16) -> Address {
        Address {
            portal: self.daemon.portals()[0],
            target: self.daemon.name().into(),
            lun,
            block_size_bytes: BLOCK_SIZE_BYTES,
            initiator: CLIENT.into(),
        }
    }

    /// A command of the CLI that must succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn cli(&self, args: &[&str]) -> Result<()> {
        self.daemon.cli_ok(args).map(drop)
    }

    /// `volume show`.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn volume(&self, name: &str) -> Result<Value> {
        self.daemon.cli_json(&["volume", "show", name])
    }

    /// Waits until `volume show` is as wanted; returns it.
    ///
    /// # Errors
    /// When it does not come to that, with the last state seen and the end of the daemon's log.
    pub fn wait_for_volume(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let what = format!("volume {name} to be {what}");
        let mut last = Value::Null;
        let found = wait_for(&what, LIMIT, || {
            std::thread::sleep(Duration::from_millis(80));
            last = self.volume(name).ok()?;
            wanted(&last).then(|| last.clone())
        });
        found.with_context(|| {
            format!(
                "it is {last}\nthe daemon's log:\n{}",
                self.daemon.log_tail()
            )
        })
    }

    /// Waits until the volume has no job and all its copies are good.
    ///
    /// # Errors
    /// As [`Lab::wait_for_volume`].
    pub fn wait_until_good(&self, name: &str) -> Result<Value> {
        self.wait_for_volume(name, "good, with no job", is_good)
    }

    /// Waits until a volume has so many copies of its keys, all of them current.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_for_keys(&self, volume: &str, copies: usize) -> Result<()> {
        let mut last = Value::Null;
        let what = format!("{copies} current copies of the keys of {volume}");
        wait_for(&what, LIMIT, || {
            last = self.daemon.cli_json(&["keys", volume]).ok()?;
            let replicas = last["replicas"].as_array()?;
            let current = replicas.iter().filter(|one| one["state"] == "current");
            (current.count() == copies && replicas.len() == copies).then_some(())
        })
        .with_context(|| format!("keys says {last}"))
    }

    /// `device show`.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn device(&self, name: &str) -> Result<Value> {
        self.daemon.cli_json(&["device", "show", name])
    }

    /// Waits until a device is in this state.
    ///
    /// # Errors
    /// When it does not come to that.
    pub fn wait_for_device(&self, name: &str, state: &str) -> Result<Value> {
        let mut last = Value::Null;
        let found = wait_for(&format!("device {name} to be {state}"), LIMIT, || {
            last = self.device(name).ok()?;
            (last["state"] == state).then(|| last.clone())
        });
        found.with_context(|| {
            format!(
                "it is {last}\nthe daemon's log:\n{}",
                self.daemon.log_tail()
            )
        })
    }

    /// Where a copy (plex or replica) of a region (`public`, `private`, `log`) of a volume lies.
    ///
    /// # Errors
    /// When the daemon does not say.
    pub fn extents(&self, volume: &str, region: &str, copy: u64) -> Result<Vec<Extent>> {
        let map = self.daemon.cli_json(&["volume", "map", volume])?;
        let all = map["extents"].as_array().context("extents")?;
        let found: Vec<Extent> = all
            .iter()
            .filter(|extent| extent["region"] == region && extent["copy"] == copy)
            .map(|extent| {
                Ok(Extent {
                    device: extent["device"].as_str().context("device")?.into(),
                    device_offset_bytes: extent["device_offset_bytes"]
                        .as_u64()
                        .context("offset")?,
                    length_bytes: extent["length_bytes"].as_u64().context("length")?,
                })
            })
            .collect::<Result<_>>()?;
        ensure!(
            !found.is_empty(),
            "no {region} copy {copy} of {volume} in {map}"
        );
        Ok(found)
    }

    /// All events of this name so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn events(&self, name: &str) -> Result<Vec<Value>> {
        let lines = self.daemon.cli_ok(&["events", "--json"])?;
        let all = lines.lines().map(serde_json::from_str::<Value>);
        let all = all.collect::<Result<Vec<_>, _>>()?;
        Ok(all
            .into_iter()
            .filter(|event| event["event"] == name)
            .collect())
    }

    /// `volume verify`, which must find nothing.
    ///
    /// # Errors
    /// When copies differ.
    pub fn expect_equal_copies(&self, volume: &str) -> Result<()> {
        let finished = self.daemon.cli_finish(&["volume", "verify", volume])?;
        ensure!(
            finished.code == 0,
            "volume verify {volume} exited with {}:\n{}",
            finished.code,
            finished.text()
        );
        Ok(())
    }

    /// What `volume verify --json` says in its last line, and its exit code.
    ///
    /// # Errors
    /// When it prints no result.
    pub fn verify(&self, volume: &str, repair: bool) -> Result<(Value, i32)> {
        let mut args = vec!["volume", "verify", volume, "--json"];
        args.extend(repair.then_some("--repair"));
        let finished = self.daemon.cli_finish(&args)?;
        let verified = finished
            .stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line.get("verified").cloned());
        match verified {
            Some(verified) => Ok((verified, finished.code)),
            None => bail!(
                "volume verify {volume} printed no result:\n{}",
                finished.text()
            ),
        }
    }
}

/// Whether a volume has no job and all its copies are good.
pub fn is_good(volume: &Value) -> bool {
    volume["job"].is_null() && volume["health"] == "good"
}
