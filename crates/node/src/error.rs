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
    /// Nothing tells which member it is.
    #[error("{0}")]
    Member(String),
    /// The mailbox has no such member; it may get it.
    #[error("{0}")]
    NoMember(String),
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
    /// Whether it may be otherwise soon: the head writes a new domain's mailbox, and a new member into it, within its next
    /// look.
    pub fn may_pass(&self) -> bool {
        match self {
            NodeError::NoMember(_) => true,
            NodeError::Mailbox { error, .. } => {
                matches!(error, ReadError::Empty | ReadError::Torn)
            }
            _ => false,
        }
    }

    /// 2 for wrong usage, 4 when there is no node to ask, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            NodeError::Usage(_) => 2,
            NodeError::NoNode { .. } => 4,
            _ => 1,
        }
    }
}
