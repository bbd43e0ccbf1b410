//! The records of a pool's configuration, as data.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an initiator may do with a volume. Ordered: `None < Ro < Rw`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// The volume is not there for it.
    #[default]
    None,
    /// Reads.
    Ro,
    /// Reads and writes.
    Rw,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::None => "none",
            Access::Ro => "ro",
            Access::Rw => "rw",
        })
    }
}

/// Logical block size of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub enum BlockSize {
    /// 512 bytes.
    #[default]
    B512,
    /// 4,096 bytes.
    B4096,
}

impl BlockSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        match self {
            BlockSize::B512 => 512,
            BlockSize::B4096 => 4096,
        }
    }
}

impl From<BlockSize> for u32 {
    fn from(size: BlockSize) -> u32 {
        size.bytes()
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = String;

    fn try_from(bytes: u32) -> Result<Self, String> {
        match bytes {
            512 => Ok(BlockSize::B512),
            4096 => Ok(BlockSize::B4096),
            other => Err(format!("logical block size {other}: it is 512 or 4096")),
        }
    }
}

/// What a reboot of the machine does to registrations made with APTPL=0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Persist {
    /// As APTPL says (SPC-4 5.12.5): APTPL=0 is dropped by a reboot of the machine.
    #[default]
    Aptpl,
    /// Nothing is dropped by a reboot.
    Always,
}

/// The pool itself. One a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Identity of the pool; also in every label.
    pub uuid: Uuid,
    /// Where the search for the next volume's LUN starts, so that a LUN is not reused at once.
    pub next_lun: u16,
    /// The pool was exported in order: the next import is no power cycle, and registrations made without APTPL stay.
    #[serde(default)]
    pub handover: bool,
}

/// What a device is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceRole {
    /// Anything.
    #[default]
    Data,
    /// The configuration and private regions only: a third vote beside two disks.
    Witness,
}

/// A device of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Identity of the device; also in its label.
    pub uuid: Uuid,
    /// The operator's name for it.
    pub name: String,
    /// Where it was last opened.
    pub path: String,
    /// Size in bytes that ringfence uses.
    pub size_bytes: u64,
    /// First byte of the area that extents come from; a multiple of 1 MiB.
    pub data_offset_bytes: u64,
    /// Length of that area in bytes; a multiple of 1 MiB.
    pub data_length_bytes: u64,
    /// What it is for.
    #[serde(default)]
    pub role: DeviceRole,
    /// It broke, or an operator said so: nothing on it is used until it is brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Nothing new is put on it: it is being emptied, or has been and nobody has taken it into use again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

/// A contiguous run of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The device.
    pub device: Uuid,
    /// First byte on the device.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub length_bytes: u64,
}

/// A replica of a volume's private region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysReplica {
    /// Identity of the replica; also in its headers.
    pub uuid: Uuid,
    /// Where it is.
    #[serde(flatten)]
    pub extent: Extent,
}

/// How the columns of a plex make up its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "layout")]
pub enum PlexLayout {
    /// One column; its extents follow one another.
    Linear,
    /// Stripes: the first stripe unit is in the first column, the next in the next, round and round.
    Striped {
        /// Bytes in one column before the next one's turn; a power of two, 4 KiB to 16 MiB.
        stripe_unit_bytes: u64,
    },
}

/// A sequence of extents that follow one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The extents in address order.
    pub extents: Vec<Extent>,
}

/// Whether a plex takes part in the volume's I/O.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum PlexState {
    /// It does, where its regions are not stale.
    #[default]
    Attached,
    /// It does not, and nothing in it is believed but what its stale bitmap leaves when it is attached again.
    Detached {
        /// Why, for people.
        reason: String,
    },
}

/// One complete copy of a volume's public region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plex {
    /// Identity of the plex.
    pub uuid: Uuid,
    /// How the columns combine.
    #[serde(flatten)]
    pub layout: PlexLayout,
    /// The columns; one when linear.
    pub columns: Vec<Column>,
    /// Its intents of atomic writes and its region log, on a device of the plex.
    pub log: Extent,
    /// Whether it takes part.
    #[serde(flatten)]
    pub state: PlexState,
    /// The plex that this one will take the place of; extents that are the same in both are shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Uuid>,
}

impl Plex {
    /// Every extent of it, the log's included.
    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.columns
            .iter()
            .flat_map(|column| &column.extents)
            .chain(std::iter::once(&self.log))
    }

    /// Whether any of it is on `device`.
    pub fn is_on(&self, device: Uuid) -> bool {
        self.extents().any(|extent| extent.device == device)
    }

    /// Whether it takes part.
    pub fn is_attached(&self) -> bool {
        self.state == PlexState::Attached
    }
}

/// What a job is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum JobKind {
    /// One more plex.
    AddMirror,
    /// To other devices or another layout.
    Migrate,
    /// Away from a device that stays in the pool.
    Evacuate {
        /// The device.
        device: Uuid,
    },
    /// From a device to another one that takes its place.
    Replace {
        /// The device that goes.
        old: Uuid,
        /// The device that comes.
        new: Uuid,
    },
}

/// Work on a volume that survives restarts: plexes that are being filled, and what goes when they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Identity of the job.
    pub uuid: Uuid,
    /// What it is for.
    #[serde(flatten)]
    pub kind: JobKind,
    /// Plexes that are being filled.
    pub fresh: Vec<Uuid>,
    /// Plexes that go when it is done.
    pub retire: Vec<Uuid>,
    /// Replicas of the private region (candidates in [`VolumeRecord::keys`]) that come.
    #[serde(default)]
    pub keys_fresh: Vec<Uuid>,
    /// Replicas of the private region that go.
    #[serde(default)]
    pub keys_retire: Vec<Uuid>,
    /// Bytes per second at most; `None` backs off by itself while clients are active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_bytes_per_second: Option<u64>,
    /// An operator paused it.
    #[serde(default)]
    pub paused: bool,
    /// [`VolumeRecord::placement`] when it is done.
    #[serde(default)]
    pub placement: Vec<Uuid>,
    /// [`VolumeRecord::keys_placement`] when it is done.
    #[serde(default)]
    pub keys_placement: Vec<Uuid>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Identity of the volume.
    pub uuid: Uuid,
    /// The operator's name for it.
    pub name: String,
    /// Logical unit number, 0 to 16383, for the life of the volume.
    pub lun: u16,
    /// NAA designator, locally assigned (NAA=3h, SPC-4 7.8.6.6.4), 8 bytes as 16 hexadecimal digits.
    pub naa: String,
    /// Unit serial number, 1 to 32 ASCII characters.
    pub serial: String,
    /// Size of the public region in bytes; a multiple of 4096.
    pub size_bytes: u64,
    /// Logical block size.
    pub block_size: BlockSize,
    /// What survives a reboot.
    pub persist: Persist,
    /// Bytes of a region of the region log: a power of two, at least 1 MiB.
    pub region_bytes: u64,
    /// The copies of the public region, 1 to [`MAX_PLEXES`].
    pub plexes: Vec<Plex>,
    /// Where replicas of the private region (keys) may be; which of them count is in their own headers.
    pub keys: Vec<KeysReplica>,
    /// How many replicas of the private region there are to be.
    pub keys_wanted: u8,
    /// Devices that the data keeps to; empty for any.
    #[serde(default)]
    pub placement: Vec<Uuid>,
    /// Devices that the private region keeps to; empty for any.
    #[serde(default)]
    pub keys_placement: Vec<Uuid>,
    /// Work under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// Grants by initiator name; `*` is everyone not named, `domain:NAME` the members of a fence domain.
    pub grants: BTreeMap<String, Access>,
}

/// A record whose content is not the pool's business. In the configuration it is this as JSON on one line, a newline, and
/// the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// Identity of the document.
    pub uuid: Uuid,
    /// What it is, such as `domain`.
    pub kind: String,
    /// Its name, unique in its kind.
    pub name: String,
    /// What it has on devices: the quorum region first. Nobody else gets these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extents: Vec<Extent>,
    /// The content, at most [`MAX_DOCUMENT_BYTES`].
    #[serde(skip)]
    pub body: Vec<u8>,
}

/// Most bytes of a document's content.
pub const MAX_DOCUMENT_BYTES: usize = 2 << 20;

/// Most plexes of a volume, those that a job is filling included.
pub const MAX_PLEXES: usize = 8;

impl VolumeRecord {
    /// Every extent of every region; one that two plexes share comes twice.
    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.plexes
            .iter()
            .flat_map(Plex::extents)
            .chain(self.keys.iter().map(|replica| &replica.extent))
    }

    /// What `initiator` may do: its own grant, else that of `*`, else nothing.
    pub fn access_of(&self, initiator: &str) -> Access {
        self.grants
            .get(initiator)
            .or_else(|| self.grants.get("*"))
            .copied()
            .unwrap_or_default()
    }

    /// The NAA designator as its eight bytes (big endian), or `None` when the stored text is not 16 hexadecimal digits
    /// that start with 3.
    pub fn naa_bytes(&self) -> Option<[u8; 8]> {
        if self.naa.len() != 16 || !self.naa.starts_with('3') {
            return None;
        }
        u64::from_str_radix(&self.naa, 16)
            .ok()
            .map(u64::to_be_bytes)
    }
}
