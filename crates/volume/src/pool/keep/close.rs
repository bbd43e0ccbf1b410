//! The clean stop.

use std::time::Duration;

use futures_lite::future::or;

use crate::block_device::BlockDevice;
use crate::join::{boxed, join_all};
use crate::pool::{Pool, PoolError};
use crate::volume::Volume;

/// A volume that has not stopped after this is left as it is: the next start resynchronizes what may differ.
const PATIENCE: Duration = Duration::from_secs(10);
const TOGETHER: usize = 64;
/// Between two words to those who wait in a volume that is deleted.
const REFUSE_EVERY: Duration = Duration::from_millis(100);

impl<D: BlockDevice> Pool<D> {
    /// Stops in order, after the last I/O of clients: the keeper begins nothing more, copies stop after their chunks,
    /// volumes are flushed and their logs say that nothing is in flight. What does not end within a few seconds is left to
    /// the next start.
    ///
    /// The keeper does nothing any more until [`Pool::resume`].
    ///
    /// # Errors
    /// None now; what could not be flushed is found by the next start.
    pub async fn close(&self) -> Result<(), PoolError> {
        {
            let mut state = self.keeper.state.lock();
            state.closing = true;
            for known in state.volumes.values() {
                if let Some(pacer) = &known.pacer {
                    pacer.stop();
                }
            }
        }
        let Some(clock) = self.snapshot().await.devices.values().next().cloned() else {
            return Ok(());
        };
        for batch in self.volumes().chunks(TOGETHER) {
            join_all(batch.iter().filter(|v| v.fault().is_none()).map(|volume| {
                boxed(async {
                    let late = async {
                        clock.sleep(PATIENCE).await;
                        false
                    };
                    let closed = async { volume.close_clean().await.is_ok() };
                    if !or(closed, late).await {
                        let name = &volume.record().name;
                        tracing::warn!(volume = name, "not stopped in order");
                    }
                })
            }))
            .await;
        }
        Ok(())
    }

    /// Ends the I/O of a volume that is deleted. What waits there for a plex that failed gets its error: nobody decides about
    /// plexes of a volume that is no more.
    pub(in crate::pool) async fn end(&self, volume: &Volume<D>) {
        let Some(clock) = self.snapshot().await.devices.values().next().cloned() else {
            return volume.close().await;
        };
        let refuse = async {
            loop {
                for plex in &volume.record().plexes {
                    volume.last_copy(plex.uuid);
                }
                clock.sleep(REFUSE_EVERY).await;
            }
        };
        or(volume.close(), refuse).await;
    }

    /// Lets the keeper go on after [`Pool::close`]: the pool is not given up after all, or it is another one now.
    pub fn resume(&self) {
        self.keeper.state.lock().closing = false;
        self.keeper.wake();
    }
}
