//! Which events belong to the fencing audit.

use super::What;

impl What {
    /// Whether the event belongs to the fencing audit and is made durable at once.
    pub fn is_fencing(&self) -> bool {
        match self {
            Self::Domain(event) => event.is_fencing(),
            Self::Registered { .. }
            | Self::Unregistered { .. }
            | Self::Preempted { .. }
            | Self::Cleared { .. }
            | Self::Reserved { .. }
            | Self::Released { .. }
            | Self::ReservationMoved { .. }
            | Self::PersistThroughPowerLoss { .. }
            | Self::ReservationInformationLost { .. }
            | Self::LostReservationReplaced { .. }
            | Self::LostReservationConfirmed { .. }
            | Self::Fenced { .. }
            | Self::GrantChanged { .. }
            | Self::SessionDropped { .. }
            | Self::VolumeNotServed { .. }
            | Self::VolumeServed { .. }
            | Self::VolumeDeleted { .. }
            | Self::SanitizeStarted { .. }
            | Self::SanitizeEnded { .. }
            | Self::QuorumLost { .. }
            | Self::KeysRecovered { .. }
            | Self::KeysReplicaLost { .. }
            | Self::PoolExported { .. }
            | Self::DaemonStopped { .. } => true,
            Self::DaemonStarted { .. }
            | Self::DeviceAdded { .. }
            | Self::DeviceRemoved { .. }
            | Self::DeviceNotOpened { .. }
            | Self::VolumeCreated { .. }
            | Self::VolumeGrown { .. }
            | Self::SessionStarted { .. }
            | Self::SessionEnded { .. }
            | Self::LoginRefused { .. }
            | Self::Scsi2Reserved { .. }
            | Self::Scsi2Released { .. }
            | Self::Reset { .. }
            | Self::PoolImported { .. }
            | Self::DeviceFailed { .. }
            | Self::DeviceHung { .. }
            | Self::DeviceBack { .. }
            | Self::PlexDetached { .. }
            | Self::PlexAttached { .. }
            | Self::MirrorRemoved { .. }
            | Self::ResyncStarted { .. }
            | Self::ResyncDone { .. }
            | Self::JobStarted { .. }
            | Self::JobDone { .. }
            | Self::JobStalled { .. }
            | Self::JobPaused { .. }
            | Self::JobResumed { .. }
            | Self::JobCancelled { .. }
            | Self::VolumeVerified { .. }
            | Self::VolumeRenamed { .. }
            | Self::KeysReplicaRebuilt { .. }
            | Self::KeysReplicaRepaired { .. }
            | Self::QuorumBack { .. }
            | Self::WitnessAdded { .. }
            | Self::WitnessRemoved { .. }
            | Self::LastCopyFails { .. }
            | Self::DeviceReplaced { .. }
            | Self::ConfigReplicaRepaired { .. } => false,
        }
    }
}
