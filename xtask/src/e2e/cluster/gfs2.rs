//! GFS2 on a shared volume, mounted on all nodes under Pacemaker: the others replay a fenced node's journal and go on, with every
//! file that was durable.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::lab::{Cluster, NODES};
use super::pacemaker::{Agent, Pacemaker};
use super::story::{self, Fate, Software};

const FILES: &str = include_str!("../../../vm/cluster/rf-files");
const VOLUME: &str = "files";
const VOLUME_MIB: u32 = 192;
/// The one that is paused, and stays as it is to the end.
const LOSER: usize = 1;

struct Gfs2 {
    pacemaker: Pacemaker,
    path: String,
}

/// A node is killed and comes back; another is paused and goes on: the case in which writes of a journal that others have replayed
/// would do the most harm. There is a volume for records and one for the file system.
///
/// # Errors
/// As [`story::run`]; or a file is lost or changed, or the file system is not clean.
pub fn run(cluster: &mut Cluster) -> Result<()> {
    cluster.record_volume("first")?;
    let path = cluster.volume(VOLUME, VOLUME_MIB)?;
    let pacemaker = Pacemaker::new(cluster, Agent::Scsi);
    let software = Gfs2 { pacemaker, path };
    story::run(
        cluster,
        &software,
        &[(2, Fate::Killed), (LOSER, Fate::Paused)],
    )?;
    software.check(cluster)
}

impl Software for Gfs2 {
    fn start(&self, cluster: &mut Cluster, index: usize) -> Result<()> {
        self.pacemaker.start(cluster, index)
    }

    fn wait_whole(&self, cluster: &mut Cluster) -> Result<()> {
        self.pacemaker.wait_whole(cluster)?;
        let path = &self.path;
        let blank = cluster.guests[0].run(&format!("blkid -p {path}"))?.code != 0;
        if blank {
            // Three journals of 8 MiB, the least there is.
            cluster.guests[0].ok(&format!(
                "mkfs.gfs2 -q -O -p lock_dlm -t shared:files -j {NODES} -J 8 -r 32 {path}"
            ))?;
        }
        for index in 0..NODES {
            start_dlm(cluster, index)?;
        }
        for index in 0..NODES {
            self.mount(cluster, index)?;
        }
        Ok(())
    }

    fn recovered(&self, cluster: &mut Cluster, loser: usize, durable: u64) -> Result<()> {
        for index in (0..NODES).filter(|&index| index != loser) {
            let then = durable_files(cluster, index)?;
            let name = cluster.guests[index].name.clone();
            cluster.wait_for(
                &format!("{name} to go on in the file system"),
                60,
                |cluster| Ok((durable_files(cluster, index)? > then + 1).then_some(())),
            )?;
        }
        let witness = usize::from(loser == 0);
        let last = verify_files(cluster, witness, loser)?;
        ensure!(
            last >= durable,
            "file {durable} of node {} was durable before it was lost, and the last is {last}",
            loser + 1
        );
        cluster.say(&format!(
            "the others go on in the file system and read {last} files of node {}",
            loser + 1
        ));
        Ok(())
    }

    fn durable(&self, cluster: &mut Cluster, index: usize) -> Result<u64> {
        durable_files(cluster, index)
    }
}

impl Gfs2 {
    fn mount(&self, cluster: &mut Cluster, index: usize) -> Result<()> {
        let guest = &mut cluster.guests[index];
        if guest.run("mountpoint -q /mnt")?.code == 0 {
            return Ok(());
        }
        guest.put("/usr/sbin/rf-files", "755", FILES)?;
        let mounted = guest.run_within(
            &format!(
                "mount -t gfs2 {} /mnt && (setsid rf-files {} >/run/rf-files.log 2>&1 </dev/null &)",
                self.path,
                index + 1
            ),
            Duration::from_secs(40),
        );
        let text = match mounted {
            Ok(mounted) if mounted.code == 0 => None,
            Ok(mounted) => Some(mounted.text),
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(text) = text {
            let clues =
                guest.run("dlm_tool status; dlm_tool ls; dlm_tool dump; dmesg | tail -n 30")?;
            bail!("{} cannot mount: {text}\n{}", guest.name, clues.text);
        }
        guest.wait_until(
            "[ -s /run/rf-files ]",
            30,
            "cat /run/rf-files.log; dmesg | tail -n 20",
        )?;
        let name = guest.name.clone();
        cluster.say(&format!("{name}: GFS2 is mounted and used"));
        Ok(())
    }

    /// Ends everything in order and checks the file system.
    fn check(&self, cluster: &mut Cluster) -> Result<()> {
        // It is fenced, and cannot unmount in order.
        cluster.guests[LOSER].kill()?;
        for index in (0..NODES).filter(|&index| index != LOSER) {
            let ended = cluster.guests[index].run_within(
                "pkill -f rf-files; while pgrep -f rf-files >/dev/null; do sleep 0.2; done; umount /mnt",
                Duration::from_secs(60),
            )?;
            ensure!(ended.code == 0, "umount: {}", ended.text);
        }
        let checked = cluster.guests[0].run_within(
            &format!("fsck.gfs2 -n {}", self.path),
            Duration::from_secs(120),
        )?;
        ensure!(
            checked.code == 0,
            "fsck.gfs2 -n exits with {}:\n{}",
            checked.code,
            checked.text
        );
        cluster.say("fsck.gfs2 -n finds the file system clean");
        Ok(())
    }
}

/// Starts the lock manager's daemon, unless it runs, and waits until it has told the kernel of all nodes: a mount before that fails.
fn start_dlm(cluster: &mut Cluster, index: usize) -> Result<()> {
    let guest = &mut cluster.guests[index];
    guest.ok(
        "modprobe -a dlm gfs2; mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config; \
         pgrep -x dlm_controld >/dev/null || dlm_controld",
    )?;
    guest.wait_until(
        &format!(
            "[ \"$(ls /sys/kernel/config/dlm/cluster/comms 2>/dev/null | wc -l)\" = {NODES} ]"
        ),
        20,
        "dlm_tool status; dmesg | tail -n 20",
    )
}

/// The number of the last file that a node knows to be durable.
fn durable_files(cluster: &mut Cluster, index: usize) -> Result<u64> {
    let text = cluster.guests[index].ok("cat /run/rf-files")?;
    // The file is emptied and then written: it may be caught in between.
    Ok(text.trim().parse().unwrap_or(0))
}

/// Reads all files of a node on another one and compares content and name; returns the highest number.
fn verify_files(cluster: &mut Cluster, reader: usize, owner: usize) -> Result<u64> {
    let folder = format!("/mnt/node{}", owner + 1);
    let script = format!(
        "set -e; cd {folder}; ls | sed 's/^[0-9]*-\\(.*\\)$/\\1  &/' | sha256sum -c --quiet >&2; ls | sed 's/-.*//' | sort -n | tail -n 1"
    );
    let answer = cluster.guests[reader].run_within(&script, Duration::from_secs(60))?;
    ensure!(
        answer.code == 0,
        "files of node {}: {}",
        owner + 1,
        answer.text
    );
    Ok(answer.text.trim().parse()?)
}
