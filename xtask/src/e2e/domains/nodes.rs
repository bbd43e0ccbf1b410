//! `ringfence node` in three members, over the real mailbox: a partition, a boot, a pause and a kill.

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
use serde_json::Value;
use uuid::Uuid;

use super::bridge::Bridge;
use super::lab::{Lab, TYPE, lun};
use crate::context::Context;

const NAMES: [&str; 3] = ["na", "nb", "nc"];
/// A machine that has much else to do must not lose a link.
const TIMEOUT_MS: u64 = 4_000;
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

/// Partition, boot, pause, kill; each as the members, the head and the data see it.
pub(super) fn run(lab: &Lab, context: &Context) -> Result<String> {
    let luns = lab.volumes(&["netdata"])?;
    let options = ["--quorum-device", "d1", "--window", "500ms"];
    lab.domain("net", &["netdata"], &NAMES, &options)?;
    let volumes = lab.daemon.cli_json(&["volume", "list"])?;
    let volumes = volumes.as_array().context("volumes")?;
    let named = |name: &str| {
        let found = volumes.iter().find(|volume| volume["name"] == name);
        found.with_context(|| format!("no {name} in {volumes:?}"))
    };
    let mailbox = lun(&named("net-mailbox")?["lun"])?;
    let naa = named("netdata")?["naa"].as_str().context("naa")?;
    let volume = format!("wwn-0x{naa}");
    let mut cluster = Cluster::new(context, volume.clone())?;
    for name in NAMES {
        let disks = [("mailbox".to_owned(), mailbox), (volume.clone(), luns[0])];
        let folder = cluster.folder.join(name).join("disks");
        let bridge = Bridge::mount(&folder, lab.login(name, 0)?, &disks)?;
        cluster.bridges.push(bridge);
    }
    // The head writes the members into the mailbox within its next look.
    thread::sleep(Duration::from_secs(2));
    for member in 0..3 {
        cluster.boot(member)?;
    }
    cluster.wait("all have one view of all", |cluster| cluster.is_whole())?;
    let keys = lab.daemon.cli_json(&["keys", "netdata"])?;
    let registrations = keys["registrations"].as_array().map_or(0, Vec::len);
    ensure!(registrations == 3, "three keys: {keys}");
    let key = fs::read_dir(cluster.folder.join("nc"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "key"))
        .context("the key of nc")?;
    let key = fs::read_to_string(key)?;
    let key = u64::from_str_radix(key.trim().trim_start_matches("0x"), 16)?;
    let mut session = lab.login("nc", 0)?;
    session.clear_unit_attentions(luns[0])?;
    session.register_and_ignore(luns[0], key, true)?;
    session.reserve(luns[0], key, TYPE)?;
    for member in 0..3 {
        ensure!(cluster.write(member).is_ok(), "{} writes", NAMES[member]);
    }

    let begun = Instant::now();
    cluster.cut(2, true);
    cluster.wait("nc has lost, na and nb have won", |cluster| {
        let won = |member| {
            cluster
                .last_hook(member)
                .is_some_and(|hook| hook.starts_with("won ") && hook.ends_with(" nc"))
        };
        Ok(won(0)
            && won(1)
            && cluster
                .last_hook(2)
                .is_some_and(|hook| hook.starts_with("lost ")))
    })?;
    let partition = begun.elapsed();
    ensure!(cluster.write(2).is_err(), "nc writes, and is fenced");
    ensure!(
        cluster.write(0).is_ok() && cluster.write(1).is_ok(),
        "na and nb write"
    );
    ensure!(
        lab.shown("net", "nc")?["fence"].is_object(),
        "the head knows"
    );
    cluster.cut(2, false);
    cluster.kill(2)?;
    cluster.start(2)?;
    cluster.wait("the same boot of nc stays out", |cluster| {
        Ok(cluster.status(2)?["status"] == "fenced")
    })?;
    thread::sleep(Duration::from_secs(2));
    ensure!(
        lab.shown("net", "nc")?["fence"].is_object(),
        "nc is let in, and was not booted"
    );
    cluster.kill(2)?;
    cluster.boot(2)?;
    cluster.wait("nc is back after a boot", Cluster::is_whole)?;
    ensure!(cluster.write(2).is_ok(), "nc writes again");

    cluster.signal(1, Signal::STOP)?;
    cluster.wait("nb is paused, and fenced for it", |cluster| {
        Ok(cluster
            .last_hook(0)
            .is_some_and(|hook| hook.ends_with(" nb")))
    })?;
    ensure!(cluster.write(1).is_err(), "nb writes, and is fenced");
    cluster.signal(1, Signal::CONT)?;
    cluster.wait("nb finds out", |cluster| {
        Ok(cluster
            .last_hook(1)
            .is_some_and(|hook| hook.starts_with("fenced ")))
    })?;

    cluster.kill(0)?;
    cluster.wait("nc goes on alone", |cluster| {
        Ok(cluster
            .last_hook(2)
            .is_some_and(|hook| hook.starts_with("won ") && hook.ends_with(" na")))
    })?;
    ensure!(
        cluster.write(0).is_err() && cluster.write(2).is_ok(),
        "nc alone writes"
    );
    Ok(format!(
        "ringfence node: a partition is decided in {:.1} s",
        partition.as_secs_f64()
    ))
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
