//! Clusters of three guests that share volumes, on a network of their own: nodes that are cut off, stopped or killed are
//! fenced, and records on the volumes prove that nothing of theirs came after.

mod domain;
mod gfs2;
mod lab;
mod node;
mod pacemaker;
mod records;
mod story;
mod tools;
mod watch;

use std::time::Instant;

use anyhow::{Result, ensure};

use lab::Cluster;
use pacemaker::Agent;

use crate::context::Context;

/// Name, what it shows, and the scenario; each has guests of its own.
type Scenario = (&'static str, &'static str, fn(&mut Cluster) -> Result<()>);

const SCENARIOS: &[Scenario] = &[
    (
        "pacemaker-fence-scsi",
        "Pacemaker with fence_scsi: a node cut off, one killed, one paused",
        |cluster| pacemaker::run(cluster, Agent::Scsi),
    ),
    (
        "pacemaker-fence-ringfence",
        "Pacemaker with fence_ringfence: a node cut off, one killed, one paused",
        |cluster| pacemaker::run(cluster, Agent::Ringfence),
    ),
    (
        "gfs2",
        "the same with GFS2 mounted on all nodes, one killed, one paused: the others recover, and it is clean",
        gfs2::run,
    ),
    (
        "node",
        "ringfence node alone: a node cut off, one killed, one paused",
        node::run,
    ),
];

/// The names of the scenarios.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|(name, _, _)| *name)
}

/// Runs the scenarios with these names, each with guests and a daemon of its own.
///
/// # Errors
/// When one fails; the others are run all the same. The folder of each has the logs.
pub fn run(context: &Context, only: &[String]) -> Result<()> {
    let mut failed = Vec::new();
    for (name, about, scenario) in SCENARIOS {
        if !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        println!("...... {name}: {about}");
        let start = Instant::now();
        let result = Cluster::start(context, name)
            .and_then(|mut cluster| scenario(&mut cluster).inspect_err(|_| cluster.gather_logs()));
        let seconds = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("ok     {name} {seconds:.0} s"),
            Err(error) => {
                println!("FAILED {name} {seconds:.0} s\n{error:#}");
                failed.push(*name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
