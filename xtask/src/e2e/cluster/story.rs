//! What every cluster must go through: a node is cut off from the others, one is killed, one is paused and goes on. The
//! others fence it, and not one of its writes lands after they have been told so.

use anyhow::{Context as _, Result, ensure};

use super::lab::{Cluster, NODES};
use super::records;

/// What makes three guests a cluster.
pub trait Software {
    /// Starts it in a guest that has just booted and sees its disks.
    ///
    /// # Errors
    /// When it does not start.
    fn start(&self, cluster: &mut Cluster, index: usize) -> Result<()>;

    /// Returns when all guests are members and may write.
    ///
    /// # Errors
    /// When they do not become so.
    fn wait_whole(&self, cluster: &mut Cluster) -> Result<()>;

    /// Returns when a node that was paused and fenced, and goes on, has found the others again, as far as it ever does.
    ///
    /// # Errors
    /// When it does not.
    fn wait_rejoined(&self, _cluster: &mut Cluster, _loser: usize) -> Result<()> {
        Ok(())
    }

    /// How much of a node's work in a file system the node knows to be durable; nothing where there is no file system.
    ///
    /// # Errors
    /// When the guest is gone.
    fn durable(&self, _cluster: &mut Cluster, _index: usize) -> Result<u64> {
        Ok(0)
    }

    /// Checks that the others have recovered after a node was fenced, with what was durable of it.
    ///
    /// # Errors
    /// When they have not, or something is lost.
    fn recovered(&self, _cluster: &mut Cluster, _loser: usize, _durable: u64) -> Result<()> {
        Ok(())
    }
}

/// What befalls a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its interface to the cluster's network is down; that to the storage is not.
    CutOff,
    /// It ends as by a power failure.
    Killed,
    /// It stands still, and goes on when it has been fenced.
    Paused,
}

/// All fates, each for another node.
pub const ALL: &[(usize, Fate)] = &[(2, Fate::CutOff), (0, Fate::Killed), (1, Fate::Paused)];

/// How many records a node has written to each disk before something befalls it: its area has been written over more than once.
const RECORDS: u64 = 1200;
/// How often a loser must have been refused on each disk before it is believed that nothing of it lands.
const REFUSED: u64 = 100;

/// Runs the story on volumes that exist, with guests that have booted. The last loser stays as it is, which is not to be killed.
///
/// # Errors
/// When a node is not fenced, a write lands that must not, one is lost, or a survivor cannot write.
pub fn run(cluster: &mut Cluster, software: &impl Software, fates: &[(usize, Fate)]) -> Result<()> {
    for index in 0..NODES {
        cluster.login(index)?;
        records::start_witness(cluster, index)?;
        software.start(cluster, index)?;
    }
    cluster.say("started on every guest");
    software.wait_whole(cluster)?;
    for index in 0..NODES {
        records::start_writer(cluster, index)?;
    }
    cluster.say("all are members and write");
    for (position, &(loser, fate)) in fates.iter().enumerate() {
        strike(cluster, software, loser, fate)?;
        if position + 1 < fates.len() {
            come_back(cluster, software, loser, fate)?;
        }
    }
    settle(cluster)
}

/// Ends the writers and checks every record on every volume.
fn settle(cluster: &mut Cluster) -> Result<()> {
    let mut ends = Vec::new();
    for index in 0..NODES {
        ends.push(records::stop_writer(cluster, index)?);
    }
    for (position, disk) in cluster.record_disks().iter().enumerate() {
        let volume = cluster.read(disk)?;
        for (index, end) in ends.iter().enumerate() {
            let last = records::check_area(records::area(&volume, index + 1), index + 1)?;
            let told = end.acknowledged[position];
            // The writer was ended between a write and its answer.
            ensure!(
                told == last || told + 1 == last,
                "node {}: record {told} was acknowledged on {} and the last there is {last}",
                index + 1,
                disk.volume
            );
        }
    }
    cluster.say("every record that was acknowledged is there");
    Ok(())
}

fn strike(cluster: &mut Cluster, software: &impl Software, loser: usize, fate: Fate) -> Result<()> {
    let name = cluster.guests[loser].name.clone();
    let survivors: Vec<usize> = (0..NODES).filter(|&index| index != loser).collect();
    for &survivor in &survivors {
        cluster.guests[survivor].ok("true > /run/rf-seen")?;
    }
    cluster.watch.forget();
    let before = cluster.wait_for("enough records", 60, |cluster| {
        let status = records::status(cluster, loser)?;
        let enough = status.acknowledged.iter().all(|&last| last >= RECORDS);
        Ok(enough.then_some(status))
    })?;
    let durable = software.durable(cluster, loser)?;
    match fate {
        Fate::CutOff => cluster.network.set_cluster_link(loser as u8 + 1, false)?,
        Fate::Killed => cluster.guests[loser].kill()?,
        Fate::Paused => cluster.guests[loser].pause()?,
    }
    cluster.say(&format!("{name}: {fate:?}"));
    let mut witnessed = Vec::new();
    for &survivor in &survivors {
        let what = format!("{name} to be fenced");
        witnessed
            .push(cluster.wait_for(&what, 60, |cluster| records::seen(cluster, survivor, &name))?);
    }
    cluster.say(&format!("{name}: fenced"));
    let mut after = None;
    if fate != Fate::Killed {
        let mut since = before.refused.clone();
        if fate == Fate::Paused {
            cluster.guests[loser].go_on()?;
            software.wait_rejoined(cluster, loser)?;
            since = records::status(cluster, loser)?.refused;
        }
        let what = format!("{name} to be refused");
        after = Some(cluster.wait_for(&what, 60, |cluster| {
            let status = records::status(cluster, loser)?;
            let enough = status
                .refused
                .iter()
                .zip(&since)
                .all(|(now, then)| *now >= then + REFUSED);
            Ok(enough.then_some(status))
        })?);
    }
    let mut progress = Vec::new();
    for &survivor in &survivors {
        progress.push(records::status(cluster, survivor)?);
    }
    prove(cluster, loser, &before, &witnessed, after.as_ref())?;
    for (&survivor, then) in survivors.iter().zip(&progress) {
        let what = format!("{} to go on writing", cluster.guests[survivor].name);
        let now = cluster.wait_for(&what, 20, |cluster| {
            let now = records::status(cluster, survivor)?;
            let further = now
                .acknowledged
                .iter()
                .zip(&then.acknowledged)
                .all(|(now, then)| now > then);
            Ok(further.then_some(now))
        })?;
        ensure!(
            now.refused.iter().all(|&count| count == 0),
            "{} survived and was refused: {:?}",
            cluster.guests[survivor].name,
            now.errors
        );
    }
    software.recovered(cluster, loser, durable)
}

/// Compares the loser's areas with what was there when the head had taken its access away, with what the witnesses saw when they were
/// told of the fence, and with what the loser was told.
fn prove(
    cluster: &mut Cluster,
    loser: usize,
    before: &records::Status,
    witnessed: &[records::Seen],
    after: Option<&records::Status>,
) -> Result<()> {
    let name = cluster.guests[loser].name.clone();
    let mut words = Vec::new();
    for (position, disk) in cluster.record_disks().iter().enumerate() {
        let volume = cluster.read(disk)?;
        let area = records::area(&volume, loser + 1);
        let sum = records::sha256(area);
        let sight = cluster.watch.sight(&disk.volume, loser + 1);
        let sight = sight.with_context(|| {
            format!(
                "the head has not told that {name} lost its access to {}",
                disk.volume
            )
        })?;
        let then = records::check_area(&sight.area, loser + 1)?;
        ensure!(
            sight.area == area,
            "{name} wrote to {} after the head had fenced it: record {then} was its last then",
            disk.volume
        );
        let ms = sight.delay.as_secs_f64() * 1000.0;
        for seen in witnessed {
            ensure!(
                seen.sha256.get(position) == Some(&sum),
                "{name} wrote to {} after it was fenced: record {:?} was its last then",
                disk.volume,
                seen.last.get(position)
            );
        }
        let last = records::check_area(area, loser + 1)?;
        ensure!(
            last >= before.acknowledged[position],
            "{name}: record {} was acknowledged on {} and the last there is {last}",
            before.acknowledged[position],
            disk.volume
        );
        if let Some(after) = after {
            let told = after.acknowledged[position];
            // One write was on its way when it was fenced: it may have landed without an answer that says so.
            ensure!(
                told == last || told + 1 == last,
                "{name}: record {told} was acknowledged on {} and the last there is {last}",
                disk.volume
            );
        }
        words.push(format!(
            "{} {last} (seen {ms:.1} ms after the head's event)",
            disk.volume
        ));
    }
    let refused = after.map_or_else(String::new, |after| {
        format!(
            "; refused {:?} times since ({})",
            after.refused, after.errors[0]
        )
    });
    cluster.say(&format!(
        "{name}: its last records are {}, as when it was fenced{refused}",
        words.join(", ")
    ));
    Ok(())
}

fn come_back(
    cluster: &mut Cluster,
    software: &impl Software,
    index: usize,
    fate: Fate,
) -> Result<()> {
    if fate == Fate::CutOff {
        cluster.network.set_cluster_link(index as u8 + 1, true)?;
    }
    cluster.reboot(index)?;
    records::start_witness(cluster, index)?;
    software.start(cluster, index)?;
    software.wait_whole(cluster)?;
    records::start_writer(cluster, index)?;
    cluster.say(&format!(
        "{}: booted anew, a member, and writes",
        cluster.guests[index].name
    ));
    Ok(())
}
