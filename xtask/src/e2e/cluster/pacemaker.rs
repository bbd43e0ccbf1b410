//! Pacemaker and corosync, with a fence agent for the shared disks.

use anyhow::{Result, ensure};

use super::domain;
use super::lab::{Cluster, NODES};
use super::story::{self, Software};

const COROSYNC: &str = include_str!("../../../vm/cluster/corosync.conf");
const FENCE_SCSI: &str = include_str!("../../../vm/cluster/fence_scsi.xml");
const FENCE_RINGFENCE: &str = include_str!("../../../vm/cluster/fence_ringfence.xml");
const ALERTS: &str = include_str!("../../../vm/cluster/alerts.xml");
const ALERT: &str = include_str!("../../../vm/cluster/alert");

/// Which agent fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// `fence_scsi`, with persistent reservations from the nodes.
    Scsi,
    /// `fence_ringfence`, which asks the head.
    Ringfence,
}

/// A cluster of Pacemaker with one agent.
pub struct Pacemaker {
    agent: Agent,
    primitive: String,
}

/// Two volumes and three nodes under Pacemaker go through the story.
///
/// # Errors
/// As [`story::run`].
pub fn run(cluster: &mut Cluster, agent: Agent) -> Result<()> {
    for volume in ["first", "second"] {
        cluster.record_volume(volume)?;
    }
    if agent == Agent::Ringfence {
        domain::make(cluster, &["first", "second"])?;
    }
    let pacemaker = Pacemaker::new(cluster, agent);
    story::run(cluster, &pacemaker, story::ALL)
}

impl Software for Pacemaker {
    fn start(&self, cluster: &mut Cluster, index: usize) -> Result<()> {
        let guest = &mut cluster.guests[index];
        if self.agent == Agent::Ringfence {
            guest.ok("tar -C / -xf /dev/vdb")?;
        }
        guest.put("/etc/corosync/corosync.conf", "644", COROSYNC)?;
        guest.put("/usr/sbin/rf-alert", "755", ALERT)?;
        guest.ok("install -m 666 /dev/null /run/rf-alerts.log; mkdir -p /var/log/corosync /var/log/pacemaker; corosync && (setsid pacemakerd -f >/run/rf-pacemakerd.log 2>&1 </dev/null &)")?;
        Ok(())
    }

    fn wait_whole(&self, cluster: &mut Cluster) -> Result<()> {
        for index in 0..NODES {
            cluster.guests[index].wait_until(
                "[ \"$(crm_mon -1 --output-as=xml 2>/dev/null | grep -c '<node .*online=\"true\".*pending=\"false\"')\" = 3 ]",
                60,
                "crm_mon -1; tail -n 30 /var/log/pacemaker/pacemaker.log",
            )?;
        }
        cluster.say("Pacemaker has three members");
        // Not earlier: a node that Pacemaker has never seen is fenced to be sure.
        if !configured(cluster)? {
            self.configure(cluster)?;
        }
        match self.agent {
            Agent::Scsi => wait_registered(cluster),
            Agent::Ringfence => domain::wait_members(cluster, false),
        }
    }

    /// Corosync takes it in again, though it has not been started anew; its access stays away.
    fn wait_rejoined(&self, cluster: &mut Cluster, loser: usize) -> Result<()> {
        let other = usize::from(loser == 0);
        cluster.guests[other].wait_until(
            "[ \"$(corosync-quorumtool -s | sed -n 's/^Total votes: *//p')\" = 3 ]",
            60,
            "corosync-quorumtool -s; tail -n 20 /var/log/corosync/corosync.log",
        )?;
        let name = cluster.guests[loser].name.clone();
        cluster.say(&format!(
            "{name}: goes on, in one membership with the others"
        ));
        Ok(())
    }
}

impl Pacemaker {
    /// With all volumes that there are.
    pub fn new(cluster: &Cluster, agent: Agent) -> Self {
        let paths: Vec<&str> = cluster
            .disks()
            .iter()
            .map(|disk| disk.path.as_str())
            .collect();
        let primitive = match agent {
            Agent::Scsi => FENCE_SCSI.replace("DEVICES", &paths.join(",")),
            Agent::Ringfence => FENCE_RINGFENCE.to_owned(),
        };
        Self { agent, primitive }
    }

    fn configure(&self, cluster: &mut Cluster) -> Result<()> {
        let guest = &mut cluster.guests[0];
        guest.put("/run/fence.xml", "644", &self.primitive)?;
        guest.put("/run/alerts.xml", "644", ALERTS)?;
        guest
            .ok(
                "set -e; cibadmin --create --scope resources --xml-file /run/fence.xml; \
             cibadmin --modify --allow-create --scope alerts --xml-file /run/alerts.xml; \
             crm_attribute --type crm_config --name stonith-timeout --update 120s",
            )
            .map(drop)
    }
}

/// Whether the cluster has its fence agent already.
fn configured(cluster: &mut Cluster) -> Result<bool> {
    let answer = cluster.guests[0]
        .run("cibadmin --query --scope resources | grep -q 'class=\"stonith\"'")?;
    Ok(answer.code == 0)
}

/// `fence_scsi` has registered each node on each volume, and the reservation stands.
fn wait_registered(cluster: &mut Cluster) -> Result<()> {
    let volumes: Vec<String> = cluster
        .disks()
        .iter()
        .map(|disk| disk.volume.clone())
        .collect();
    for volume in volumes {
        let what = format!("each node to be registered on {volume}");
        let kind = cluster.wait_for(&what, 40, |cluster| {
            let keys = cluster.target.cli_json(&["keys", &volume])?;
            let registered = keys["registrations"].as_array().map_or(0, Vec::len);
            let kind = keys["reservation"]["type"].as_str().map(str::to_owned);
            Ok(kind.filter(|_| registered == NODES))
        })?;
        ensure!(
            kind == "write-exclusive-registrants-only",
            "fence_scsi reserved {volume} with {kind}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{COROSYNC, FENCE_RINGFENCE, FENCE_SCSI};

    /// What the operators' page shows is what is tested.
    #[test]
    fn the_page_for_operators_has_this_configuration() {
        let page = include_str!("../../../../docs/operators/pacemaker.md");
        for text in [COROSYNC, FENCE_SCSI, FENCE_RINGFENCE] {
            let shown: String = text.lines().map(|line| format!("    {line}\n")).collect();
            assert!(page.contains(&shown), "not in the page:\n{shown}");
        }
    }
}
