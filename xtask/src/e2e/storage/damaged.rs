//! Devices whose contents are damaged behind the daemon's back: noise over a copy of the data, of the keys and of the
//! configuration, and a file cut short.
//!
//! What nobody can know: which of two copies that differ is the right one. There are no checksums of the data; `volume
//! verify` finds the difference and `--repair` takes the first complete copy for the right one. So noise is put over the
//! last copy here, and nobody reads between damage and repair: a read may be served by the damaged one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::client::Client;
use super::lab::{Extent, Lab};
use crate::context::Context;
use crate::e2e::kill9::model::Model;
use crate::e2e::kill9::nexuses;
use crate::random::Random;
use crate::targets::Target;

use super::registrars::Registrars;

const SIZE_MIB: u64 = 24;
const DEVICE_MIB: u64 = 128;
const VOLUME: &str = "data";
const DEVICES: [&str; 4] = ["d1", "d2", "d3", "d4"];
/// The copy of the configuration on a small device: from the first MiB on, four MiB (docs/on-disk-format.md).
const CONFIGURATION: (u64, u64) = (1 << 20, 4 << 20);

/// The scenario.
///
/// # Errors
/// When damage is not found, not mended, or reaches an initiator where a good copy is known.
pub fn run(context: &Context) -> Result<String> {
    let folder = context.folder("damaged")?;
    let mut lab = Lab::start(context, &folder)?;
    lab.add_files(&DEVICES, DEVICE_MIB)?;
    let options = ["--mirrors", "2", "--on", "d1,d2", "--keys-on", "d1,d2,d3"];
    let lun = lab.create(VOLUME, SIZE_MIB, &options)?;
    let mut client = lab.client(lun, SIZE_MIB, context.seed)?;
    let mut model = Model::default();
    let registrars = Registrars::start(&lab, lun, &model, context.seed)?;
    std::thread::sleep(Duration::from_millis(300));
    registrars.stop(&mut model)?;
    let mut random = Random::new(context.seed);

    let told =
        |lab: &Lab, what: &str| format!("{what}\nthe daemon's log:\n{}", lab.daemon.log_tail());
    let found = noise_in_data(&lab, &mut client, &mut random)
        .with_context(|| told(&lab, "noise over a copy of the data"))?;
    noise_in_keys(&lab, &model, &mut random)
        .with_context(|| told(&lab, "noise over a copy of the keys"))?;
    noise_at_start(&mut lab, &model, &mut random)
        .with_context(|| told(&lab, "noise over copies of configuration and keys at start"))?;
    client.verify()?;
    client = cut_short(&lab, client).with_context(|| told(&lab, "a file cut short"))?;
    expect_state(&lab, &model)?;
    lab.daemon.check_running()?;
    Ok(format!(
        "{found} bytes of noise found and mended; keys, configuration and a cut file, too; {} commands",
        client.work().commands
    ))
}

/// Random bytes over runs of devices.
fn write_noise(lab: &Lab, extents: &[Extent], random: &mut Random) -> Result<()> {
    for extent in extents {
        let file = File::options().write(true).open(lab.file(&extent.device))?;
        let length = usize::try_from(extent.length_bytes)?;
        file.write_all_at(&random.bytes(length), extent.device_offset_bytes)?;
    }
    Ok(())
}

fn expect_state(lab: &Lab, model: &Model) -> Result<()> {
    let found = nexuses::read_state(&lab.daemon, VOLUME)?;
    ensure!(found == *model, "acknowledged {model:?}, found {found:?}");
    Ok(())
}

/// A tenth of the second copy; returns how many bytes were mended.
fn noise_in_data(lab: &Lab, client: &mut Client, random: &mut Random) -> Result<u64> {
    let mut part = lab.extents(VOLUME, "public", 1)?;
    for extent in &mut part {
        extent.device_offset_bytes += extent.length_bytes / 2;
        extent.length_bytes = (extent.length_bytes / 10).next_multiple_of(4096);
    }
    let damaged: u64 = part.iter().map(|extent| extent.length_bytes).sum();
    write_noise(lab, &part, random)?;
    let (found, code) = lab.verify(VOLUME, false)?;
    let mismatched = found["mismatched_bytes"]
        .as_u64()
        .context("mismatched_bytes")?;
    ensure!(
        code == 1 && mismatched >= damaged && found["repaired_bytes"] == 0,
        "with {damaged} bytes of noise verify exits with {code} and says {found}"
    );
    let (mended, code) = lab.verify(VOLUME, true)?;
    ensure!(
        code == 0 && mended["repaired_bytes"].as_u64() >= Some(damaged),
        "verify --repair exits with {code} and says {mended}"
    );
    lab.expect_equal_copies(VOLUME)?;
    client.verify()?;
    Ok(damaged)
}

/// One copy of three while the daemon runs: found, told, mended, and nobody is refused meanwhile.
fn noise_in_keys(lab: &Lab, model: &Model, random: &mut Random) -> Result<()> {
    let replica = lab.extents(VOLUME, "private", 1)?;
    write_noise(lab, &replica, random)?;
    let device = &replica[0].device;
    let (found, _) = lab.verify(VOLUME, true)?;
    ensure!(
        found["keys_stale"]
            .as_array()
            .is_some_and(|stale| stale.iter().any(|one| {
                one.as_str()
                    .is_some_and(|one| one.split_whitespace().next() == Some(device.as_str()))
            })),
        "with noise over the keys on {device} verify says {found}"
    );
    lab.wait_for_keys(VOLUME, 3)?;
    expect_state(lab, model)
}

/// Configuration of one device and keys on another, while no daemon runs.
fn noise_at_start(lab: &mut Lab, model: &Model, random: &mut Random) -> Result<()> {
    let keys = lab.extents(VOLUME, "private", 2)?;
    lab.daemon.terminate()?;
    let configuration = Extent {
        device: "d2".into(),
        device_offset_bytes: CONFIGURATION.0,
        length_bytes: CONFIGURATION.1,
    };
    write_noise(lab, &[configuration], random)?;
    write_noise(lab, &keys, random)?;
    lab.daemon.start()?;
    lab.wait_until_good(VOLUME)?;
    lab.wait_for_keys(VOLUME, 3)?;
    lab.wait_for_device("d2", "online")?;
    expect_state(lab, model)?;
    lab.expect_equal_copies(VOLUME)
}

/// The second device's file loses its second half. Whoever meets the end is served by the other copy. What a shorter
/// file has lost nobody knows, so the device is replaced, not taken back.
fn cut_short(lab: &Lab, mut client: Client) -> Result<Client> {
    let data = lab.extents(VOLUME, "public", 1)?;
    let middle = data[0].device_offset_bytes + data[0].length_bytes / 2;
    let file = File::options()
        .write(true)
        .open(lab.file(&data[0].device))?;
    file.set_len(middle)?;
    // A write past the end would make the file longer again, and what is missing would read as zeroes: so the first who
    // comes is one who reads both copies.
    lab.verify(VOLUME, false)?;
    client.verify().context("reading everything")?;
    lab.wait_for_volume(VOLUME, "degraded", |volume| volume["health"] == "degraded")?;
    let load = client.spawn();
    std::thread::sleep(Duration::from_millis(500));
    // It may not be taken for whole again, and is not needed for its own replacement.
    let finished = lab
        .daemon
        .cli_finish(&["device", "online", &data[0].device])?;
    ensure!(
        finished.code != 0,
        "a device with half of its size is taken back:\n{}",
        finished.text()
    );
    lab.cli(&["device", "replace", &data[0].device, "d4"])?;
    lab.wait_until_good(VOLUME)?;
    let mut client = load.stop()?;
    client.verify()?;
    lab.expect_equal_copies(VOLUME)?;
    lab.wait_for_keys(VOLUME, 3)?;
    Ok(client)
}
