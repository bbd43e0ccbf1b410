//! Loop devices: block devices that are files underneath.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::process::{command, run, succeeds};

/// A loop device over a file. It is given back when this value is dropped.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Makes a sparse file of `size_mib` MiB and a loop device over it.
    ///
    /// # Errors
    /// When the kernel has none to give: it takes root.
    pub fn create(file: &Path, size_mib: u64) -> Result<Self> {
        std::fs::File::create_new(file)?.set_len(size_mib << 20)?;
        let mut losetup = command("losetup", ["--find", "--show"]);
        let path = run(losetup.arg(file))?;
        Ok(Self {
            path: path.trim().into(),
        })
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the block device refuse writes, or take them again. Whoever has it open keeps it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let mode = if read_only { "--setro" } else { "--setrw" };
        run(command("blockdev", [mode]).arg(&self.path)).map(drop)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // A device still open is given back when it is closed.
        succeeds(command("losetup", ["--detach"]).arg(&self.path));
    }
}
