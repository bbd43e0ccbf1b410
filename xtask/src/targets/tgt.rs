//! Debian's tgt, run in the foreground with a control socket of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Background, command, run, succeeds, wait_for};
use crate::targets::Target;

/// A tgtd of ours, apart from any that the machine may run.
#[derive(Debug)]
pub struct Tgt {
    folder: PathBuf,
    namespace: Option<String>,
    portals: Vec<SocketAddr>,
    control_port: String,
    io_threads: Option<u32>,
    volumes: Vec<(PathBuf, u32)>,
    process: Option<Background>,
}

impl Tgt {
    const NAME: &'static str = "iqn.2026-11.dev.ringfence:tgt";

    /// A tgtd that keeps its files in `folder` and listens at `portals`; not started yet.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(folder: &Path, portals: Vec<SocketAddr>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.into(),
            namespace: None,
            portals,
            // tgtd takes a 15-bit number here, which only names the socket of its own folder.
            control_port: (std::process::id() % 32_000 + 1).to_string(),
            io_threads: None,
            volumes: Vec::new(),
            process: None,
        })
    }

    /// Runs the daemon in a network namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Starts so many threads for each volume instead of tgt's sixteen.
    #[must_use]
    pub fn with_io_threads(mut self, threads: u32) -> Self {
        self.io_threads = Some(threads);
        self
    }

    /// Exports an existing file; returns its LUN.
    ///
    /// # Errors
    /// When tgt refuses.
    pub fn add_backing_file(&mut self, file: &Path, block_size_bytes: u32) -> Result<u16> {
        self.volumes.push((file.into(), block_size_bytes));
        let lun = u16::try_from(self.volumes.len())?;
        self.attach(lun, file, block_size_bytes)?;
        Ok(lun)
    }

    fn attach(&self, lun: u16, file: &Path, block_size_bytes: u32) -> Result<()> {
        run(self
            .admin(&["--op", "new", "--mode", "logicalunit", "--tid", "1"])
            .args(["--lun", &lun.to_string(), "--bstype", "rdwr", "-b"])
            .arg(file)
            .args(["--blocksize", &block_size_bytes.to_string()]))
        .map(drop)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("control")
    }

    fn admin(&self, args: &[&str]) -> Command {
        let mut admin = command("tgtadm", ["-C", &self.control_port, "--lld", "iscsi"]);
        admin.args(args).env("TGT_IPC_SOCKET", self.socket());
        admin
    }
}

impl Target for Tgt {
    fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "tgtd runs already");
        let mut tgtd = match &self.namespace {
            Some(namespace) => command("ip", ["netns", "exec", namespace, "tgtd"]),
            None => Command::new("tgtd"),
        };
        tgtd.args(["-f", "-C", &self.control_port]);
        if let Some(threads) = self.io_threads {
            tgtd.args(["-t", &threads.to_string()]);
        }
        // One portal here, the others by tgtadm. In a namespace of its own it may have all addresses: tgtd does not
        // take the same port twice.
        let (first, others) = self.portals.split_first().context("tgtd needs a portal")?;
        if self.namespace.is_some() {
            tgtd.args(["--iscsi", &format!("portal=0.0.0.0:{}", first.port())]);
        } else {
            tgtd.args(["--iscsi", &format!("portal={first}")]);
        }
        tgtd.env("TGT_IPC_SOCKET", self.socket());
        let process = Background::start(&tgtd, &self.folder.join("tgtd.log"))?;
        wait_for("tgtd", Duration::from_secs(10), || {
            succeeds(&mut self.admin(&["--op", "show", "--mode", "sys"])).then_some(())
        })
        .with_context(|| process.log_tail())?;
        for portal in others.iter().filter(|_| self.namespace.is_none()) {
            let portal = format!("portal={portal}");
            run(&mut self.admin(&["--op", "new", "--mode", "portal", "--param", &portal]))?;
        }
        run(&mut self.admin(&[
            "--op",
            "new",
            "--mode",
            "target",
            "--tid",
            "1",
            "-T",
            Self::NAME,
        ]))?;
        for (index, (file, block_size_bytes)) in self.volumes.iter().enumerate() {
            self.attach(u16::try_from(index + 1)?, file, *block_size_bytes)?;
        }
        run(&mut self.admin(&[
            "--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL",
        ]))?;
        self.process = Some(process);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.process.take().context("tgtd is not running")?.kill()
    }

    fn check_running(&mut self) -> Result<()> {
        self.process
            .as_mut()
            .context("tgtd was not started")?
            .check_running()
    }

    fn log_tail(&self) -> String {
        self.process
            .as_ref()
            .map(Background::log_tail)
            .unwrap_or_default()
    }

    fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Background::pid)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn portals(&self) -> &[SocketAddr] {
        &self.portals
    }

    fn make_read_only(&mut self, name: &str) -> Result<()> {
        anyhow::bail!("{name}: the harness has no way to make a volume of tgt read-only")
    }

    fn create_volume(&mut self, name: &str, size_mib: u32, block_size_bytes: u32) -> Result<u16> {
        let path = self.folder.join(format!("{name}.img"));
        std::fs::File::create(&path)?.set_len(u64::from(size_mib) << 20)?;
        self.add_backing_file(&path, block_size_bytes)
    }
}
