//! `ringfence volume ...`.

pub mod layout;
mod text;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, pick};
use crate::control::protocol::{Growth, Request};
use crate::failure::Failure;
use crate::names::object_name;
use crate::size::{HumanSize, parse_offset, parse_size_not_zero};
use layout::{AddMirrorArgs, MigrateArgs, RemoveMirrorArgs, ShapeArgs, VerifyArgs};
use text::{describe, extents, list};

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
    /// Give a volume another name; LUN and identity stay
    Rename(RenameArgs),
    /// Add a copy of the data, online
    AddMirror(AddMirrorArgs),
    /// Take a copy of the data away, online
    RemoveMirror(RemoveMirrorArgs),
    /// Move a volume to other devices or to another layout, keys included, online
    Migrate(MigrateArgs),
    /// Compare the copies of data and keys, online
    Verify(VerifyArgs),
    /// Show which device, offset and length back each range of a volume, data and keys
    Map(MapArgs),
}

/// `volume create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence volume create shared --size 20G
  ringfence volume create db --size 1T --mirrors 2 --layout striped --columns 4
  ringfence volume create log --size 10G --on disk1,disk2 --keys-on disk1,disk2,disk3 --block-size 4096
  ringfence volume create quorum --size 1G --persist always

A mirror keeps each copy of the data on devices of its own. Keys have three copies on different devices
where the pool has them, whatever the layout.")]
pub struct CreateArgs {
    /// A name for it: letters, digits, '-', '_', '.'
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Capacity (K, M, G, T count in 1024s, KB, MB, ... in 1000s); a multiple of the block size
    #[arg(long, value_parser = parse_size_not_zero)]
    pub size: u64,
    /// How it is laid out.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// The devices it lies on, in this order [default: wherever there is space]
    #[arg(long, value_name = "DEV,...", value_delimiter = ',', value_parser = object_name)]
    pub on: Vec<String>,
    /// The devices that keep its keys, a copy each [default: three, where the pool has them]
    #[arg(long, value_name = "DEV,...", value_delimiter = ',', value_parser = object_name)]
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

/// `volume rename`.
#[derive(Debug, Args)]
pub struct RenameArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// The new name
    #[arg(value_parser = object_name)]
    pub new_name: String,
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
                shape: args.shape.shape(),
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
        VolumeCommand::Rename(RenameArgs { name, new_name }) => {
            let request = Request::VolumeRename {
                name: name.clone(),
                new_name,
            };
            let volume = context.ask_for(request, pick!(Answer::Volume))?;
            context.output.show(&volume, |volume| {
                format!("volume {name} is {} now", volume.name)
            })
        }
        VolumeCommand::AddMirror(args) => layout::add_mirror(context, args),
        VolumeCommand::RemoveMirror(args) => layout::remove_mirror(context, args),
        VolumeCommand::Migrate(args) => layout::migrate(context, args),
        VolumeCommand::Verify(args) => layout::verify(context, args),
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
