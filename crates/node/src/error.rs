//! Why a node cannot run.

use std::io;
use std::path::PathBuf;

use fencing::mailbox::ReadError;
use thiserror::Error;

/// Why a node cannot run, or cannot be asked.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The options do not go together.
    #[error("{0}")]
    Usage(String),
    /// The mailbox disk cannot be opened.
    #[error("the domain's disk {path} cannot be opened: {error}")]
    Disk {
        /// The disk.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The disk is no mailbox.
    #[error("{path} is not the mailbox of a domain: {error}")]
    Mailbox {
        /// The disk.
        path: PathBuf,
        /// What is there.
        error: ReadError,
    },
    /// The member is not known.
    #[error("{0}")]
    Member(String),
    /// A file or socket that is needed.
    #[error("{what} {path}: {error}")]
    File {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// No node answers.
    #[error(
        "no node answers at {path} ({error}); start one with `ringfence node --domain-disk ...`"
    )]
    NoNode {
        /// Its socket.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl NodeError {
    /// 2 for wrong usage, 4 when there is no node to ask, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            NodeError::Usage(_) => 2,
            NodeError::NoNode { .. } => 4,
            _ => 1,
        }
    }
}
