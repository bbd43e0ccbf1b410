//! Requests.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::{Answer, Frame};
use crate::control::model::AccessRight;

/// How far a volume is to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Growth {
    /// To this size in bytes.
    To(u64),
    /// By this many bytes.
    By(u64),
}

/// The layout of a plex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LayoutName {
    /// One extent after the other
    Linear,
    /// Stripes over several devices
    Striped,
}

/// How a volume is to be laid out. What is left out is chosen, or for a volume that is there stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Linear or striped; a number of columns or a stripe unit alone mean striped.
    pub layout: Option<LayoutName>,
    /// Columns of the stripes.
    pub columns: Option<usize>,
    /// Bytes in one column before the next one's turn: a power of two, 4 KiB to 16 MiB.
    pub stripe_unit_bytes: Option<u64>,
    /// Copies of the data.
    pub mirrors: Option<usize>,
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What is running. Answer: [`Answer::Status`].
    Status,
    /// Labels a device and takes it into the pool. Answer: [`Answer::Device`].
    DeviceAdd {
        /// Its name in the pool.
        name: String,
        /// The file or block device, as an absolute path.
        path: PathBuf,
        /// Create a sparse file of this size first; `path` must not exist.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size_bytes: Option<u64>,
        /// Go round the page cache (O_DIRECT).
        #[serde(default)]
        direct: bool,
        /// Also when there is something else on it.
        #[serde(default)]
        force: bool,
    },
    /// All devices. Answer: [`Answer::Devices`].
    DeviceList,
    /// One device. Answer: [`Answer::Device`].
    DeviceShow {
        /// Its name.
        name: String,
    },
    /// Takes an unused device out of the pool. Answer: [`Answer::Done`].
    DeviceRemove {
        /// Its name.
        name: String,
    },
    /// The pool. Answer: [`Answer::Pool`].
    PoolShow,
    /// Takes up the pool that lives on these devices; there must be none. Answer: [`Answer::Pool`].
    PoolImport {
        /// Its devices, absolute.
        paths: Vec<PathBuf>,
        /// Go round the page cache (O_DIRECT).
        #[serde(default)]
        direct: bool,
    },
    /// Lets go of the pool. Answer: [`Answer::Pool`] as it was.
    PoolExport {
        /// Also when initiators are logged in.
        #[serde(default)]
        force: bool,
    },
    /// Creates a volume. Answer: [`Answer::Volume`].
    VolumeCreate {
        /// Its name.
        name: String,
        /// Capacity in bytes, a multiple of the block size.
        size_bytes: u64,
        /// The devices of its set, in this order; empty lets the pool choose.
        #[serde(default)]
        on: Vec<String>,
        /// The devices of its private region; empty lets the pool choose.
        #[serde(default)]
        keys_on: Vec<String>,
        /// Logical block size in bytes, 512 or 4096.
        block_size_bytes: u32,
        /// Keep reservations over a reboot of the machine even when registered with APTPL=0.
        #[serde(default)]
        persist_always: bool,
        /// Its layout.
        #[serde(default)]
        shape: Shape,
    },
    /// All volumes. Answer: [`Answer::Volumes`].
    VolumeList,
    /// One volume. Answer: [`Answer::Volume`].
    VolumeShow {
        /// Its name.
        name: String,
    },
    /// Deletes a volume. Answer: [`Answer::Done`].
    VolumeDelete {
        /// Its name.
        name: String,
        /// Also when initiators are logged in or registered.
        #[serde(default)]
        force: bool,
    },
    /// Makes a volume larger. Answer: [`Answer::Volume`].
    VolumeGrow {
        /// Its name.
        name: String,
        /// How far.
        growth: Growth,
    },
    /// Gives a volume another name. Answer: [`Answer::Volume`].
    VolumeRename {
        /// Its name.
        name: String,
        /// The new one.
        new_name: String,
    },
    /// Where a volume lies. Answer: [`Answer::Map`].
    VolumeMap {
        /// Its name.
        name: String,
        /// Only the extent of this byte of the public region.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offset_bytes: Option<u64>,
    },
    /// Sets what an initiator may do. Answer: [`Answer::Grant`], when I/O that is no longer allowed has drained.
    Grant {
        /// The volume.
        volume: String,
        /// iSCSI name, or `*` for everyone not named.
        initiator: String,
        /// What it may do.
        access: AccessRight,
    },
    /// The grants of a volume. Answer: [`Answer::Grants`].
    Grants {
        /// The volume.
        volume: String,
    },
    /// The private region as read back from its replicas. Answer: [`Answer::Keys`].
    Keys {
        /// The volume.
        volume: String,
    },
    /// What taking the keys from one device would do. Answer: [`Answer::KeysRecovery`].
    KeysRecoverShow {
        /// The volume.
        volume: String,
        /// The device whose copy is to be taken.
        from: String,
    },
    /// Takes the keys from one device. Answer: [`Answer::Keys`].
    KeysRecover {
        /// The volume.
        volume: String,
        /// The device whose copy is taken.
        from: String,
        /// `proof` of what was shown.
        proof: u64,
        /// Then end the condition for the initiators, as [`Request::KeysClearLost`] does.
        #[serde(default)]
        clear: bool,
    },
    /// Ends the condition after [`Request::KeysRecover`] for initiators that do not know how to: all registrations and
    /// the reservation go. Answer: [`Answer::Keys`].
    KeysClearLost {
        /// The volume.
        volume: String,
    },
    /// All iSCSI sessions. Answer: [`Answer::Sessions`].
    SessionList,
    /// Ends a session. Answer: [`Answer::Done`], when its connection is closed.
    SessionDrop {
        /// The identity of the session as listed.
        id: u64,
    },
    /// The event log: [`Frame::Event`]s, oldest first, then [`Answer::Done`]; with `follow` it goes on for ever.
    Events {
        /// Only events at or after this time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
        /// Go on with what happens.
        #[serde(default)]
        follow: bool,
    },
}
