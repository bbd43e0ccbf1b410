//! `ringfence node` in three members, over the real mailbox: a heartbeat on storage that stops, a stop in order, a
//! partition and a boot into it, a pause and a kill.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use scsi::Lun;
use serde_json::{Value, json};
use uuid::Uuid;

use super::bridge::Bridge;
use super::lab::{Lab, TYPE, lun};
use crate::context::Context;

const NAMES: [&str; 3] = ["na", "nb", "nc"];
/// A machine that has much else to do must not lose a link.
const TIMEOUT_MS: u64 = 5_000;
/// Short, so that whoever came to race after it would be seen.
const JOIN_TIMEOUT_MS: u64 = 6_000;
const LIMIT: Duration = Duration::from_secs(120);

type Cuts = Arc<Mutex<[bool; 3]>>;

struct Cluster<'a> {
    context: &'a Context,
    folder: PathBuf,
    /// Before the processes: what uses a mount goes first.
    children: [Option<Child>; 3],
    bridges: Vec<Bridge>,
    volume: String,
    listen: [SocketAddr; 3],
    /// The way from one member to another.
    ways: Vec<Vec<SocketAddr>>,
    /// Members that are cut off.
    cuts: Cuts,
    boots: [u64; 3],
}

/// All of it, as the members, the head and the data see it.
pub(super) fn run(lab: &Lab, context: &Context) -> Result<String> {
    let luns = lab.volumes(&["netdata"])?;
    let volumes = lab.daemon.cli_json(&["volume", "list"])?;
    let naa = named(&volumes, "netdata")?["naa"].as_str().context("naa")?;
    let volume = format!("wwn-{naa}");
    let mut cluster = Cluster::new(context, volume.clone())?;
    let options = ["--quorum-device", "d1", "--window", "500ms"];
    lab.domain("net", &["netdata"], &NAMES, &options)?;
    let volumes = lab.daemon.cli_json(&["volume", "list"])?;
    let mailbox = lun(&named(&volumes, "net-mailbox")?["lun"])?;
    for name in NAMES {
        let disks = [("mailbox".to_owned(), mailbox), (volume.clone(), luns[0])];
        let folder = cluster.folder.join(name).join("disks");
        let bridge = Bridge::mount(&folder, lab.login(name, 0)?, &disks)?;
        cluster.bridges.push(bridge);
    }
    // Perhaps before the head has written them into the mailbox: they wait.
    for member in 0..3 {
        cluster.boot(member)?;
    }
    cluster.wait("all have one view of all", Cluster::is_whole)?;
    let keys = lab.daemon.cli_json(&["keys", "netdata"])?;
    let registrations = keys["registrations"].as_array().map_or(0, Vec::len);
    ensure!(registrations == 3, "three keys: {keys}");
    for (member, name) in NAMES.iter().enumerate() {
        ensure!(cluster.write(member).is_ok(), "{name} writes");
    }
    suspect(lab, &cluster)?;
    stopped(lab, &mut cluster)?;
    reserve(&cluster, luns[0])?;
    let begun = Instant::now();
    cluster.cut(2, true);
    cluster.wait("nc has lost, na and nb have won", |cluster| {
        let won = |member| cluster.has_won(member, "nc");
        Ok(won(0) && won(1) && cluster.last_hook_is(2, "lost "))
    })?;
    let decided = begun.elapsed();
    fenced(lab, &mut cluster)?;
    back_into_the_partition(lab, &mut cluster)?;
    cluster.cut(2, false);
    cluster.wait("nc is back", Cluster::is_whole)?;
    ensure!(cluster.write(2).is_ok(), "nc writes again");
    paused_and_killed(&mut cluster)?;
    Ok(format!(
        "ringfence node: a partition is decided in {:.1} s",
        decided.as_secs_f64()
    ))
}

fn named<'a>(volumes: &'a Value, name: &str) -> Result<&'a Value> {
    let all = volumes.as_array().context("volumes")?;
    let found = all.iter().find(|volume| volume["name"] == name);
    found.with_context(|| format!("no {name} in {volumes}"))
}

/// The one that will lose holds a reservation.
fn reserve(cluster: &Cluster, volume: Lun) -> Result<()> {
    let key = fs::read_dir(cluster.folder.join("nc"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "key"))
        .context("the key of nc")?;
    let key = fs::read_to_string(key)?;
    let key = u64::from_str_radix(key.trim().trim_start_matches("0x"), 16)?;
    let mut session = cluster.bridges[2].session();
    session.clear_unit_attentions(volume)?;
    session.reserve(volume, key, TYPE)?;
    Ok(())
}

/// A member that is there, and whose heartbeat on storage stops: everybody is told, and nothing is done to it.
fn suspect(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let state = |state: &str| -> Result<bool> { Ok(lab.shown("net", "nb")?["state"] == state) };
    let others_know = |suspect: bool| -> Result<bool> {
        let status = cluster.status(0)?;
        let members = status["members"].as_array().context("members")?;
        let nb = members.iter().find(|member| member["name"] == "nb");
        Ok(nb.context("nb")?["suspect"] == suspect)
    };
    cluster.bridges[1].fail_writes(true);
    cluster.wait("nb is suspect", |_| {
        Ok(state("suspect")? && others_know(true)?)
    })?;
    ensure!(
        cluster.status(1)?["access"] == true && cluster.is_whole()?,
        "nb is suspect and nothing else: {}",
        cluster.status(1)?
    );
    cluster.bridges[1].fail_writes(false);
    cluster.wait("nb is suspect no longer", |_| {
        Ok(state("member")? && others_know(false)?)
    })?;
    let text = lab.daemon.cli_ok(&["events", "--json"])?;
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|event: &Value| event["member"] == "nb")
        .collect();
    let told: Vec<&str> = events
        .iter()
        .filter_map(|event| event["event"].as_str())
        .filter(|event| event.starts_with("member-suspect") || event.starts_with("member-back"))
        .collect();
    ensure!(told == ["member-suspect", "member-back"], "{told:?}");
    Ok(())
}

/// A node that is stopped in order: no race, no suspicion, its key is given up; and it comes back.
fn stopped(lab: &Lab, cluster: &mut Cluster) -> Result<()> {
    let epoch = cluster.epoch()?;
    cluster.signal(2, Signal::TERM)?;
    if let Some(mut child) = cluster.children[2].take() {
        let status = child.wait()?;
        ensure!(status.success(), "nc ends with {status}");
    }
    cluster.wait("na and nb go on without nc", |cluster| {
        Ok(cluster.status(0)?["view"]["members"] == json!(["na", "nb"]))
    })?;
    // Longer than a heartbeat on storage may stand still.
    thread::sleep(Duration::from_secs(6));
    let nc = lab.shown("net", "nc")?;
    ensure!(
        nc["state"] == "member" && nc["registered"] == false && cluster.epoch()? == epoch,
        "nc has stopped in order: {nc}"
    );
    cluster.start(2)?;
    cluster.wait("nc is started again", Cluster::is_whole)
}

/// The data and the head know what the hooks said; the boot that was fenced stays out.
fn fenced(lab: &Lab, cluster: &mut Cluster) -> Result<()> {
    ensure!(cluster.write(2).is_err(), "nc writes, and is fenced");
    ensure!(
        cluster.write(0).is_ok() && cluster.write(1).is_ok(),
        "na and nb write"
    );
    let is_fenced = || -> Result<bool> { Ok(lab.shown("net", "nc")?["fence"].is_object()) };
    ensure!(is_fenced()?, "the head knows");
    cluster.kill(2)?;
    cluster.start(2)?;
    cluster.wait("the same boot of nc stays out", |cluster| {
        Ok(cluster.status(2)?["status"] == "fenced")
    })?;
    thread::sleep(Duration::from_secs(2));
    ensure!(is_fenced()?, "nc is let in, and was not booted");
    cluster.kill(2)
}

/// A boot is let in, and waits with its key until the network is mended: it provokes no race.
fn back_into_the_partition(lab: &Lab, cluster: &mut Cluster) -> Result<()> {
    cluster.boot(2)?;
    cluster.wait("nc waits for na and nb", |cluster| {
        Ok(cluster.status(2)?["waits_for"] == json!(["na", "nb"]))
    })?;
    let epoch = cluster.epoch()?;
    thread::sleep(Duration::from_millis(JOIN_TIMEOUT_MS + TIMEOUT_MS + 2_000));
    let nc = lab.shown("net", "nc")?;
    ensure!(
        nc["fence"].is_null() && nc["registered"] == false && cluster.epoch()? == epoch,
        "nc waits, and nobody races: {nc}"
    );
    let goes_on = |member: usize| -> Result<bool> {
        Ok(cluster.status(member)?["status"] == "member" && cluster.write(member).is_ok())
    };
    ensure!(goes_on(0)? && goes_on(1)?, "na and nb go on");
    Ok(())
}

fn paused_and_killed(cluster: &mut Cluster) -> Result<()> {
    cluster.signal(1, Signal::STOP)?;
    cluster.wait("nb is paused, and fenced for it", |cluster| {
        Ok(cluster.has_won(0, "nb"))
    })?;
    ensure!(cluster.write(1).is_err(), "nb writes, and is fenced");
    cluster.signal(1, Signal::CONT)?;
    cluster.wait("nb finds out", |cluster| {
        Ok(cluster.last_hook_is(1, "fenced "))
    })?;
    cluster.kill(0)?;
    cluster.wait("nc goes on alone", |cluster| Ok(cluster.has_won(2, "na")))?;
    ensure!(
        cluster.write(0).is_err() && cluster.write(2).is_ok(),
        "nc alone writes"
    );
    Ok(())
}

impl<'a> Cluster<'a> {
    fn new(context: &'a Context, volume: String) -> Result<Self> {
        let folder = context.folder("domains-nodes")?;
        let mut listen = [SocketAddr::from(([127, 0, 0, 1], 0)); 3];
        let sockets: Vec<UdpSocket> = listen
            .iter()
            .map(UdpSocket::bind)
            .collect::<io::Result<_>>()?;
        for (address, socket) in listen.iter_mut().zip(&sockets) {
            *address = socket.local_addr()?;
        }
        drop(sockets);
        let cuts = Cuts::default();
        let mut ways = Vec::new();
        for from in 0..3 {
            let way = |to: usize| way(from, to, listen[to], Arc::clone(&cuts));
            ways.push((0..3).map(way).collect::<Result<Vec<_>>>()?);
        }
        Ok(Self {
            context,
            folder,
            children: [None, None, None],
            bridges: Vec::new(),
            volume,
            listen,
            ways,
            cuts,
            boots: [0; 3],
        })
    }

    fn boot(&mut self, member: usize) -> Result<()> {
        self.boots[member] += 1;
        self.start(member)
    }

    fn start(&mut self, member: usize) -> Result<()> {
        let name = NAMES[member];
        let own = self.folder.join(name);
        fs::create_dir_all(&own)?;
        let disks = self.bridges[member].folder();
        let hook = format!(
            "echo $RINGFENCE_HOOK $RINGFENCE_EPOCH $RINGFENCE_FENCED >> {}",
            own.join("hooks").display()
        );
        let mut node = Command::new(self.context.ringfence()?);
        node.arg("node")
            .args(["--member", name])
            .args(["--listen", &self.listen[member].to_string()])
            .arg("--domain-disk")
            .arg(disks.join("mailbox"))
            .arg("--by-id")
            .arg(disks)
            .arg("--run-dir")
            .arg(&own)
            .arg("--socket")
            .arg(own.join("socket"))
            .args(["--interval", "250", "--timeout", &TIMEOUT_MS.to_string()])
            .args(["--join-timeout", &JOIN_TIMEOUT_MS.to_string()])
            .args(["--on-won", &hook, "--on-lost", &hook, "--on-fenced", &hook])
            .arg("--incarnation")
            .arg(Uuid::from_u64_pair(self.boots[member], member as u64).to_string());
        for peer in (0..3).filter(|peer| *peer != member) {
            let way = self.ways[member][peer];
            node.arg("--peer").arg(format!("{}={way}", NAMES[peer]));
        }
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(own.join("log"))?;
        self.children[member] = Some(node.stdin(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    fn kill(&mut self, member: usize) -> Result<()> {
        if let Some(mut child) = self.children[member].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        let child = self.children[member].as_ref().context("a node that runs")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    fn cut(&self, member: usize, cut: bool) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        cuts[member] = cut;
    }

    /// Null while it does not answer.
    fn status(&self, member: usize) -> Result<Value> {
        let output = Command::new(self.context.ringfence()?)
            .args(["node", "status", "--json", "--socket"])
            .arg(self.folder.join(NAMES[member]).join("socket"))
            .output()?;
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    fn is_whole(&self) -> Result<bool> {
        let first = self.status(0)?;
        for member in 0..3 {
            let status = self.status(member)?;
            let all = status["view"]["members"]
                .as_array()
                .is_some_and(|members| members.len() == 3);
            if status["status"] != "member" || !all || status["view"] != first["view"] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn last_hook(&self, member: usize) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(NAMES[member]).join("hooks")).ok()?;
        text.lines().last().map(|line| line.trim().to_owned())
    }

    fn last_hook_is(&self, member: usize, start: &str) -> bool {
        self.last_hook(member)
            .is_some_and(|hook| hook.starts_with(start))
    }

    /// Whether it was told last that it goes on and this one is fenced.
    fn has_won(&self, member: usize, fenced: &str) -> bool {
        let last = self.last_hook(member);
        last.is_some_and(|hook| hook.starts_with("won ") && hook.ends_with(&format!(" {fenced}")))
    }

    /// The epoch that na knows.
    fn epoch(&self) -> Result<u64> {
        self.status(0)?["epoch"].as_u64().context("an epoch")
    }

    /// Writes a block of the member's own through its own session.
    fn write(&self, member: usize) -> io::Result<()> {
        let path = self.bridges[member].folder().join(&self.volume);
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(&[0x5a; 4096], 4096 * member as u64)
    }

    fn wait(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let begun = Instant::now();
        while !is_so(self)? {
            if begun.elapsed() > LIMIT {
                let mut said = String::new();
                for (member, name) in NAMES.iter().enumerate() {
                    let log =
                        fs::read_to_string(self.folder.join(name).join("log")).unwrap_or_default();
                    let tail: Vec<_> = log.lines().rev().take(12).collect();
                    said += &format!("\n{name}: {}\n{}", self.status(member)?, tail.join("\n"));
                }
                bail!("not so after {LIMIT:?}: {what}{said}");
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        for member in 0..3 {
            let _ = self.kill(member);
        }
    }
}

/// Carries datagrams unless one of the two is cut off.
fn way(from: usize, to: usize, address: SocketAddr, cuts: Cuts) -> Result<SocketAddr> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    let own = socket.local_addr()?;
    // It lives as long as the process: it costs nothing when nothing comes.
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            let cut = cuts.lock().unwrap_or_else(PoisonError::into_inner);
            if !cut[from] && !cut[to] {
                let _ = socket.send_to(&buffer[..length], address);
            }
        }
    });
    Ok(own)
}
