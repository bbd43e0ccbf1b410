//! `ringfence volume ...`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{fields, names, table};
use super::{Context, pick};
use crate::control::model::{Volume, VolumeMap};
use crate::control::protocol::{Growth, Request};
use crate::failure::Failure;
use crate::names::object_name;
use crate::size::{HumanSize, parse_offset, parse_size_not_zero};

/// The commands on volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume; it is served at once, and nobody may use it until 'ringfence grant'
    Create(CreateArgs),
    /// List the volumes with their LUNs
    List,
    /// Show a volume
    Show(NameArgs),
    /// Delete a volume with its data and its keys
    Delete(DeleteArgs),
    /// Make a volume larger; initiators are told (CAPACITY DATA HAS CHANGED)
    Grow(GrowArgs),
    /// Show which device, offset and length back each range of a volume, data and keys
    Map(MapArgs),
}

/// `volume create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence volume create shared --size 20G
  ringfence volume create db --size 1T --on disk1,disk2 --keys-on disk3 --block-size 4096
  ringfence volume create quorum --size 1G --persist always")]
pub struct CreateArgs {
    /// A name for it: letters, digits, '-', '_', '.'
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Capacity (K, M, G, T count in 1024s, KB, MB, ... in 1000s); a multiple of the block size
    #[arg(long, value_parser = parse_size_not_zero)]
    pub size: u64,
    /// The devices it lies on, in this order [default: wherever there is space]
    #[arg(long, value_name = "DEV,...", value_delimiter = ',', value_parser = object_name)]
    pub on: Vec<String>,
    /// The device that keeps its keys [default: one of the devices it lies on]
    #[arg(long, value_name = "DEV", value_delimiter = ',', value_parser = object_name)]
    pub keys_on: Vec<String>,
    /// Logical block size in bytes
    #[arg(long, value_name = "BYTES", default_value = "512", value_parser = block_size)]
    pub block_size: u32,
    /// Keep reservations over a reboot of this machine even when they were registered without APTPL
    #[arg(long, value_name = "WHEN")]
    pub persist: Option<Persist>,
}

/// The values of `--persist`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Persist {
    /// Over every reboot
    Always,
}

fn block_size(text: &str) -> Result<u32, String> {
    match text {
        "512" => Ok(512),
        "4096" | "4K" | "4k" => Ok(4096),
        _ => Err("a block has 512 or 4096 bytes".to_owned()),
    }
}

/// A volume by its name.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
}

/// `volume delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Also when initiators use it or are registered; their I/O is drained and then fails
    #[arg(long)]
    pub force: bool,
}

/// `volume grow`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence volume grow shared 40G      to 40 GiB
  ringfence volume grow shared +10G     by 10 GiB")]
pub struct GrowArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// The new capacity, or with a '+' how much more
    #[arg(value_parser = growth)]
    pub size: Growth,
}

fn growth(text: &str) -> Result<Growth, String> {
    match text.strip_prefix('+') {
        Some(more) => parse_size_not_zero(more).map(Growth::By),
        None => parse_size_not_zero(text).map(Growth::To),
    }
}

/// `volume map`.
#[derive(Debug, Args)]
pub struct MapArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Only where this byte of the volume lies (a size like 4G, or 0x...)
    #[arg(value_parser = parse_offset)]
    pub offset: Option<u64>,
}

/// Carries a volume command out.
pub fn run(context: &Context, command: VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::Create(args) => {
            let request = Request::VolumeCreate {
                name: args.name,
                size_bytes: args.size,
                on: args.on,
                keys_on: args.keys_on,
                block_size_bytes: args.block_size,
                persist_always: args.persist.is_some(),
            };
            let volume = context.ask_for(request, pick!(Answer::Volume))?;
            context.output.show(&volume, |volume| {
                format!(
                    "volume {} created: LUN {}, {}; allow its use with: ringfence grant {} INITIATOR rw",
                    volume.name,
                    volume.lun,
                    HumanSize(volume.size_bytes),
                    volume.name
                )
            })
        }
        VolumeCommand::List => {
            let volumes = context.ask_for(Request::VolumeList, pick!(Answer::Volumes))?;
            context.output.show(&volumes, |volumes| list(volumes))
        }
        VolumeCommand::Show(NameArgs { name }) => {
            let volume = context.ask_for(Request::VolumeShow { name }, pick!(Answer::Volume))?;
            context.output.show(&volume, describe)
        }
        VolumeCommand::Delete(DeleteArgs { name, force }) => {
            context.tell(Request::VolumeDelete {
                name: name.clone(),
                force,
            })?;
            context.output.show(&json!({ "deleted": name }), |_| {
                format!("volume {name} deleted")
            })
        }
        VolumeCommand::Grow(GrowArgs { name, size }) => {
            let request = Request::VolumeGrow { name, growth: size };
            let volume = context.ask_for(request, pick!(Answer::Volume))?;
            context.output.show(&volume, |volume| {
                format!(
                    "volume {} has {} now",
                    volume.name,
                    HumanSize(volume.size_bytes)
                )
            })
        }
        VolumeCommand::Map(MapArgs { name, offset }) => {
            let request = Request::VolumeMap {
                name,
                offset_bytes: offset,
            };
            let map = context.ask_for(request, pick!(Answer::Map))?;
            context.output.show(&map, extents)
        }
    }
}

fn list(volumes: &[Volume]) -> String {
    if volumes.is_empty() {
        return "no volumes; make one with: ringfence volume create NAME --size SIZE".to_owned();
    }
    let rows = volumes.iter().map(|volume| {
        vec![
            volume.lun.to_string(),
            volume.name.clone(),
            volume.state.clone(),
            HumanSize(volume.size_bytes).to_string(),
            volume.block_size_bytes.to_string(),
            volume.layout.clone(),
            names(&volume.devices),
            names(&volume.keys_on),
            volume.sessions.to_string(),
        ]
    });
    table(
        &[
            "LUN", "NAME", "STATE", "SIZE", "BLOCK", "LAYOUT", "DEVICES", "KEYS ON", "SESSIONS",
        ],
        &[0, 3, 4, 8],
        rows,
    )
}

fn describe(volume: &Volume) -> String {
    let persist = match volume.persist.as_str() {
        "always" => "always".to_owned(),
        other => format!("{other} (over a reboot as registered)"),
    };
    let mut rows = vec![
        ("Name", volume.name.clone()),
        ("LUN", volume.lun.to_string()),
        ("State", volume.state.clone()),
    ];
    rows.extend(volume.reason.iter().map(|reason| ("Why", reason.clone())));
    rows.extend([
        ("Size", HumanSize(volume.size_bytes).to_string()),
        ("Block size", volume.block_size_bytes.to_string()),
        ("Layout", volume.layout.clone()),
        ("Devices", names(&volume.devices)),
        ("Keys on", names(&volume.keys_on)),
        ("Persist", persist),
        ("Sessions", volume.sessions.to_string()),
        ("UUID", volume.uuid.clone()),
        ("NAA", volume.naa.clone()),
    ]);
    fields(&rows)
}

fn extents(map: &VolumeMap) -> String {
    let rows = map.extents.iter().map(|entry| {
        vec![
            entry.region.clone(),
            entry.copy.to_string(),
            entry.offset_bytes.to_string(),
            entry.length_bytes.to_string(),
            entry.device.clone(),
            entry.device_offset_bytes.to_string(),
        ]
    });
    table(
        &[
            "REGION",
            "COPY",
            "OFFSET",
            "LENGTH",
            "DEVICE",
            "DEVICE OFFSET",
        ],
        &[1, 2, 3, 5],
        rows,
    )
}
