//! Members at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow};

use super::lab::Node;

/// A member that writes records until it is refused or told to stop.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Node, Option<initiator::Error>)>,
}

impl Writer {
    /// Starts one that writes into its area.
    pub(super) fn start(mut node: Node, area: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(SeqCst) {
                if let Err(error) = node.write(area) {
                    return (node, Some(error));
                }
            }
            (node, None)
        });
        Self { stop, thread }
    }

    /// Stops it; gives the error that it has met.
    pub(super) fn end(self) -> Result<(Node, Option<initiator::Error>)> {
        self.stop.store(true, SeqCst);
        self.thread.join().map_err(|_| anyhow!("a writer panicked"))
    }
}
