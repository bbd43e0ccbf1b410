//! SAM-5 5.3 status codes.

/// The status of a completed command (SAM-5 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// 00h: the command completed without error.
    Good = 0x00,
    /// 02h: sense data describes what happened.
    CheckCondition = 0x02,
    /// 04h: PRE-FETCH found room in the cache for all blocks.
    ConditionMet = 0x04,
    /// 08h: the logical unit cannot take the command now.
    Busy = 0x08,
    /// 18h: the command conflicts with a reservation.
    ReservationConflict = 0x18,
    /// 28h: no resources to take the command into the task set.
    TaskSetFull = 0x28,
    /// 30h: an auto contingent allegiance condition exists.
    AcaActive = 0x30,
    /// 40h: the command was aborted by another nexus and TAS is one.
    TaskAborted = 0x40,
}

impl Status {
    /// The status of a code, or `None` for a code that is reserved or obsolete.
    pub fn from_code(code: u8) -> Option<Status> {
        Some(match code {
            0x00 => Status::Good,
            0x02 => Status::CheckCondition,
            0x04 => Status::ConditionMet,
            0x08 => Status::Busy,
            0x18 => Status::ReservationConflict,
            0x28 => Status::TaskSetFull,
            0x30 => Status::AcaActive,
            0x40 => Status::TaskAborted,
            _ => return None,
        })
    }

    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Good => "GOOD",
            Status::CheckCondition => "CHECK CONDITION",
            Status::ConditionMet => "CONDITION MET",
            Status::Busy => "BUSY",
            Status::ReservationConflict => "RESERVATION CONFLICT",
            Status::TaskSetFull => "TASK SET FULL",
            Status::AcaActive => "ACA ACTIVE",
            Status::TaskAborted => "TASK ABORTED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn every_code_maps_to_one_status_and_back() {
        let known: Vec<u8> = (0..=255)
            .filter(|&code| Status::from_code(code).is_some())
            .collect();
        assert_eq!(known, [0x00, 0x02, 0x04, 0x08, 0x18, 0x28, 0x30, 0x40]);
        for code in known {
            assert_eq!(Status::from_code(code).map(Status::code), Some(code));
        }
    }
}
