//! How fast the copier goes: at the operator's rate, or as fast as the disks allow while no client does I/O, and a part
//! of that while one does.
//!
//! While clients are active one short chunk is in flight at a time, and after each the copier rests for a multiple of the
//! time that the chunk took: a client's operation meets at most one chunk, and most meet none.

use std::sync::Arc;
use std::time::Duration;

use event_listener::Event;
use futures_lite::future::or;
use parking_lot::Mutex;

use crate::block_device::BlockDevice;
use crate::device::Device;
use crate::volume::ClientLoad;
use crate::volume::regions::copy::Pace;

/// Chunk and chunks in flight while no client is active.
const IDLE_CHUNK_BYTES: u64 = 512 * 1024;
const IDLE_DEPTH: u32 = 8;
/// Chunk while clients are active.
const BUSY_CHUNK_BYTES: u64 = 128 * 1024;
/// A rest is this many times what the chunk before it took.
const REST: u32 = 3;
const LONGEST_REST: Duration = Duration::from_millis(500);
/// Clients count as active for so long after an operation of theirs.
const QUIET: Duration = Duration::from_millis(300);
/// The rate may be exceeded for as long as this makes up for.
const BURST: Duration = Duration::from_millis(100);

#[derive(Default)]
struct State {
    rate_bytes_per_second: Option<u64>,
    stopped: bool,
    in_flight: u32,
    /// When the rate allows the next chunk.
    next_at: Duration,
    rest_until: Duration,
    operations: u64,
    client_seen: Option<Duration>,
}

impl State {
    fn observe(&mut self, now: Duration, load: ClientLoad) {
        if load.operations != self.operations || load.in_flight > 0 {
            self.operations = load.operations;
            self.client_seen = Some(now);
        }
    }

    /// Clients are active and no operator has set a rate.
    fn yields(&self, now: Duration) -> bool {
        self.rate_bytes_per_second.is_none()
            && self
                .client_seen
                .is_some_and(|seen| now.saturating_sub(seen) < QUIET)
    }
}

/// What a chunk has to wait for.
enum Turn {
    Now,
    Stopped,
    After(Duration),
    Others,
}

/// Gives permits to copy, for one volume.
pub(crate) struct Pacer<D> {
    clock: Arc<Device<D>>,
    load: Box<dyn Fn() -> ClientLoad + Send + Sync>,
    state: Mutex<State>,
    changed: Event,
}

/// A chunk may be in flight; dropped when it is not any more.
pub(crate) struct Permit<D: BlockDevice> {
    pacer: Arc<Pacer<D>>,
    began: Duration,
}

impl<D: BlockDevice> Pacer<D> {
    pub(crate) fn new(
        clock: Arc<Device<D>>,
        load: Box<dyn Fn() -> ClientLoad + Send + Sync>,
    ) -> Self {
        let operations = load().operations;
        Pacer {
            clock,
            load,
            state: Mutex::new(State {
                operations,
                ..State::default()
            }),
            changed: Event::new(),
        }
    }

    /// Bytes per second at most; `None`: as clients allow.
    pub(crate) fn set_rate(&self, bytes_per_second: Option<u64>) {
        self.state.lock().rate_bytes_per_second = bytes_per_second.map(|rate| rate.max(1));
        self.changed.notify(usize::MAX);
    }

    /// From now on there are no permits.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify(usize::MAX);
    }

    /// Whether [`Pacer::stop`] was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Bytes that the next chunk should have; a power of two.
    fn next_chunk_bytes(&self) -> u64 {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.observe(now, (self.load)());
        match state.rate_bytes_per_second {
            None if state.yields(now) => BUSY_CHUNK_BYTES,
            Some(rate) if rate < 4 * IDLE_CHUNK_BYTES => BUSY_CHUNK_BYTES,
            _ => IDLE_CHUNK_BYTES,
        }
    }

    fn turn(&self, bytes: u64) -> Turn {
        let now = self.clock.now();
        let mut state = self.state.lock();
        state.observe(now, (self.load)());
        if state.stopped {
            return Turn::Stopped;
        }
        let yields = state.yields(now);
        if state.in_flight >= if yields { 1 } else { IDLE_DEPTH } {
            return Turn::Others;
        }
        if yields && now < state.rest_until {
            return Turn::After(state.rest_until.saturating_sub(now));
        }
        if let Some(rate) = state.rate_bytes_per_second {
            if now < state.next_at {
                return Turn::After(state.next_at.saturating_sub(now));
            }
            let cost = Duration::from_nanos(
                u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate))
                    .unwrap_or(u64::MAX),
            );
            state.next_at = state
                .next_at
                .max(now.saturating_sub(BURST))
                .saturating_add(cost);
        }
        state.in_flight += 1;
        Turn::Now
    }

    /// Waits until a chunk of `bytes` may be copied; `None` after [`Pacer::stop`].
    async fn next_permit(self: &Arc<Self>, bytes: u64) -> Option<Permit<D>> {
        loop {
            let changed = self.changed.listen();
            match self.turn(bytes) {
                Turn::Now => {
                    return Some(Permit {
                        pacer: self.clone(),
                        began: self.clock.now(),
                    });
                }
                Turn::Stopped => return None,
                Turn::Others => changed.await,
                Turn::After(wait) => or(self.clock.sleep(wait), changed).await,
            }
        }
    }
}

impl<D: BlockDevice> Pace for Arc<Pacer<D>> {
    type Permit = Permit<D>;

    async fn permit(&self, bytes: u64) -> Option<Permit<D>> {
        self.next_permit(bytes).await
    }

    fn chunk_bytes(&self) -> u64 {
        self.next_chunk_bytes()
    }
}

impl<D: BlockDevice> Drop for Permit<D> {
    fn drop(&mut self) {
        let now = self.pacer.clock.now();
        let took = now.saturating_sub(self.began);
        let mut state = self.pacer.state.lock();
        state.in_flight -= 1;
        state.rest_until = now.saturating_add((took * REST).min(LONGEST_REST));
        drop(state);
        self.pacer.changed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use uuid::Uuid;

    use super::*;
    use crate::sim::{SimDevice, SimWorld};

    fn clock(world: &SimWorld) -> Arc<Device<SimDevice>> {
        let disk = world.add(16 << 20, 512);
        Arc::new(Device::new(
            Uuid::from_u128(1),
            "d".into(),
            "/d".into(),
            disk,
        ))
    }

    /// Chunks of `chunk` that `pacer` lets through in `seconds`, each taking `took`.
    async fn copied(
        pacer: &Arc<Pacer<SimDevice>>,
        clock: &Device<SimDevice>,
        seconds: u64,
        took: Duration,
    ) -> u64 {
        let end = clock.now() + Duration::from_secs(seconds);
        let mut bytes = 0;
        while clock.now() < end {
            let chunk = pacer.chunk_bytes();
            let permit = pacer.permit(chunk).await.unwrap();
            clock.sleep(took).await;
            drop(permit);
            bytes += chunk;
        }
        bytes
    }

    #[test]
    fn a_rate_is_kept() {
        let world = SimWorld::seeded(1);
        let clock = clock(&world);
        world.run(async {
            let pacer = Arc::new(Pacer::new(clock.clone(), Box::new(ClientLoad::default)));
            for rate in [300_000, 1 << 20, 50 << 20] {
                pacer.set_rate(Some(rate));
                let bytes = copied(&pacer, &clock, 20, Duration::from_micros(100)).await;
                let expected = rate * 20;
                assert!(
                    bytes > expected * 9 / 10 && bytes < expected * 11 / 10 + (1 << 20),
                    "{bytes} {expected}"
                );
            }
        });
    }

    #[test]
    fn it_rests_while_clients_are_active_and_goes_on_after_them() {
        let world = SimWorld::seeded(2);
        let clock = clock(&world);
        world.run(async {
            let operations = Arc::new(AtomicU64::new(0));
            let seen = operations.clone();
            let load = move || ClientLoad {
                operations: seen.load(Ordering::SeqCst),
                in_flight: 0,
            };
            let pacer = Arc::new(Pacer::new(clock.clone(), Box::new(load)));
            let took = Duration::from_millis(1);
            let idle = copied(&pacer, &clock, 2, took).await;
            assert_eq!(pacer.chunk_bytes(), IDLE_CHUNK_BYTES);
            let device = clock.clone();
            let client = crate::sim::spawn({
                let operations = operations.clone();
                async move {
                    for _ in 0..40 {
                        operations.fetch_add(1, Ordering::SeqCst);
                        device.sleep(Duration::from_millis(50)).await;
                    }
                }
            });
            let busy = copied(&pacer, &clock, 2, took).await;
            client.await;
            // A quarter of the time, chunks of a quarter.
            assert!(busy < idle / 10 && busy > idle / 30, "{busy} {idle}");
            clock.sleep(QUIET).await;
            let again = copied(&pacer, &clock, 2, took).await;
            assert!(again > idle * 8 / 10, "{again} {idle}");
            pacer.stop();
            assert!(pacer.permit(1).await.is_none());
        });
    }

    #[test]
    fn so_many_chunks_are_in_flight_and_no_more() {
        let world = SimWorld::seeded(3);
        let clock = clock(&world);
        world.run(async {
            let pacer = Arc::new(Pacer::new(clock, Box::new(ClientLoad::default)));
            let mut held = Vec::new();
            for _ in 0..IDLE_DEPTH {
                held.push(pacer.permit(1).await.unwrap());
            }
            let mut next = Box::pin(pacer.permit(1));
            assert!(
                futures_lite::future::poll_once(&mut next).await.is_none(),
                "one too many"
            );
            held.pop();
            assert!(next.await.is_some());
        });
    }
}
