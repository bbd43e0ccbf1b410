//! kill -9 of the daemon while a volume migrates, is mirrored, evacuated, resynchronized and grown under load. After
//! each restart the data are what a client may expect, the keys are the acknowledged ones, and the job goes on by itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::Value;

use super::client::{Client, Ended, Running};
use super::lab::{Lab, is_good};
use super::loops::LoopDevice;
use super::registrars::Registrars;
use crate::context::Context;
use crate::e2e::kill9::model::Model;
use crate::e2e::kill9::nexuses;
use crate::random::Random;
use crate::targets::Target;

const ROUNDS: u32 = 24;
const SIZE_MIB: u64 = 32;
const DEVICE_MIB: u64 = 256;
const FILES: [&str; 3] = ["f1", "f2", "f3"];
const LOOPS: [&str; 3] = ["l1", "l2", "l3"];
const VOLUME: &str = "data";
/// So that a job lasts longer than a round.
const RATE: &str = "24M";
/// The kill comes at a random moment of this time after the command that moves the volume.
const KILL_WITHIN_MS: usize = 1200;

/// The scenario.
///
/// # Errors
/// When a client gets an error or wrong data, a key is lost, or a job does not go on.
pub fn run(context: &Context) -> Result<String> {
    let folder = context.folder("kill9-moves")?;
    let mut random = Random::new(context.seed);
    let mut lab = Lab::start(context, &folder.join("daemon"))?;
    let loops = add_devices(&lab, &folder)?;
    let lun = lab.create(VOLUME, SIZE_MIB, &["--mirrors", "2", "--on", "f1,f2"])?;
    let mut client = Some(lab.client(lun, SIZE_MIB, context.seed)?);
    let mut model = Model::default();
    let mut count = Count::default();
    for round in 0..ROUNDS {
        let ended = one_round(
            &mut lab,
            &loops,
            lun,
            &mut client,
            &mut model,
            &mut random,
            &mut count,
        );
        ended.with_context(|| {
            format!(
                "round {round} of seed {}\nthe volume: {}\nthe daemon's log:\n{}",
                context.seed,
                lab.volume(VOLUME).unwrap_or(Value::Null),
                lab.daemon.log_tail()
            )
        })?;
    }
    finish_job(&lab, &mut client)?;
    let mut client = client.context("a client")?;
    client.verify().context("at the end")?;
    lab.expect_equal_copies(VOLUME)?;
    lab.daemon.check_running()?;
    drop(loops);
    count.check()?;
    Ok(format!(
        "{ROUNDS} rounds ({}), {} commands of the client, {} of PERSISTENT RESERVE OUT, longest wait {:.1} s",
        count.moves.join(" "),
        client.work().commands,
        count.reservations,
        client.work().longest.as_secs_f32()
    ))
}

/// What came to pass in all the rounds.
#[derive(Debug, Default)]
struct Count {
    moves: Vec<&'static str>,
    jobs_interrupted: u32,
    reservations: u64,
}

impl Count {
    /// A run in which the kill never met a job shows nothing.
    fn check(&self) -> Result<()> {
        ensure!(
            self.jobs_interrupted > 0 && self.reservations > u64::from(ROUNDS),
            "the kill met {} jobs and {} commands of PERSISTENT RESERVE OUT were answered",
            self.jobs_interrupted,
            self.reservations
        );
        Ok(())
    }
}

fn add_devices(lab: &Lab, folder: &Path) -> Result<Vec<LoopDevice>> {
    lab.add_files(&FILES, DEVICE_MIB)?;
    LOOPS
        .iter()
        .map(|name| {
            let device = LoopDevice::create(&folder.join(format!("{name}.img")), DEVICE_MIB)?;
            lab.add_path(name, device.path())?;
            Ok(device)
        })
        .collect()
}

fn one_round(
    lab: &mut Lab,
    loops: &[LoopDevice],
    lun: u16,
    client: &mut Option<Client>,
    model: &mut Model,
    random: &mut Random,
    count: &mut Count,
) -> Result<()> {
    // Every other time the job of the round before is let finish first, under load.
    if random.below(2) == 0 {
        finish_job(lab, client)?;
    }
    add_replaced(lab, loops)?;
    let before = lab.volume(VOLUME)?;
    let next = choose(&before, random);
    let load = client.take().context("a client")?.spawn();
    let registrars = Registrars::start(lab, lun, model, random.next())?;
    if let Some(device) = next.as_ref().and_then(|next| next.fail_first.as_deref()) {
        // It is refused where something needs the device, such as keys that are still being made elsewhere.
        let finished = lab.daemon.cli_finish(&["device", "fail", device])?;
        ensure!(
            matches!(finished.code, 0 | 6),
            "device fail exited with {}:\n{}",
            finished.code,
            finished.text()
        );
        std::thread::sleep(Duration::from_millis(150));
    }
    let mover = start_move(lab, next.as_ref());
    std::thread::sleep(Duration::from_millis(random.below(KILL_WITHIN_MS) as u64));
    let running = lab
        .volume(VOLUME)
        .is_ok_and(|volume| !volume["job"].is_null());
    count.jobs_interrupted += u32::from(running);
    registrars.expect_the_end();
    let alive = !load.has_ended();
    lab.daemon.kill()?;
    let (mut survivor, ended) = load.join()?;
    ensure!(
        alive && ended == Ended::ConnectionLost,
        "the client's session ended before the daemon was killed"
    );
    let killed = registrars.join(model)?;
    count.reservations += killed.acknowledged;
    let moved = mover
        .join()
        .map_err(|_| anyhow!("the thread of the CLI panicked"))??;
    if let Some(next) = &next {
        count.moves.push(next.name);
    }

    lab.daemon.start()?;
    let found = nexuses::read_state(&lab.daemon, VOLUME)?;
    killed.settle(model, found)?;
    survivor.verify()?;
    *client = Some(survivor);
    if let (Some(next), Some(true)) = (&next, moved) {
        next.expect_kept(&lab.volume(VOLUME)?)?;
    }
    Ok(())
}

/// A device that was replaced has left the pool; it joins again.
fn add_replaced(lab: &Lab, loops: &[LoopDevice]) -> Result<()> {
    let devices = lab.daemon.cli_json(&["device", "list"])?;
    let there: Vec<&str> = devices
        .as_array()
        .context("devices")?
        .iter()
        .filter_map(|device| device["name"].as_str())
        .collect();
    let paths = LOOPS
        .iter()
        .zip(loops.iter().map(|device| device.path().to_owned()));
    let paths = paths.chain(FILES.iter().map(|name| (name, lab.file(name))));
    for (name, path) in paths.filter(|(name, _)| !there.contains(name)) {
        lab.add_path(name, &path)?;
    }
    Ok(())
}

/// Undoes what keeps the volume from becoming good by itself: a job that was paused, a device that is still taken for
/// broken.
fn let_go_on(lab: &Lab) -> Result<()> {
    if lab.volume(VOLUME)?["job"]["state"] == "paused" {
        // It may have ended or been cancelled since.
        lab.daemon.cli_finish(&["job", "resume", VOLUME])?;
    }
    let devices = lab.daemon.cli_json(&["device", "list"])?;
    for device in devices.as_array().context("devices")? {
        if device["state"] == "failed" {
            lab.cli(&[
                "device",
                "online",
                device["name"].as_str().context("a name")?,
            ])?;
        }
    }
    Ok(())
}

/// Waits for the job under load.
fn finish_job(lab: &Lab, client: &mut Option<Client>) -> Result<()> {
    if is_good(&lab.volume(VOLUME)?) {
        return Ok(());
    }
    let load = client
        .take()
        .context("a client")?
        .paced(Duration::from_millis(1))
        .spawn();
    let finished = let_go_on(lab).and_then(|()| lab.wait_until_good(VOLUME));
    let mut stopped = Running::stop(load)?.paced(Duration::ZERO);
    finished.context("the job does not finish by itself")?;
    stopped.verify()?;
    *client = Some(stopped);
    Ok(())
}

/// A command that sets the volume in motion.
#[derive(Debug)]
struct Move {
    name: &'static str,
    args: Vec<String>,
    /// A device that is taken for broken before, under load, so that there is something to bring up to date.
    fail_first: Option<String>,
    /// The size that the volume has once the command has succeeded.
    grown_bytes: Option<u64>,
}

impl Move {
    fn new(name: &'static str, args: &[&str]) -> Self {
        Self {
            name,
            args: args.iter().map(ToString::to_string).collect(),
            fail_first: None,
            grown_bytes: None,
        }
    }

    /// What was answered with success is there after the crash.
    fn expect_kept(&self, after: &Value) -> Result<()> {
        if let Some(size) = self.grown_bytes {
            ensure!(
                after["size_bytes"].as_u64() >= Some(size),
                "the volume was grown to {size} bytes and is {after}"
            );
        }
        Ok(())
    }
}

/// What to do with the volume as it is. With a job under way only what may go on beside it.
fn choose(volume: &Value, random: &mut Random) -> Option<Move> {
    if !is_good(volume) {
        return match random.below(5) {
            0 => Some(Move::new("cancel", &["job", "cancel", VOLUME])),
            1 => Some(Move::new("pause", &["job", "pause", VOLUME])),
            2 => Some(Move::new("resume", &["job", "resume", VOLUME])),
            _ => None,
        };
    }
    let names = volume["devices"].as_array().cloned().unwrap_or_default();
    let used: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    let mirrors = volume["mirrors"].as_u64().unwrap_or(1);
    let size = volume["size_bytes"].as_u64().unwrap_or(0);
    let mut all = [FILES, LOOPS].concat();
    for index in (1..all.len()).rev() {
        all.swap(index, random.below(index + 1));
    }
    let free: Vec<&str> = all
        .iter()
        .copied()
        .filter(|name| !used.contains(name))
        .collect();
    match random.below(9) {
        0..3 => {
            // To other devices where there are enough of them, else to any.
            let (layout, count) = *random.pick(&[
                (&["--layout", "linear", "--mirrors", "1"][..], 1),
                (&["--layout", "linear", "--mirrors", "2"], 2),
                (
                    &["--layout", "striped", "--columns", "2", "--mirrors", "1"],
                    2,
                ),
                (
                    &[
                        "--layout",
                        "striped",
                        "--columns",
                        "2",
                        "--stripe-unit",
                        "16K",
                        "--mirrors",
                        "2",
                    ],
                    4,
                ),
            ]);
            let from = if free.len() >= count { &free } else { &all };
            let to = from[..count].join(",");
            let migrate = [
                "volume", "migrate", VOLUME, "--to", &to, "--rate", RATE, "--detach",
            ];
            Some(Move::new("migrate", &[&migrate, layout].concat()))
        }
        3 if mirrors < 3 && !free.is_empty() => {
            let on = free[0];
            let add = [
                "volume",
                "add-mirror",
                VOLUME,
                "--on",
                on,
                "--rate",
                RATE,
                "--detach",
            ];
            Some(Move::new("add-mirror", &add))
        }
        4 if mirrors > 1 => Some(Move::new(
            "remove-mirror",
            &["volume", "remove-mirror", VOLUME],
        )),
        5 if !used.is_empty() => {
            let evacuate = ["device", "evacuate", used[0], "--rate", RATE, "--detach"];
            Some(Move::new("evacuate", &evacuate))
        }
        6 if !used.is_empty() && !free.is_empty() => {
            let replace = [
                "device", "replace", used[0], free[0], "--rate", RATE, "--detach",
            ];
            Some(Move::new("replace", &replace))
        }
        7 if mirrors > 1 => {
            let mut resync = Move::new("resync", &["device", "online", used[0]]);
            resync.fail_first = Some(used[0].to_owned());
            Some(resync)
        }
        // Nothing but the kill: the regions that were being written have to be settled.
        8 if mirrors > 1 => None,
        _ if size < 64 << 20 => {
            let mut grow = Move::new("grow", &["volume", "grow", VOLUME, "+4M"]);
            grow.grown_bytes = Some(size + (4 << 20));
            Some(grow)
        }
        _ => None,
    }
}

/// Runs the command in a thread, as the daemon may be killed under it; says whether it succeeded.
fn start_move(lab: &Lab, next: Option<&Move>) -> std::thread::JoinHandle<Result<Option<bool>>> {
    let command = next.map(|next| {
        let args: Vec<&str> = next.args.iter().map(String::as_str).collect();
        (lab.daemon.cli(&args), next.args.join(" "))
    });
    std::thread::spawn(move || {
        let Some((mut command, shown)) = command else {
            return Ok(None);
        };
        let finished = crate::process::finish(&mut command, Duration::from_secs(60))?;
        match finished.code {
            0 => Ok(Some(true)),
            // Killed under it, or a job of the round before had ended meanwhile or not yet.
            1 | 4 | 5 | 6 => Ok(Some(false)),
            code => bail!("ringfence {shown} exited with {code}:\n{}", finished.text()),
        }
    })
}
