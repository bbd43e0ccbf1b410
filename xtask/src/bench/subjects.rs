//! The targets under measurement, side by side: both run all the time, and only one has work.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::canned;
use super::load::Subject;
use super::process_cost::Source;
use crate::targets::ringfence::Ringfence;
use crate::targets::tgt::Tgt;
use crate::targets::{Target, loopback_portals};

enum Daemon {
    Ringfence(Ringfence),
    Tgt(Tgt, PathBuf),
}

impl Daemon {
    fn target(&mut self) -> &mut dyn Target {
        match self {
            Self::Ringfence(target) => target,
            Self::Tgt(target, _) => target,
        }
    }

    fn create(&mut self, name: &str, size_mib: u32) -> Result<u16> {
        match self {
            Self::Ringfence(target) => target.create_volume(name, size_mib, 512),
            Self::Tgt(target, folder) => {
                let file = folder.join(format!("{name}.img"));
                std::fs::File::create(&file)?.set_len(u64::from(size_mib) << 20)?;
                target.add_backing_file(&file, 512)
            }
        }
    }
}

/// ringfence, the target it is compared with, and the canned responder.
pub struct Subjects {
    daemons: Vec<Daemon>,
    subjects: Vec<Subject>,
    canned: Option<Subject>,
}

impl Subjects {
    /// Starts ringfence with one volume, and beside it, if wanted, tgt or another build of ringfence with its own, and
    /// the canned responder.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(
        folder: &Path,
        binary: &Path,
        baseline: Option<&Path>,
        compare: bool,
        volume_mib: u32,
    ) -> Result<Self> {
        let ours = Ringfence::new(binary, &folder.join("ringfence"), loopback_portals(1)?)?;
        let mut daemons = vec![Daemon::Ringfence(ours)];
        if compare {
            let portals = loopback_portals(1)?;
            daemons.push(match baseline {
                Some(binary) => {
                    Daemon::Ringfence(Ringfence::new(binary, &folder.join("baseline"), portals)?)
                }
                None => {
                    let folder = folder.join("tgt");
                    Daemon::Tgt(Tgt::new(&folder, portals)?, folder)
                }
            });
        }
        let mut subjects = Vec::new();
        for daemon in &mut daemons {
            daemon.target().start()?;
            let lun = daemon.create("bench", volume_mib)?;
            let target = daemon.target();
            subjects.push(Subject {
                portal: target.portals()[0],
                name: target.name().into(),
                lun,
                cost: Source::Process(target.pid().context("the target runs")?),
            });
        }
        Ok(Self {
            daemons,
            subjects,
            canned: compare.then(canned::start).transpose()?,
        })
    }

    /// ringfence first, then the other; without the canned responder.
    pub fn real(&self) -> impl Iterator<Item = &Subject> {
        self.subjects.iter()
    }

    /// ringfence, the other and the canned responder, where they are there.
    pub fn all(&self) -> [Option<&Subject>; 3] {
        [
            self.subjects.first(),
            self.subjects.get(1),
            self.canned.as_ref(),
        ]
    }

    /// One of the two targets and its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn process(&mut self, index: usize) -> Result<(Subject, u32)> {
        let pid = self.daemons[index]
            .target()
            .pid()
            .context("the target runs")?;
        Ok((self.subjects[index].clone(), pid))
    }

    /// Ends one of the two targets and starts it again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        let target = self.daemons[index].target();
        target.kill()?;
        target.start()?;
        self.subjects[index].cost = Source::Process(target.pid().context("the target runs")?);
        Ok(())
    }

    /// Makes a volume of 1 MiB; those of ringfence share one device.
    ///
    /// # Errors
    /// When the target refuses.
    pub fn create_small_volume(&mut self, index: usize, number: u32) -> Result<()> {
        let name = format!("small-{number}");
        match &mut self.daemons[index] {
            Daemon::Ringfence(target) => {
                if number == 0 {
                    target.add_device("small", "1G")?;
                }
                target
                    .cli_ok(&["volume", "create", &name, "--size", "1M", "--on", "small"])
                    .map(drop)
            }
            daemon @ Daemon::Tgt(..) => daemon.create(&name, 1).map(drop),
        }
    }

    /// Ends both.
    ///
    /// # Errors
    /// When one does not run any more.
    pub fn stop(&mut self) -> Result<()> {
        for daemon in &mut self.daemons {
            daemon.target().kill()?;
        }
        Ok(())
    }
}
