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
}

/// A sequence of extents that follow one another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The extents in address order.
    pub extents: Vec<Extent>,
}

/// One complete copy of a volume's public region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plex {
    /// Identity of the plex.
    pub uuid: Uuid,
    /// How the columns combine.
    #[serde(flatten)]
    pub layout: PlexLayout,
    /// The columns.
    pub columns: Vec<Column>,
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
    /// The copies of the public region; exactly one until mirrors come.
    pub plexes: Vec<Plex>,
    /// The replicas of the private region (keys).
    pub keys: Vec<KeysReplica>,
    /// The intent area of atomic writes.
    pub intent: Extent,
    /// Grants by initiator name; `*` is everyone not named.
    pub grants: BTreeMap<String, Access>,
}

impl VolumeRecord {
    /// Every extent of every region.
    pub fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.plexes
            .iter()
            .flat_map(|plex| &plex.columns)
            .flat_map(|column| &column.extents)
            .chain(self.keys.iter().map(|replica| &replica.extent))
            .chain(std::iter::once(&self.intent))
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
