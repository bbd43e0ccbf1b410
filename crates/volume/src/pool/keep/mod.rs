//! The keeper: what a pool does by itself. It takes plexes in trouble out of their volumes and back in, copies what they
//! missed, carries jobs on and repairs replicas.

// Used from the next step on.
#[allow(dead_code)]
mod decide;
mod events;
#[allow(dead_code)]
pub(crate) mod pace;
#[allow(dead_code)]
mod tasks;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use event_listener::Event;

use super::Pool;
use crate::block_device::BlockDevice;

pub use events::{EventList, PoolEvent, PoolEvents};

/// The keeper's own part of a pool.
#[derive(Default)]
pub(super) struct Keeper {
    sink: ArcSwapOption<Box<dyn PoolEvents>>,
    /// There may be something to do.
    #[allow(dead_code)]
    pub(super) wake: Event,
}

impl Keeper {
    #[allow(dead_code)]
    pub(super) fn tell(&self, event: PoolEvent) {
        tracing::info!(?event, "pool");
        if let Some(sink) = &*self.sink.load() {
            sink.record(event);
        }
    }
}

impl<D: BlockDevice> Pool<D> {
    /// Where events go from now on. To be called before [`Pool::keep`].
    pub fn set_events(&self, sink: impl PoolEvents + 'static) {
        self.keeper.sink.store(Some(Arc::new(Box::new(sink))));
    }
}
