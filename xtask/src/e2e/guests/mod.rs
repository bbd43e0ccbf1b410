//! The Linux kernel as a client: two guests with open-iscsi share volumes through two portals.

mod commands;
mod crash;
mod fence;
mod filesystem;
mod lab;
mod login;
mod multipath;
mod persist;

use std::time::Instant;

use anyhow::{Result, bail};

use lab::Lab;

use crate::context::Context;

/// Name, what it shows, and the scenario; each works on volumes of its own.
type Scenario = (&'static str, &'static str, fn(&mut Lab) -> Result<()>);

const SCENARIOS: &[Scenario] = &[
    (
        "login",
        "discovery, login, REPORT LUNS",
        login::discovery_and_login,
    ),
    ("chap", "login with CHAP, one-way and mutual", login::chap),
    (
        "commands",
        "sg_inq, sg_vpd, sg_opcodes and others",
        commands::sg_utilities,
    ),
    (
        "types",
        "who may read and write under each reservation type",
        persist::types,
    ),
    (
        "actions",
        "sg_persist with every service action",
        persist::service_actions,
    ),
    (
        "filesystem",
        "ext4, fio with verification, the other guest reads it",
        filesystem::ext4_and_fio,
    ),
    (
        "multipath",
        "two portals, a path lost, mpathpersist",
        multipath::two_portals,
    ),
    ("fence", "fence_scsi on, off, metadata", fence::fence_scsi),
    (
        "crash",
        "kill -9 of the daemon during I/O",
        crash::kill_during_io,
    ),
];

/// The names of the scenarios.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|(name, _, _)| *name)
}

/// Boots the guests and runs the scenarios, all of them or those named.
///
/// # Errors
/// When one fails; the others are run all the same.
pub fn run(context: &Context, only: &[String]) -> Result<String> {
    let start = Instant::now();
    let mut lab = Lab::start(context)?;
    println!(
        "       guests up with {} after {:.0} s",
        lab.accelerator(),
        start.elapsed().as_secs_f32()
    );
    let mut failures = Vec::new();
    let mut done = 0_usize;
    for (name, about, scenario) in SCENARIOS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let start = Instant::now();
        let result = lab.reset().and_then(|()| scenario(&mut lab));
        let seconds = start.elapsed().as_secs_f32();
        done += 1;
        match result {
            Ok(()) => println!("       ok     {name:<11} {seconds:>5.1} s  {about}"),
            Err(error) => {
                println!(
                    "       FAILED {name:<11} {seconds:>5.1} s  {about}\n{error:#}\n{}",
                    lab.clues()
                );
                failures.push(*name);
            }
        }
    }
    if failures.is_empty() {
        return Ok(format!("{done} scenarios with {}", lab.accelerator()));
    }
    bail!(
        "{} of {done} scenarios failed: {}",
        failures.len(),
        failures.join(", ")
    );
}
