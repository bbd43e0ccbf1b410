//! KVM or emulation. A machine may have `/dev/kvm` and yet never get a guest past its first instruction, so that only
//! a guest that has booted counts.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::{Background, command, wait_for};
use crate::vm::image::Image;

const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// How QEMU runs the guests' processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's own processor.
    Kvm,
    /// QEMU's translator, with every processor feature it has.
    Tcg,
}

impl Accelerator {
    /// Arguments for QEMU.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "max"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// How many times longer a guest may take than one on KVM.
    pub fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 6,
        }
    }
}

/// KVM when a kernel boots with it within ten seconds; asked once a run.
pub fn choose(image: &Image, scratch: &Path) -> Accelerator {
    static CHOICE: OnceLock<Accelerator> = OnceLock::new();
    *CHOICE.get_or_init(|| {
        if Path::new("/dev/kvm").exists() && kernel_boots(image, scratch) {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        }
    })
}

fn kernel_boots(image: &Image, scratch: &Path) -> bool {
    let console = scratch.join("kvm-probe.console");
    let mut qemu = command("qemu-system-x86_64", Accelerator::Kvm.arguments());
    qemu.args([
        "-m",
        "256",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
    ]);
    qemu.arg("-kernel").arg(&image.kernel);
    qemu.args(["-append", "console=ttyS0 panic=-1"]);
    qemu.arg("-serial")
        .arg(format!("file:{}", console.display()));
    let Ok(mut process) = Background::start(&qemu, &scratch.join("kvm-probe.log")) else {
        return false;
    };
    let booted = wait_for("a kernel under KVM", PROBE_LIMIT, || {
        let text = std::fs::read_to_string(&console).unwrap_or_default();
        // The kernel gets this far without a root file system.
        let seen =
            text.contains("Linux version") && text.contains("Run /") || text.contains("VFS:");
        if seen {
            return Some(true);
        }
        process.check_running().is_err().then_some(false)
    });
    booted.unwrap_or(false)
}
