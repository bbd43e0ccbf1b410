//! Operations under way: when they land, when they end, and with what.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::disk::{Fate, Task, failure};
use super::fault::Effect;
use super::history::Event;
use super::image::Change;
use super::{Inner, Landing};

/// Something that happens at a moment.
pub(super) enum Timer {
    /// An operation is done on the disk.
    Land(u64),
    /// An operation is answered.
    Finish(u64),
    /// A sleeper wakes up.
    Wake(u64),
}

/// Operations of one handle that have not ended.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) in_flight: AtomicU64,
    /// Those of them whose futures were dropped.
    pub(super) abandoned: AtomicU64,
}

pub(super) struct Operation {
    disk: usize,
    counts: Arc<Counts>,
    task: Task,
    fate: Fate,
    buf: Option<BytesMut>,
    /// What had completed when a flush began.
    since: u64,
    landed: bool,
    /// When it ends; `None` while it hangs.
    pub(super) finish_at: Option<Duration>,
    pub(super) result: Option<io::Result<()>>,
    pub(super) waker: Option<Waker>,
    /// Nobody waits for it any more.
    abandoned: bool,
}

const USUAL_MICROSECONDS: u64 = 200;
/// How many times longer than others a straggler takes: a tenth of a second, when much else has happened meanwhile.
const STRAGGLER_TIMES: u64 = 200;

impl Inner {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(super) fn timer(&mut self, at: Duration, timer: Timer) {
        let number = self.number();
        self.timers.insert((at, number), timer);
    }

    pub(super) fn add_sleeper(&mut self, until: Duration) -> u64 {
        let number = self.number();
        self.sleepers.insert(number, None);
        if self.scheduled {
            self.timer(until, Timer::Wake(number));
        }
        number
    }

    /// Gives an operation to a disk; its number.
    pub(super) fn begin(
        &mut self,
        (disk, connection): (usize, u64),
        counts: &Arc<Counts>,
        mut task: Task,
        buf: Option<BytesMut>,
    ) -> u64 {
        let number = self.number();
        let touched = match &task {
            Task::Read { offset_bytes } => {
                Some(*offset_bytes..*offset_bytes + buf.as_ref().map_or(0, |buf| buf.len() as u64))
            }
            Task::Change(change) => Some(change.range()),
            Task::Flush => None,
        };
        let fate = self.disks[disk].fate(&task, connection, touched.as_ref());
        if matches!(task, Task::Flush) && fate == Fate::Met(Effect::ErrorAndLoss) {
            // Lost before anybody is told.
            self.disks[disk].lose_some(&mut self.random);
        }
        if let (Task::Change(change), Fate::Met(effect)) = (&mut task, &fate) {
            self.spoil(disk, change, effect);
        }
        if let Task::Change(change) = &task
            && !matches!(
                fate,
                Fate::Met(Effect::Error | Effect::ErrorAndLoss | Effect::Lose)
            )
        {
            let change = change.clone();
            self.log(Event::Begin {
                disk,
                operation: number,
                change,
            });
        }
        let finish_at = self.times(disk, number, &task, &fate);
        counts.in_flight.fetch_add(1, Ordering::SeqCst);
        let operation = Operation {
            disk,
            counts: counts.clone(),
            since: self.disks[disk].tick,
            task,
            fate,
            buf,
            landed: false,
            finish_at,
            result: None,
            waker: None,
            abandoned: false,
        };
        self.operations.insert(number, operation);
        number
    }

    /// Turns a change into what the fault makes of it.
    fn spoil(&mut self, disk: usize, change: &mut Change, effect: &Effect) {
        match effect {
            Effect::ErrorInPart => *change = change.prefix(&mut self.random),
            Effect::Misdirect(range) => {
                let length = change.range().end - change.range().start;
                let last = range.end.min(self.disks[disk].size_bytes);
                let sectors = last.saturating_sub(range.start + length) / 512;
                let at = range.start + 512 * self.random.below(sectors + 1);
                change.move_to(at);
            }
            Effect::Corrupt(bits) => {
                if let Change::Write { data, .. } = change {
                    let mut wrong = BytesMut::from(&data[..]);
                    flip(&mut wrong, *bits, &mut self.random);
                    *data = Bytes::from(wrong);
                }
            }
            Effect::Error | Effect::ErrorAndLoss | Effect::Hang(_) | Effect::Lose => {}
        }
    }

    /// Decides when an operation lands and ends.
    fn times(&mut self, disk: usize, number: u64, task: &Task, fate: &Fate) -> Option<Duration> {
        let now = self.now;
        if let Fate::Met(Effect::Hang(duration)) = fate {
            let end = now + (*duration)?;
            if self.scheduled {
                self.timer(end, Timer::Finish(number));
            }
            return Some(end);
        }
        if !self.scheduled {
            return Some(now);
        }
        let usual = match task {
            Task::Read { .. } => USUAL_MICROSECONDS,
            Task::Change(_) => 2 * USUAL_MICROSECONDS,
            Task::Flush => 10 * USUAL_MICROSECONDS,
        } * u64::from(self.disks[disk].slowness);
        let mut latency = self.random.within(usual / 10..usual * 2);
        // Not both: a write that takes seconds is a hang.
        let stragglers = self.disks[disk].stragglers;
        if matches!(task, Task::Change(_)) && stragglers > 0 && self.random.one_in(stragglers) {
            latency *= STRAGGLER_TIMES;
        } else if self.random.one_in(50) {
            latency *= 20;
        }
        let lands_after = self.random.below(latency + 1);
        self.timer(
            now + Duration::from_micros(lands_after),
            Timer::Land(number),
        );
        let end = now + Duration::from_micros(latency);
        self.timer(end, Timer::Finish(number));
        Some(end)
    }

    /// The operation is done on the disk.
    fn land(&mut self, number: u64) {
        let Some(operation) = self.operations.get_mut(&number) else {
            return;
        };
        if std::mem::replace(&mut operation.landed, true) {
            return;
        }
        let disk = operation.disk;
        match &operation.task {
            Task::Read { offset_bytes } => {
                if let Some(buf) = &mut operation.buf {
                    self.disks[disk].image.read(*offset_bytes, buf);
                    if let Fate::Met(Effect::Corrupt(bits)) = operation.fate {
                        flip(buf, bits, &mut self.random);
                    }
                }
            }
            Task::Change(change) => {
                if matches!(
                    operation.fate,
                    Fate::Met(Effect::Error | Effect::ErrorAndLoss | Effect::Lose)
                ) {
                    return;
                }
                if let Some(observer) = &mut self.observer {
                    let range = change.range();
                    observer(Landing {
                        disk,
                        offset_bytes: range.start,
                        length_bytes: range.end - range.start,
                        data: match change {
                            Change::Write { data, .. } => Some(data),
                            Change::Zero { .. } => None,
                        },
                    });
                }
                self.disks[disk].land(number, change.clone());
                self.landed += 1;
                let landed = self.landed;
                self.watchers.retain(|(until, waker)| {
                    if *until <= landed {
                        waker.wake_by_ref();
                    }
                    *until > landed
                });
                self.log(Event::Land {
                    disk,
                    operation: number,
                });
            }
            Task::Flush => {}
        }
    }

    /// The operation ends; whoever waits for it is to be woken.
    pub(super) fn finish(&mut self, number: u64) -> Option<Waker> {
        self.land(number);
        let operation = self.operations.get_mut(&number)?;
        if operation.result.is_some() {
            return None;
        }
        let disk = operation.disk;
        let failed = matches!(
            operation.fate,
            Fate::Met(Effect::Error | Effect::ErrorAndLoss | Effect::ErrorInPart)
        );
        let lost = operation.fate == Fate::Met(Effect::Lose);
        operation.result = Some(if failed { Err(failure()) } else { Ok(()) });
        operation.counts.in_flight.fetch_sub(1, Ordering::SeqCst);
        let (waker, since) = (operation.waker.take(), operation.since);
        let (is_change, is_flush) = (
            matches!(operation.task, Task::Change(_)),
            matches!(operation.task, Task::Flush),
        );
        if operation.abandoned {
            operation.counts.abandoned.fetch_sub(1, Ordering::SeqCst);
            self.operations.remove(&number);
        }
        if is_change {
            // After an error in part too: a later flush covers what landed.
            self.disks[disk].complete(number);
            self.log(Event::Complete {
                disk,
                operation: number,
            });
        } else if is_flush && !failed && !lost {
            self.disks[disk].flushed(since);
            self.log(Event::Flush { disk, since });
        }
        waker
    }

    /// What an ended operation came to; `None` while it runs.
    pub(super) fn take_result(
        &mut self,
        number: u64,
    ) -> Option<(io::Result<()>, Option<BytesMut>)> {
        self.operations.get(&number)?.result.as_ref()?;
        let operation = self.operations.remove(&number)?;
        Some((operation.result?, operation.buf))
    }

    /// Nobody waits any more.
    pub(super) fn abandon(&mut self, number: u64) {
        let Some(operation) = self.operations.get_mut(&number) else {
            return;
        };
        if operation.result.is_some() {
            self.operations.remove(&number);
            return;
        }
        operation.abandoned = true;
        operation.counts.abandoned.fetch_add(1, Ordering::SeqCst);
        operation.waker = None;
        // Without the scheduler nobody else would end it.
        if !self.scheduled && operation.finish_at.is_some_and(|at| at <= self.now) {
            self.finish(number);
        }
    }

    fn of_disk(&self, disk: usize) -> Vec<u64> {
        let theirs = self
            .operations
            .iter()
            .filter(|(_, operation)| operation.disk == disk && operation.result.is_none());
        theirs.map(|(number, _)| *number).collect()
    }

    /// Everything in flight on a disk fails soon; changes may be done in part.
    pub(super) fn fail_all(&mut self, disk: usize) {
        for number in self.of_disk(disk) {
            let at = self.now + Duration::from_micros(self.random.within(10..1000));
            let Some(operation) = self.operations.get_mut(&number) else {
                continue;
            };
            operation.finish_at = Some(at);
            operation.fate = Fate::Met(Effect::Error);
            if let Task::Change(change) = &mut operation.task
                && !operation.landed
                && self.random.one_in(2)
            {
                *change = change.prefix(&mut self.random);
                operation.fate = Fate::Met(Effect::ErrorInPart);
            }
            self.timer(at, Timer::Finish(number));
        }
    }

    /// What is in flight on a disk never reaches it.
    pub(super) fn cut_off(&mut self, disk: usize) {
        for number in self.of_disk(disk) {
            if let Some(operation) = self.operations.get_mut(&number) {
                operation.landed = true;
                operation.fate = Fate::Met(Effect::Error);
            }
        }
    }

    /// Ends soon what hangs on a disk.
    pub(super) fn resume(&mut self, disk: usize) {
        for number in self.of_disk(disk) {
            let at = self.now + Duration::from_micros(self.random.within(10..1000));
            let Some(operation) = self.operations.get_mut(&number) else {
                continue;
            };
            if matches!(operation.fate, Fate::Met(Effect::Hang(_))) {
                operation.finish_at = Some(at);
                self.timer(at, Timer::Finish(number));
            }
        }
    }

    /// Operations in flight on a disk that a fault has met.
    pub(super) fn going_wrong(&self, disk: usize) -> usize {
        let met = |number: &&u64| self.operations[*number].fate != Fate::Done;
        self.of_disk(disk).iter().filter(met).count()
    }

    /// Changes that were given to a disk and have not landed.
    pub(super) fn under_way(&self, disk: usize) -> impl Iterator<Item = &Change> {
        self.operations.values().filter_map(move |operation| {
            let lands = !matches!(
                operation.fate,
                Fate::Met(Effect::Error | Effect::ErrorAndLoss | Effect::Lose)
            );
            match &operation.task {
                Task::Change(change) if operation.disk == disk && !operation.landed && lands => {
                    Some(change)
                }
                _ => None,
            }
        })
    }

    /// Lets the clock go on to the next thing that happens and does it; `false` when there is none.
    pub(super) fn advance(&mut self) -> (bool, Option<Waker>) {
        let Some(((at, _), timer)) = self.timers.pop_first() else {
            return (false, None);
        };
        self.now = self.now.max(at);
        let waker = match timer {
            Timer::Land(number) => {
                self.land(number);
                None
            }
            Timer::Finish(number) => self.finish(number),
            Timer::Wake(number) => self.sleepers.remove(&number).flatten(),
        };
        (true, waker)
    }

    /// What hangs, in words.
    pub(super) fn stuck(&self) -> String {
        let hanging: Vec<String> = self
            .operations
            .values()
            .filter(|operation| operation.finish_at.is_none())
            .map(|operation| {
                let what = match &operation.task {
                    Task::Read { .. } => "read",
                    Task::Change(_) => "write",
                    Task::Flush => "flush",
                };
                format!("a {what} of disk {}", operation.disk)
            })
            .collect();
        format!(
            "{} operations hang ({}), {} sleep",
            hanging.len(),
            hanging.join(", "),
            self.sleepers.len()
        )
    }
}

fn flip(bytes: &mut [u8], bits: u32, random: &mut super::Random) {
    for _ in 0..bits {
        let bit = random.below(bytes.len() as u64 * 8);
        if let Some(byte) = bytes.get_mut(bit as usize / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }
}
