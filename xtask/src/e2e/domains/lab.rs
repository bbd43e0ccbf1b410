//! A daemon with a fence domain, and its members as iSCSI sessions.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use bytes::Bytes;
use initiator::{Config, Error, ReservationType, Session};
use scsi::Lun;
use serde_json::Value;

use crate::context::Context;
use crate::targets::ringfence::Ringfence;
use crate::targets::{Target, loopback_portals};

/// The type of the reservations: who is not registered may not write.
pub(super) const TYPE: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
pub(super) const BLOCK_BYTES: u32 = 512;

/// The name of the initiator of a member or stranger.
pub(super) fn initiator_of(name: &str) -> String {
    format!("iqn.2026-11.com.example:{name}")
}

/// The key that a member registers.
pub(super) fn key_of(name: &str) -> u64 {
    let bytes = name.bytes();
    bytes.fold(0xace0_0000, |key, byte| {
        (key << 8 | u64::from(byte)) & 0x7fff_ffff_ffff_ffff
    })
}

/// A daemon.
#[derive(Debug)]
pub(super) struct Lab {
    pub(super) daemon: Ringfence,
}

impl Lab {
    /// A daemon on three devices, with two portals.
    pub(super) fn start(context: &Context, name: &str) -> Result<Self> {
        Self::start_with(context, name, &[])
    }

    /// A daemon as from [`Lab::start`] with more arguments.
    pub(super) fn start_with(context: &Context, name: &str, more: &[&str]) -> Result<Self> {
        let folder = context.folder(name)?;
        let mut daemon = Ringfence::new(context.ringfence()?, &folder, loopback_portals(2)?)?
            .with_arguments(more);
        daemon.start()?;
        for device in ["d1", "d2", "d3"] {
            daemon.add_device(device, "2G")?;
        }
        Ok(Self { daemon })
    }

    /// A daemon without devices.
    pub(super) fn bare(context: &Context, folder: &Path) -> Result<Self> {
        let mut daemon = Ringfence::new(context.ringfence()?, folder, loopback_portals(2)?)?;
        daemon.start()?;
        Ok(Self { daemon })
    }

    /// Creates volumes of 8 MiB; gives their LUNs.
    pub(super) fn volumes(&self, names: &[&str]) -> Result<Vec<Lun>> {
        let luns = names.iter().map(|name| {
            let volume = self
                .daemon
                .cli_json(&["volume", "create", name, "--size", "8M"])?;
            lun(&volume["lun"])
        });
        luns.collect()
    }

    /// Creates a domain of `volumes` with `members`, all of whom are granted everything.
    pub(super) fn domain(
        &self,
        name: &str,
        volumes: &[&str],
        members: &[&str],
        options: &[&str],
    ) -> Result<()> {
        let list = volumes.join(",");
        let create = ["domain", "create", name, "--volumes", &list];
        self.daemon.cli_json(&[&create, options].concat())?;
        for member in members {
            self.member(name, member, &[])?;
        }
        let grantee = format!("domain:{name}");
        for volume in volumes {
            self.daemon.cli_ok(&["grant", volume, &grantee, "rw"])?;
        }
        Ok(())
    }

    /// Adds a member.
    pub(super) fn member(&self, domain: &str, member: &str, options: &[&str]) -> Result<()> {
        let initiator = initiator_of(member);
        let add = [
            "domain",
            "member",
            "add",
            domain,
            member,
            "--initiator",
            &initiator,
        ];
        self.daemon.cli_ok(&[&add, options].concat()).map(drop)
    }

    /// A member of a domain as `domain show` has it.
    pub(super) fn shown(&self, domain: &str, member: &str) -> Result<Value> {
        let shown = self.daemon.cli_json(&["domain", "show", domain])?;
        let members = shown["members"].as_array().context("members")?;
        let found = members.iter().find(|found| found["member"] == member);
        found
            .cloned()
            .with_context(|| format!("no {member} in {shown}"))
    }

    /// Runs a command that must end with `code`; gives its JSON.
    pub(super) fn exits(&self, code: i32, args: &[&str]) -> Result<Value> {
        let finished = self.daemon.cli_finish(&[args, &["--json"]].concat())?;
        ensure!(
            finished.code == code,
            "ringfence {} exited with {} instead of {code}:\n{}",
            args.join(" "),
            finished.code,
            finished.text()
        );
        let text = match finished.stdout.trim() {
            "" => finished.stderr,
            _ => finished.stdout,
        };
        Ok(serde_json::from_str(&text)?)
    }

    /// Starts a command with `--json` and does not wait for its end.
    pub(super) fn begin(&self, args: &[&str]) -> Result<Running> {
        let child = self
            .daemon
            .cli(&[args, &["--json"]].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Running { child })
    }

    pub(super) fn portal(&self, index: usize) -> SocketAddr {
        self.daemon.portals()[index]
    }

    /// Logs in, or not.
    pub(super) fn try_login(&self, name: &str, portal: usize) -> Result<Session, Error> {
        let session = initiator_session(self.daemon.name());
        let config = Config::new(initiator_of(name), [0x80, 0, 0, 0, 0, 7], session);
        Session::connect(self.portal(portal), config)
    }

    /// Logs in.
    pub(super) fn login(&self, name: &str, portal: usize) -> Result<Session> {
        self.try_login(name, portal)
            .with_context(|| format!("{name} logs in"))
    }
}

fn initiator_session(target: &str) -> iscsi::initiator::Session {
    iscsi::initiator::Session::Normal {
        target_name: target.to_owned(),
    }
}

/// A LUN of the CLI's JSON.
pub(super) fn lun(value: &Value) -> Result<Lun> {
    value
        .as_u64()
        .and_then(|number| Lun::new(u16::try_from(number).ok()?))
        .ok_or_else(|| anyhow!("{value} is no LUN"))
}

/// A command under way.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
}

impl Running {
    /// Its exit code and the JSON it printed; null when it printed none.
    pub(super) fn end(self) -> Result<(i32, Value)> {
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let value = match text.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text)?,
        };
        Ok((output.status.code().unwrap_or(-1), value))
    }
}

/// A member: a session that is registered on all volumes.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) session: Session,
    luns: Vec<Lun>,
    /// Records written, all volumes together; those that were acknowledged.
    written: u64,
}

impl Node {
    /// Logs in and registers.
    pub(super) fn join(lab: &Lab, name: &str, luns: &[Lun]) -> Result<Self> {
        let session = lab.login(name, 0)?;
        let mut node = Self {
            name: name.to_owned(),
            session,
            luns: luns.to_vec(),
            written: 0,
        };
        node.register()?;
        Ok(node)
    }

    /// Somebody who reads these volumes and is not registered.
    pub(super) fn observer(lab: &Lab, name: &str, luns: &[Lun]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            session: lab.login(name, 1)?,
            luns: luns.to_vec(),
            written: 0,
        })
    }

    /// A member that comes back as the nexus it was.
    pub(super) fn again(lab: &Lab, name: &str, luns: &[Lun]) -> Result<Self> {
        Ok(Self {
            session: lab.login(name, 0)?,
            ..Self::observer(lab, name, luns)?
        })
    }

    /// Registers on all volumes.
    pub(super) fn register(&mut self) -> Result<()> {
        for lun in self.luns.clone() {
            self.session.clear_unit_attentions(lun)?;
            self.session
                .register_and_ignore(lun, key_of(&self.name), false)
                .with_context(|| format!("{} registers on {lun:?}", self.name))?;
        }
        Ok(())
    }

    /// Reserves all volumes.
    pub(super) fn reserve(&mut self) -> Result<()> {
        for lun in self.luns.clone() {
            self.session.reserve(lun, key_of(&self.name), TYPE)?;
        }
        Ok(())
    }

    /// Writes the next record into its area of a volume.
    pub(super) fn write(&mut self, area: u64) -> Result<(), Error> {
        let lun = self.luns[(self.written % self.luns.len() as u64) as usize];
        let number = self.written + 1;
        let data: Vec<u8> = number.to_le_bytes().repeat(BLOCK_BYTES as usize / 8);
        let lba = area * AREA_BLOCKS + number % AREA_BLOCKS;
        self.session
            .write(lun, lba, Bytes::from(data), BLOCK_BYTES, false)?;
        self.written = number;
        Ok(())
    }

    /// How many records were acknowledged.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether a write to a volume is refused with RESERVATION CONFLICT.
    pub(super) fn is_fenced_on(&mut self, lun: Lun) -> Result<bool> {
        self.session.clear_unit_attentions(lun).ok();
        let data = Bytes::from(vec![0xff; BLOCK_BYTES as usize]);
        match self
            .session
            .write(lun, LAST_BLOCK, data, BLOCK_BYTES, false)
        {
            Ok(()) => Ok(false),
            Err(error) if error.is_reservation_conflict() => Ok(true),
            Err(error) => Err(error).with_context(|| format!("{} writes {lun:?}", self.name)),
        }
    }

    /// Whether a record number is where it was written, in what [`Node::area`] gave.
    pub(super) fn has_record(&self, areas: &[Vec<u8>], number: u64) -> bool {
        let volume = ((number - 1) % self.luns.len() as u64) as usize;
        let start = (number % AREA_BLOCKS) as usize * BLOCK_BYTES as usize;
        let block = areas
            .get(volume)
            .and_then(|area| area.get(start..start + 8));
        block == Some(number.to_le_bytes().as_slice())
    }

    /// What is in the area of a member, on all volumes.
    pub(super) fn area(&mut self, area: u64) -> Result<Vec<Vec<u8>>> {
        let luns = self.luns.clone();
        luns.into_iter()
            .map(|lun| {
                self.session.clear_unit_attentions(lun)?;
                let blocks = u32::try_from(AREA_BLOCKS)?;
                let data = self
                    .session
                    .read(lun, area * AREA_BLOCKS, blocks, BLOCK_BYTES)?;
                Ok(data.to_vec())
            })
            .collect()
    }
}

/// Blocks of the area of each member; its records go round in it.
pub(super) const AREA_BLOCKS: u64 = 256;
/// A block that belongs to no area.
const LAST_BLOCK: u64 = (8 << 20) / BLOCK_BYTES as u64 - 1;

/// The highest record number in what [`Node::area`] gave.
pub(super) fn last_record(areas: &[Vec<u8>]) -> u64 {
    let blocks = areas
        .iter()
        .flat_map(|area| area.chunks_exact(BLOCK_BYTES as usize));
    let numbers = blocks.map(|block| {
        let mut number = [0; 8];
        number.copy_from_slice(&block[..8]);
        u64::from_le_bytes(number)
    });
    numbers.max().unwrap_or(0)
}

/// Waits until `probe` gives true, or says what did not come true.
pub(super) fn until(what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !probe()? {
        ensure!(Instant::now() < deadline, "it never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
