//! What can go wrong, as an operator sees it: one sentence, what to do about it, and a stable exit code.

use serde::{Deserialize, Serialize};

use crate::control::model::DeviceLoss;

/// The class of a failure. It decides the exit code, which is part of the interface and never changes its
/// meaning (3 is for a lost race of a fence domain alone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The operation was tried and did not work (an I/O error, for instance). Exit code 1.
    Failed,
    /// The request makes no sense as written. Exit code 2.
    Usage,
    /// A race of a fence domain was lost: whoever asked has no access. Exit code 3.
    Lost,
    /// The daemon cannot be reached. Exit code 4.
    Unreachable,
    /// The named thing does not exist. Exit code 5.
    NotFound,
    /// Refused as things stand: in use, there already, no space left. Exit code 6.
    Refused,
    /// Another daemon has the state directory or a device. Exit code 7.
    Busy,
}

impl FailureKind {
    /// The exit code of the process, 1 to 7.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Lost => 3,
            Self::Unreachable => 4,
            Self::NotFound => 5,
            Self::Refused => 6,
            Self::Busy => 7,
        }
    }
}

/// A failed command. The daemon sends it over the control socket, the command line prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The class, and with it the exit code.
    pub kind: FailureKind,
    /// What went wrong, one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What would have been lost, where that is why it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would_lose: Vec<DeviceLoss>,
}

impl Failure {
    /// A failure of class `kind`.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            advice: None,
            would_lose: Vec::new(),
        }
    }

    /// The operation did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Failed, message)
    }

    /// The request makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Usage, message)
    }

    /// The race was lost.
    pub fn lost(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Lost, message)
    }

    /// Nothing of that name.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// Not as things stand.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Refused, message)
    }

    /// Another daemon has it.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Busy, message)
    }

    /// The same with a word on what to do.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The same with what would have been lost.
    pub fn would_lose(mut self, losses: Vec<DeviceLoss>) -> Self {
        self.would_lose = losses;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_stable() {
        let codes: Vec<u8> = [
            FailureKind::Failed,
            FailureKind::Usage,
            FailureKind::Lost,
            FailureKind::Unreachable,
            FailureKind::NotFound,
            FailureKind::Refused,
            FailureKind::Busy,
        ]
        .map(FailureKind::exit_code)
        .to_vec();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7]);
    }
}
