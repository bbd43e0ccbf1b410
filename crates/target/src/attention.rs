//! Pending unit attention conditions of one nexus and logical unit (SAM-5 5.14).
//!
//! A condition is pending or it is not, so the set is one word whose bits are in the order of precedence of
//! [`UnitAttention`].

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use scsi::unit_attention::UnitAttention;

fn bit(attention: UnitAttention) -> u32 {
    1 << attention as u32
}

/// A plain set of conditions, also what is kept for a nexus that is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionSet(u32);

impl AttentionSet {
    /// The set with `attention` established, and without the conditions that it supersedes.
    #[must_use]
    pub fn with(self, attention: UnitAttention) -> Self {
        let mut set = self;
        for other in UnitAttention::ALL {
            if attention.supersedes(other) {
                set = set.without(other);
            }
        }
        // A condition that is superseded by one already pending says nothing new.
        let known = UnitAttention::ALL
            .into_iter()
            .any(|other| set.contains(other) && other.supersedes(attention));
        Self(if known { set.0 } else { set.0 | bit(attention) })
    }

    /// The set without `attention`.
    #[must_use]
    pub fn without(self, attention: UnitAttention) -> Self {
        Self(self.0 & !bit(attention))
    }

    /// Is `attention` pending?
    pub fn contains(self, attention: UnitAttention) -> bool {
        self.0 & bit(attention) != 0
    }

    /// Is nothing pending?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The pending condition that goes first.
    pub fn first(self) -> Option<UnitAttention> {
        UnitAttention::ALL
            .get(self.0.trailing_zeros() as usize)
            .copied()
    }
}

/// The pending conditions of one nexus and logical unit, changed from any thread.
#[derive(Debug, Default)]
pub struct Attentions(AtomicU32);

impl Attentions {
    /// Starts with `set` pending.
    pub fn new(set: AttentionSet) -> Self {
        Self(AtomicU32::new(set.0))
    }

    /// Establishes a condition; once pending, again changes nothing.
    pub fn push(&self, attention: UnitAttention) {
        self.update(|set| set.with(attention));
    }

    /// Takes the condition that goes first.
    pub fn take_first(&self) -> Option<UnitAttention> {
        self.update(|set| set.first().map_or(set, |first| set.without(first)))
            .first()
    }

    /// Clears one condition.
    pub fn clear(&self, attention: UnitAttention) {
        self.update(|set| set.without(attention));
    }

    /// What is pending.
    pub fn pending(&self) -> AttentionSet {
        AttentionSet(self.0.load(SeqCst))
    }

    /// Applies `change` and returns the set before it.
    fn update(&self, change: impl Fn(AttentionSet) -> AttentionSet) -> AttentionSet {
        let mut current = self.0.load(SeqCst);
        loop {
            let new = change(AttentionSet(current)).0;
            match self.0.compare_exchange(current, new, SeqCst, SeqCst) {
                Ok(before) => return AttentionSet(before),
                Err(actual) => current = actual,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use UnitAttention::*;

    #[test]
    fn the_one_of_highest_precedence_goes_first_and_each_once() {
        let attentions = Attentions::default();
        for attention in [
            ReportedLunsDataChanged,
            ReservationsReleased,
            RegistrationsPreempted,
            CommandsClearedByAnotherInitiator,
            NexusLoss,
            NexusLoss,
        ] {
            attentions.push(attention);
        }
        for attention in [
            NexusLoss,
            CommandsClearedByAnotherInitiator,
            RegistrationsPreempted,
            ReservationsReleased,
            ReportedLunsDataChanged,
        ] {
            assert_eq!(attentions.take_first(), Some(attention));
        }
        assert_eq!(attentions.take_first(), None);
        assert!(attentions.pending().is_empty());
    }

    #[test]
    fn a_reset_stands_for_lesser_resets_whichever_came_first() {
        for order in [[PowerOnOccurred, NexusLoss], [NexusLoss, PowerOnOccurred]] {
            let attentions = Attentions::default();
            for attention in order {
                attentions.push(attention);
            }
            assert_eq!(attentions.take_first(), Some(PowerOnOccurred));
            assert_eq!(attentions.take_first(), None);
        }
    }

    #[test]
    fn a_reset_loses_no_reservation_condition() {
        let set = AttentionSet::default()
            .with(RegistrationsPreempted)
            .with(BusDeviceResetFunction);
        assert!(set.contains(RegistrationsPreempted));
        assert_eq!(set.first(), Some(BusDeviceResetFunction));
    }

    #[test]
    fn the_bit_of_a_condition_is_its_place_in_all() {
        for (index, attention) in UnitAttention::ALL.into_iter().enumerate() {
            assert_eq!(attention as usize, index);
            assert_eq!(
                AttentionSet::default().with(attention).first(),
                Some(attention)
            );
        }
    }
}
