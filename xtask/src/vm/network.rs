//! The guests' network: a namespace of its own with the target's two portal addresses and, for each guest, one TAP
//! interface to each portal. Nothing outside of it is touched, and removing the namespace removes everything.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{command, run, succeeds};

const PREFIX: &str = "ringfence-";
/// How many portals the target has here, each on a subnet of its own.
pub const PORTALS: u8 = 2;

/// The namespace; dropped, it is gone.
#[derive(Debug)]
pub struct Network {
    name: String,
}

/// One guest's place in the network.
#[derive(Debug, Clone)]
pub struct Seat {
    /// TAP interfaces, in the order of the portals.
    pub taps: Vec<String>,
    /// The guest's addresses with prefix length, in the order of the portals.
    pub addresses: Vec<String>,
}

impl Network {
    /// Makes the namespace with the portal addresses.
    ///
    /// # Errors
    /// Not root, or the kernel refuses a namespace.
    pub fn create() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a network for the guests takes root (namespace and TAP interfaces)"
        );
        remove_leftovers()?;
        let name = format!("{PREFIX}{}", std::process::id());
        run(&mut command("ip", ["netns", "add", &name]))?;
        let network = Self { name };
        network.ip(&["link", "set", "lo", "up"])?;
        for portal in 0..PORTALS {
            let address = format!("{}/32", portal_ip(portal));
            network.ip(&["address", "add", &address, "dev", "lo"])?;
        }
        Ok(network)
    }

    /// The addresses at which the target listens, all on the standard's port.
    pub fn portals(&self) -> Vec<SocketAddr> {
        (0..PORTALS)
            .map(|portal| SocketAddr::new(portal_ip(portal), 3260))
            .collect()
    }

    /// The name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds the interfaces of guest number `guest`, from 1.
    ///
    /// # Errors
    /// When the kernel refuses a TAP interface.
    pub fn seat(&self, guest: u8) -> Result<Seat> {
        let mut seat = Seat {
            taps: Vec::new(),
            addresses: Vec::new(),
        };
        for portal in 0..PORTALS {
            let tap = format!("tap{guest}p{portal}");
            let ip = Ipv4Addr::new(10, 77, portal, 10 + guest);
            self.ip(&["tuntap", "add", "dev", &tap, "mode", "tap"])?;
            self.ip(&["link", "set", &tap, "up"])?;
            let source = portal_ip(portal).to_string();
            self.ip(&[
                "route",
                "add",
                &format!("{ip}/32"),
                "dev",
                &tap,
                "src",
                &source,
            ])?;
            seat.taps.push(tap);
            seat.addresses.push(format!("{ip}/24"));
        }
        Ok(seat)
    }

    /// Cuts or restores the way between guest and portal (both numbered as in [`Network::seat`]).
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn set_link(&self, guest: u8, portal: u8, up: bool) -> Result<()> {
        let tap = format!("tap{guest}p{portal}");
        self.ip(&["link", "set", &tap, if up { "up" } else { "down" }])?;
        if up {
            // Taking a link down dropped its route.
            let ip = format!("10.77.{portal}.{}/32", 10 + guest);
            let source = portal_ip(portal).to_string();
            self.ip(&["route", "replace", &ip, "dev", &tap, "src", &source])?;
        }
        Ok(())
    }

    /// The same command, to be run inside.
    pub fn inside(&self, inner: &Command) -> Command {
        let mut outer = command("ip", ["netns", "exec", &self.name]);
        outer.arg(inner.get_program()).args(inner.get_args());
        for (key, value) in inner.get_envs() {
            if let Some(value) = value {
                outer.env(key, value);
            }
        }
        outer
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        run(command("ip", ["-n", &self.name]).args(arguments)).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = succeeds(&mut command("ip", ["netns", "del", &self.name]));
    }
}

fn portal_ip(portal: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, portal, 1))
}

/// A run that was killed could not remove its namespace: do it for those whose process is gone.
fn remove_leftovers() -> Result<()> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Ok(()); // No namespace was ever made here.
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(pid) = name
            .strip_prefix(PREFIX)
            .and_then(|pid| pid.parse::<u32>().ok())
        else {
            continue;
        };
        if !fs::exists(format!("/proc/{pid}"))? {
            run(&mut command("ip", ["netns", "del", &name]))
                .context("cannot remove a namespace of a run that was killed")?;
        }
    }
    Ok(())
}
