//! One operation on several plexes at once, and what is done when one of them fails or hangs.
//!
//! **What a client's operation waits for.** When some plex has done it and another one failed, or lags behind for
//! [`HANG_LIMIT`], the operation must not be answered while anybody believes the plex that missed it. It reports the
//! plex and waits until one of these is so:
//!
//! 1. the plex does it after all;
//! 2. a layout without the plex is published (its stale bits were made durable before that);
//! 3. the plex is stale in these regions, durably: what it missed is not believed;
//! 4. the keeper says that there is no other copy of something that the plex holds ([`Slot::refuse`] after the report): a
//!    failure is then the client's error, a hang goes on.
//!
//! **No wakeup is lost.** Each of these changes a state first and notifies [`RegionTracker::changed`] then; the operation
//! listens first, looks at the state then, and waits only if nothing has changed. The count of refusals is read before
//! the report is pushed, so that every answer to it is seen.
//!
//! **No deadlock.** The operation holds its range, its layout and a place in the drain of that layout while it waits.
//! Whoever ends the wait (`begin_detach`, the commit of the configuration, `publish`, `mark_stale`, `last_copy`) takes
//! no range and waits for no drain.
//!
//! When no plex has done it and all have failed, it is the client's error at once, and nobody is reported: no plex is
//! better than another. The caller then takes the regions for unsettled.
//!
//! **The keeper's operations** do not wait for the keeper. They are given up when a plex fails, or when any has not ended
//! after the limit. Only what can be given up is done in this way: flushes, log writes ([`super::regions`] keeps the next
//! one from overtaking one that was given up), and writes to regions that stay stale. Writes to valid regions are always
//! done as for a client: a write that was given up could land over a later one.
//!
//! Operations of the data path are dropped only at the end of the process: a dropped one leaves its device operations
//! running and its range unlocked.

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use smallvec::SmallVec;
use uuid::Uuid;

use super::regions::RegionTracker;
use super::reports::{Report, Trouble};
use super::{Layout, Volume};
use crate::block_device::BlockDevice;
use crate::error::VolumeError;

/// How long one plex may lag behind another one, and how long an operation of the keeper may take. Of a write nobody looks for up to two
/// seconds which plex has it, so that a lag is noticed that much later ([`Together::is_quiet`]).
pub(crate) const HANG_LIMIT: Duration = Duration::from_secs(5);

/// What is done on the plexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Data is written.
    Write,
    /// Data is made durable.
    Flush,
    /// The region log is written.
    Log,
    /// An intent is written or removed. As long as the configuration has the plex, opening replays what is in its log: a
    /// plex that is only about to leave is waited for.
    Intent,
}

type Operation<'a> = dyn Future<Output = Result<(), VolumeError>> + 'a;

/// A device operation that has not ended.
enum Running<'a> {
    Own(Pin<Box<Operation<'a>>>),
    /// It lies with the caller.
    Lent(Pin<&'a mut Operation<'a>>),
}

impl Running<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), VolumeError>> {
        match self {
            Running::Own(operation) => operation.as_mut().poll(context),
            Running::Lent(operation) => operation.as_mut().poll(context),
        }
    }
}

/// A device operation that is a part of the whole.
pub(super) struct Part<'a> {
    /// The plexes that it is for, by bit of their position in [`Together::names`].
    plexes: u8,
    device: Uuid,
    state: State<'a>,
}

enum State<'a> {
    Running(Running<'a>),
    Done,
    Failed(VolumeError),
    /// Nobody needs it any more.
    Gone,
}

/// A plex that did not do what it should, and why.
pub(crate) type Failure = (Uuid, String);

/// The operation.
pub(super) struct Together<'a, D> {
    pub(super) volume: &'a Volume<D>,
    pub(super) layout: &'a Layout<D>,
    pub(super) tracker: &'a RegionTracker<D>,
    pub(super) what: What,
    /// The plexes.
    pub(super) names: SmallVec<[Uuid; 2]>,
    /// The regions concerned; empty when it is about none in particular.
    pub(super) regions: Range<u32>,
    /// The plexes that had valid data before, by bit. If all of them fail, the operation has failed.
    pub(super) valid: u8,
    pub(super) parts: SmallVec<[Part<'a>; 2]>,
    /// No part waits for another one's end to be seen: see [`Together::poll_quietly`].
    pub(super) is_quiet: bool,
}

impl Part<'_> {
    /// Polls it when it runs; false when it still does.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        if let State::Running(operation) = &mut self.state {
            match operation.poll(context) {
                Poll::Ready(Ok(())) => self.state = State::Done,
                Poll::Ready(Err(error)) => self.state = State::Failed(error),
                Poll::Pending => return false,
            }
        }
        true
    }
}

/// How a plex stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Done,
    Running,
    Failed,
    Gone,
}

impl<'a, D: BlockDevice> Together<'a, D> {
    /// Adds a part for one plex, by its position in the names.
    pub(super) fn push(
        &mut self,
        plex: usize,
        device: Uuid,
        operation: impl Future<Output = Result<(), VolumeError>> + 'a,
    ) {
        self.add(plex, device, Running::Own(Box::pin(operation)));
    }

    /// As [`Together::push`], for an operation that the caller keeps.
    pub(super) fn lend(
        &mut self,
        plex: usize,
        device: Uuid,
        operation: Pin<&'a mut Operation<'a>>,
    ) {
        self.add(plex, device, Running::Lent(operation));
    }

    fn add(&mut self, plex: usize, device: Uuid, operation: Running<'a>) {
        self.parts.push(Part {
            plexes: 1 << plex,
            device,
            state: State::Running(operation),
        });
    }

    /// Makes the part with this number be for `plex` too.
    pub(super) fn share(&mut self, part: usize, plex: usize) {
        self.parts[part].plexes |= 1 << plex;
    }

    /// Polls what runs; true when nothing does any more.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let mut ended = true;
        for part in &mut self.parts {
            ended &= part.poll(context);
        }
        ended
    }

    /// As [`Together::poll`], but only the last of those that run wakes the task when it ends: the others are looked at
    /// then. One of them that has ended is not seen before, which the caller must bear.
    fn poll_quietly(&mut self, context: &mut Context<'_>) -> bool {
        let running = |part: &Part<'_>| matches!(part.state, State::Running(_));
        while let Some(last) = self.parts.iter().rposition(running) {
            let (others, last) = self.parts.split_at_mut(last);
            for part in others {
                part.poll(&mut Context::from_waker(Waker::noop()));
            }
            if !last[0].poll(context) {
                return false;
            }
        }
        true
    }

    fn standing(&self, plex: usize) -> Standing {
        let mut standing = Standing::Done;
        for part in &self.parts {
            if part.plexes >> plex & 1 == 0 {
                continue;
            }
            match part.state {
                State::Failed(_) => return Standing::Failed,
                State::Gone => return Standing::Gone,
                State::Running(_) => standing = Standing::Running,
                State::Done => {}
            }
        }
        standing
    }

    fn all_done(&self) -> bool {
        self.parts
            .iter()
            .all(|part| matches!(part.state, State::Done))
    }

    fn plexes(&self) -> impl Iterator<Item = usize> + use<D> {
        let mask = self.parts.iter().fold(0u8, |mask, part| mask | part.plexes);
        (0..8).filter(move |plex| mask >> plex & 1 == 1)
    }

    fn any_ended(&self) -> bool {
        let running = |part: &Part<'_>| matches!(part.state, State::Running(_));
        if self.parts.iter().all(running) {
            return false;
        }
        self.plexes()
            .any(|plex| self.standing(plex) != Standing::Running)
    }

    /// Runs all parts until they have ended, or until some plex has and the others have lagged for the limit.
    async fn run(&mut self) {
        if self.is_quiet && self.run_quietly().await {
            return;
        }
        let layout = self.layout;
        let mut timer = pin!(None);
        poll_fn(|context| {
            if self.poll(context) {
                return Poll::Ready(());
            }
            if timer.is_none() {
                if !self.any_ended() {
                    return Poll::Pending;
                }
                let Some(device) = layout.clock() else {
                    return Poll::Pending;
                };
                timer.set(Some(device.sleep(HANG_LIMIT)));
            }
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(context),
                None => Poll::Pending,
            }
        })
        .await;
    }

    /// Runs all parts without looking which of them ends first, for a second or two: true when all have ended. As long as
    /// nothing is wrong a task is woken once; a hang is noticed that much later.
    async fn run_quietly(&mut self) -> bool {
        let Some(device) = self.layout.clock() else {
            return false;
        };
        let mut timer = pin!(None);
        poll_fn(|context| {
            if self.poll_quietly(context) {
                return Poll::Ready(true);
            }
            if timer.is_none() {
                timer.set(Some(device.pause()));
            }
            match timer.as_mut().as_pin_mut() {
                Some(timer) => timer.poll(context).map(|()| false),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Whether `plex` need not do it any more: nobody believes what it missed.
    fn is_gone(&self, plex: usize) -> bool {
        let uuid = self.names[plex];
        if self.volume.is_closed() {
            // Nobody detaches plexes of a deleted volume. What hangs may still land: nothing is placed on a device
            // with operations that were given up.
            return true;
        }
        match self.what {
            What::Write => {
                !self.volume.takes_part(uuid)
                    || self.tracker.give_up_if_stale(uuid, self.regions.clone())
            }
            What::Flush | What::Intent => !self.volume.takes_part(uuid),
            What::Log => !self.tracker.is_logged(uuid),
        }
    }

    /// For the keeper: whether it does not matter because the plex takes no part any more. That it is stale is no excuse:
    /// it is being filled.
    fn is_left_out(&self, plex: usize) -> bool {
        match self.what {
            What::Write => !self.volume.takes_part(self.names[plex]),
            What::Flush | What::Log | What::Intent => self.is_gone(plex),
        }
    }

    fn report(&self, plex: usize, what: Trouble) {
        let device = self
            .parts
            .iter()
            .find(|part| {
                part.plexes >> plex & 1 == 1
                    && matches!(part.state, State::Failed(_) | State::Running(_))
            })
            .map(|part| part.device);
        self.volume.report(Report {
            volume: self.volume.uuid(),
            plex: self.names[plex],
            device,
            regions: self.regions.clone(),
            what,
        });
    }

    fn error_of(&self, plex: usize) -> Option<String> {
        self.parts.iter().find_map(|part| match &part.state {
            State::Failed(error) if part.plexes >> plex & 1 == 1 => Some(error.to_string()),
            _ => None,
        })
    }

    fn take_error(&mut self, plexes: u8) -> VolumeError {
        for part in &mut self.parts {
            if part.plexes & plexes != 0
                && let State::Failed(_) = &part.state
                && let State::Failed(error) = std::mem::replace(&mut part.state, State::Gone)
            {
                return error;
            }
        }
        self.volume.no_copy()
    }

    fn failed(&self, detail: String) -> Trouble {
        match self.what {
            What::Write => Trouble::WriteFailed(detail),
            What::Flush => Trouble::FlushFailed(detail),
            What::Log | What::Intent => Trouble::LogFailed(detail),
        }
    }

    /// Runs it for a client: see the text of the module.
    ///
    /// # Errors
    /// The error of a plex when no plex that counts has done it, or when the keeper said that there is no other copy.
    pub(super) async fn for_client(&mut self) -> Result<(), VolumeError> {
        self.run().await;
        if self.all_done() {
            return Ok(());
        }
        // By plex: the count of refusals when it was reported.
        let mut reported: [Option<u64>; 8] = [None; 8];
        let tracker = self.tracker;
        loop {
            let listener = tracker.changed().listen();
            let mut done = 0u8;
            let mut bad = 0u8;
            for plex in self.plexes() {
                match self.standing(plex) {
                    Standing::Done => done |= 1 << plex,
                    Standing::Gone => {}
                    Standing::Running | Standing::Failed => {
                        if self.is_gone(plex) {
                            self.forget(plex);
                        } else {
                            bad |= 1 << plex;
                        }
                    }
                }
            }
            if bad == 0 {
                return if done & self.valid != 0 || self.valid == 0 {
                    Ok(())
                } else {
                    Err(self.take_error(u8::MAX))
                };
            }
            let running = self
                .plexes()
                .filter(|plex| self.standing(*plex) == Standing::Running)
                .fold(0u8, |mask, plex| mask | 1 << plex);
            if done & self.valid == 0 && running & self.valid == 0 {
                // Every plex that counts has failed.
                return Err(self.take_error(self.valid));
            }
            let mut refused = 0u8;
            if done & self.valid != 0 {
                for (plex, reported) in reported.iter_mut().enumerate() {
                    if bad >> plex & 1 == 0 {
                        continue;
                    }
                    let slot = tracker.slot(self.names[plex]);
                    let refusals = slot.map_or(0, |slot| slot.refusals());
                    match *reported {
                        None => {
                            *reported = Some(refusals);
                            let what = match self.error_of(plex) {
                                Some(detail) => self.failed(detail),
                                None => Trouble::Hung {
                                    seconds: HANG_LIMIT.as_secs(),
                                },
                            };
                            self.report(plex, what);
                        }
                        // Of a tracker that is not the volume's any more the keeper says nothing.
                        Some(before) if refusals > before || tracker.is_retired() => {
                            if self.standing(plex) == Standing::Failed {
                                refused |= 1 << plex;
                            }
                        }
                        Some(_) => {}
                    }
                }
            }
            if refused != 0 && running & bad == 0 {
                // Not while it runs on a plex that is believed: it could land there after a later write.
                return Err(self.take_error(refused));
            }
            let was_running = running;
            let mut listener = listener;
            poll_fn(|context| {
                self.poll(context);
                let running = self
                    .plexes()
                    .filter(|plex| self.standing(*plex) == Standing::Running)
                    .fold(0u8, |mask, plex| mask | 1 << plex);
                if running != was_running {
                    // A hang that became a failure is reported anew.
                    for (plex, reported) in reported.iter_mut().enumerate() {
                        if (was_running & !running) >> plex & 1 == 1 {
                            *reported = None;
                        }
                    }
                    return Poll::Ready(());
                }
                Pin::new(&mut listener).poll(context)
            })
            .await;
        }
    }

    /// Runs it for the keeper, which nobody must keep waiting.
    ///
    /// # Errors
    /// The plexes that failed or hung; they are reported.
    pub(super) async fn for_keeper(mut self) -> Result<(), Vec<Failure>> {
        {
            let layout = self.layout;
            let mut timer = pin!(None);
            poll_fn(|context| {
                if self.poll(context) {
                    return Poll::Ready(());
                }
                if timer.is_none()
                    && let Some(device) = layout.clock()
                {
                    timer.set(Some(device.sleep(HANG_LIMIT)));
                }
                match timer.as_mut().as_pin_mut() {
                    Some(timer) => timer.poll(context),
                    None => Poll::Pending,
                }
            })
            .await;
        }
        let mut troubles = Vec::new();
        for plex in self.plexes() {
            let what = match self.standing(plex) {
                Standing::Done | Standing::Gone => continue,
                Standing::Running | Standing::Failed if self.is_left_out(plex) => continue,
                Standing::Failed => self.failed(self.error_of(plex).unwrap_or_default()),
                Standing::Running => Trouble::Hung {
                    seconds: HANG_LIMIT.as_secs(),
                },
            };
            let detail = match &what {
                Trouble::Hung { seconds } => format!("no answer in {seconds} s"),
                Trouble::WriteFailed(detail)
                | Trouble::FlushFailed(detail)
                | Trouble::ReadFailed(detail)
                | Trouble::LogFailed(detail) => detail.clone(),
            };
            self.report(plex, what);
            troubles.push((self.names[plex], detail));
        }
        if troubles.is_empty() {
            Ok(())
        } else {
            Err(troubles)
        }
    }

    /// Takes a plex out; parts that only it needs are left to themselves.
    fn forget(&mut self, plex: usize) {
        for part in &mut self.parts {
            part.plexes &= !(1 << plex);
            if part.plexes == 0 && !matches!(part.state, State::Done) {
                part.state = State::Gone;
            }
        }
    }
}
