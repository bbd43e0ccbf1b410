//! Sets of regions: a plain one, and one that many threads read and change without a lock.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// A set of regions out of `count`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    count: u32,
    words: Vec<u64>,
}

/// Words that hold `count` bits.
fn words_for(count: u32) -> usize {
    count.div_ceil(64) as usize
}

/// The bits of word `index` that belong to a set of `count`.
fn mask_of(index: usize, count: u32) -> u64 {
    let left = u64::from(count).saturating_sub(index as u64 * 64);
    if left >= 64 {
        u64::MAX
    } else {
        (1 << left) - 1
    }
}

impl Regions {
    /// No region of `count`, or all of them.
    pub fn new(count: u32, full: bool) -> Regions {
        let words = (0..words_for(count))
            .map(|index| if full { mask_of(index, count) } else { 0 })
            .collect();
        Regions { count, words }
    }

    /// Number of regions that could be in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether `region` is in it; one out of range is not.
    pub fn get(&self, region: u32) -> bool {
        self.words
            .get(region as usize / 64)
            .is_some_and(|word| word >> (region % 64) & 1 == 1)
    }

    /// Puts `region` in and says whether it was missing; one out of range is ignored.
    pub fn set(&mut self, region: u32) -> bool {
        if region >= self.count {
            return false;
        }
        let word = &mut self.words[region as usize / 64];
        let missing = *word >> (region % 64) & 1 == 0;
        *word |= 1 << (region % 64);
        missing
    }

    /// Takes `region` out and says whether it was there.
    pub fn clear(&mut self, region: u32) -> bool {
        let was = self.get(region);
        if was {
            self.words[region as usize / 64] &= !(1 << (region % 64));
        }
        was
    }

    /// Puts in all regions of a range.
    pub fn set_range(&mut self, range: Range<u32>) {
        for region in range.start..range.end.min(self.count) {
            self.set(region);
        }
    }

    /// Puts in what `other` has and says whether any of it was missing.
    pub fn union(&mut self, other: &Regions) -> bool {
        let mut changed = false;
        let count = self.count;
        for (index, (mine, theirs)) in self.words.iter_mut().zip(&other.words).enumerate() {
            let new = *mine | (theirs & mask_of(index, count));
            changed |= new != *mine;
            *mine = new;
        }
        changed
    }

    /// Takes out what `other` has.
    pub fn subtract(&mut self, other: &Regions) {
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            *mine &= !theirs;
        }
    }

    /// Number of regions in it.
    pub fn count_ones(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether no region is in it.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The regions in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros();
                left &= left - 1;
                Some(index as u32 * 64 + bit)
            })
        })
    }

    /// The same set for regions of another size and a volume of another number of regions: a region is in the new set
    /// if any byte of it is in a region of this one.
    pub fn resized(&self, region_bytes: u64, new_region_bytes: u64, new_count: u32) -> Regions {
        let mut new = Regions::new(new_count, false);
        for region in self.iter() {
            // Counts are below 2^32 and regions at most 2^60 bytes: u128 holds every product.
            let start = u128::from(region) * u128::from(region_bytes);
            let end = start + u128::from(region_bytes);
            let first = start / u128::from(new_region_bytes);
            let last = end.div_ceil(u128::from(new_region_bytes));
            let clamp = |at: u128| u32::try_from(at).unwrap_or(u32::MAX);
            new.set_range(clamp(first)..clamp(last));
        }
        new
    }
}

/// A set of regions that threads share. All operations are sequentially consistent; what one region's bit says
/// relative to another set's is argued where the two are used.
#[derive(Debug, Default)]
pub(crate) struct AtomicRegions {
    words: Box<[AtomicU64]>,
}

impl AtomicRegions {
    /// A copy of `regions`.
    pub(crate) fn new(regions: &Regions) -> AtomicRegions {
        AtomicRegions {
            words: regions.words.iter().copied().map(AtomicU64::new).collect(),
        }
    }

    pub(crate) fn get(&self, region: u32) -> bool {
        self.words
            .get(region as usize / 64)
            .is_some_and(|word| word.load(Ordering::SeqCst) >> (region % 64) & 1 == 1)
    }

    /// Puts `region` in; one that is in costs a load only.
    pub(crate) fn set(&self, region: u32) {
        if let Some(word) = self.words.get(region as usize / 64) {
            let bit = 1 << (region % 64);
            if word.load(Ordering::SeqCst) & bit == 0 {
                word.fetch_or(bit, Ordering::SeqCst);
            }
        }
    }

    /// Takes `region` out and says whether it was there.
    pub(crate) fn clear(&self, region: u32) -> bool {
        self.words.get(region as usize / 64).is_some_and(|word| {
            let bit = 1 << (region % 64);
            word.fetch_and(!bit, Ordering::SeqCst) & bit != 0
        })
    }

    pub(crate) fn union(&self, other: &Regions) {
        for (mine, theirs) in self.words.iter().zip(&other.words) {
            if *theirs != 0 {
                mine.fetch_or(*theirs, Ordering::SeqCst);
            }
        }
    }

    /// Makes the set be `other`, word by word.
    pub(crate) fn store(&self, other: &Regions) {
        for (mine, theirs) in self.words.iter().zip(&other.words) {
            mine.store(*theirs, Ordering::SeqCst);
        }
    }

    /// Whether any region of the range is in it.
    pub(crate) fn any(&self, range: Range<u32>) -> bool {
        range.into_iter().any(|region| self.get(region))
    }

    /// What is in it now, word by word, out of `count`.
    pub(crate) fn load(&self, count: u32) -> Regions {
        let mut regions = Regions::new(count, false);
        for (mine, theirs) in regions.words.iter_mut().zip(&self.words) {
            *mine = theirs.load(Ordering::SeqCst);
        }
        regions
    }

    /// Takes everything out and returns it, word by word.
    pub(crate) fn take(&self, count: u32) -> Regions {
        let mut regions = Regions::new(count, false);
        for (mine, theirs) in regions.words.iter_mut().zip(&self.words) {
            *mine = theirs.swap(0, Ordering::SeqCst);
        }
        regions
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set() -> impl Strategy<Value = (u32, BTreeSet<u32>)> {
        (1u32..200)
            .prop_flat_map(|count| (Just(count), prop::collection::btree_set(0..count, 0..40)))
    }

    fn regions(count: u32, set: &BTreeSet<u32>) -> Regions {
        let mut regions = Regions::new(count, false);
        for region in set {
            assert!(regions.set(*region));
        }
        regions
    }

    proptest! {
        #[test]
        fn it_is_a_set((count, mut model) in set(), (other_count, other) in set(), at in 0u32..250) {
            let mut subject = regions(count, &model);
            let atomic = AtomicRegions::new(&subject);
            prop_assert_eq!(subject.iter().collect::<BTreeSet<_>>(), model.clone());
            prop_assert_eq!(subject.count_ones() as usize, model.len());
            prop_assert_eq!(subject.get(at), model.contains(&at));
            let other_regions = regions(other_count, &other);
            atomic.union(&other_regions);
            let added: BTreeSet<u32> = other.iter().copied().filter(|r| *r < count).collect();
            prop_assert_eq!(subject.union(&other_regions), !added.is_subset(&model));
            model.extend(&added);
            prop_assert_eq!(subject.iter().collect::<BTreeSet<_>>(), model.clone());
            subject.subtract(&other_regions);
            model.retain(|region| !other.contains(region));
            prop_assert_eq!(subject.clone(), regions(count, &model));
            prop_assert_eq!(subject.clear(at), model.remove(&at));
            prop_assert_eq!(Regions::new(count, true).count_ones(), count);
        }

        #[test]
        fn a_resized_set_covers_the_same_bytes(
            (count, model) in set(), from in 0u32..4, to in 0u32..4, new_count in 1u32..300,
        ) {
            let (from, to) = (1u64 << from, 1u64 << to);
            let new = regions(count, &model).resized(from, to, new_count);
            for region in 0..new_count {
                let start = u64::from(region) * to;
                let covered = (start..start + to).any(|byte| model.contains(&((byte / from) as u32)));
                prop_assert_eq!(new.get(region), covered, "region {}", region);
            }
        }
    }
}
