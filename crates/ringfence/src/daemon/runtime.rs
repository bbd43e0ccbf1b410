//! What the target needs of the reactors.

use std::time::Duration;

use reactor::{sleep, spawn_local};
use target::{LocalFuture, Runtime};

/// The reactor of the calling thread.
pub struct Reactors;

impl Runtime for Reactors {
    fn spawn(&self, future: LocalFuture) {
        // The task runs on when the handle is dropped.
        drop(spawn_local(future));
    }

    fn sleep(&self, duration: Duration) -> LocalFuture {
        Box::pin(sleep(duration))
    }
}
