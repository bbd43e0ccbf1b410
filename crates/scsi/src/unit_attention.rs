//! Unit attention conditions (SAM-5 5.14) with their precedence.

use crate::sense::{AdditionalSense, Sense};

/// A unit attention condition, in order of precedence: the smaller is reported first (SAM-5 5.14.1).
///
/// Reset conditions come first, from the most to the least sweeping; a reset condition stands for everything below
/// it in [`UnitAttention::supersedes`]. The rest keep the order in which they happened, so a queue should insert by
/// [`UnitAttention::precedence`] and not by this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnitAttention {
    /// 29h/01h: the logical unit was powered on; also the first command of a nexus that was never seen.
    PowerOnOccurred,
    /// 29h/00h: power on, hard reset or logical unit reset, not told apart.
    PowerOnResetOrBusDeviceReset,
    /// 29h/04h.
    DeviceInternalReset,
    /// 29h/02h: hard reset (TARGET WARM RESET, TARGET COLD RESET).
    ScsiBusReset,
    /// 3Fh/01h.
    MicrocodeChanged,
    /// 29h/03h: LOGICAL UNIT RESET.
    BusDeviceResetFunction,
    /// 29h/07h.
    NexusLoss,
    /// 2Fh/00h: tasks of this nexus were aborted by another.
    CommandsClearedByAnotherInitiator,
    /// 2Ah/05h.
    RegistrationsPreempted,
    /// 2Ah/03h.
    ReservationsPreempted,
    /// 2Ah/04h.
    ReservationsReleased,
    /// 2Ah/01h.
    ModeParametersChanged,
    /// 2Ah/06h.
    AsymmetricAccessStateChanged,
    /// 2Ah/09h.
    CapacityDataChanged,
    /// 28h/00h.
    NotReadyToReady,
    /// 38h/07h.
    ThinProvisioningSoftThreshold,
    /// 3Fh/03h.
    InquiryDataChanged,
    /// 3Fh/0Eh.
    ReportedLunsDataChanged,
}

impl UnitAttention {
    /// Every condition, in order of precedence.
    pub const ALL: [UnitAttention; 18] = [
        UnitAttention::PowerOnOccurred,
        UnitAttention::PowerOnResetOrBusDeviceReset,
        UnitAttention::DeviceInternalReset,
        UnitAttention::ScsiBusReset,
        UnitAttention::MicrocodeChanged,
        UnitAttention::BusDeviceResetFunction,
        UnitAttention::NexusLoss,
        UnitAttention::CommandsClearedByAnotherInitiator,
        UnitAttention::RegistrationsPreempted,
        UnitAttention::ReservationsPreempted,
        UnitAttention::ReservationsReleased,
        UnitAttention::ModeParametersChanged,
        UnitAttention::AsymmetricAccessStateChanged,
        UnitAttention::CapacityDataChanged,
        UnitAttention::NotReadyToReady,
        UnitAttention::ThinProvisioningSoftThreshold,
        UnitAttention::InquiryDataChanged,
        UnitAttention::ReportedLunsDataChanged,
    ];

    /// The additional sense code reported.
    pub const fn additional(self) -> AdditionalSense {
        match self {
            UnitAttention::PowerOnOccurred => AdditionalSense::POWER_ON_OCCURRED,
            UnitAttention::PowerOnResetOrBusDeviceReset => {
                AdditionalSense::POWER_ON_RESET_OR_BUS_DEVICE_RESET
            }
            UnitAttention::DeviceInternalReset => AdditionalSense::DEVICE_INTERNAL_RESET,
            UnitAttention::ScsiBusReset => AdditionalSense::SCSI_BUS_RESET_OCCURRED,
            UnitAttention::MicrocodeChanged => AdditionalSense::MICROCODE_HAS_BEEN_CHANGED,
            UnitAttention::BusDeviceResetFunction => {
                AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED
            }
            UnitAttention::NexusLoss => AdditionalSense::NEXUS_LOSS_OCCURRED,
            UnitAttention::CommandsClearedByAnotherInitiator => {
                AdditionalSense::COMMANDS_CLEARED_BY_ANOTHER_INITIATOR
            }
            UnitAttention::RegistrationsPreempted => AdditionalSense::REGISTRATIONS_PREEMPTED,
            UnitAttention::ReservationsPreempted => AdditionalSense::RESERVATIONS_PREEMPTED,
            UnitAttention::ReservationsReleased => AdditionalSense::RESERVATIONS_RELEASED,
            UnitAttention::ModeParametersChanged => AdditionalSense::MODE_PARAMETERS_CHANGED,
            UnitAttention::AsymmetricAccessStateChanged => {
                AdditionalSense::ASYMMETRIC_ACCESS_STATE_CHANGED
            }
            UnitAttention::CapacityDataChanged => AdditionalSense::CAPACITY_DATA_HAS_CHANGED,
            UnitAttention::NotReadyToReady => AdditionalSense::NOT_READY_TO_READY_CHANGE,
            UnitAttention::ThinProvisioningSoftThreshold => {
                AdditionalSense::THIN_PROVISIONING_SOFT_THRESHOLD_REACHED
            }
            UnitAttention::InquiryDataChanged => AdditionalSense::INQUIRY_DATA_HAS_CHANGED,
            UnitAttention::ReportedLunsDataChanged => {
                AdditionalSense::REPORTED_LUNS_DATA_HAS_CHANGED
            }
        }
    }

    /// The sense data that reports the condition.
    pub const fn sense(self) -> Sense {
        Sense::unit_attention(self.additional())
    }

    /// The condition with this additional sense code.
    pub fn from_additional(additional: AdditionalSense) -> Option<UnitAttention> {
        UnitAttention::ALL
            .into_iter()
            .find(|condition| condition.additional() == additional)
    }

    /// Precedence class: smaller is reported before larger, equal classes in the order of their arrival. 0 power on,
    /// 1 hard reset, 2 logical unit reset, 3 nexus loss, 4 everything else.
    pub const fn precedence(self) -> u8 {
        match self {
            UnitAttention::PowerOnOccurred
            | UnitAttention::PowerOnResetOrBusDeviceReset
            | UnitAttention::DeviceInternalReset => 0,
            UnitAttention::ScsiBusReset | UnitAttention::MicrocodeChanged => 1,
            UnitAttention::BusDeviceResetFunction => 2,
            UnitAttention::NexusLoss => 3,
            _ => 4,
        }
    }

    /// Whether establishing this condition makes a pending `other` needless: they are the same, or both are reset
    /// conditions and this one has the higher or equal precedence. Conditions that are no resets (reservations
    /// preempted, ...) are never lost to a reset, since reservations outlive resets.
    pub fn supersedes(self, other: UnitAttention) -> bool {
        self == other
            || (self.precedence() < 4
                && other.precedence() < 4
                && self.precedence() <= other.precedence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_each_condition_once_in_order_of_precedence() {
        for pair in UnitAttention::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
            assert!(pair[0].precedence() <= pair[1].precedence());
        }
        for condition in UnitAttention::ALL {
            assert_eq!(
                UnitAttention::from_additional(condition.additional()),
                Some(condition)
            );
        }
    }

    #[test]
    fn a_reset_supersedes_lesser_resets_only() {
        use UnitAttention::*;
        assert!(PowerOnOccurred.supersedes(NexusLoss));
        assert!(ScsiBusReset.supersedes(BusDeviceResetFunction));
        assert!(!BusDeviceResetFunction.supersedes(ScsiBusReset));
        assert!(!PowerOnOccurred.supersedes(ReservationsPreempted));
        assert!(!ReservationsPreempted.supersedes(ReservationsReleased));
        assert!(ReservationsReleased.supersedes(ReservationsReleased));
    }
}
