//! Nexuses that register and preempt beside a load. They reserve nothing: the client has to go on writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow, ensure};

use super::lab::Lab;
use crate::e2e::kill9::model::Model;
use crate::e2e::kill9::nexuses::{self, Field, Killed};
use crate::random::Random;
use crate::targets::Target;

/// The nexuses at work in a thread.
#[derive(Debug)]
pub struct Registrars {
    stop: Arc<AtomicBool>,
    /// The daemon is about to be killed: a command without an answer is right.
    killed: Arc<AtomicBool>,
    thread: JoinHandle<(Model, Result<Killed>)>,
}

impl Registrars {
    /// Logs in at the second portal and starts from this state.
    ///
    /// # Errors
    /// When the daemon refuses a login.
    pub fn start(lab: &Lab, lun: u16, model: &Model, seed: u64) -> Result<Self> {
        let field = Field {
            portal: lab.daemon.portals()[1],
            target: lab.daemon.name().into(),
            lun,
            reserve: false,
        };
        let mut sessions = nexuses::log_in(&field)?;
        let (stop, killed) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (told_stop, told_killed) = (Arc::clone(&stop), Arc::clone(&killed));
        let mut model = model.clone();
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(seed);
            let told_stop = || told_stop.load(Ordering::Relaxed);
            let result =
                nexuses::traffic(&mut sessions, &field, &mut model, &mut random, &told_stop);
            let result = result.and_then(|traffic| {
                ensure!(
                    traffic.in_flight.is_none() || told_killed.load(Ordering::SeqCst),
                    "a PERSISTENT RESERVE OUT got no answer: {}",
                    traffic.error
                );
                Ok(traffic)
            });
            (model, result)
        });
        Ok(Self {
            stop,
            killed,
            thread,
        })
    }

    /// The daemon is about to be killed.
    pub fn expect_the_end(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }

    /// Waits for the end that [`Registrars::expect_the_end`] announced; `model` is then what was acknowledged.
    ///
    /// # Errors
    /// When a command was answered otherwise than SPC-4 says, or not at all before that.
    pub fn join(self, model: &mut Model) -> Result<Killed> {
        let (seen, killed) = self
            .thread
            .join()
            .map_err(|_| anyhow!("the thread of the nexuses panicked"))?;
        *model = seen;
        killed
    }

    /// Stops after the command that is under way; returns how many were answered.
    ///
    /// # Errors
    /// As [`Registrars::join`].
    pub fn stop(self, model: &mut Model) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.join(model)?.acknowledged)
    }
}
