//! The fence domain of a cluster, at the head.

use anyhow::{Context as _, Result};

use super::lab::{Cluster, NODES};

/// Its name.
pub const NAME: &str = "shared";

/// Makes the domain over volumes that exist, with every guest as a member that may use them; others may only read.
///
/// # Errors
/// When the daemon refuses.
pub fn make(cluster: &Cluster, volumes: &[&str]) -> Result<()> {
    let target = &cluster.target;
    target.cli_ok(&["domain", "create", NAME, "--volumes", &volumes.join(",")])?;
    for guest in &cluster.guests {
        target.cli_ok(&[
            "domain",
            "member",
            "add",
            NAME,
            &guest.name,
            "--initiator",
            &guest.initiator,
        ])?;
    }
    for volume in volumes {
        target.cli_ok(&["grant", volume, &format!("domain:{NAME}"), "rw"])?;
        target.cli_ok(&["grant", volume, "*", "ro"])?;
    }
    Ok(())
}

/// Waits until no member is fenced and, with `registered`, each has its key.
///
/// # Errors
/// When that does not come about.
pub fn wait_members(cluster: &mut Cluster, registered: bool) -> Result<()> {
    cluster.wait_for("every member to have access", 60, |cluster| {
        let domain = cluster.target.cli_json(&["domain", "show", NAME])?;
        let members = domain["members"]
            .as_array()
            .context("a domain has members")?;
        let ready = members.iter().filter(|member| {
            member["state"] == "member" && (!registered || member["registered"] == true)
        });
        Ok((ready.count() == NODES).then_some(()))
    })
}
