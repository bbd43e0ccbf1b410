//! The cluster: processes, the network between them, and the head.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fencing::mailbox::{
    Answer, AnswerVerdict, Directory, DirectoryMember, HeadArea, HeadMember, LastVerdict,
    MAILBOX_BYTES, MemberSlot, UNIT_BYTES, slot_place,
};
use fencing::{Secret, SlotSet};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use uuid::Uuid;

pub const INTERVAL_MS: u64 = 200;
pub const TIMEOUT_MS: u64 = 2_000;
const DOMAIN: Uuid = Uuid::from_u128(77);
const WINDOW: Duration = Duration::from_millis(600);

type Cuts = Arc<Mutex<Vec<Vec<bool>>>>;

pub struct Cluster {
    folder: tempfile::TempDir,
    nodes: Vec<Option<Child>>,
    boots: Vec<u128>,
    /// The port that carries datagrams from one node to another.
    ways: Vec<Vec<SocketAddr>>,
    cuts: Cuts,
    head: Arc<Mutex<Head>>,
}

struct Head {
    area: HeadArea,
    sequence: u64,
    file: File,
    fenced_incarnation: BTreeMap<u16, Uuid>,
    window: Option<Instant>,
    races: usize,
}

impl Cluster {
    pub fn new(nodes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(folder.path().join("mailbox"))
            .unwrap();
        file.set_len(MAILBOX_BYTES).unwrap();
        let name = |slot| format!("vm{slot}");
        let directory = Directory {
            members: (0..nodes as u16)
                .map(|slot| {
                    (
                        slot,
                        DirectoryMember {
                            name: name(slot),
                            initiators: Vec::new(),
                        },
                    )
                })
                .collect(),
            volumes: Vec::new(),
        };
        let write = directory.encode(DOMAIN, 1).unwrap();
        file.write_all_at(&write.bytes, write.offset_bytes).unwrap();
        let member = |slot| HeadMember {
            name: name(slot),
            votes: 1,
            registered: false,
            suspect: false,
            fenced: None,
            unproven: false,
        };
        let area = HeadArea {
            name: "domain".into(),
            incarnation: Uuid::from_u128(1),
            beat: 0,
            epoch: 0,
            secret: Secret::new([9; 32]),
            directory_sequence: 1,
            members: (0..nodes as u16).map(|slot| (slot, member(slot))).collect(),
            verdict: None,
            answers: BTreeMap::new(),
        };
        let mut head = Head {
            area,
            sequence: 0,
            file,
            fenced_incarnation: BTreeMap::new(),
            window: None,
            races: 0,
        };
        head.publish();
        let head = Arc::new(Mutex::new(head));
        let weak = Arc::downgrade(&head);
        thread::spawn(move || {
            while let Some(head) = weak.upgrade() {
                head.lock().unwrap().poll();
                drop(head);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let cuts = Arc::new(Mutex::new(vec![vec![false; nodes]; nodes]));
        let mut cluster = Self {
            folder,
            nodes: (0..nodes).map(|_| None).collect(),
            boots: vec![0; nodes],
            ways: Vec::new(),
            cuts,
            head,
        };
        for from in 0..nodes {
            let ways = (0..nodes).map(|to| cluster.way(from, to)).collect();
            cluster.ways.push(ways);
        }
        cluster
    }

    /// Carries datagrams to wherever the receiver's slot says that it hears, unless that way is cut.
    fn way(&self, from: usize, to: usize) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let cuts = Arc::clone(&self.cuts);
        let head = Arc::downgrade(&self.head);
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(length) = socket.recv(&mut buffer) {
                let Some(head) = head.upgrade() else { return };
                let slot = head.lock().unwrap().slot(to as u16);
                if cuts.lock().unwrap()[from][to] {
                    continue;
                }
                for address in slot.iter().flat_map(|slot| &slot.addresses) {
                    let _ = socket.send_to(&buffer[..length], address);
                }
            }
        });
        address
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn boot(&mut self, node: usize) {
        self.boots[node] += 1;
        self.start(node);
    }

    pub fn start(&mut self, node: usize) {
        let words = format!(
            "--member vm{node} --listen 127.0.0.1:0 --no-register --interval {INTERVAL_MS} --timeout {TIMEOUT_MS} --join-timeout 20000"
        );
        let hooks = self.path(&format!("hooks{node}"));
        let hook = |words: &str| {
            format!(
                "echo $RINGFENCE_HOOK $RINGFENCE_EPOCH {words} >> {}",
                hooks.display()
            )
        };
        let watchdog = self.path(&format!("watchdog{node}"));
        let _ = File::options()
            .append(true)
            .create(true)
            .open(&watchdog)
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence-node"));
        command
            .args(words.split_whitespace())
            .arg("--domain-disk")
            .arg(self.path("mailbox"))
            .arg("--socket")
            .arg(self.path(&format!("socket{node}")))
            .arg("--watchdog")
            .arg(&watchdog)
            .args(["--on-won", &hook("$RINGFENCE_FENCED")])
            .args(["--on-lost", &hook("$RINGFENCE_CAUSE")])
            .args(["--on-fenced", &hook("")])
            .arg("--incarnation")
            .arg(Uuid::from_u128(self.boots[node] << 64 | node as u128).to_string());
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            command
                .arg("--peer")
                .arg(format!("vm{peer}={}", self.ways[node][peer]));
        }
        self.nodes[node] = Some(command.spawn().unwrap());
    }

    pub fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn signal(&self, node: usize, signal: Signal) {
        let child = self.nodes[node].as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Stops a node in order; its key goes.
    pub fn stop(&mut self, node: usize) {
        self.signal(node, Signal::TERM);
        let status = self.nodes[node].take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}");
        let mut head = self.head.lock().unwrap();
        assert_eq!(
            head.slot(node as u16).unwrap().status,
            fencing::mailbox::Status::Left
        );
        head.area
            .members
            .get_mut(&(node as u16))
            .unwrap()
            .registered = false;
    }

    pub fn isolate(&self, node: usize, cut: bool) {
        let mut cuts = self.cuts.lock().unwrap();
        for other in 0..cuts.len() {
            cuts[node][other] = cut;
            cuts[other][node] = cut;
        }
    }

    /// What `status --json` says; null while there is no answer.
    pub fn status(&self, node: usize) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_ringfence-node"))
            .args(["status", "--json", "--socket"])
            .arg(self.path(&format!("socket{node}")))
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    pub fn hooks(&self, node: usize) -> Vec<String> {
        let text = fs::read_to_string(self.path(&format!("hooks{node}"))).unwrap_or_default();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    pub fn pets(&self, node: usize) -> usize {
        watchdog_text(&self.path(&format!("watchdog{node}"))).len()
    }

    pub fn petted(&self, node: usize) -> bool {
        self.pets(node) > 0
    }

    pub fn closed(&self, node: usize) -> bool {
        watchdog_text(&self.path(&format!("watchdog{node}"))).ends_with('V')
    }

    pub fn is_fenced(&self, node: usize) -> bool {
        self.head.lock().unwrap().area.members[&(node as u16)]
            .fenced
            .is_some()
    }

    pub fn races(&self) -> usize {
        self.head.lock().unwrap().races
    }

    /// Waits long enough for a machine that has other things to do.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let all: Vec<_> = (0..self.nodes.len())
                .map(|node| self.status(node))
                .collect();
            assert!(
                start.elapsed() < Duration::from_secs(90),
                "not so: {what}; {all:#?}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn watchdog_text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Head {
    fn publish(&mut self) {
        self.sequence += 1;
        self.area.beat += 1;
        let write = self.area.encode(DOMAIN, self.sequence).unwrap();
        self.file
            .write_all_at(&write.bytes, write.offset_bytes)
            .unwrap();
    }

    fn slot(&self, slot: u16) -> Option<MemberSlot> {
        let place = slot_place(slot).unwrap();
        let mut bytes = vec![0; 2 * UNIT_BYTES];
        self.file
            .read_exact_at(&mut bytes, place.offset_bytes)
            .unwrap();
        let (first, second) = bytes.split_at(UNIT_BYTES);
        MemberSlot::decode([first, second], slot, DOMAIN)
            .ok()
            .map(|read| read.payload)
    }

    fn poll(&mut self) {
        let slots: Vec<u16> = self.area.members.keys().copied().collect();
        let mut claims = Vec::new();
        for slot in slots {
            let Some(said) = self.slot(slot) else {
                continue;
            };
            let member = self.area.members.get_mut(&slot).unwrap();
            if member.fenced.is_some() {
                let incarnation = self.fenced_incarnation.get(&slot);
                if said.wants_unfence && incarnation != Some(&said.incarnation) {
                    member.fenced = None;
                    self.area.epoch += 1;
                }
            } else if said.status == fencing::mailbox::Status::Starting {
                // It is not the node that registers here.
                member.registered = true;
            }
            let answered = self.area.answers.get(&slot).map(|answer| answer.claim);
            claims.extend(
                said.claim
                    .filter(|claim| answered != Some(claim.id))
                    .map(|claim| (slot, claim)),
            );
        }
        if !claims.is_empty() && self.window.get_or_insert_with(Instant::now).elapsed() >= WINDOW {
            self.window = None;
            self.races += 1;
            let (_, best) = claims
                .iter()
                .max_by_key(|(_, claim)| (claim.group.len(), !claim.group.bits()))
                .unwrap();
            let winners = best.group;
            let current = claims
                .iter()
                .any(|(_, claim)| claim.epoch == self.area.epoch);
            let losers = if current {
                self.area.unfenced().minus(winners)
            } else {
                SlotSet::EMPTY
            };
            self.area.epoch += u64::from(!losers.is_empty());
            let epoch = self.area.epoch;
            for slot in losers.iter() {
                let incarnation = self.slot(slot).map_or(Uuid::nil(), |said| said.incarnation);
                self.fenced_incarnation.insert(slot, incarnation);
                let member = self.area.members.get_mut(&slot).unwrap();
                member.fenced = Some(epoch);
                member.registered = false;
            }
            if !losers.is_empty() {
                self.area.verdict = Some(LastVerdict {
                    epoch,
                    winners,
                    fenced: losers,
                });
            }
            for (slot, claim) in claims {
                let verdict = match winners.contains(slot) {
                    true => AnswerVerdict::Won,
                    false => AnswerVerdict::Lost,
                };
                let answer = Answer {
                    claim: claim.id,
                    verdict,
                    epoch,
                    winners,
                    fenced: losers,
                    reason: None,
                };
                self.area.answers.insert(slot, answer);
            }
        }
        self.publish();
    }
}
