//! The volumes of a pool by LUN: a snapshot that readers share and a change that copies little of it.

use std::sync::Arc;

/// LUNs that share a chunk.
const CHUNK: usize = 128;

/// Values by LUN. A clone shares the chunks; a change copies the one it is in.
pub(super) struct LunTable<T> {
    chunks: Vec<Option<Arc<Chunk<T>>>>,
}

type Chunk<T> = [Option<Arc<T>>; CHUNK];

impl<T> Default for LunTable<T> {
    fn default() -> Self {
        LunTable { chunks: Vec::new() }
    }
}

impl<T> Clone for LunTable<T> {
    fn clone(&self) -> Self {
        LunTable {
            chunks: self.chunks.clone(),
        }
    }
}

impl<T> LunTable<T> {
    /// All values, by LUN.
    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.chunks
            .iter()
            .flatten()
            .flat_map(|chunk| chunk.iter().flatten())
    }

    pub(super) fn get(&self, lun: u16) -> Option<&Arc<T>> {
        let chunk = self.chunks.get(usize::from(lun) / CHUNK)?.as_ref()?;
        chunk[usize::from(lun) % CHUNK].as_ref()
    }

    /// Puts a value in the place of the one of that LUN.
    pub(super) fn insert(&mut self, lun: u16, value: Arc<T>) {
        let (at, within) = (usize::from(lun) / CHUNK, usize::from(lun) % CHUNK);
        if self.chunks.len() <= at {
            self.chunks.resize_with(at + 1, || None);
        }
        let mut chunk = match &self.chunks[at] {
            Some(chunk) => Chunk::clone(chunk),
            None => std::array::from_fn(|_| None),
        };
        chunk[within] = Some(value);
        self.chunks[at] = Some(Arc::new(chunk));
    }

    pub(super) fn remove(&mut self, lun: u16) {
        let (at, within) = (usize::from(lun) / CHUNK, usize::from(lun) % CHUNK);
        if let Some(Some(chunk)) = self.chunks.get(at) {
            let mut chunk = Chunk::clone(chunk);
            chunk[within] = None;
            self.chunks[at] = chunk.iter().any(Option::is_some).then(|| Arc::new(chunk));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map_and_snapshots_do_not_change(
            ops in prop::collection::vec((0u16..16_384, any::<Option<u8>>()), 1..200),
            snap in 0usize..200,
        ) {
            let mut table = LunTable::default();
            let mut oracle = BTreeMap::new();
            let mut snapshot = None;
            for (number, (lun, value)) in ops.into_iter().enumerate() {
                // Few LUNs, so that they meet again, and far apart.
                let lun = lun % 7 * 2000;
                match value {
                    Some(value) => {
                        table.insert(lun, Arc::new(value));
                        oracle.insert(lun, value);
                    }
                    None => {
                        table.remove(lun);
                        oracle.remove(&lun);
                    }
                }
                prop_assert_eq!(table.get(lun).map(|value| **value), oracle.get(&lun).copied());
                let all: Vec<u8> = table.values().map(|value| **value).collect();
                prop_assert_eq!(all, oracle.values().copied().collect::<Vec<_>>());
                if number == snap {
                    snapshot = Some((table.clone(), oracle.clone()));
                }
            }
            if let Some((table, oracle)) = snapshot {
                let all: Vec<u8> = table.values().map(|value| **value).collect();
                prop_assert_eq!(all, oracle.values().copied().collect::<Vec<_>>());
            }
        }
    }
}
