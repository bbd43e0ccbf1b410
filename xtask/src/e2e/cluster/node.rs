//! `ringfence node` in each guest and a fence domain at the head, with no other cluster software.

use anyhow::Result;

use super::domain;
use super::lab::Cluster;
use super::story::{self, Software};

/// Where the nodes hear heartbeats, on the cluster's network.
const PORT: u16 = 7440;
/// An emulated guest on a busy machine may be late by seconds.
const TIMEOUTS: &str = "--timeout 10000 --join-timeout 60000 --storage-timeout 60000";

struct Node {
    mailbox: String,
}

/// Two volumes and three members of a domain go through the story.
///
/// # Errors
/// As [`story::run`].
pub fn run(cluster: &mut Cluster) -> Result<()> {
    for volume in ["first", "second"] {
        cluster.record_volume(volume)?;
    }
    domain::make(cluster, &["first", "second"])?;
    let software = Node {
        mailbox: cluster.path(&format!("{}-mailbox", domain::NAME))?,
    };
    story::run(cluster, &software, story::ALL)
}

impl Software for Node {
    fn start(&self, cluster: &mut Cluster, index: usize) -> Result<()> {
        let guest = &mut cluster.guests[index];
        guest.wait_for_path(&self.mailbox)?;
        let address = format!("10.78.0.{}:{PORT}", 11 + index);
        // The hooks stop nothing: what keeps a loser from writing is the fence alone.
        guest.ok(&format!(
            "tar -C / -xf /dev/vdb && mkdir -p /run/ringfence && (setsid ringfence node --domain-disk {} --listen {address} {TIMEOUTS} \
             --on-won 'for name in $RINGFENCE_FENCED; do echo $name; done > /run/rf-fenced' \
             --on-lost true --on-fenced true >/run/rf-node.log 2>&1 </dev/null &)",
            self.mailbox
        ))
        .map(drop)
    }

    fn wait_whole(&self, cluster: &mut Cluster) -> Result<()> {
        domain::wait_members(cluster, true)
    }
}
