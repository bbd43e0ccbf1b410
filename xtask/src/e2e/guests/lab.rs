//! Two guests and a target in a network of their own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::context::Context;
use crate::targets::ringfence::Ringfence;
use crate::targets::tgt::Tgt;
use crate::targets::{Target, TargetKind};
use crate::vm::accelerator::{self, Accelerator};
use crate::vm::guest::Guest;
use crate::vm::image::Image;
use crate::vm::network::Network;

/// The guests, the target and what lies between. The fields are dropped in this order: processes before the network.
pub struct Lab {
    /// The two guests.
    pub guests: [Guest; 2],
    /// What they connect to.
    pub target: LabTarget,
    /// Their network.
    pub network: Network,
    /// Files of this run.
    pub folder: PathBuf,
    /// The binary under test; none where tgt stands in for it.
    pub binary: Option<PathBuf>,
    /// How long a session's ping may stay without answer, for the logins to come. Emulated guests are slow to answer,
    /// so that it is long where nothing else is wanted.
    pub ping_seconds: u32,
    volumes: Vec<String>,
    accelerator: Accelerator,
}

const PATIENT_PING_SECONDS: u32 = 20;

/// The target, with access to what only ringfence has.
pub enum LabTarget {
    /// The one under test.
    Ringfence(Ringfence),
    /// The stand-in.
    Tgt(Tgt),
}

impl LabTarget {
    /// The common part.
    pub fn common(&mut self) -> &mut dyn Target {
        match self {
            Self::Ringfence(target) => target,
            Self::Tgt(target) => target,
        }
    }

    /// ringfence, when it is.
    pub fn ringfence(&self) -> Option<&Ringfence> {
        match self {
            Self::Ringfence(target) => Some(target),
            Self::Tgt(_) => None,
        }
    }
}

/// A volume as the guests see it.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Name at the target.
    pub volume: String,
    /// LUN.
    pub lun: u16,
    /// Device path in a guest, by portal.
    pub paths: Vec<String>,
}

impl Lab {
    /// Builds the image if need be, boots both guests and starts the target.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub fn start(context: &Context) -> Result<Self> {
        let image = Image::obtain(&context.repository)?;
        let folder = context.folder("guests")?;
        let accelerator = accelerator::choose(&image, &folder);
        let network = Network::create()?;
        let start = |number| {
            let seat = network.seat(number)?;
            Guest::start(&image, accelerator, &network, &seat, number, &folder, None)
        };
        let mut guests = [start(1)?, start(2)?];
        let target_folder = folder.join("target");
        let binary = match context.target_kind {
            TargetKind::Ringfence => Some(context.ringfence()?.to_owned()),
            TargetKind::Tgt => None,
        };
        let mut target = match &binary {
            Some(binary) => LabTarget::Ringfence(
                Ringfence::new(binary, &target_folder, network.portals())?
                    .in_namespace(network.name()),
            ),
            None => LabTarget::Tgt(
                Tgt::new(&target_folder, network.portals())?.in_namespace(network.name()),
            ),
        };
        target.common().start()?;
        for guest in &mut guests {
            guest.wait_ready()?;
        }
        Ok(Self {
            ping_seconds: PATIENT_PING_SECONDS,
            volumes: Vec::new(),
            guests,
            target,
            network,
            folder,
            binary,
            accelerator,
        })
    }

    /// What QEMU runs the guests with.
    pub fn accelerator(&self) -> String {
        format!("{:?}", self.accelerator)
    }

    /// Logs the guests out of everything, so that a scenario starts afresh whatever the one before did.
    ///
    /// # Errors
    /// When a guest is gone.
    pub fn reset(&mut self) -> Result<()> {
        for guest in &mut self.guests {
            guest.run(
                "umount /mnt; multipathd shutdown; multipath -F; killall -q fio dd; \
                 iscsiadm -m node --logoutall=all; iscsiadm -m node -o delete; rm -f /etc/multipath/prkeys; true",
            )?;
        }
        if self.target.common().pid().is_none() {
            self.target.common().start()?;
        }
        // Nobody is shown the volumes of the scenarios before.
        for volume in std::mem::take(&mut self.volumes) {
            if let Some(ringfence) = self.target.ringfence() {
                ringfence.cli_ok(&["grant", &volume, "*", "none"])?;
            }
        }
        self.ping_seconds = PATIENT_PING_SECONDS;
        Ok(())
    }

    /// Makes a volume for everyone.
    ///
    /// # Errors
    /// When the target refuses.
    pub fn volume(&mut self, name: &str, size_mib: u32) -> Result<Disk> {
        let target = self.target.common();
        let lun = target.create_volume(name, size_mib, 512)?;
        self.volumes.push(name.into());
        let paths = target
            .portals()
            .iter()
            .map(|portal| {
                format!(
                    "/dev/disk/by-path/ip-{portal}-iscsi-{}-lun-{lun}",
                    target.name()
                )
            })
            .collect();
        Ok(Disk {
            volume: name.into(),
            lun,
            paths,
        })
    }

    /// Discovers and logs guest `index` in through the first `portals` portals, and waits for the disk.
    ///
    /// # Errors
    /// When discovery or login fails or the disk does not appear.
    pub fn login(&mut self, index: usize, portals: usize, disk: &Disk) -> Result<()> {
        let target = self.target.common();
        let (name, addresses) = (target.name().to_owned(), target.portals().to_vec());
        let guest = &mut self.guests[index];
        for portal in addresses.iter().take(portals) {
            guest.ok(&format!("iscsiadm -m discovery -t sendtargets -p {portal}"))?;
        }
        let ping = self.ping_seconds;
        guest.ok(&format!(
            "for v in conn[0].timeo.noop_out_interval:{ping} conn[0].timeo.noop_out_timeout:{ping} \
             session.timeo.replacement_timeout:120; do \
             iscsiadm -m node -T {name} -o update -n node.${{v%:*}} -v ${{v##*:}} || exit; done"
        ))?;
        for (portal, path) in addresses.iter().zip(&disk.paths).take(portals) {
            guest.ok(&format!("iscsiadm -m node -T {name} -p {portal} --login"))?;
            guest.wait_for_path(path)?;
        }
        Ok(())
    }

    /// What the target and the guests said last, for the report of a failure.
    pub fn clues(&self) -> String {
        let target = self
            .target
            .ringfence()
            .map(Target::log_tail)
            .unwrap_or_default();
        let consoles = self
            .guests
            .each_ref()
            .map(|guest| crate::process::tail(&guest.console_tail(), 12));
        format!(
            "--- daemon\n{target}\n--- guest1\n{}\n--- guest2\n{}",
            consoles[0], consoles[1]
        )
    }
}

impl Guest {
    /// Waits until a device node is there and its udev rules have run.
    ///
    /// # Errors
    /// When it does not appear within twenty seconds.
    pub fn wait_for_path(&mut self, path: &str) -> Result<()> {
        self.wait_until(&format!("[ -b {path} ]"), 20, "ls -l /dev/disk/by-path")?;
        self.ok("udevadm settle").map(drop)
    }

    /// The SCSI generic node of a disk; unlike the block node, opening it for writing makes no udev rule probe the disk.
    ///
    /// # Errors
    /// When there is no such disk.
    pub fn generic(&mut self, path: &str) -> Result<String> {
        let name = self.ok(&format!(
            "ls /sys/block/$(basename $(readlink -f {path}))/device/scsi_generic"
        ))?;
        Ok(format!("/dev/{}", name.trim()))
    }

    /// Tries to write one block directly; tells whether it was let.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn can_write(&mut self, path: &str) -> Result<bool> {
        let script = format!("dd if=/dev/zero of={path} bs=4096 count=1 oflag=direct conv=notrunc");
        Ok(self.run_within(&script, Duration::from_secs(30))?.code == 0)
    }

    /// Tries to read one block directly; tells whether it was let.
    ///
    /// # Errors
    /// When the guest is gone.
    pub fn can_read(&mut self, path: &str) -> Result<bool> {
        let script = format!("dd if={path} of=/dev/null bs=4096 count=1 iflag=direct");
        Ok(self.run_within(&script, Duration::from_secs(30))?.code == 0)
    }
}
