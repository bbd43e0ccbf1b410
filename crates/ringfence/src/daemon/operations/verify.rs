//! `volume verify`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Operations, explain};
use crate::control::model::{Mismatch, Progress, Verified};
use crate::control::protocol::Frame;
use crate::control::server::Sink;
use crate::daemon::rates::{Rates, eta_s};
use crate::events::{Operator, What};
use crate::failure::Failure;

/// How often the one who waits is told how far it is.
const TELL: Duration = Duration::from_millis(500);

/// How far it is, shared with the reactor that does it.
#[derive(Default)]
struct Shared {
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    stop: AtomicBool,
}

impl Operations {
    /// Compares the copies; ends early when `sink` has gone.
    pub(super) fn volume_verify(
        &self,
        name: &str,
        repair: bool,
        operator: &Operator,
        sink: &mut dyn Sink,
    ) -> Result<Verified, Failure> {
        self.volume(name)?;
        let shared = Arc::new(Shared::default());
        let (report, result) = channel();
        let (pool, owned, seen) = (Arc::clone(&self.pool), name.to_owned(), Arc::clone(&shared));
        // Nobody waits for the task itself: what it has to say comes through the channel.
        drop(self.control.spawn(move || async move {
            let progress = |done: u64, total: u64| {
                seen.done_bytes.store(done, Relaxed);
                seen.total_bytes.store(total, Relaxed);
                !seen.stop.load(Relaxed)
            };
            let verified = pool.volume_verify(&owned, repair, progress).await;
            // Who asked may have gone.
            let _ = report.send(verified);
        }));
        let (begun, mut rates) = (Instant::now(), Rates::default());
        let verified = loop {
            match result.recv_timeout(TELL) {
                Ok(verified) => break verified,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::failed("the comparison did not finish"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            let done_bytes = shared.done_bytes.load(Relaxed);
            let total_bytes = shared.total_bytes.load(Relaxed);
            rates.note(Uuid::nil(), begun.elapsed(), done_bytes);
            let rate = rates.bytes_per_second(Uuid::nil());
            let told = sink.send(&Frame::Progress(Progress {
                volume: name.to_owned(),
                job: "verify".to_owned(),
                state: "running".to_owned(),
                done_bytes,
                total_bytes,
                rate_bytes_per_second: rate,
                eta_s: eta_s(total_bytes.saturating_sub(done_bytes), rate),
            }));
            if told.is_err() || sink.is_gone() {
                shared.stop.store(true, Relaxed);
                return Err(Failure::failed("nobody waits any more"));
            }
        };
        let verified = verified.map_err(|error| explain(&error))?;
        let mismatches: Vec<Mismatch> = verified
            .mismatches
            .into_iter()
            .map(|mismatch| Mismatch {
                offset_bytes: mismatch.offset_bytes,
                length_bytes: mismatch.length_bytes,
                plexes: mismatch.plexes,
                problem: mismatch.what,
                repaired: mismatch.repaired,
            })
            .collect();
        let found = Verified {
            volume: name.to_owned(),
            checked_bytes: verified.checked_bytes,
            skipped_bytes: verified.skipped_bytes,
            mismatched_bytes: verified.mismatched_bytes,
            repaired_bytes: verified.repaired_bytes,
            mismatches,
            keys_repaired: verified.keys.iter().filter(|key| key.repaired).count(),
            keys_stale: verified
                .keys
                .into_iter()
                .map(|difference| format!("{} ({})", difference.device_name, difference.problem))
                .collect(),
        };
        self.audit.log().record(What::VolumeVerified {
            volume: name.to_owned(),
            mismatched_bytes: found.mismatched_bytes,
            repaired_bytes: found.repaired_bytes,
            by: operator.clone(),
        });
        Ok(found)
    }
}
