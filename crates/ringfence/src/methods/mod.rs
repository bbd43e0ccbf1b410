//! STONITH: fencing methods that act on the machine itself, outside of the target.
//!
//! Everything here blocks, for at most the time it is given, and belongs on a thread of its own.

mod qmp;
mod stonith;

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

/// That a member was fenced, in words for the event log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof(pub String);

/// Why a method has not proven that the member is fenced. It may have been all the same.
#[derive(Debug, Error)]
pub enum MethodFailure {
    /// The program is not there, or cannot be run.
    #[error("{agent} cannot be run: {reason}")]
    NotRunnable {
        /// The agent as named.
        agent: String,
        /// What the system says.
        reason: String,
    },
    /// It did not end in its time and was killed.
    #[error("{what} did not end within {seconds} s")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// It ended with another status than success.
    #[error("{what} failed: {reason}")]
    Refused {
        /// What was tried.
        what: String,
        /// What it said.
        reason: String,
    },
    /// An option is missing, or has a value that is not known.
    #[error("{0}")]
    Option(String),
}

/// The options of a method.
pub type Options = BTreeMap<String, String>;

/// Looks at a STONITH method before it is needed: the agent is there and says what it is, the options make sense.
///
/// # Errors
/// [`MethodFailure`].
pub fn check(agent: &str, options: &Options) -> Result<(), MethodFailure> {
    if agent == qmp::AGENT {
        return qmp::check(options);
    }
    stonith::check(agent, options)
}

/// Fences the machine of `member` by `agent` within `limit`.
///
/// # Errors
/// [`MethodFailure`]: there is no proof that it is fenced.
pub fn fence(
    agent: &str,
    options: &Options,
    member: &str,
    limit: Duration,
) -> Result<Proof, MethodFailure> {
    if agent == qmp::AGENT {
        return qmp::fence(options, limit);
    }
    stonith::fence(agent, options, member, limit)
}
