//! The tasks of one session: a fixed table of atomic slots.
//!
//! TST is 001b, a task set per nexus, so this is the task sets of all logical units as one session sees them. A task
//! takes a slot when its command arrives and leaves it when it ends; others abort it by a bit in the slot. No lock,
//! and no allocation after the session came up.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use event_listener::{Event, listener};
use scsi::sam::TaskAttribute;

/// Most tasks that one session may have at once; the next one gets TASK SET FULL.
pub const TASKS_MAX: usize = 256;

const IN_USE: u64 = 1 << 63;
const ABORTED: u64 = 1 << 62;
const ABORTED_BY_OTHER: u64 = 1 << 61;
const ORDERED: u64 = 1 << 60;
const HEAD_OF_QUEUE: u64 = 1 << 59;
const LUN_SHIFT: u32 = 32;

/// Who aborted a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortedBy {
    /// Its own nexus: it ends without a response.
    Own,
    /// Another nexus: it ends as the TAS bit says.
    Other,
}

struct Slot {
    word: AtomicU64,
    sequence: AtomicU64,
}

/// The tasks of one session.
pub struct TaskSet {
    slots: Box<[Slot]>,
    free: Box<[AtomicU64]>,
    next_sequence: AtomicU64,
    /// ORDERED and HEAD OF QUEUE tasks present, for the fast path.
    barriers: AtomicU32,
    /// Notified when a task ends.
    ended: Event,
    /// Notified when a task was aborted from outside.
    aborted: Event,
}

/// A task's place in its set, by value; [`TaskSet::end`] gives it back.
#[derive(Debug, PartialEq, Eq)]
pub struct TaskSlot(u16);

impl Default for TaskSet {
    fn default() -> Self {
        Self {
            slots: (0..TASKS_MAX)
                .map(|_| Slot {
                    word: AtomicU64::new(0),
                    sequence: AtomicU64::new(0),
                })
                .collect(),
            free: (0..TASKS_MAX / 64)
                .map(|_| AtomicU64::new(u64::MAX))
                .collect(),
            next_sequence: AtomicU64::new(1),
            barriers: AtomicU32::new(0),
            ended: Event::new(),
            aborted: Event::new(),
        }
    }
}

impl TaskSet {
    /// Adds a task; `None` when the set is full.
    pub fn add(&self, lun: u16, tag: u32, attribute: TaskAttribute) -> Option<TaskSlot> {
        let index = self.claim()?;
        let attribute = match attribute {
            TaskAttribute::Ordered => ORDERED,
            TaskAttribute::HeadOfQueue => HEAD_OF_QUEUE,
            // ACA is refused before it comes here.
            TaskAttribute::Untagged | TaskAttribute::Simple | TaskAttribute::Aca => 0,
        };
        if attribute != 0 {
            self.barriers.fetch_add(1, SeqCst);
        }
        let slot = &self.slots[usize::from(index)];
        slot.sequence
            .store(self.next_sequence.fetch_add(1, SeqCst), SeqCst);
        let word = IN_USE | attribute | u64::from(lun) << LUN_SHIFT | u64::from(tag);
        slot.word.store(word, SeqCst);
        Some(TaskSlot(index))
    }

    fn claim(&self) -> Option<u16> {
        for (word_index, word) in self.free.iter().enumerate() {
            let mut free = word.load(SeqCst);
            while free != 0 {
                let bit = free.trailing_zeros();
                match word.compare_exchange(free, free & !(1 << bit), SeqCst, SeqCst) {
                    // TASKS_MAX fits u16.
                    Ok(_) => return Some((word_index * 64) as u16 + bit as u16),
                    Err(actual) => free = actual,
                }
            }
        }
        None
    }

    /// Ends a task.
    pub fn end(&self, task: &mut TaskSlot) {
        let index = usize::from(task.0);
        let word = self.slots[index].word.swap(0, SeqCst);
        if word & (ORDERED | HEAD_OF_QUEUE) != 0 {
            self.barriers.fetch_sub(1, SeqCst);
        }
        self.free[index / 64].fetch_or(1 << (index % 64), SeqCst);
        self.ended.notify(usize::MAX);
    }

    /// Was the task aborted, and by whom?
    pub fn aborted(&self, task: &TaskSlot) -> Option<AbortedBy> {
        let word = self.slots[usize::from(task.0)].word.load(SeqCst);
        if word & ABORTED != 0 {
            Some(AbortedBy::Own)
        } else if word & ABORTED_BY_OTHER != 0 {
            Some(AbortedBy::Other)
        } else {
            None
        }
    }

    /// Marks as aborted every task that `which` (lun, tag) selects; returns how many were newly marked.
    pub fn abort(&self, by: AbortedBy, which: impl Fn(u16, u32) -> bool) -> usize {
        let bit = match by {
            AbortedBy::Own => ABORTED,
            AbortedBy::Other => ABORTED_BY_OTHER,
        };
        let mut count = 0;
        for slot in &self.slots {
            let mut word = slot.word.load(SeqCst);
            while word & IN_USE != 0
                && word & (ABORTED | ABORTED_BY_OTHER) == 0
                && which((word >> LUN_SHIFT) as u16, word as u32)
            {
                match slot.word.compare_exchange(word, word | bit, SeqCst, SeqCst) {
                    Ok(_) => {
                        count += 1;
                        break;
                    }
                    Err(actual) => word = actual,
                }
            }
        }
        if count > 0 {
            self.aborted.notify(usize::MAX);
        }
        count
    }

    /// Is there a task with this tag on this logical unit?
    pub fn contains(&self, lun: u16, tag: u32) -> bool {
        let wanted = u64::from(lun) << LUN_SHIFT | u64::from(tag);
        const IDENTITY: u64 = 0xffff_ffff_ffff;
        self.slots.iter().any(|slot| {
            let word = slot.word.load(SeqCst);
            word & IN_USE != 0 && word & IDENTITY == wanted
        })
    }

    /// Number of tasks present.
    pub fn len(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.word.load(SeqCst) & IN_USE != 0)
            .count()
    }

    /// Is no task present?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until no task that `which` (lun, tag) selects, and that was present at the call, is left.
    pub async fn gone(&self, which: impl Fn(u16, u32) -> bool) {
        let limit = self.next_sequence.load(SeqCst);
        self.until(|| {
            !self.slots.iter().any(|slot| {
                let word = slot.word.load(SeqCst);
                word & IN_USE != 0
                    && slot.sequence.load(SeqCst) < limit
                    && which((word >> LUN_SHIFT) as u16, word as u32)
            })
        })
        .await;
    }

    /// Waits for the turn of a task as its attribute says (SAM-5 8.6), or until it is aborted.
    pub async fn turn(&self, task: &TaskSlot) {
        if self.barriers.load(SeqCst) == 0 {
            return;
        }
        let own = &self.slots[usize::from(task.0)];
        let word = own.word.load(SeqCst);
        if word & HEAD_OF_QUEUE != 0 {
            return;
        }
        let before = own.sequence.load(SeqCst);
        let lun = (word >> LUN_SHIFT) as u16;
        let blockers = if word & ORDERED != 0 {
            IN_USE
        } else {
            ORDERED | HEAD_OF_QUEUE
        };
        self.until(|| {
            self.aborted(task).is_some()
                || !self.slots.iter().any(|slot| {
                    let other = slot.word.load(SeqCst);
                    other & IN_USE != 0
                        && other & blockers != 0
                        && (other >> LUN_SHIFT) as u16 == lun
                        && slot.sequence.load(SeqCst) < before
                })
        })
        .await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        loop {
            if done() {
                return;
            }
            listener!(self.ended => ended);
            listener!(self.aborted => aborted);
            if done() {
                return;
            }
            futures_lite::future::or(ended, aborted).await;
        }
    }

    /// Waits until the task is aborted.
    pub async fn until_aborted(&self, task: &TaskSlot) {
        self.until(|| self.aborted(task).is_some()).await;
    }

    /// Notified whenever tasks of this session were aborted.
    pub fn abort_event(&self) -> &Event {
        &self.aborted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::pin::pin;

    fn add(set: &TaskSet, lun: u16, tag: u32) -> TaskSlot {
        set.add(lun, tag, TaskAttribute::Simple).unwrap()
    }

    #[test]
    fn full_at_the_limit_and_usable_again() {
        let set = TaskSet::default();
        let mut tasks: Vec<_> = (0..TASKS_MAX as u32).map(|tag| add(&set, 0, tag)).collect();
        assert_eq!(set.len(), TASKS_MAX);
        assert!(set.add(0, 9999, TaskAttribute::Simple).is_none());
        set.end(&mut tasks[77]);
        assert!(!set.contains(0, 77) && set.contains(0, 78));
        assert_eq!(add(&set, 0, 9999), TaskSlot(77));
    }

    #[test]
    fn abort_marks_only_what_is_selected_and_the_first_wins() {
        let set = TaskSet::default();
        let (one, two) = (add(&set, 1, 7), add(&set, 2, 7));
        assert_eq!(set.abort(AbortedBy::Other, |lun, _| lun == 1), 1);
        assert_eq!(set.abort(AbortedBy::Own, |lun, _| lun == 1), 0);
        assert_eq!(set.aborted(&one), Some(AbortedBy::Other));
        assert_eq!(set.aborted(&two), None);
    }

    #[test]
    fn a_reused_slot_is_not_aborted() {
        let set = TaskSet::default();
        let mut task = add(&set, 1, 7);
        set.abort(AbortedBy::Own, |_, _| true);
        set.end(&mut task);
        assert_eq!(set.aborted(&add(&set, 1, 8)), None);
    }

    #[test]
    fn ordered_waits_for_older_and_holds_younger() {
        block_on(async {
            let set = TaskSet::default();
            let mut old = add(&set, 0, 1);
            let mut ordered = set.add(0, 2, TaskAttribute::Ordered).unwrap();
            let young = add(&set, 0, 3);
            let head = set.add(0, 4, TaskAttribute::HeadOfQueue).unwrap();
            let elsewhere = add(&set, 5, 5);
            set.turn(&old).await;
            set.turn(&head).await;
            set.turn(&elsewhere).await;
            assert!(poll_once(set.turn(&young)).await.is_none());
            assert!(poll_once(set.turn(&ordered)).await.is_none());
            set.end(&mut old);
            set.turn(&ordered).await;
            assert!(poll_once(set.turn(&young)).await.is_none());
            set.end(&mut ordered);
            set.turn(&young).await;
        });
    }

    #[test]
    fn an_aborted_task_stops_waiting_for_its_turn() {
        block_on(async {
            let set = TaskSet::default();
            let _old = add(&set, 0, 1);
            let ordered = set.add(0, 2, TaskAttribute::Ordered).unwrap();
            let mut turn = pin!(set.turn(&ordered));
            assert!(poll_once(&mut turn).await.is_none());
            set.abort(AbortedBy::Own, |_, tag| tag == 2);
            assert!(poll_once(&mut turn).await.is_some());
        });
    }

    #[test]
    fn gone_waits_for_those_present_at_the_call() {
        block_on(async {
            let set = TaskSet::default();
            let mut present = add(&set, 0, 1);
            let mut gone = pin!(set.gone(|lun, _| lun == 0));
            assert!(poll_once(&mut gone).await.is_none());
            let _later = add(&set, 0, 2);
            set.end(&mut present);
            assert!(poll_once(&mut gone).await.is_some());
        });
    }
}
