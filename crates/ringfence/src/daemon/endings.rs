//! How the last jobs ended, for those who wait for them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// How many are remembered.
const REMEMBERED: usize = 1024;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It has taken effect.
    Done,
    /// It was given up.
    Cancelled,
}

/// The last endings.
#[derive(Debug, Default)]
pub struct Endings(Mutex<VecDeque<(Uuid, Ending)>>);

impl Endings {
    /// The job `id` has ended.
    pub fn note(&self, id: Uuid, ending: Ending) {
        // The list is whole after every statement.
        let mut endings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if endings.len() >= REMEMBERED {
            endings.pop_front();
        }
        endings.push_back((id, ending));
    }

    /// How the job `id` ended, if it has, and not too long ago.
    pub fn of(&self, id: Uuid) -> Option<Ending> {
        let endings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = endings.iter().rev().find(|(job, _)| *job == id);
        found.map(|(_, ending)| *ending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_endings_are_remembered() {
        let endings = Endings::default();
        let id = Uuid::from_u128;
        for number in 0..2000 {
            endings.note(id(number), Ending::Done);
        }
        endings.note(id(7), Ending::Cancelled);
        assert_eq!(endings.of(id(0)), None);
        assert_eq!(endings.of(id(1999)), Some(Ending::Done));
        assert_eq!(endings.of(id(7)), Some(Ending::Cancelled));
        assert_eq!(endings.0.lock().unwrap().len(), REMEMBERED);
    }
}
