//! The guests' network: a namespace of its own with the target's two portal addresses and, for each guest, one TAP
//! interface to each portal; for the guests of a cluster also one to a bridge that joins them and nobody else. Nothing
//! outside of it is touched, and removing the namespace removes everything.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{command, run, succeeds};

const PREFIX: &str = "ringfence-";
/// How many portals the target has here, each on a subnet of its own.
pub const PORTALS: u8 = 2;
const BRIDGE: &str = "cluster";

/// The namespace; dropped, it is gone.
#[derive(Debug)]
pub struct Network {
    name: String,
}

/// One guest's place in the network.
#[derive(Debug, Clone)]
pub struct Seat {
    /// TAP interfaces, in the order of the portals; the cluster's is the last.
    pub taps: Vec<String>,
    /// The guest's addresses with prefix length, in the same order.
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

    /// Adds the interfaces of guest number `guest`, from 1, to all portals.
    ///
    /// # Errors
    /// When the kernel refuses a TAP interface.
    pub fn seat(&self, guest: u8) -> Result<Seat> {
        self.seat_at(guest, PORTALS)
    }

    /// Makes the network that joins the guests of a cluster, 10.78.0.0/24.
    ///
    /// # Errors
    /// When the kernel refuses a bridge.
    pub fn add_cluster(&self) -> Result<()> {
        self.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        self.ip(&["link", "set", BRIDGE, "up"])
    }

    /// Adds the interfaces of guest number `guest`, from 1: one to the first portal and one to the cluster's network,
    /// where it is 10.78.0.10 plus its number.
    ///
    /// # Errors
    /// When the kernel refuses a TAP interface, or there is no network of the cluster.
    pub fn cluster_seat(&self, guest: u8) -> Result<Seat> {
        let mut seat = self.seat_at(guest, 1)?;
        let tap = cluster_tap(guest);
        self.ip(&["tuntap", "add", "dev", &tap, "mode", "tap"])?;
        self.ip(&["link", "set", &tap, "master", BRIDGE, "up"])?;
        seat.taps.push(tap);
        seat.addresses.push(format!("10.78.0.{}/24", 10 + guest));
        Ok(seat)
    }

    /// Cuts a guest off from the cluster's network, or lets it in again; its way to the portals stays.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn set_cluster_link(&self, guest: u8, up: bool) -> Result<()> {
        let tap = cluster_tap(guest);
        self.ip(&["link", "set", &tap, if up { "up" } else { "down" }])
    }

    fn seat_at(&self, guest: u8, portals: u8) -> Result<Seat> {
        let mut seat = Seat {
            taps: Vec::new(),
            addresses: Vec::new(),
        };
        for portal in 0..portals {
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

fn cluster_tap(guest: u8) -> String {
    format!("tap{guest}c")
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
