//! The group of a member: the best set of members with itself in it of whom every two have a link.

use crate::domain::MAX_MEMBERS;
use crate::slots::SlotSet;

/// Steps after which the search settles for the best group found. Real clusters take a few dozen; only graphs made for
/// it come near, and then every member still gets a clique.
const MAX_STEPS: usize = 20_000;

/// The clique with `own` in it that has most votes; then most members; then the lowest slots. `links` has for each slot
/// whom it says that it has a link with; an edge is one that both ends say. Deterministic.
pub fn best_clique(
    own: u16,
    links: &[SlotSet; MAX_MEMBERS],
    votes: impl Fn(u16) -> u64,
) -> SlotSet {
    let mut weights = [0; MAX_MEMBERS];
    let mut edges = [SlotSet::EMPTY; MAX_MEMBERS];
    for slot in links[usize::from(own)].iter() {
        if slot != own && links[usize::from(slot)].contains(own) {
            edges[usize::from(own)].insert(slot);
        }
    }
    let around = edges[usize::from(own)];
    for a in around.iter() {
        weights[usize::from(a)] = votes(a);
        for b in links[usize::from(a)].and(around).iter() {
            if a != b && links[usize::from(b)].contains(a) {
                edges[usize::from(a)].insert(b);
            }
        }
    }
    let mut search = Search {
        edges,
        weights,
        best: SlotSet::one(own),
        best_rank: (0, 1, u64::MAX),
        steps: 0,
    };
    search.best_rank = search.rank(search.best);
    search.extend(SlotSet::one(own), around, SlotSet::EMPTY);
    search.best
}

/// Votes, members, and the lower slots the better.
type Rank = (u64, usize, u64);

struct Search {
    edges: [SlotSet; MAX_MEMBERS],
    weights: [u64; MAX_MEMBERS],
    best: SlotSet,
    best_rank: Rank,
    steps: usize,
}

impl Search {
    fn rank(&self, set: SlotSet) -> Rank {
        let votes = set.iter().map(|slot| self.weights[usize::from(slot)]).sum();
        // Slot 0 is the highest bit then: of two sets, the one with the lowest slot that the other lacks comes first.
        (votes, set.len(), set.bits().reverse_bits())
    }

    /// Bron and Kerbosch's search for maximal cliques, with a pivot.
    fn extend(&mut self, clique: SlotSet, mut candidates: SlotSet, mut done: SlotSet) {
        if candidates.is_empty() {
            let rank = self.rank(clique);
            if done.is_empty() && rank > self.best_rank {
                self.best = clique;
                self.best_rank = rank;
            }
            return;
        }
        let pivot = candidates
            .or(done)
            .iter()
            .max_by_key(|slot| candidates.and(self.edges[usize::from(*slot)]).len());
        let covered = pivot.map_or(SlotSet::EMPTY, |slot| self.edges[usize::from(slot)]);
        for slot in candidates.minus(covered).iter() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                // Whatever the clique is by now, it is one.
                let rank = self.rank(clique);
                if rank > self.best_rank {
                    self.best = clique;
                    self.best_rank = rank;
                }
                return;
            }
            let edges = self.edges[usize::from(slot)];
            self.extend(
                clique.or(SlotSet::one(slot)),
                candidates.and(edges),
                done.and(edges),
            );
            candidates.remove(slot);
            done.insert(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn graph(pairs: &[(u16, u16)]) -> [SlotSet; MAX_MEMBERS] {
        let mut links = [SlotSet::EMPTY; MAX_MEMBERS];
        for (a, b) in pairs {
            links[usize::from(*a)].insert(*b);
            links[usize::from(*b)].insert(*a);
        }
        links
    }

    fn is_clique(set: SlotSet, links: &[SlotSet; MAX_MEMBERS]) -> bool {
        set.iter().all(|a| {
            let others = set.minus(SlotSet::one(a));
            others.is_subset(links[usize::from(a)])
        })
    }

    #[test]
    fn a_chain_is_cut_where_the_slots_are_lowest() {
        let links = graph(&[(0, 1), (1, 2)]);
        let group = |own| best_clique(own, &links, |_| 1).bits();
        assert_eq!([group(0), group(1), group(2)], [0b011, 0b011, 0b110]);
        let weighted = best_clique(1, &links, |slot| if slot == 2 { 5 } else { 1 });
        assert_eq!(weighted.bits(), 0b110);
    }

    #[test]
    fn a_link_that_one_end_only_sees_is_none() {
        let mut links = graph(&[(0, 1)]);
        links[0].insert(2);
        links[3].insert(0);
        assert_eq!(best_clique(0, &links, |_| 1).bits(), 0b011);
    }

    #[test]
    fn the_worst_graphs_end() {
        // All but pairs: 2^32 maximal cliques.
        let mut links = [SlotSet::from_bits(u64::MAX); MAX_MEMBERS];
        for slot in 0..64u16 {
            links[usize::from(slot)].remove(slot);
            links[usize::from(slot)].remove(slot ^ 1);
        }
        let group = best_clique(5, &links, |_| 1);
        assert!(group.contains(5) && is_clique(group, &links));
        assert_eq!(group.len(), 32);
        // All but triples: 3^21.
        for slot in 0..63u16 {
            let third = slot / 3 * 3;
            links[usize::from(slot)] = SlotSet::from_bits(!(0b111 << third));
        }
        links[63] = SlotSet::EMPTY;
        let group = best_clique(7, &links, |slot| u64::from(slot) * 1000);
        assert!(group.contains(7) && is_clique(group, &links));
    }

    proptest! {
        /// Against every subset.
        #[test]
        fn it_is_the_best(pairs in prop::collection::vec((0u16..9, 0u16..9), 0..36), votes in prop::collection::vec(0u64..4, 9), own in 0u16..9) {
            let pairs: Vec<_> = pairs.into_iter().filter(|(a, b)| a != b).collect();
            let links = graph(&pairs);
            let rank = |set: SlotSet| {
                let sum: u64 = set.iter().filter(|slot| *slot != own).map(|slot| votes[usize::from(slot)]).sum();
                (sum, set.len(), set.bits().reverse_bits())
            };
            let best = (0u64..512)
                .map(SlotSet::from_bits)
                .filter(|set| set.contains(own) && is_clique(*set, &links))
                .max_by_key(|set| rank(*set))
                .unwrap();
            let found = best_clique(own, &links, |slot| votes[usize::from(slot)]);
            // A maximal one of the same votes and more members is preferred to a smaller one, so they are the same.
            prop_assert_eq!(found, best);
        }
    }
}
