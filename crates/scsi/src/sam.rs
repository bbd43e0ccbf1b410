//! SAM-5 values that a transport carries beside commands: task attributes and task management.

/// Task attribute (SAM-5 8.6); the codes are those of the iSCSI ATTR field (RFC 7143 11.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TaskAttribute {
    /// 0: untagged, treated as SIMPLE.
    Untagged = 0,
    /// 1.
    #[default]
    Simple = 1,
    /// 2.
    Ordered = 2,
    /// 3.
    HeadOfQueue = 3,
    /// 4: auto contingent allegiance; allowed only while an ACA condition exists.
    Aca = 4,
}

impl TaskAttribute {
    /// The attribute of a code, or `None` for a reserved code.
    pub fn from_code(code: u8) -> Option<TaskAttribute> {
        Some(match code {
            0 => TaskAttribute::Untagged,
            1 => TaskAttribute::Simple,
            2 => TaskAttribute::Ordered,
            3 => TaskAttribute::HeadOfQueue,
            4 => TaskAttribute::Aca,
            _ => return None,
        })
    }
}

/// Task management function (SAM-5 7); the codes are those of the iSCSI Function field (RFC 7143 11.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TaskManagementFunction {
    /// 1: abort one task of this nexus.
    AbortTask = 1,
    /// 2: abort every task of this nexus on the logical unit.
    AbortTaskSet = 2,
    /// 3: clear the auto contingent allegiance condition.
    ClearAca = 3,
    /// 4: abort every task in the task set.
    ClearTaskSet = 4,
    /// 5.
    LogicalUnitReset = 5,
    /// 6: reset every logical unit of the target.
    TargetWarmReset = 6,
    /// 7: reset every logical unit and end every session.
    TargetColdReset = 7,
    /// 8: iSCSI task reassign (error recovery level 2).
    TaskReassign = 8,
}

impl TaskManagementFunction {
    /// The function of a code, or `None` for a reserved code.
    pub fn from_code(code: u8) -> Option<TaskManagementFunction> {
        use TaskManagementFunction as F;
        Some(match code {
            1 => F::AbortTask,
            2 => F::AbortTaskSet,
            3 => F::ClearAca,
            4 => F::ClearTaskSet,
            5 => F::LogicalUnitReset,
            6 => F::TargetWarmReset,
            7 => F::TargetColdReset,
            8 => F::TaskReassign,
            _ => return None,
        })
    }
}

/// Response to a task management function; the codes are those of iSCSI (RFC 7143 11.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TaskManagementResponse {
    /// 0.
    FunctionComplete = 0,
    /// 1: the referenced task does not exist.
    TaskDoesNotExist = 1,
    /// 2: the LUN does not exist.
    LunDoesNotExist = 2,
    /// 3: the task is still allegiant to a failed connection.
    TaskStillAllegiant = 3,
    /// 4: task reassignment is not supported.
    TaskReassignNotSupported = 4,
    /// 5: the function is not supported.
    FunctionNotSupported = 5,
    /// 6: the function needs an authorization that the initiator lacks.
    FunctionAuthorizationFailed = 6,
    /// 255: the request is rejected.
    FunctionRejected = 255,
}

impl TaskManagementResponse {
    /// The response of a code, or `None` for a reserved code.
    pub fn from_code(code: u8) -> Option<TaskManagementResponse> {
        use TaskManagementResponse as R;
        Some(match code {
            0 => R::FunctionComplete,
            1 => R::TaskDoesNotExist,
            2 => R::LunDoesNotExist,
            3 => R::TaskStillAllegiant,
            4 => R::TaskReassignNotSupported,
            5 => R::FunctionNotSupported,
            6 => R::FunctionAuthorizationFailed,
            255 => R::FunctionRejected,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for code in 0..=u8::MAX {
            if let Some(attribute) = TaskAttribute::from_code(code) {
                assert_eq!(attribute as u8, code);
            }
            if let Some(function) = TaskManagementFunction::from_code(code) {
                assert_eq!(function as u8, code);
            }
            if let Some(response) = TaskManagementResponse::from_code(code) {
                assert_eq!(response as u8, code);
            }
        }
        assert_eq!(
            (0..=255)
                .filter(|&c| TaskAttribute::from_code(c).is_some())
                .count(),
            5
        );
        assert_eq!(
            (0..=255)
                .filter(|&c| TaskManagementFunction::from_code(c).is_some())
                .count(),
            8
        );
        assert_eq!(
            (0..=255)
                .filter(|&c| TaskManagementResponse::from_code(c).is_some())
                .count(),
            8
        );
    }
}
