//! Requests.

use std::path::PathBuf;

use fencing::{Method, Prefer, QuorumRequest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(doc)]
use super::{Answer, Frame};
use crate::control::model::{AccessRight, LostUntil};

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

/// A job to wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobName {
    /// The volume.
    pub volume: String,
    /// Identity of the job, as listed.
    pub id: String,
}

/// What is to be done with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobAction {
    /// Stop it for a while.
    Pause,
    /// Let it go on.
    Resume,
    /// Give it up; the volume is as before.
    Cancel,
    /// Limit it to so many bytes per second; without a number it gives way to initiators by itself.
    Rate(Option<u64>),
}

/// Where the quorum device of a domain is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuorumWish {
    /// On this device of the pool.
    Device(String),
    /// At another daemon.
    Server {
        /// `HOST:PORT`.
        address: String,
        /// What the domain is called there; by default its identity.
        name: Option<String>,
    },
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
    /// Moves everything away from a device that stays in the pool. Answer: [`Answer::Jobs`], which go on by themselves.
    DeviceEvacuate {
        /// Its name.
        name: String,
        /// At most so many bytes per second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_bytes_per_second: Option<u64>,
    },
    /// Puts a device in the place of another. Answer: [`Answer::Jobs`], which go on by themselves.
    DeviceReplace {
        /// The device that goes.
        old: String,
        /// The device that comes; it is in the pool.
        new: String,
        /// At most so many bytes per second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_bytes_per_second: Option<u64>,
    },
    /// Takes a device for broken. Answer: [`Answer::Device`].
    DeviceFail {
        /// Its name.
        name: String,
        /// Also when something needs it.
        #[serde(default)]
        force: bool,
    },
    /// Takes a device that failed or was missing into use again. Answer: [`Answer::Device`].
    DeviceOnline {
        /// Its name.
        name: String,
        /// Where it is now, absolute; without it where it was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
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
    /// Adds a copy of the data. Answer: [`Answer::Jobs`], one, which goes on by itself.
    VolumeAddMirror {
        /// The volume.
        name: String,
        /// The devices of the copy; empty lets the pool choose.
        #[serde(default)]
        on: Vec<String>,
        /// At most so many bytes per second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_bytes_per_second: Option<u64>,
    },
    /// Takes a copy of the data away: the one named by `plex` or `on`, else a detached one, else the last.
    /// Answer: [`Answer::Volume`].
    VolumeRemoveMirror {
        /// The volume.
        name: String,
        /// Which copy, from 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plex: Option<usize>,
        /// The one on this device.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on: Option<String>,
    },
    /// Moves a volume, its keys included. Answer: [`Answer::Jobs`], one, which goes on by itself.
    VolumeMigrate {
        /// The volume.
        name: String,
        /// The devices for the data.
        to: Vec<String>,
        /// The devices for the keys; empty lets the pool choose from `to`.
        #[serde(default)]
        keys_to: Vec<String>,
        /// The new layout.
        #[serde(default)]
        shape: Shape,
        /// At most so many bytes per second.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_bytes_per_second: Option<u64>,
    },
    /// Compares the copies of data and keys: [`Frame::Progress`], then [`Answer::Verified`].
    VolumeVerify {
        /// The volume.
        name: String,
        /// Make them the same again.
        #[serde(default)]
        repair: bool,
    },
    /// All jobs, resyncs included. Answer: [`Answer::Jobs`] by LUN.
    JobList,
    /// The job of a volume. Answer: [`Answer::Job`].
    JobShow {
        /// The volume.
        volume: String,
    },
    /// Steers the job of a volume. Answer: [`Answer::Job`].
    JobControl {
        /// The volume.
        volume: String,
        /// What to do.
        action: JobAction,
    },
    /// Waits for jobs: [`Frame::Progress`] of each now and then, then [`Answer::JobEnds`].
    JobWait {
        /// Which.
        jobs: Vec<JobName>,
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
        /// What ends the condition, without `clear`.
        #[serde(default)]
        until: LostUntil,
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
    /// Makes a fence domain and its mailbox. Answer: [`Answer::Domain`].
    DomainCreate {
        /// Its name.
        name: String,
        /// Its volumes.
        volumes: Vec<String>,
        /// What breaks ties.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quorum: Option<QuorumWish>,
        /// Votes of that; by default the members' votes minus one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quorum_votes: Option<u32>,
        /// Which group of a race is given those votes.
        #[serde(default)]
        prefer: Prefer,
        /// How long claims of a race are collected; by default 2 s.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        window_ms: Option<u64>,
        /// The devices of the mailbox; empty lets the pool choose.
        #[serde(default)]
        mailbox_on: Vec<String>,
    },
    /// All fence domains. Answer: [`Answer::Domains`].
    DomainList,
    /// One fence domain. Answer: [`Answer::Domain`].
    DomainShow {
        /// Its name.
        name: String,
    },
    /// Deletes a fence domain, its mailbox and the grants to it. Answer: [`Answer::Done`].
    DomainDelete {
        /// Its name.
        name: String,
    },
    /// Takes a volume into a domain. Answer: [`Answer::Domain`].
    DomainVolumeAdd {
        /// The domain.
        domain: String,
        /// The volume.
        volume: String,
    },
    /// Takes a volume out of a domain. Answer: [`Answer::Domain`].
    DomainVolumeRemove {
        /// The domain.
        domain: String,
        /// The volume.
        volume: String,
    },
    /// Makes a virtual machine a member. Answer: [`Answer::Domain`].
    MemberAdd {
        /// The domain.
        domain: String,
        /// Its name.
        member: String,
        /// Its initiators.
        initiators: Vec<String>,
        /// Its votes.
        votes: u32,
        /// How it is fenced, in this order until one is proven; empty for `reservation`.
        #[serde(default)]
        methods: Vec<Method>,
    },
    /// Takes a member out. Answer: [`Answer::Domain`].
    MemberRemove {
        /// The domain.
        domain: String,
        /// Its name.
        member: String,
    },
    /// The members of a domain. Answer: [`Answer::Members`].
    MemberList {
        /// The domain.
        domain: String,
    },
    /// A member claims for a group, and hears the verdict. Answer: [`Answer::Race`].
    DomainRace {
        /// The domain.
        domain: String,
        /// Who claims.
        member: String,
        /// Whom it still sees.
        with: Vec<String>,
        /// Identity of the claim: asked again with the same one, it is the same claim.
        id: Uuid,
        /// The epoch that the member knows; without it the current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
    },
    /// Fences a member. Answer: [`Answer::Fence`] when it is proven.
    Fence {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
        /// How; empty for the member's own methods.
        #[serde(default)]
        methods: Vec<Method>,
        /// How long to wait for the proof; the fence goes on in any case.
        wait_ms: u64,
    },
    /// Asks this daemon as a quorum server. Answer: [`Answer::Quorum`].
    Quorum {
        /// Name of the register.
        name: String,
        /// What is asked of it.
        request: QuorumRequest,
    },
    /// Gives a fenced member its access back. Answer: [`Answer::Domain`].
    Unfence {
        /// The domain.
        domain: String,
        /// The member.
        member: String,
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
