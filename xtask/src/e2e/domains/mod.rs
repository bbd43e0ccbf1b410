//! Fence domains: races, fencing methods, a daemon that is killed in the middle of a fence, volumes that come and go, a pool
//! that moves, and a daemon that is stopped while a device hangs.

mod bridge;
mod carried;
mod crash;
mod hanging;
mod lab;
mod methods;
mod network;
mod nodes;
mod races;
mod volumes;
mod writer;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::targets::Target;
use lab::Lab;

/// Everything, each with a daemon of its own.
///
/// # Errors
/// When a loser can write, a winner cannot, or somebody is told something else than what is so.
pub fn run(context: &Context) -> Result<String> {
    let mut lab = Lab::start(context, "domains-races")?;
    let races = races::run(&lab).with_context(|| said(&lab, "races"))?;
    lab.daemon.terminate()?;
    let mut lab = Lab::start(context, "domains-methods")?;
    methods::run(&mut lab).with_context(|| said(&lab, "methods"))?;
    lab.daemon.terminate()?;
    network::run(context)?;
    let mut lab = Lab::start(context, "domains-crash")?;
    let crashes = crash::run(&mut lab, context.seed).with_context(|| said(&lab, "crash"))?;
    lab.daemon.terminate()?;
    carried::run(context).context("carried")?;
    let stops = hanging::run(context).context("hanging")?;
    let mut lab = Lab::start(context, "domains-volumes")?;
    let joined = volumes::run(&mut lab, context.seed).with_context(|| said(&lab, "volumes"))?;
    lab.daemon.terminate()?;
    Ok(format!("{races}; {crashes}; {stops}; {joined}"))
}

fn said(lab: &Lab, part: &str) -> String {
    format!("{part}; the daemon said:\n{}", lab.daemon.log_tail())
}

/// `ringfence node` in the members of a domain.
///
/// # Errors
/// As for [`run`].
pub fn nodes(context: &Context) -> Result<String> {
    let mut lab = Lab::start(context, "domains-node")?;
    let nodes = nodes::run(&lab, context).with_context(|| said(&lab, "nodes"))?;
    lab.daemon.terminate()?;
    Ok(nodes)
}
