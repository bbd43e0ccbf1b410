//! Drives the state machine and the naive one together and compares everything they say.

use std::collections::BTreeSet;
use std::sync::Arc;

use reservation::access::{self, Column};
use reservation::machine::{self, Step};
use reservation::{
    Command, Event, Fact, InitiatorPort, Key, Lost, LostUntil, LuReservations, Nexus,
    PersistentReserveOut, RegisterAndMove, Registrant, Reject, Reservation, ReservationType,
    ServiceAction, State, Topology,
};

use crate::naive::{Cmd, KINDS, Loss, Naive, Nx, host};
use crate::random::Random;

const PORTS: [u16; 3] = [1, 2, 7];
const INITIATORS: [(&str, u8); 5] = [
    ("iqn.a", 1),
    ("iqn.a", 2),
    ("iqn.b", 1),
    ("iqn.c", 1),
    ("iqn.stranger", 1),
];

/// One thing that happens to the logical unit.
#[derive(Clone, Debug)]
pub enum Op {
    Command(Nx, Cmd),
    Reset,
    NexusLoss(Nx),
    PowerOn { persist_always: bool },
    InformationLost { each: bool },
    LossAccepted,
    Fence { hosts: Vec<u8>, heirs: Vec<u8> },
    Unfence(Vec<u8>),
    Own(Nx),
}

/// Both machines, side by side.
pub struct World {
    lu: LuReservations,
    naive: Naive,
    room: usize,
}

pub fn initiator(index: u8) -> InitiatorPort {
    let (name, isid) = INITIATORS[usize::from(index)];
    InitiatorPort {
        name: name.into(),
        isid: [0, 2, 61, 0, 0, isid],
    }
}

fn nexus((index, target_port): Nx) -> Nexus {
    Nexus {
        initiator: initiator(index),
        target_port,
    }
}

fn number(nexus: &Nexus) -> Nx {
    let index = (0..INITIATORS.len() as u8).find(|&index| initiator(index) == nexus.initiator);
    (index.expect("a nexus of this test"), nexus.target_port)
}

/// The names of hosts.
fn hosts<C: FromIterator<Arc<str>>>(numbers: &[u8]) -> C {
    let named = |number: &u8| initiator(number + 1).name;
    numbers.iter().map(named).collect()
}

fn everyone() -> impl Iterator<Item = Nx> {
    (0..INITIATORS.len() as u8).flat_map(|index| PORTS.into_iter().map(move |port| (index, port)))
}

/// What the oracle's kinds of commands are in the access table.
fn opcode(kind: &str) -> u8 {
    match kind {
        "INQUIRY" => 0x12,
        "LOG SENSE" => 0x4d,
        "READ CAPACITY" => 0x25,
        "TEST UNIT READY" => 0x00,
        "READ" => 0x28,
        "READ BUFFER" => 0x3c,
        "WRITE" => 0x2a,
        "WRITE BUFFER" => 0x3b,
        "SYNCHRONIZE CACHE" => 0x35,
        "MODE SENSE" => 0x1a,
        _ => unreachable!(),
    }
}

fn answer(result: &Result<Step, Reject>) -> String {
    let Err(reject) = result else {
        return "GOOD".into();
    };
    let Some(sense) = reject.sense() else {
        return "CONFLICT".into();
    };
    let mut text = format!("{:X}/{:02X}/{:02X}", sense.sense_key, sense.asc, sense.ascq);
    if let Some(field) = sense.field {
        text += if field.in_cdb { " cdb " } else { " list " };
        text += &field.byte.to_string();
        if let Some(bit) = field.bit {
            text += &format!(".{bit}");
        }
    }
    text
}

fn translate(cmd: &Cmd) -> Command {
    match cmd.clone() {
        Cmd::Basic {
            sa,
            scope,
            ty,
            rk,
            sark,
            all_tg_pt,
            aptpl,
            spec_i_pt,
        } => Command::PersistentReserveOut(PersistentReserveOut {
            service_action: ServiceAction::from_code(sa)
                .expect("a service action with the basic list"),
            scope,
            kind: ty,
            reservation_key: rk,
            service_action_reservation_key: sark,
            all_target_ports: all_tg_pt,
            aptpl,
            specified_initiator_ports: spec_i_pt
                .map(|list| list.into_iter().map(initiator).collect()),
        }),
        Cmd::Move {
            rk,
            sark,
            unreg,
            aptpl,
            to,
        } => Command::RegisterAndMove(RegisterAndMove {
            reservation_key: rk,
            service_action_reservation_key: sark,
            unregister: unreg,
            aptpl,
            destination: nexus(to),
        }),
        Cmd::Reserve => Command::Reserve,
        Cmd::Release => Command::Release,
    }
}

/// What the naive state is in the crate's terms.
fn expected(naive: &Naive) -> LuReservations {
    LuReservations {
        persistent: State {
            generation: naive.prgeneration,
            aptpl: naive.aptpl,
            registrants: naive
                .regs
                .iter()
                .map(|r| {
                    (
                        nexus(r.who),
                        Registrant {
                            key: Key(r.key),
                            all_target_ports: r.all_tg_pt,
                        },
                    )
                })
                .collect(),
            reservation: naive.reservation.map(|(ty, holder)| Reservation {
                kind: ReservationType::from_code(ty).expect("one of the six types"),
                holder: (ty < 7).then(|| nexus(holder)),
            }),
            lost: match naive.lost {
                Loss::No => None,
                Loss::Strict => Some(Lost::UntilReplaced),
                Loss::Each => Some(Lost::UntilRegistered {
                    recovered: naive
                        .regs
                        .iter()
                        .filter(|r| r.old)
                        .map(|r| nexus(r.who))
                        .collect(),
                }),
            },
        },
        scsi2: naive.spc2.map(nexus),
        fenced: hosts(&naive.fenced),
    }
}

/// The audit trail alone must lead from one state to the next, but for the generation, which it does not carry.
fn replay(before: &LuReservations, facts: &[Fact]) -> LuReservations {
    let mut lu = before.clone();
    let state = &mut lu.persistent;
    for fact in facts {
        match fact.clone() {
            Fact::Registered {
                nexus,
                key,
                replaced,
            } => {
                let registrant = Registrant {
                    key,
                    all_target_ports: false,
                };
                forget_recovered(state, &nexus);
                assert_eq!(
                    state
                        .registrants
                        .insert(nexus, registrant)
                        .map(|old| old.key),
                    replaced
                );
            }
            Fact::Unregistered { nexus, key, .. } => {
                forget_recovered(state, &nexus);
                assert_eq!(
                    state.registrants.remove(&nexus).map(|old| old.key),
                    Some(key)
                );
            }
            Fact::Reserved { kind, holder } => {
                assert_eq!(
                    state.reservation.replace(Reservation { kind, holder }),
                    None
                );
            }
            Fact::Released { kind, holder, .. } => {
                assert_eq!(state.reservation.take(), Some(Reservation { kind, holder }));
            }
            Fact::Moved { kind, from, to } => {
                let moved = Reservation {
                    kind,
                    holder: Some(to),
                };
                assert_eq!(
                    state.reservation.replace(moved),
                    Some(Reservation {
                        kind,
                        holder: Some(from)
                    })
                );
            }
            Fact::PersistThroughPowerLoss(aptpl) => {
                assert_ne!(std::mem::replace(&mut state.aptpl, aptpl), aptpl);
            }
            Fact::InformationLost { until } => {
                let recovered = state.registrants.keys().cloned().collect();
                state.lost = Some(match until {
                    LostUntil::Replaced => Lost::UntilReplaced,
                    LostUntil::Registered => Lost::UntilRegistered { recovered },
                });
            }
            Fact::LostReplaced => assert!(state.lost.take().is_some()),
            Fact::LostConfirmed => match state.lost.take() {
                Some(Lost::UntilRegistered { recovered }) => assert!(recovered.is_empty()),
                other => panic!("confirmed: {other:?}"),
            },
            Fact::Scsi2Reserved(nexus) => assert_eq!(lu.scsi2.replace(nexus), None),
            Fact::Scsi2Released(nexus) => assert_eq!(lu.scsi2.take(), Some(nexus)),
        }
    }
    lu
}

fn forget_recovered(state: &mut State, nexus: &Nexus) {
    if let Some(Lost::UntilRegistered { recovered }) = &mut state.lost {
        recovered.remove(nexus);
    }
}

/// What the audit trail can be held to.
fn audited(lu: &LuReservations) -> LuReservations {
    let mut lu = lu.clone();
    lu.persistent.generation = 0;
    lu.fenced.clear();
    lu.persistent
        .registrants
        .values_mut()
        .for_each(|registrant| registrant.all_target_ports = false);
    lu
}

impl World {
    /// A logical unit without reservations, with room for so many registrants.
    pub fn new(room: usize, generation: u32) -> Self {
        let naive = Naive {
            prgeneration: generation,
            ..Naive::default()
        };
        Self {
            lu: expected(&naive),
            naive,
            room,
        }
    }

    /// Applies an operation to both and compares; gives the answer, for counting what was reached.
    pub fn apply(&mut self, op: &Op) -> String {
        let naive_before = self.naive.clone();
        let topology = Topology {
            target_ports: &PORTS,
            registrant_capacity: self.room,
        };
        let (step, text, outcome) = match op {
            Op::Command(sender, cmd) => {
                let command = translate(cmd);
                let result = machine::step(&self.lu, &topology, &nexus(*sender), &command);
                let outcome = self.naive.run(*sender, cmd, &PORTS, self.room);
                let text = answer(&result);
                assert_eq!(text, outcome.answer, "answer");
                self.check_admission(*sender, cmd, &result);
                (result.ok(), text, outcome)
            }
            event => {
                let (event, text) = match event {
                    Op::Reset => (Event::Reset, "reset"),
                    Op::NexusLoss(who) => (Event::NexusLoss(nexus(*who)), "nexus loss"),
                    Op::PowerOn { persist_always } => (
                        Event::PowerOn {
                            persist_always: *persist_always,
                        },
                        "power on",
                    ),
                    Op::LossAccepted => (Event::LossAccepted, "loss accepted"),
                    Op::Fence { hosts: who, heirs } => (
                        Event::Fence {
                            initiators: hosts(who),
                            heirs: hosts(heirs),
                        },
                        "fence",
                    ),
                    Op::Unfence(who) => (
                        Event::Unfence {
                            initiators: hosts(who),
                        },
                        "unfence",
                    ),
                    Op::Own(who) => (Event::Own(nexus(*who)), "own"),
                    Op::InformationLost { each: true } => {
                        let until = LostUntil::Registered;
                        (Event::InformationLost { until }, "lost until registered")
                    }
                    Op::InformationLost { each: false } => {
                        let until = LostUntil::Replaced;
                        (Event::InformationLost { until }, "lost until replaced")
                    }
                    Op::Command(..) => unreachable!(),
                };
                let mut outcome = Default::default();
                match op {
                    Op::LossAccepted => outcome = self.naive.loss_accepted(),
                    Op::Fence { hosts, heirs } => outcome = self.naive.fence(hosts, heirs),
                    Op::Unfence(hosts) => self.naive.unfence(hosts),
                    Op::Own(who) => self.naive.own(*who),
                    Op::Reset => self.naive.reset(),
                    Op::NexusLoss(who) => self.naive.nexus_loss(*who),
                    Op::PowerOn { persist_always } => self.naive.power_on(*persist_always),
                    Op::InformationLost { each } => self.naive.information_lost(*each),
                    Op::Command(..) => unreachable!(),
                }
                (Some(machine::apply(&self.lu, &event)), text.into(), outcome)
            }
        };
        let Some(Step { state, effects }) = step else {
            assert_eq!(
                self.lu,
                expected(&self.naive),
                "a refused command changed the oracle"
            );
            return text;
        };

        assert_eq!(state, expected(&self.naive), "state");
        assert_eq!(state.persistent.check(), Ok(()));
        assert!(state.scsi2.is_none() || state.persistent.registrants.is_empty());
        for nexus in state.persistent.registrants.keys().chain(&state.scsi2) {
            assert!(!state.is_fenced(&nexus.initiator.name), "invariant F");
        }
        assert_eq!(
            effects.persist,
            state.persistent != self.lu.persistent,
            "persist"
        );
        assert_eq!(
            audited(&replay(&self.lu, &effects.facts)),
            audited(&state),
            "facts"
        );

        let attentions: Vec<(Nx, String)> = effects
            .unit_attentions
            .iter()
            .map(|(who, which)| {
                (
                    number(who),
                    format!("{:02X}/{:02X}", which.asc_ascq().0, which.asc_ascq().1),
                )
            })
            .collect();
        let wanted: Vec<(Nx, String)> = outcome
            .attentions
            .iter()
            .map(|&(who, what)| (who, what.into()))
            .collect();
        assert_eq!(sorted(&attentions), sorted(&wanted), "unit attentions");
        let to: BTreeSet<Nx> = attentions.iter().map(|&(who, _)| who).collect();
        assert_eq!(to.len(), attentions.len(), "a nexus is told twice");
        let aborted: Vec<Nx> = effects.abort.iter().map(number).collect();
        assert_eq!(sorted(&aborted), outcome.aborted, "aborts");

        for who in everyone() {
            let loses = KINDS
                .iter()
                .any(|kind| naive_before.may(who, kind) && !self.naive.may(who, kind));
            assert_eq!(
                effects.narrowed.includes(&nexus(who)),
                loses,
                "loss of access of {who:?}"
            );
            let column = access::column(&state, &nexus(who));
            for kind in KINDS {
                let row = access::row(opcode(kind), 0).expect("a row");
                assert_eq!(
                    row.permits(column),
                    self.naive.may(who, kind),
                    "{kind} from {who:?} in {column:?}"
                );
            }
        }
        let nobody = Nexus {
            initiator: InitiatorPort {
                name: "iqn.z".into(),
                isid: [0; 6],
            },
            target_port: 99,
        };
        let others = (
            access::column_of_others(&self.lu),
            access::column_of_others(&state),
        );
        assert_eq!(
            effects.narrowed.includes(&nobody),
            others.0.narrows_to(others.1)
        );
        assert_eq!(access::column(&state, &nobody), others.1);
        assert!(
            !effects.narrowed.is_empty()
                || !everyone().any(|who| effects.narrowed.includes(&nexus(who)))
        );

        let text = match effects.facts.contains(&Fact::LostConfirmed) {
            true => format!("{text}, confirmed"),
            false => text,
        };
        self.lu = state;
        text
    }

    /// What the access table refuses, the machine refuses the same way; and the table refuses nothing else.
    fn check_admission(&self, sender: Nx, cmd: &Cmd, result: &Result<Step, Reject>) {
        let (opcode, selector) = match cmd {
            Cmd::Basic { sa, .. } => (0x5f, u16::from(*sa)),
            Cmd::Move { .. } => (0x5f, 7),
            Cmd::Reserve => (0x16, 0),
            Cmd::Release => (0x17, 0),
        };
        if let Err(reject) = machine::admit(&self.lu, &nexus(sender), opcode, selector) {
            assert_eq!(result.as_ref().err(), Some(&reject), "early conflict");
        } else if let Err(Reject::ReservationInformationLost) = result {
            let to_nothing = matches!(
                cmd,
                Cmd::Basic {
                    sa: 0 | 6,
                    sark: 0,
                    ..
                }
            );
            assert!(
                to_nothing && self.naive.lost == Loss::Each,
                "the access table lets a command pass while reservations are lost"
            );
        }
        assert_ne!(access::column(&self.lu, &nexus(sender)), Column::NotReady);
    }

    /// A random operation, leaning towards keys that fit the state so that commands get far.
    pub fn random_op(&self, random: &mut Random) -> Op {
        if let Some(op) = self.on_the_way_out_of_a_loss(random) {
            return op;
        }
        match random.below(200) {
            0 => return Op::Reset,
            1 => return Op::NexusLoss(self.random_nexus(random)),
            2 => {
                return Op::PowerOn {
                    persist_always: random.one_in(3),
                };
            }
            3 if random.one_in(2) => {
                let each = !random.one_in(4);
                return Op::InformationLost { each };
            }
            4 if random.one_in(4) => return Op::LossAccepted,
            5..=7 => {
                let some = |random: &mut Random, most| {
                    let count = random.below(most);
                    (0..count)
                        .map(|_| random.below(4) as u8)
                        .collect::<Vec<_>>()
                };
                let holder = self.naive.reservation.map(|(_, holder)| host(holder.0));
                let hosts = match holder {
                    Some(holder) if random.one_in(2) => vec![holder],
                    _ => some(random, 3),
                };
                return Op::Fence {
                    hosts,
                    heirs: some(random, 4),
                };
            }
            8..=12 => {
                return Op::Unfence(vec![random.below(4) as u8, random.below(4) as u8]);
            }
            13 => return Op::Own(self.random_nexus(random)),
            _ => {}
        }
        let sender = self.random_nexus(random);
        let own = self
            .naive
            .regs
            .iter()
            .find(|r| r.who == sender)
            .map_or(0, |r| r.key);
        let rk = if random.one_in(10) {
            random.below(5)
        } else {
            own
        };
        let held = self.naive.reservation;
        let any_key = |random: &mut Random| match random.below(8) {
            0 | 1 => own,
            2 | 3 => held.map_or(0, |(_, h)| {
                self.naive
                    .regs
                    .iter()
                    .find(|r| r.who == h)
                    .map_or(0, |r| r.key)
            }),
            4 => 0,
            _ => 1 + random.below(4),
        };
        let sark = any_key(random);
        let ty = match (random.below(12), held) {
            (0, _) => random.below(16) as u8,
            (1..=5, Some((ty, _))) => ty,
            _ => [1, 3, 5, 6, 7, 8][random.below(6) as usize],
        };
        let scope = if random.one_in(20) {
            random.below(16) as u8
        } else {
            0
        };
        let all_tg_pt = random.one_in(5);
        let aptpl = random.one_in(2);
        let specify = random.one_in(12);
        let listed = random.below(4);
        let spec_i_pt = specify.then(|| (0..listed).map(|_| random.below(4) as u8).collect());
        let sa = match random.below(100) {
            0..=24 => 0,
            25..=39 => 6,
            40..=54 => 1,
            55..=61 => 2,
            62..=63 => 3,
            64..=73 => 4,
            74..=81 => 5,
            82..=90 => 7,
            91..=93 => 8,
            94..=97 => return Op::Command(sender, Cmd::Reserve),
            _ => return Op::Command(sender, Cmd::Release),
        };
        let hopeless = match self.naive.lost {
            Loss::No => false,
            Loss::Strict => random.one_in(4),
            Loss::Each => random.one_in(60),
        };
        if hopeless {
            let rk = random.below(8) / 7;
            let spec_i_pt = spec_i_pt.filter(|_| random.one_in(4));
            let all_tg_pt = random.one_in(20);
            return Op::Command(
                sender,
                Cmd::Basic {
                    sa: 8,
                    scope,
                    ty,
                    rk,
                    sark,
                    all_tg_pt,
                    aptpl,
                    spec_i_pt,
                },
            );
        }
        if sa == 7 {
            let to = (
                random.below(4) as u8,
                if random.one_in(12) {
                    3
                } else {
                    PORTS[random.below(3) as usize]
                },
            );
            // Only a holder gets anywhere.
            let (sender, rk) = match held {
                Some((1..=6, h)) if !random.one_in(4) => (
                    h,
                    self.naive
                        .regs
                        .iter()
                        .find(|r| r.who == h)
                        .map_or(0, |r| r.key),
                ),
                _ => (sender, rk),
            };
            return Op::Command(
                sender,
                Cmd::Move {
                    rk,
                    sark,
                    unreg: random.one_in(2),
                    aptpl,
                    to,
                },
            );
        }
        Op::Command(
            sender,
            Cmd::Basic {
                sa,
                scope,
                ty,
                rk,
                sark,
                all_tg_pt,
                aptpl,
                spec_i_pt,
            },
        )
    }

    /// Steps towards the end of a loss, which chance alone takes seldom: who was recovered registers anew, or is fenced.
    fn on_the_way_out_of_a_loss(&self, random: &mut Random) -> Option<Op> {
        let old: Vec<_> = self.naive.regs.iter().filter(|r| r.old).collect();
        if self.naive.lost != Loss::Each || old.is_empty() || !random.one_in(8) {
            return None;
        }
        let one = old[random.below(old.len() as u64) as usize];
        let same_host = old.iter().all(|r| host(r.who.0) == host(one.who.0));
        let last = same_host && old.len() < self.naive.regs.len();
        if random.one_in(if last { 2 } else { 8 }) {
            return Some(Op::Fence {
                hosts: vec![host(one.who.0)],
                heirs: vec![random.below(4) as u8],
            });
        }
        let sa = if random.one_in(2) { 0 } else { 6 };
        let register = Cmd::Basic {
            sa,
            scope: 0,
            ty: 0,
            rk: one.key,
            sark: 1 + random.below(4),
            all_tg_pt: random.one_in(4),
            aptpl: random.one_in(2),
            spec_i_pt: None,
        };
        Some(Op::Command(one.who, register))
    }

    fn random_nexus(&self, random: &mut Random) -> Nx {
        if !self.naive.regs.is_empty() && random.one_in(2) {
            return self.naive.regs[random.below(self.naive.regs.len() as u64) as usize].who;
        }
        (random.below(4) as u8, PORTS[random.below(3) as usize])
    }
}

fn sorted<T: Ord + Clone>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort();
    list
}
