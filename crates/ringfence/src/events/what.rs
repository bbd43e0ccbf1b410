//! The kinds of events and their fields: the schema of the audit trail.

use serde::{Deserialize, Serialize};

use super::domain::DomainEvent;
use super::{Actor, Operator, Party};
use crate::control::model::LostUntil;

/// What happened. `by` is who made it happen; it is null where that is the daemon itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// The daemon is ready.
    DaemonStarted {
        /// Its build.
        version: String,
        /// Its process.
        pid: u32,
        /// The bound portals.
        portals: Vec<String>,
    },
    /// The daemon stops.
    DaemonStopped {
        /// Why.
        reason: String,
    },
    /// A device joined the pool.
    DeviceAdded {
        /// Its name.
        device: String,
        /// Where it is.
        path: String,
        /// Who asked.
        by: Operator,
    },
    /// A device left the pool.
    DeviceRemoved {
        /// Its name.
        device: String,
        /// Who asked.
        by: Operator,
    },
    /// A device of the pool could not be opened.
    DeviceNotOpened {
        /// Where it should be.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A volume was made.
    VolumeCreated {
        /// Its name.
        volume: String,
        /// Its LUN.
        lun: u16,
        /// Capacity.
        size_bytes: u64,
        /// Who asked.
        by: Operator,
    },
    /// A volume was deleted.
    VolumeDeleted {
        /// Its name.
        volume: String,
        /// Over the objection that it was in use.
        forced: bool,
        /// Who asked.
        by: Operator,
    },
    /// A volume is larger than before.
    VolumeGrown {
        /// Its name.
        volume: String,
        /// Capacity now.
        size_bytes: u64,
        /// Who asked.
        by: Operator,
    },
    /// A volume is not served: its private region or a device of it cannot be trusted.
    VolumeNotServed {
        /// Its name.
        volume: String,
        /// Why.
        reason: String,
    },
    /// A volume that was not served is served now.
    VolumeServed {
        /// Its name.
        volume: String,
    },
    /// What an initiator may do has changed; for less, its I/O has drained.
    GrantChanged {
        /// The volume.
        volume: String,
        /// iSCSI name, or `*`.
        initiator: String,
        /// `rw`, `ro` or `none`.
        access: String,
        /// Who asked.
        by: Operator,
    },
    /// An initiator logged in.
    SessionStarted {
        /// Identity of the session.
        session: u64,
        /// Who.
        party: Party,
        /// The portal's address.
        portal: String,
    },
    /// A session is over.
    SessionEnded {
        /// Identity of the session.
        session: u64,
        /// Who.
        party: Party,
        /// Why.
        reason: String,
    },
    /// An operator ended a session.
    SessionDropped {
        /// Identity of the session.
        session: u64,
        /// Whose it was.
        party: Party,
        /// Who asked.
        by: Operator,
    },
    /// A login was refused.
    LoginRefused {
        /// The name that was given, if it came so far.
        initiator: Option<String>,
        /// From where.
        address: String,
        /// The portal's address.
        portal: String,
        /// Why.
        reason: String,
        /// How many refused logins before this one were not recorded: at most 60 a minute are.
        #[serde(default, skip_serializing_if = "is_zero")]
        unrecorded: u64,
    },
    /// A nexus was registered, or its key changed.
    Registered {
        /// The volume.
        volume: String,
        /// Who is registered now, with the new key.
        party: Party,
        /// The key before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaced: Option<String>,
        /// Who did it: another than `party` with SPEC_I_PT and REGISTER AND MOVE.
        by: Option<Actor>,
    },
    /// A registration ended otherwise than by PREEMPT or CLEAR.
    Unregistered {
        /// The volume.
        volume: String,
        /// Who, with the old key.
        party: Party,
        /// `own`, `unregistered`, `replace-lost` or `power-on`.
        cause: String,
        /// Who did it.
        by: Option<Actor>,
    },
    /// A registration ended by PREEMPT or PREEMPT AND ABORT.
    Preempted {
        /// The volume.
        volume: String,
        /// Who lost it, with the old key.
        party: Party,
        /// Who preempted.
        by: Option<Actor>,
    },
    /// A registration ended by CLEAR.
    Cleared {
        /// The volume.
        volume: String,
        /// Who lost it, with the old key.
        party: Party,
        /// Who cleared.
        by: Option<Actor>,
    },
    /// A reservation was established.
    Reserved {
        /// The volume.
        volume: String,
        /// Type as in `keys --json`.
        #[serde(rename = "type")]
        kind: String,
        /// Its holder; null for the all-registrants types, which every registrant holds.
        holder: Option<Party>,
        /// Who did it.
        by: Option<Actor>,
    },
    /// A reservation ended.
    Released {
        /// The volume.
        volume: String,
        /// Type as in `keys --json`.
        #[serde(rename = "type")]
        kind: String,
        /// Who held it; null for the all-registrants types.
        holder: Option<Party>,
        /// `own`, `clear`, `preempt`, `unregistered`, `replace-lost` or `power-on`.
        cause: String,
        /// Who did it.
        by: Option<Actor>,
    },
    /// REGISTER AND MOVE gave the reservation to another nexus.
    ReservationMoved {
        /// The volume.
        volume: String,
        /// Type as in `keys --json`.
        #[serde(rename = "type")]
        kind: String,
        /// The holder before.
        party: Party,
        /// The holder now.
        to: Party,
        /// Who did it.
        by: Option<Actor>,
    },
    /// The logical unit's APTPL setting changed.
    PersistThroughPowerLoss {
        /// The volume.
        volume: String,
        /// The setting now.
        aptpl: bool,
        /// Who did it.
        by: Option<Actor>,
    },
    /// The loss of persistent reservation information was recorded.
    ReservationInformationLost {
        /// The volume.
        volume: String,
        /// Who did it.
        by: Option<Actor>,
    },
    /// REPLACE LOST RESERVATION, or an operator, ended the lost condition.
    LostReservationReplaced {
        /// The volume.
        volume: String,
        /// Who did it.
        by: Option<Actor>,
    },
    /// The lost condition ended by itself: somebody has registered since, and no recovered registration is left.
    LostReservationConfirmed {
        /// The volume.
        volume: String,
        /// Whose registration, or which removal of the last recovered one, it was.
        by: Option<Actor>,
    },
    /// A SCSI-2 reservation began.
    Scsi2Reserved {
        /// The volume.
        volume: String,
        /// Whose it is.
        party: Party,
    },
    /// A SCSI-2 reservation ended.
    Scsi2Released {
        /// The volume.
        volume: String,
        /// Whose it was.
        party: Party,
        /// Who did it.
        by: Option<Actor>,
    },
    /// A nexus lost access to the medium that it had before, and all its I/O has ended.
    Fenced {
        /// The volume.
        volume: String,
        /// Who lost access.
        party: Party,
        /// Its tasks were aborted as well.
        aborted: bool,
        /// Who did it.
        by: Option<Actor>,
    },
    /// A logical unit or the target was reset by task management.
    Reset {
        /// The volume; null for all.
        volume: Option<String>,
        /// Who did it.
        by: Option<Actor>,
    },
    /// SANITIZE began.
    SanitizeStarted {
        /// The volume.
        volume: String,
        /// Who did it.
        by: Option<Actor>,
    },
    /// SANITIZE ended.
    SanitizeEnded {
        /// The volume.
        volume: String,
        /// The whole medium was sanitized.
        complete: bool,
    },
    /// The daemon took up a pool that was not its own before.
    PoolImported {
        /// Identity of the pool.
        pool: String,
        /// The paths it was found on.
        devices: Vec<String>,
        /// Who asked.
        by: Operator,
    },
    /// The daemon let go of its pool, which is marked as cleanly handed over.
    PoolExported {
        /// Identity of the pool.
        pool: String,
        /// Although initiators were logged in.
        forced: bool,
        /// Who asked.
        by: Operator,
    },
    /// A device is not used any more: it failed, or an operator said that it did.
    DeviceFailed {
        /// Its name.
        device: String,
        /// Why.
        reason: String,
        /// Who asked; null when it broke.
        by: Option<Operator>,
    },
    /// A device does not answer: what it was given is neither done nor refused.
    DeviceHung {
        /// Its name.
        device: String,
        /// What it was asked, and for how long it has not answered.
        reason: String,
    },
    /// A device is used again.
    DeviceBack {
        /// Its name.
        device: String,
        /// Who asked; null when it came back by itself.
        by: Option<Operator>,
    },
    /// A plex takes no part any more: what it holds is not believed.
    PlexDetached {
        /// The volume.
        volume: String,
        /// Which copy, from 0.
        plex: u32,
        /// Its devices.
        devices: Vec<String>,
        /// Why.
        reason: String,
    },
    /// A plex takes part again; what it missed is being copied to it.
    PlexAttached {
        /// The volume.
        volume: String,
        /// Which copy, from 0.
        plex: u32,
        /// Its devices.
        devices: Vec<String>,
    },
    /// A copy was taken away from a mirrored volume.
    MirrorRemoved {
        /// The volume.
        volume: String,
        /// The devices that the copy was on.
        devices: Vec<String>,
        /// Who asked.
        by: Operator,
    },
    /// What plexes miss, or may differ in after a crash, is being copied.
    ResyncStarted {
        /// The volume.
        volume: String,
        /// How much there is to copy.
        size_bytes: u64,
    },
    /// All plexes are the same again.
    ResyncDone {
        /// The volume.
        volume: String,
    },
    /// A job began: a migration, a new mirror, the evacuation or replacement of a device.
    JobStarted {
        /// The volume.
        volume: String,
        /// `add-mirror`, `migrate`, `evacuate` or `replace`.
        job: String,
        /// The devices that the data goes to, by name.
        to: Vec<String>,
        /// Who asked.
        by: Option<Operator>,
    },
    /// A job is done and has taken effect.
    JobDone {
        /// The volume.
        volume: String,
        /// As in `job-started`.
        job: String,
    },
    /// A job cannot go on by itself.
    JobStalled {
        /// The volume.
        volume: String,
        /// As in `job-started`.
        job: String,
        /// Why, and what has no valid copy.
        reason: String,
    },
    /// A job was stopped for a while.
    JobPaused {
        /// The volume.
        volume: String,
        /// As in `job-started`.
        job: String,
        /// Who asked.
        by: Option<Operator>,
    },
    /// A job goes on.
    JobResumed {
        /// The volume.
        volume: String,
        /// As in `job-started`.
        job: String,
        /// Who asked; null when what stalled it has gone.
        by: Option<Operator>,
    },
    /// A job was given up; the volume is as before.
    JobCancelled {
        /// The volume.
        volume: String,
        /// As in `job-started`.
        job: String,
        /// Who asked.
        by: Option<Operator>,
    },
    /// The plexes and the replicas of the keys were compared.
    VolumeVerified {
        /// The volume.
        volume: String,
        /// How much differed.
        mismatched_bytes: u64,
        /// How much of it was repaired.
        repaired_bytes: u64,
        /// Who asked.
        by: Operator,
    },
    /// A volume has another name.
    VolumeRenamed {
        /// The name before.
        volume: String,
        /// The name now.
        name: String,
        /// Who asked.
        by: Operator,
    },
    /// A replica of the keys is not current any more.
    KeysReplicaLost {
        /// The volume.
        volume: String,
        /// The device it is on.
        device: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a new replica of the keys.
    KeysReplicaRebuilt {
        /// The volume.
        volume: String,
        /// The device it is on.
        device: String,
    },
    /// A replica of the keys that was behind is current again.
    KeysReplicaRepaired {
        /// The volume.
        volume: String,
        /// The device it is on.
        device: String,
    },
    /// A replica of the pool's configuration that was behind is current again.
    ConfigReplicaRepaired {
        /// The device it is on.
        device: String,
    },
    /// Too few replicas are left to prove what is current.
    QuorumLost {
        /// The volume whose keys it is; null for the pool's configuration.
        volume: Option<String>,
        /// What is left.
        reason: String,
    },
    /// Enough replicas are good again.
    QuorumBack {
        /// The volume whose keys it is; null for the pool's configuration.
        volume: Option<String>,
    },
    /// The only good copy of a part of a volume gives errors.
    LastCopyFails {
        /// The volume.
        volume: String,
        /// Which copy, from 0.
        plex: u32,
        /// What failed.
        reason: String,
    },
    /// A device left the pool because another one has taken its place.
    DeviceReplaced {
        /// Its name.
        device: String,
        /// The one that took its place.
        with: String,
    },
    /// The daemon made a third place for configuration and keys beside two devices.
    WitnessAdded {
        /// Its name as a device.
        device: String,
        /// Where it is.
        path: String,
    },
    /// A witness is not needed any more.
    WitnessRemoved {
        /// Its name as a device.
        device: String,
    },
    /// An operator chose one replica of the keys over the quorum.
    KeysRecovered {
        /// The volume.
        volume: String,
        /// The device whose copy was taken.
        device: String,
        /// The sequence number of that copy.
        copy_sequence: u64,
        /// What ends the condition that information was lost; null with `--clear`.
        #[serde(default)]
        until: Option<LostUntil>,
        /// Who asked.
        by: Operator,
    },
    /// Of a fence domain.
    #[serde(untagged)]
    Domain(DomainEvent),
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
