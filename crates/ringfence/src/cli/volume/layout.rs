//! Commands that change where and how the data of a volume lies.

use clap::Args;
use serde_json::json;

use super::super::job::{self, StartArgs};
use super::super::progress::Meter;
use super::super::{Context, pick};
use super::text::verified;
use crate::control::client::{Client, unexpected};
use crate::control::protocol::{Answer, Frame, JobAction, LayoutName, Request, Shape};
use crate::failure::Failure;
use crate::names::object_name;
use crate::size::parse_size_not_zero;

/// The layout, as `volume create` and `volume migrate` take it.
#[derive(Clone, Debug, Default, Args)]
pub struct ShapeArgs {
    /// One device after the other, or striped over several [default: linear]
    #[arg(long, value_name = "LAYOUT")]
    pub layout: Option<LayoutName>,
    /// Stripe over this many devices [default: as many as can be used]
    #[arg(long, value_name = "N", value_parser = columns)]
    pub columns: Option<usize>,
    /// Bytes on one device before the next one's turn: a power of two, 4K to 16M [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = stripe_unit)]
    pub stripe_unit: Option<u64>,
    /// Copies of the data, each on devices of its own [default: 1]
    #[arg(long, value_name = "N", value_parser = mirrors)]
    pub mirrors: Option<usize>,
}

impl ShapeArgs {
    /// As the daemon takes it.
    pub fn shape(&self) -> Shape {
        let striped = self.columns.is_some() || self.stripe_unit.is_some();
        Shape {
            layout: self.layout.or(striped.then_some(LayoutName::Striped)),
            columns: self.columns,
            stripe_unit_bytes: self.stripe_unit,
            mirrors: self.mirrors,
        }
    }
}

fn columns(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(columns @ 2..=64) => Ok(columns),
        _ => Err("stripes have 2 to 64 columns".to_owned()),
    }
}

fn mirrors(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(mirrors @ 1..=4) => Ok(mirrors),
        _ => Err("a volume has 1 to 4 copies of its data".to_owned()),
    }
}

fn stripe_unit(text: &str) -> Result<u64, String> {
    let bytes = parse_size_not_zero(text)?;
    if bytes.is_power_of_two() && (4096..=16 << 20).contains(&bytes) {
        Ok(bytes)
    } else {
        Err("a stripe unit is a power of two from 4K to 16M".to_owned())
    }
}

/// `volume add-mirror`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence volume add-mirror shared
  ringfence volume add-mirror shared --on disk3,disk4 --rate 200M")]
pub struct AddMirrorArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// The devices of the new copy; none of them has another one [default: wherever there is space]
    #[arg(long, value_name = "DEV,...", value_delimiter = ',', value_parser = object_name)]
    pub on: Vec<String>,
    /// How fast, and whether to wait.
    #[command(flatten)]
    pub start: StartArgs,
}

/// `volume remove-mirror`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence volume remove-mirror shared --on disk3
  ringfence volume remove-mirror shared --plex 1      as numbered by 'ringfence volume show'

Without --plex and --on a copy goes that is detached, else the last one. The last good copy is never removed.")]
pub struct RemoveMirrorArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// The copy with this number
    #[arg(long, value_name = "N", conflicts_with = "on")]
    pub plex: Option<usize>,
    /// The copy on this device
    #[arg(long, value_name = "DEV", value_parser = object_name)]
    pub on: Option<String>,
}

/// `volume migrate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ringfence volume migrate shared --to disk5,disk6
  ringfence volume migrate shared --to disk5,disk6,disk7,disk8 --layout striped --mirrors 2 --rate 500M
  ringfence volume migrate shared --pause

Initiators go on reading, writing and reserving meanwhile, and notice nothing of the switch. The keys move
too. --pause, --resume and --cancel are short for 'ringfence job pause' and so on.")]
pub struct MigrateArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// The devices that it is to lie on
    #[arg(long, value_name = "DEV,...", value_delimiter = ',', value_parser = object_name,
          required_unless_present_any = ["pause", "resume", "cancel"])]
    pub to: Vec<String>,
    /// The devices that are to keep its keys [default: those of --to]
    #[arg(long, value_name = "DEV,...", value_delimiter = ',', value_parser = object_name)]
    pub keys_to: Vec<String>,
    /// What changes of the layout; what is not named stays as it is.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// How fast, and whether to wait.
    #[command(flatten)]
    pub start: StartArgs,
    /// Stop the migration for a while
    #[arg(long, group = "steer", conflicts_with_all = ["to", "keys_to", "layout", "columns", "stripe_unit", "mirrors", "rate", "detach"])]
    pub pause: bool,
    /// Let the migration go on
    #[arg(long, group = "steer", conflicts_with_all = ["to", "keys_to", "layout", "columns", "stripe_unit", "mirrors", "rate", "detach"])]
    pub resume: bool,
    /// Give the migration up: the volume stays where it was
    #[arg(long, group = "steer", conflicts_with_all = ["to", "keys_to", "layout", "columns", "stripe_unit", "mirrors", "rate", "detach"])]
    pub cancel: bool,
}

/// `volume verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "All copies of the data are read and compared, and the copies of the keys. Without --repair nothing is
written, and a difference is exit code 1. Ctrl-C stops it."
)]
pub struct VerifyArgs {
    /// The volume's name
    #[arg(value_parser = object_name)]
    pub name: String,
    /// Make the copies the same again
    #[arg(long)]
    pub repair: bool,
}

pub(super) fn add_mirror(context: &Context, args: AddMirrorArgs) -> Result<(), Failure> {
    let request = Request::VolumeAddMirror {
        name: args.name,
        on: args.on,
        rate_bytes_per_second: args.start.rate,
    };
    let jobs = context.ask_for(request, pick!(Answer::Jobs))?;
    job::started(context, &jobs, args.start.detach)
}

pub(super) fn remove_mirror(context: &Context, args: RemoveMirrorArgs) -> Result<(), Failure> {
    let request = Request::VolumeRemoveMirror {
        name: args.name,
        plex: args.plex,
        on: args.on,
    };
    let volume = context.ask_for(request, pick!(Answer::Volume))?;
    context.output.show(&volume, |volume| match volume.mirrors {
        1 => format!("volume {} has one copy of its data now", volume.name),
        many => format!("volume {} has {many} copies of its data now", volume.name),
    })
}

pub(super) fn migrate(context: &Context, args: MigrateArgs) -> Result<(), Failure> {
    let steer = [
        (args.pause, JobAction::Pause, "is paused"),
        (args.resume, JobAction::Resume, "goes on"),
        (args.cancel, JobAction::Cancel, "is cancelled"),
    ];
    if let Some((_, action, done)) = steer.into_iter().find(|(given, ..)| *given) {
        return job::steer(context, args.name, action, done);
    }
    let request = Request::VolumeMigrate {
        name: args.name,
        to: args.to,
        keys_to: args.keys_to,
        shape: args.shape.shape(),
        rate_bytes_per_second: args.start.rate,
    };
    let jobs = context.ask_for(request, pick!(Answer::Jobs))?;
    job::started(context, &jobs, args.start.detach)
}

pub(super) fn verify(context: &Context, args: VerifyArgs) -> Result<(), Failure> {
    let VerifyArgs { name, repair } = args;
    let request = Request::VolumeVerify {
        name: name.clone(),
        repair,
    };
    let mut meter = Meter::new(context.output);
    let mut shown = Ok(());
    let answer = Client::connect(&context.state)?.request(request, |frame| {
        if let Frame::Progress(progress) = frame {
            shown = meter.show(progress);
        }
        shown.is_ok()
    })?;
    shown?;
    meter.end();
    let found = match answer {
        Answer::Verified(found) => found,
        other => return Err(unexpected(&other)),
    };
    context
        .output
        .line(&json!({ "verified": found }), || verified(&found))?;
    if found.is_clean() {
        return Ok(());
    }
    let failure = Failure::failed(format!("the copies of volume {name} differ"));
    Err(if repair {
        failure.advise("not all of it could be repaired: 'ringfence device list' shows which device has errors; replace it")
    } else {
        failure.advise(format!(
            "make them the same with: ringfence volume verify {name} --repair"
        ))
    })
}
