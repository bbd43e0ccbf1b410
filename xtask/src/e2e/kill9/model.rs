//! What SPC-4 says about REGISTER, RESERVE, RELEASE, CLEAR and PREEMPT, in its shortest form. Written apart from crate
//! `reservation`, whose every step it checks.

use anyhow::{Context, Result};

use crate::random::Random;

/// How many nexuses take part.
pub const NEXUSES: usize = 4;

const TYPES: [(u8, &str); 6] = [
    (1, "write-exclusive"),
    (3, "exclusive-access"),
    (5, "write-exclusive-registrants-only"),
    (6, "exclusive-access-registrants-only"),
    (7, "write-exclusive-all-registrants"),
    (8, "exclusive-access-all-registrants"),
];

/// The type code of a name in `ringfence keys --json`.
///
/// # Errors
/// When there is no such type.
pub fn kind_of(name: &str) -> Result<u8> {
    let found = TYPES.iter().find(|(_, known)| *known == name);
    Ok(found
        .with_context(|| format!("no reservation type is called {name}"))?
        .0)
}

/// Registrations by nexus (0: none), the reservation with its holder (none: all registrants), the generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// Key of each nexus, 0 when it is not registered.
    pub keys: [u64; NEXUSES],
    /// Type code, and the holder for the types that have one.
    pub reservation: Option<(u8, Option<usize>)>,
    /// PRGENERATION.
    pub generation: u32,
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// GOOD.
    Good,
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION, ILLEGAL REQUEST.
    IllegalRequest,
}

/// A PERSISTENT RESERVE OUT of one nexus.
#[derive(Debug, Clone)]
pub struct Command {
    /// Sender.
    pub nexus: usize,
    action: u8,
    kind: u8,
    key: u64,
    action_key: u64,
}

const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;

impl Command {
    /// A command that mostly makes sense in this state.
    pub fn random(random: &mut Random, model: &Model) -> Self {
        let nexus = random.below(NEXUSES);
        let actions = [
            REGISTER,
            REGISTER,
            RESERVE,
            RESERVE,
            RELEASE,
            CLEAR,
            PREEMPT,
            PREEMPT,
            PREEMPT_AND_ABORT,
            REGISTER_AND_IGNORE,
        ];
        let action = *random.pick(&actions);
        // Sometimes a key that is not the sender's own.
        let key = if random.below(8) == 0 {
            1 + random.below(6) as u64
        } else {
            model.keys[nexus]
        };
        let kind = match (action, model.reservation) {
            (RELEASE, Some((kind, _))) if random.below(4) > 0 => kind,
            _ => random.pick(&TYPES).0,
        };
        let action_key = match action {
            // Zero unregisters or, for PREEMPT, means all the others of an all-registrants reservation.
            REGISTER | REGISTER_AND_IGNORE | PREEMPT | PREEMPT_AND_ABORT if random.below(4) > 0 => {
                1 + random.below(6) as u64
            }
            _ => 0,
        };
        Self {
            nexus,
            action,
            kind,
            key,
            action_key,
        }
    }

    /// Whether it asks for a reservation.
    pub fn reserves(&self) -> bool {
        self.action == RESERVE
    }

    /// The ten bytes of the CDB.
    pub fn cdb(&self) -> [u8; 10] {
        [0x5f, self.action, self.kind, 0, 0, 0, 0, 0, 24, 0]
    }

    /// The parameter list.
    pub fn parameters(&self) -> [u8; 24] {
        let mut list = [0; 24];
        list[..8].copy_from_slice(&self.key.to_be_bytes());
        list[8..16].copy_from_slice(&self.action_key.to_be_bytes());
        list
    }
}

impl Model {
    /// The state after the command, and how it is answered.
    pub fn step(&self, command: &Command) -> (Self, Outcome) {
        let mut after = self.clone();
        let outcome = match command.action {
            REGISTER => after.register(command, false),
            REGISTER_AND_IGNORE => after.register(command, true),
            _ if self.keys[command.nexus] == 0 || self.keys[command.nexus] != command.key => {
                Outcome::Conflict
            }
            RESERVE => after.reserve(command),
            RELEASE => after.release(command),
            CLEAR => {
                after.keys = [0; NEXUSES];
                after.reservation = None;
                after.generation = after.generation.wrapping_add(1);
                Outcome::Good
            }
            _ => after.preempt(command),
        };
        if outcome == Outcome::Good {
            (after, outcome)
        } else {
            (self.clone(), outcome)
        }
    }

    fn holds(&self, nexus: usize) -> bool {
        match self.reservation {
            Some((_, Some(holder))) => holder == nexus,
            Some((_, None)) => self.keys[nexus] != 0,
            None => false,
        }
    }

    fn register(&mut self, command: &Command, ignore: bool) -> Outcome {
        let registered = self.keys[command.nexus];
        if !ignore && command.key != registered {
            return Outcome::Conflict;
        }
        if registered == 0 && command.action_key == 0 {
            return Outcome::Good; // Nothing to do, and the generation stays.
        }
        if command.action_key == 0 {
            self.unregister(command.nexus);
        } else {
            self.keys[command.nexus] = command.action_key;
        }
        self.generation = self.generation.wrapping_add(1);
        Outcome::Good
    }

    fn unregister(&mut self, nexus: usize) {
        self.keys[nexus] = 0;
        let released = match self.reservation {
            Some((_, Some(holder))) => holder == nexus,
            Some((_, None)) => self.keys == [0; NEXUSES],
            None => false,
        };
        if released {
            self.reservation = None;
        }
    }

    fn reserve(&mut self, command: &Command) -> Outcome {
        match self.reservation {
            None => {
                let holder = (command.kind < 7).then_some(command.nexus);
                self.reservation = Some((command.kind, holder));
                Outcome::Good
            }
            Some((kind, _)) if self.holds(command.nexus) && kind == command.kind => Outcome::Good,
            Some(_) => Outcome::Conflict,
        }
    }

    fn release(&mut self, command: &Command) -> Outcome {
        match self.reservation {
            Some((kind, _)) if self.holds(command.nexus) => {
                if kind != command.kind {
                    return Outcome::IllegalRequest;
                }
                self.reservation = None;
                Outcome::Good
            }
            _ => Outcome::Good,
        }
    }

    /// SPC-4 5.12.11.2.6 with its table of preempting actions.
    fn preempt(&mut self, command: &Command) -> Outcome {
        let others = |model: &Self, keep: &dyn Fn(usize) -> bool| -> Vec<usize> {
            (0..NEXUSES)
                .filter(|nexus| *nexus != command.nexus && model.keys[*nexus] != 0 && !keep(*nexus))
                .collect()
        };
        let takes_over = match self.reservation {
            Some((_, None)) => command.action_key == 0,
            Some((_, Some(holder))) => self.keys[holder] == command.action_key,
            None => false,
        };
        if !takes_over {
            if command.action_key == 0 {
                return Outcome::IllegalRequest;
            }
            let matching: Vec<usize> = (0..NEXUSES)
                .filter(|nexus| self.keys[*nexus] == command.action_key)
                .collect();
            if matching.is_empty() {
                return Outcome::Conflict;
            }
            for nexus in matching {
                self.unregister(nexus);
            }
        } else {
            let removed = match self.reservation {
                Some((_, None)) => others(self, &|_| false),
                _ => others(self, &|nexus| self.keys[nexus] != command.action_key),
            };
            for nexus in removed {
                self.keys[nexus] = 0;
            }
            self.reservation = Some((command.kind, (command.kind < 7).then_some(command.nexus)));
        }
        self.generation = self.generation.wrapping_add(1);
        Outcome::Good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(nexus: usize, action: u8, kind: u8, key: u64, action_key: u64) -> Command {
        Command {
            nexus,
            action,
            kind,
            key,
            action_key,
        }
    }

    #[test]
    fn preempting_the_holder_takes_its_reservation_over() {
        let before = Model {
            keys: [1, 2, 1, 0],
            reservation: Some((1, Some(0))),
            generation: 7,
        };
        let (after, outcome) = before.step(&command(1, PREEMPT, 5, 2, 1));
        assert_eq!(outcome, Outcome::Good);
        assert_eq!(
            after,
            Model {
                keys: [0, 2, 0, 0],
                reservation: Some((5, Some(1))),
                generation: 8
            }
        );
    }

    #[test]
    fn preempting_a_registrant_leaves_the_reservation() {
        let before = Model {
            keys: [1, 2, 3, 0],
            reservation: Some((1, Some(0))),
            generation: 7,
        };
        let (after, outcome) = before.step(&command(1, PREEMPT, 5, 2, 3));
        assert_eq!(outcome, Outcome::Good);
        assert_eq!(
            after,
            Model {
                keys: [1, 2, 0, 0],
                reservation: Some((1, Some(0))),
                generation: 8
            }
        );
        assert_eq!(
            before.step(&command(1, PREEMPT, 5, 2, 9)).1,
            Outcome::Conflict
        );
        assert_eq!(
            before.step(&command(1, PREEMPT, 5, 2, 0)).1,
            Outcome::IllegalRequest
        );
    }

    #[test]
    fn the_last_registrant_takes_an_all_registrants_reservation_with_it() {
        let before = Model {
            keys: [1, 2, 0, 0],
            reservation: Some((7, None)),
            generation: 7,
        };
        let (after, _) = before.step(&command(0, REGISTER, 1, 1, 0));
        assert_eq!(after.reservation, Some((7, None)));
        let (after, _) = after.step(&command(1, REGISTER, 1, 2, 0));
        assert_eq!(
            after,
            Model {
                generation: 9,
                ..Model::default()
            }
        );
    }
}
