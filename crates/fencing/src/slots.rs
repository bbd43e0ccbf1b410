//! Sets of members by the number of their slot: small, ordered, and cheap to compare.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::MAX_MEMBERS;

/// A set of slot numbers below [`MAX_MEMBERS`]. Serialized as the ascending list of them.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotSet(u64);

const _: () = assert!(MAX_MEMBERS == 64);

impl SlotSet {
    /// The set without members.
    pub const EMPTY: SlotSet = SlotSet(0);

    /// The set of one slot.
    ///
    /// # Panics
    /// For a slot that is not below [`MAX_MEMBERS`].
    pub fn one(slot: u16) -> Self {
        let mut set = Self::EMPTY;
        set.insert(slot);
        set
    }

    /// The set as the bits of a number, slot 0 the lowest.
    pub fn from_bits(bits: u64) -> Self {
        SlotSet(bits)
    }

    /// The bits of [`SlotSet::from_bits`].
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether it has this slot; `false` for a number that is no slot.
    pub fn contains(self, slot: u16) -> bool {
        usize::from(slot) < MAX_MEMBERS && self.0 & (1 << slot) != 0
    }

    /// Puts a slot in; says whether it is new.
    ///
    /// # Panics
    /// For a slot that is not below [`MAX_MEMBERS`].
    pub fn insert(&mut self, slot: u16) -> bool {
        assert!(usize::from(slot) < MAX_MEMBERS, "slot {slot}");
        let new = !self.contains(slot);
        self.0 |= 1 << slot;
        new
    }

    /// Takes a slot out; says whether it was there.
    pub fn remove(&mut self, slot: u16) -> bool {
        let was = self.contains(slot);
        if was {
            self.0 &= !(1 << slot);
        }
        was
    }

    /// How many it has.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lowest slot of it.
    pub fn first(self) -> Option<u16> {
        (!self.is_empty()).then(|| self.0.trailing_zeros() as u16)
    }

    /// The slots in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (0..MAX_MEMBERS as u16).filter(move |slot| self.contains(*slot))
    }

    /// What is in both.
    pub fn and(self, other: Self) -> Self {
        SlotSet(self.0 & other.0)
    }

    /// What is in either.
    pub fn or(self, other: Self) -> Self {
        SlotSet(self.0 | other.0)
    }

    /// What is in this one only.
    pub fn minus(self, other: Self) -> Self {
        SlotSet(self.0 & !other.0)
    }

    /// Whether the other has everything that this one has.
    pub fn is_subset(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

impl FromIterator<u16> for SlotSet {
    /// # Panics
    /// For a slot that is not below [`MAX_MEMBERS`].
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = SlotSet::EMPTY;
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for SlotSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for SlotSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Slots;
        impl<'de> Visitor<'de> for Slots {
            type Value = SlotSet;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of different slots below {MAX_MEMBERS}")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<SlotSet, A::Error> {
                let mut set = SlotSet::EMPTY;
                while let Some(slot) = seq.next_element::<u16>()? {
                    if usize::from(slot) >= MAX_MEMBERS || !set.insert(slot) {
                        return Err(serde::de::Error::custom(format_args!(
                            "{slot} is no slot, or is there twice"
                        )));
                    }
                }
                Ok(set)
            }
        }
        deserializer.deserialize_seq(Slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(a in prop::collection::btree_set(0u16..64, 0..20), b in prop::collection::btree_set(0u16..64, 0..20)) {
            let x: SlotSet = a.iter().copied().collect();
            let y: SlotSet = b.iter().copied().collect();
            let set = |set: SlotSet| set.iter().collect::<BTreeSet<_>>();
            prop_assert_eq!(set(x.and(y)), &a & &b);
            prop_assert_eq!(set(x.or(y)), &a | &b);
            prop_assert_eq!(set(x.minus(y)), &a - &b);
            prop_assert_eq!(x.is_subset(y), a.is_subset(&b));
            prop_assert_eq!(x.len(), a.len());
            prop_assert_eq!(x.first(), a.first().copied());
            let text = serde_json::to_string(&x).unwrap();
            prop_assert_eq!(serde_json::from_str::<SlotSet>(&text).unwrap(), x);
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["[64]", "[1,1]", "[-1]", "{}", "[65535]"] {
            assert!(serde_json::from_str::<SlotSet>(text).is_err(), "{text}");
        }
    }
}
