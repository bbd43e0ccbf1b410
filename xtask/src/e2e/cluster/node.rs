//! `ringfence-node` (the static binary of `ringfence node`) in each guest and a fence domain at the head, with no other cluster software.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::domain;
use super::lab::{Cluster, NODES};
use super::records;
use super::story::{self, Software};

/// Where the nodes hear heartbeats, on the cluster's network.
const PORT: u16 = 7440;
/// An emulated guest on a busy machine may be late by seconds.
const TIMEOUTS: &str = "--timeout 10000 --join-timeout 60000 --storage-timeout 60000";
/// Hooks that stop nothing: what keeps a loser from writing is the fence alone.
const HOOKS: &str = "--on-lost true --on-fenced true";
/// No such hooks, but the watchdog that QEMU emulates.
const WATCHDOG: &str = "--watchdog /dev/watchdog0";
/// The one whose watchdog is tried.
const WATCHED: usize = 1;
/// The watchdog's own time is 30 s.
const RESET: Duration = Duration::from_secs(60);

struct Node {
    mailbox: String,
}

/// Two volumes and three members of a domain go through the story; then a member is reset by its own kernel, and one by its watchdog.
///
/// # Errors
/// As [`story::run`]; or a member is not reset.
pub fn run(cluster: &mut Cluster) -> Result<()> {
    for volume in ["first", "second"] {
        cluster.record_volume(volume)?;
    }
    domain::make(cluster, &["first", "second"])?;
    let software = Node {
        mailbox: cluster.path(&format!("{}-mailbox", domain::NAME))?,
    };
    story::run(cluster, &software, story::ALL)?;
    software.reset_when_fenced(cluster)?;
    software.reset_without_node(cluster)
}

impl Software for Node {
    fn start(&self, cluster: &mut Cluster, index: usize) -> Result<()> {
        self.start_with(cluster, index, HOOKS)
    }

    fn wait_whole(&self, cluster: &mut Cluster) -> Result<()> {
        domain::wait_members(cluster, true)
    }

    fn wait_rejoined(&self, cluster: &mut Cluster, loser: usize) -> Result<()> {
        cluster.guests[loser].wait_until(
            "grep -q 'status fenced' /run/rf-node.log",
            60,
            "cat /run/rf-node.log",
        )?;
        let name = cluster.guests[loser].name.clone();
        cluster.say(&format!("{name}: goes on, and knows that it is fenced"));
        Ok(())
    }
}

impl Node {
    fn start_with(&self, cluster: &mut Cluster, index: usize, options: &str) -> Result<()> {
        let guest = &mut cluster.guests[index];
        guest.wait_for_path(&self.mailbox)?;
        let address = format!("10.78.0.{}:{PORT}", 11 + index);
        guest.ok(&format!(
            "tar -C / -xf /dev/vdb && mkdir -p /run/ringfence && (setsid ringfence-node --domain-disk {} --listen {address} {TIMEOUTS} \
             --on-won 'for name in $RINGFENCE_FENCED; do echo $name; done > /run/rf-fenced' {options} >/run/rf-node.log 2>&1 </dev/null &)",
            self.mailbox
        ))
        .map(drop)
    }

    /// Boots a guest whose node has a watchdog and no hooks, and waits until it is a member.
    fn boot_watched(&self, cluster: &mut Cluster) -> Result<()> {
        cluster.reboot(WATCHED)?;
        self.start_with(cluster, WATCHED, WATCHDOG)?;
        self.wait_whole(cluster)?;
        cluster.guests[WATCHED].wait_until(
            "grep -q 'watchdog0 is running' /run/rf-node.log",
            20,
            "cat /run/rf-node.log; ls -l /dev/watchdog*; dmesg | tail -n 20",
        )
    }

    /// An operator fences a member that has no hooks: its node reboots it at once.
    fn reset_when_fenced(&self, cluster: &mut Cluster) -> Result<()> {
        self.boot_watched(cluster)?;
        let name = cluster.guests[WATCHED].name.clone();
        cluster.say(&format!("{name}: a member, with a watchdog"));
        cluster.target.cli_ok(&["fence", domain::NAME, &name])?;
        let console = cluster.guests[WATCHED].wait_reset(RESET)?;
        ensure!(
            console.contains("sysrq: Resetting"),
            "{name} was reset, but not by its node:\n{console}"
        );
        cluster.say(&format!(
            "{name}: fenced by an operator, and has reset itself"
        ));
        Ok(())
    }

    /// The node of a member is killed: nobody pets its watchdog, and the others fence it.
    fn reset_without_node(&self, cluster: &mut Cluster) -> Result<()> {
        self.boot_watched(cluster)?;
        let name = cluster.guests[WATCHED].name.clone();
        cluster.say(&format!("{name}: let in again after the boot"));
        let others: Vec<usize> = (0..NODES).filter(|&index| index != WATCHED).collect();
        for &index in &others {
            cluster.guests[index].ok("true > /run/rf-seen")?;
        }
        cluster.guests[WATCHED].ok("pkill -KILL -x ringfence-node")?;
        cluster.guests[WATCHED].wait_reset(RESET)?;
        for &index in &others {
            let what = format!("{name} to be fenced");
            cluster.wait_for(&what, 60, |cluster| records::seen(cluster, index, &name))?;
        }
        cluster.say(&format!(
            "{name}: its node was killed; the watchdog has reset it, and the others have fenced it"
        ));
        Ok(())
    }
}
