//! `ringfence device ...`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::job::{self, StartArgs};
use super::output::{fields, names, table};
use super::{Context, pick};
use crate::control::model::Device;
use crate::control::protocol::Request;
use crate::failure::Failure;
use crate::names::object_name;
use crate::size::{HumanSize, parse_size_not_zero};

/// The commands on devices.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Take a file or block device into the pool; everything on it is lost
    Add(AddArgs),
    /// List the devices of the pool
    List,
    /// Show a device and who uses it
    Show(NameArgs),
    /// Take an unused device out of the pool
    Remove(NameArgs),
    /// Move everything on a device to the others, online; the device stays in the pool
    Evacuate(EvacuateArgs),
    /// Move everything on a device to another one, online
    Replace(ReplaceArgs),
    /// Take a device for broken: nothing on it is used any more
    Fail(FailArgs),
    /// Use a device again that failed, was missing or evacuated, or is somewhere else now
    Online(OnlineArgs),
}

/// `device add`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence device add disk1 /srv/ringfence/disk1.img --size 100G    a new sparse file
  ringfence device add disk2 /dev/disk/by-id/nvme-XYZ --direct       a whole disk, round the page cache

The device gets a label and a copy of the pool's configuration, and is opened again at every start.
Name block devices by /dev/disk/by-id/..., which does not change from boot to boot.")]
pub struct AddArgs {
    /// A name for it: letters, digits, '-', '_', '.'
    #[arg(value_parser = object_name)]
    pub name: String,
    /// The file or block device
    pub path: PathBuf,
    /// Create PATH as a sparse file of this size first (K, M, G, T count in 1024s, KB, MB, ... in 1000s)
    #[arg(long, value_parser = parse_size_not_zero)]
    pub size: Option<u64>,
    /// Go round the page cache (O_DIRECT); by default the page cache is used, and flushed when a guest asks for it
    #[arg(long)]
    pub direct: bool,
    /// Also when a file system, a partition table or something else is on it, which is lost
    #[arg(long)]
    pub force: bool,
}

/// `device evacuate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence device evacuate disk1
  ringfence device evacuate disk1 --rate 200M --detach

Data, keys and logs go to other devices with space, to those of the volumes' own --on first. From then on nothing
is put on the device by itself, over restarts too. Take it out with 'ringfence device remove', or use it again:
with 'ringfence device online', or by naming it for something new. Cancelling ('ringfence job cancel') ends that too.")]
pub struct EvacuateArgs {
    /// The device's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// How fast, and whether to wait.
    #[command(flatten)]
    pub start: StartArgs,
}

/// `device replace`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence device add disk4 /dev/disk/by-id/nvme-NEW
  ringfence device replace disk1 disk4

When all is copied the old device leaves the pool. A dead one can be replaced as well: what was on it is copied
from the mirrors.")]
pub struct ReplaceArgs {
    /// The device that goes
    #[arg(value_parser = object_name)]
    pub old: String,
    /// The device that takes its place; it is in the pool already
    #[arg(value_parser = object_name)]
    pub new: String,
    /// How fast, and whether to wait.
    #[command(flatten)]
    pub start: StartArgs,
}

/// `device fail`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence device fail disk1

Mirrors go on with their other copies, and copies of keys are made elsewhere. It is refused, with the names of
the volumes, when it has the only valid copy of data, or when keys or the pool's configuration would be left
without the majority of their copies.")]
pub struct FailArgs {
    /// The device's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Also when volumes lose their only copy or the majority of their keys with it
    #[arg(long)]
    pub force: bool,
}

/// `device online`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence device online disk1
  ringfence device online disk1 --path /dev/disk/by-id/nvme-XYZ

The device is opened again, must still be the one that the pool knows, and is brought up to date before it
is believed. Watch that with: ringfence job list
One that was evacuated may get data and keys again.")]
pub struct OnlineArgs {
    /// The device's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Where it is now [default: where it was]
    #[arg(long)]
    pub path: Option<PathBuf>,
}

/// A device by its name.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The device's name
    #[arg(value_parser = object_name)]
    pub name: String,
}

/// Carries a device command out.
pub fn run(context: &Context, command: DeviceCommand) -> Result<(), Failure> {
    match command {
        DeviceCommand::Add(args) => {
            let request = Request::DeviceAdd {
                name: args.name,
                path: absolute(&args.path)?,
                size_bytes: args.size,
                direct: args.direct,
                force: args.force,
            };
            let device = context.ask_for(request, pick!(Answer::Device))?;
            context.output.show(&device, |device| {
                format!(
                    "device {} added: {} free for volumes",
                    device.name,
                    HumanSize(device.free_bytes)
                )
            })
        }
        DeviceCommand::List => {
            let devices = context.ask_for(Request::DeviceList, pick!(Answer::Devices))?;
            context.output.show(&devices, |devices| list(devices))
        }
        DeviceCommand::Show(NameArgs { name }) => {
            let device = context.ask_for(Request::DeviceShow { name }, pick!(Answer::Device))?;
            context.output.show(&device, describe)
        }
        DeviceCommand::Remove(NameArgs { name }) => {
            context.tell(Request::DeviceRemove { name: name.clone() })?;
            context.output.show(&json!({ "removed": name }), |_| {
                format!("device {name} removed")
            })
        }
        DeviceCommand::Evacuate(EvacuateArgs { name, start }) => {
            let nothing = format!("nothing is on device {name}, and nothing new is put on it");
            let request = Request::DeviceEvacuate {
                name,
                rate_bytes_per_second: start.rate,
            };
            let jobs = context.ask_for(request, pick!(Answer::Jobs))?;
            job::started_or(context, &jobs, start.detach, &nothing)
        }
        DeviceCommand::Replace(ReplaceArgs { old, new, start }) => {
            let nothing = format!("nothing is on device {old}; it leaves the pool");
            let request = Request::DeviceReplace {
                old,
                new,
                rate_bytes_per_second: start.rate,
            };
            let jobs = context.ask_for(request, pick!(Answer::Jobs))?;
            job::started_or(context, &jobs, start.detach, &nothing)
        }
        DeviceCommand::Fail(FailArgs { name, force }) => {
            let request = Request::DeviceFail { name, force };
            let device = context.ask_for(request, pick!(Answer::Device))?;
            context.output.show(&device, |device| {
                format!(
                    "device {} is not used any more; take it back with: ringfence device online {}",
                    device.name, device.name
                )
            })
        }
        DeviceCommand::Online(OnlineArgs { name, path }) => {
            let request = Request::DeviceOnline {
                name,
                path: path.as_deref().map(absolute).transpose()?,
            };
            let device = context.ask_for(request, pick!(Answer::Device))?;
            context.output.show(&device, |device| {
                format!(
                    "device {} at {} is used again",
                    device.name,
                    device.path.display()
                )
            })
        }
    }
}

/// The path as the daemon needs it, which has another working directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::usage(format!(
            "the path {} cannot be used: {error}",
            path.display()
        ))
    })
}

fn list(devices: &[Device]) -> String {
    if devices.is_empty() {
        return "no devices; add one with: ringfence device add NAME PATH --size SIZE".to_owned();
    }
    let rows = devices.iter().map(|device| {
        vec![
            device.name.clone(),
            device.state.clone(),
            HumanSize(device.size_bytes).to_string(),
            HumanSize(device.used_bytes).to_string(),
            HumanSize(device.free_bytes).to_string(),
            device.errors.total().to_string(),
            device.volumes.len().to_string(),
            device.path.display().to_string(),
        ]
    });
    table(
        &[
            "NAME", "STATE", "SIZE", "USED", "FREE", "ERRORS", "VOLUMES", "PATH",
        ],
        &[2, 3, 4, 5, 6],
        rows,
    )
}

fn describe(device: &Device) -> String {
    let cache = if device.direct {
        "none (O_DIRECT)"
    } else {
        "page cache"
    };
    let errors = &device.errors;
    let mut rows = vec![
        ("Name", device.name.clone()),
        ("Path", device.path.display().to_string()),
        ("UUID", device.uuid.clone()),
        ("State", device.state.clone()),
    ];
    rows.extend(device.reason.iter().map(|reason| ("Why", reason.clone())));
    rows.extend([
        ("Role", device.role.clone()),
        ("Size", HumanSize(device.size_bytes).to_string()),
        ("Used", HumanSize(device.used_bytes).to_string()),
        ("Free", HumanSize(device.free_bytes).to_string()),
        ("Cache", cache.to_owned()),
        ("Volumes", names(&device.volumes)),
        ("Keys of", names(&device.keys_of)),
        (
            "Errors",
            format!(
                "{} read, {} write, {} flush, {} without answer",
                errors.read, errors.write, errors.flush, errors.hang
            ),
        ),
    ]);
    fields(&rows)
}
