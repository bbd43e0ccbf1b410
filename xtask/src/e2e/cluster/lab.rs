//! Three guests, a daemon, and the two networks between them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::records;
use super::tools::Tools;
use super::watch::{Place, Watch};
use crate::context::Context;
use crate::process::{command, run};
use crate::targets::Target;
use crate::targets::ringfence::Ringfence;
use crate::vm::accelerator::{self, Accelerator};
use crate::vm::guest::Guest;
use crate::vm::image::Image;
use crate::vm::network::{Network, Seat};

const TARGET_FOLDER: &str = "target";
/// How many guests.
pub const NODES: usize = 3;
/// An emulated guest is slow to answer a ping; what ends a session here is the test's doing.
const PING_SECONDS: u32 = 20;
/// After how long a wait says what it waits for.
const REMINDER: Duration = Duration::from_secs(20);

/// The guests, the daemon and what lies between. The fields are dropped in this order: processes before the network.
pub struct Cluster {
    /// The guests, by number from 0.
    pub guests: Vec<Guest>,
    /// What they connect to.
    pub target: Ringfence,
    /// Their networks.
    pub network: Network,
    /// Files of this run.
    pub folder: PathBuf,
    /// What the head's event log says of nodes that lost their access, with what was on the devices then.
    pub watch: Watch,
    disks: Vec<Disk>,
    seats: Vec<Seat>,
    image: Image,
    tools: Tools,
    accelerator: Accelerator,
    start: Instant,
}

/// A volume as the guests see it.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Name at the daemon.
    pub volume: String,
    /// LUN.
    pub lun: u16,
    /// Device path in a guest.
    pub path: String,
    records: bool,
}

impl Cluster {
    /// Builds the image if need be, boots the guests and starts the daemon.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub fn start(context: &Context, name: &str) -> Result<Self> {
        let image = Image::obtain(&context.repository)?;
        let binary = context.ringfence()?;
        let folder = context.folder(name)?;
        let tools = Tools::make(context, &folder)?;
        let start = Instant::now();
        let arguments = tools.serve_arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let accelerator = accelerator::choose(&image, &folder);
        let network = Network::create()?;
        network.add_cluster()?;
        let target_folder = folder.join(TARGET_FOLDER);
        let portal = network.portals()[0];
        let mut target = Ringfence::new(binary, &target_folder, vec![portal])?
            .in_namespace(network.name())
            .with_arguments(&arguments);
        target.start()?;
        let watch = Watch::start(&target.state());
        let mut cluster = Self {
            guests: Vec::new(),
            target,
            network,
            folder,
            watch,
            disks: Vec::new(),
            seats: Vec::new(),
            image,
            tools,
            accelerator,
            start,
        };
        for number in 1..=NODES as u8 {
            let seat = cluster.network.cluster_seat(number)?;
            cluster.seats.push(seat);
            let guest = cluster.boot(usize::from(number) - 1)?;
            cluster.guests.push(guest);
        }
        for guest in &mut cluster.guests {
            guest.wait_ready()?;
        }
        cluster.say(&format!("{NODES} guests are up with {accelerator:?}"));
        Ok(cluster)
    }

    /// Tells how far the scenario is.
    pub fn say(&self, words: &str) {
        println!("{:>6.0} s {words}", self.start.elapsed().as_secs_f32());
    }

    /// The volumes made so far.
    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// The volumes that records are written to.
    pub fn record_disks(&self) -> Vec<Disk> {
        let disks = self.disks.iter().filter(|disk| disk.records);
        disks.cloned().collect()
    }

    /// Makes a volume for records.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn record_volume(&mut self, name: &str) -> Result<()> {
        self.volume(name, records::VOLUME_MIB)?;
        let map = self.target.cli_json(&["volume", "map", name])?;
        let folder = self.folder.join(TARGET_FOLDER);
        let place = Place::new(name, &map, |device| folder.join(format!("{device}.img")))?;
        self.watch.add(place);
        if let Some(disk) = self.disks.last_mut() {
            disk.records = true;
        }
        Ok(())
    }

    /// Makes a volume for everyone; returns its path in the guests.
    ///
    /// # Errors
    /// When the daemon refuses.
    pub fn volume(&mut self, name: &str, size_mib: u32) -> Result<String> {
        let lun = self.target.create_volume(name, size_mib, 512)?;
        let path = self.path(name)?;
        self.disks.push(Disk {
            volume: name.into(),
            lun,
            path: path.clone(),
            records: false,
        });
        Ok(path)
    }

    /// The path of a volume in a guest that is logged in.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn path(&self, volume: &str) -> Result<String> {
        let shown = self.target.cli_json(&["volume", "show", volume])?;
        let naa = shown["naa"].as_str().context("a volume has a name")?;
        Ok(format!(
            "/dev/disk/by-id/scsi-3{}",
            naa.trim_start_matches("0x")
        ))
    }

    /// Logs a guest in and waits for its disks.
    ///
    /// # Errors
    /// When the login fails or a disk does not appear.
    pub fn login(&mut self, index: usize) -> Result<()> {
        let name = self.target.name().to_owned();
        let portal = self.target.portals()[0];
        let guest = &mut self.guests[index];
        guest.ok(&format!(
            "set -e; iscsiadm -m discovery -t sendtargets -p {portal}; \
             for v in conn[0].timeo.noop_out_interval:{PING_SECONDS} conn[0].timeo.noop_out_timeout:{PING_SECONDS} \
             session.timeo.replacement_timeout:120; do \
             iscsiadm -m node -T {name} -o update -n node.${{v%:*}} -v ${{v##*:}}; done; \
             iscsiadm -m node -T {name} -p {portal} --login"
        ))?;
        for disk in &self.disks {
            guest.wait_for_path(&disk.path)?;
        }
        Ok(())
    }

    /// Ends a guest if it still runs and boots it anew, with nothing left of what it wrote on its own disk; logged in.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn reboot(&mut self, index: usize) -> Result<()> {
        self.guests[index].kill()?;
        self.guests[index] = self.boot(index)?;
        self.guests[index].wait_ready()?;
        self.login(index)
    }

    /// Reads a whole volume through the daemon, as an initiator that only looks.
    ///
    /// # Errors
    /// When QEMU's tool cannot read it.
    pub fn read(&self, disk: &Disk) -> Result<Vec<u8>> {
        let copy = self.folder.join(format!("{}.copy", disk.volume));
        let source = format!(
            "driver=iscsi,transport=tcp,portal={},target={},lun={},initiator-name=iqn.2026-11.dev.ringfence.test:observer",
            self.target.portals()[0],
            self.target.name(),
            disk.lun
        );
        let mut convert = command(
            "qemu-img",
            ["convert", "-O", "raw", "--image-opts", &source],
        );
        convert.arg(&copy);
        run(&mut self.network.inside(&convert))?;
        Ok(std::fs::read(&copy)?)
    }

    /// Repeats a look until it gives something, at most `seconds` under KVM.
    ///
    /// # Errors
    /// When it gives nothing in time, or fails.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        seconds: u64,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let limit = Duration::from_secs(seconds) * self.accelerator.patience();
        let start = Instant::now();
        let mut reminder = REMINDER;
        loop {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if start.elapsed() > reminder {
                reminder += REMINDER;
                self.say(&format!("  waiting for {what}"));
            }
            ensure!(
                start.elapsed() < limit,
                "waited {} s in vain for {what}",
                limit.as_secs()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Brings what the guests logged to the folder of the run, and says where that is.
    pub fn gather_logs(&mut self) {
        println!("       logs are in {}", self.folder.display());
        for guest in &mut self.guests {
            let script = "tail -n 400 /var/log/corosync/corosync.log /var/log/pacemaker/pacemaker.log /run/rf-*.log \
                          /run/rf-status /run/ringfence*/*.log 2>/dev/null; dmesg | tail -n 60; ps ax";
            // A guest that is gone or stopped has only its console.
            let said = guest.run_within(script, Duration::from_secs(5));
            let text = said.map_or_else(|error| format!("{error:#}"), |answer| answer.text);
            if let Err(error) =
                std::fs::write(self.folder.join(format!("{}.logs", guest.name)), text)
            {
                println!("       no logs of {}: {error}", guest.name);
            }
        }
        println!("{}", self.target.log_tail());
    }

    fn boot(&self, index: usize) -> Result<Guest> {
        let number = u8::try_from(index + 1)?;
        Guest::start(
            &self.image,
            self.accelerator,
            &self.network,
            &self.seats[index],
            number,
            &self.folder,
            Some(&self.tools.tar),
        )
    }
}
