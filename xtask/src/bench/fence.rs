//! How long it takes to fence a machine on very many volumes: `ringfence fence` beside loops on tgt. fence_scsi sends PREEMPT
//! AND ABORT, which tgt does not know: the loops send PREEMPT, which is less work, and tgt makes nothing durable.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use initiator::{Config, ReservationType, Session};
use scsi::Lun;
use serde_json::{Value, json};

use super::table::{Bar, Row};
use crate::process::run;
use crate::targets::ringfence::Ringfence;
use crate::targets::tgt::Tgt;
use crate::targets::{Target, loopback_portals};

const TYPE: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
const SURVIVOR: (&str, u64) = ("iqn.2026-11.dev.ringfence:survivor", 0xa1);
const VICTIM: (&str, u64) = ("iqn.2026-11.dev.ringfence:victim", 0xb2);
const DEVICES: [&str; 3] = ["d1", "d2", "d3"];
const MILLISECONDS_FOR_A_THOUSAND: f64 = 1000.0;
const TIMES_FASTER: f64 = 0.1;

/// Arguments of the one command of the loop, as fence_scsi runs sg_persist.
#[derive(clap::Args)]
pub struct Once {
    portal: SocketAddr,
    target: String,
    lun: u16,
}

/// Logs in as the survivor, registers its key and preempts the victim's: one process a volume.
///
/// # Errors
/// When the target refuses.
pub fn once(arguments: &Once) -> Result<()> {
    let lun = Lun::new(arguments.lun).context("a LUN below 16384")?;
    let mut session = login(arguments.portal, &arguments.target, SURVIVOR.0, 2)?;
    session.clear_unit_attentions(lun)?;
    session.register_and_ignore(lun, SURVIVOR.1, false)?;
    session.preempt(lun, SURVIVOR.1, VICTIM.1, TYPE)?;
    session.logout()?;
    Ok(())
}

fn login(portal: SocketAddr, target: &str, name: &str, qualifier: u8) -> Result<Session> {
    let kind = iscsi::initiator::Session::Normal {
        target_name: target.to_owned(),
    };
    let config = Config::new(name, [0x80, 0, 0, 0, 0, qualifier], kind);
    Ok(Session::connect(portal, config)?)
}

/// A row for each number of volumes, and one for the loop with a session that is kept.
///
/// # Errors
/// When a target refuses.
pub fn measure(folder: &Path, binary: &Path, numbers: &[u16], rounds: u32) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &number in numbers {
        eprintln!("{number} volumes");
        let ours = ringfence(
            &folder.join(format!("ours-{number}")),
            binary,
            number,
            rounds,
        )?;
        let (processes, kept) = tgt(&folder.join(format!("tgt-{number}")), number, rounds)?;
        let bar = match number {
            1000 => Bar::AtMost(MILLISECONDS_FOR_A_THOUSAND),
            _ => Bar::None,
        };
        let row = |measure: String, theirs: &Vec<f64>, bar| Row {
            measure,
            ours: ours.clone(),
            theirs: theirs.clone(),
            limit: Vec::new(),
            bar,
        };
        rows.push(row(
            format!("fence, {number} volumes, ms; loop: a process a volume"),
            &processes,
            bar,
        ));
        if number == 1000 {
            rows.push(row(
                "… as a part of that of the loop".to_owned(),
                &processes,
                Bar::RatioAtMost(TIMES_FASTER),
            ));
        }
        rows.push(row(
            format!("fence, {number} volumes, ms; loop: one session that is kept"),
            &kept,
            Bar::None,
        ));
    }
    Ok(rows)
}

/// Two sessions, both registered on all volumes; the survivor holds the reservations.
struct Pair {
    survivor: Session,
    victim: Session,
    luns: Vec<Lun>,
}

impl Pair {
    fn new(portal: SocketAddr, target: &str, luns: Vec<Lun>) -> Result<Self> {
        let mut pair = Self {
            survivor: login(portal, target, SURVIVOR.0, 1)?,
            victim: login(portal, target, VICTIM.0, 1)?,
            luns,
        };
        for lun in pair.luns.clone() {
            pair.survivor.clear_unit_attentions(lun)?;
            pair.survivor.register_and_ignore(lun, SURVIVOR.1, false)?;
            pair.survivor.reserve(lun, SURVIVOR.1, TYPE)?;
        }
        Ok(pair)
    }

    /// The victim registers on all volumes.
    fn register_victim(&mut self) -> Result<()> {
        for lun in self.luns.clone() {
            self.victim.clear_unit_attentions(lun)?;
            self.victim.register_and_ignore(lun, VICTIM.1, false)?;
        }
        Ok(())
    }

    /// The victim has no registration on any volume.
    fn check_gone(&mut self) -> Result<()> {
        for lun in self.luns.clone() {
            self.survivor.clear_unit_attentions(lun)?;
            let (_, keys) = self.survivor.read_keys(lun)?;
            ensure!(
                !keys.contains(&VICTIM.1),
                "{lun:?} still has the victim's key"
            );
        }
        Ok(())
    }
}

/// Seconds from the start of `ringfence fence` to its end.
fn ringfence(folder: &Path, binary: &Path, number: u16, rounds: u32) -> Result<Vec<f64>> {
    let mut daemon = Ringfence::new(binary, folder, loopback_portals(1)?)?;
    daemon.start()?;
    for device in DEVICES {
        daemon.add_device(device, "16G")?;
    }
    let mut control = Control::connect(&daemon)?;
    let mut luns = Vec::new();
    let names: Vec<String> = (0..number).map(|number| format!("v{number}")).collect();
    for name in &names {
        let create = json!({"op": "volume-create", "name": name, "size_bytes": 1 << 20,
                            "block_size_bytes": 512});
        let volume = control.ask(&create)?;
        let lun = volume["volume"]["lun"].as_u64().context("a LUN")?;
        luns.push(Lun::new(u16::try_from(lun)?).context("a LUN below 16384")?);
    }
    let create = json!({"op": "domain-create", "name": "d", "volumes": names,
                        "quorum": {"device": "d1"}});
    control.ask(&create)?;
    for (member, initiator) in [("survivor", SURVIVOR.0), ("victim", VICTIM.0)] {
        control.ask(&json!({"op": "member-add", "domain": "d", "member": member,
                            "initiators": [initiator], "votes": 1}))?;
    }
    for name in &names {
        control.ask(
            &json!({"op": "grant", "volume": name, "initiator": "domain:d",
                            "access": "rw"}),
        )?;
    }
    let mut pair = Pair::new(daemon.portals()[0], daemon.name(), luns)?;
    let mut fences = Vec::new();
    for _ in 0..rounds {
        pair.register_victim()?;
        settle();
        let begun = Instant::now();
        let done = daemon.cli_json(&["fence", "d", "victim"])?;
        fences.push(milliseconds(begun));
        ensure!(
            done["proven"] == "reservation" && done["not_served"] == json!([]),
            "{done}"
        );
        pair.check_gone()?;
        daemon.cli_ok(&["unfence", "d", "victim"])?;
    }
    daemon.terminate()?;
    Ok(fences)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Lets what was written before go to the disk: it is not what is measured.
fn settle() {
    rustix::fs::sync();
    std::thread::sleep(Duration::from_millis(200));
}

/// Milliseconds of the loop with a process a volume, and of the loop over a session that is kept.
fn tgt(folder: &Path, number: u16, rounds: u32) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut tgt = Tgt::new(folder, loopback_portals(1)?)?.with_io_threads(1);
    tgt.start()?;
    let mut luns = Vec::new();
    for index in 0..number {
        let lun = tgt.create_volume(&format!("v{index}"), 1, 512)?;
        luns.push(Lun::new(lun).context("a LUN below 16384")?);
    }
    let (portal, name) = (tgt.portals()[0], tgt.name().to_owned());
    let mut pair = Pair::new(portal, &name, luns.clone())?;
    let (mut processes, mut kept) = (Vec::new(), Vec::new());
    let program = std::env::current_exe()?;
    for _ in 0..rounds {
        pair.register_victim()?;
        settle();
        let begun = Instant::now();
        for lun in &luns {
            let mut once = std::process::Command::new(&program);
            once.arg("fence-once").arg(portal.to_string()).arg(&name);
            once.arg(lun.number().to_string());
            run(&mut once)?;
        }
        processes.push(milliseconds(begun));
        pair.check_gone()?;
        pair.register_victim()?;
        settle();
        let begun = Instant::now();
        for lun in &luns {
            pair.survivor.preempt(*lun, SURVIVOR.1, VICTIM.1, TYPE)?;
        }
        kept.push(milliseconds(begun));
        pair.check_gone()?;
    }
    tgt.kill()?;
    Ok((processes, kept))
}

/// The control socket, for very many requests.
struct Control {
    socket: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Control {
    fn connect(daemon: &Ringfence) -> Result<Self> {
        let socket = UnixStream::connect(daemon.state().join("control.sock"))?;
        let answers = BufReader::new(socket.try_clone()?);
        Ok(Self { socket, answers })
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.socket, "{}", json!({"version": 1, "request": request}))?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("the control socket says {line:?}"))?;
        ensure!(answer.get("answer").is_some(), "{request}: {answer}");
        Ok(answer["answer"].take())
    }
}
