//! State × command. Every situation has the same people, on target port 1 of 1 and 2:
//!
//! - S, the sender, with key 1 where it is registered;
//! - T, a twin that is registered with S's key 1, as the second path of one host is;
//! - H, registered with key 2, the holder where it is not S or everybody;
//! - O, a bystander, registered with key 3.
//!
//! A line says what S's command comes to: the answer, and where it is GOOD what changed. `res` is the reservation
//! afterwards, `reg` the registrations, `gen` how PRGENERATION moved, `UA` the unit attentions, `abort` whose commands
//! are aborted, `cut` who lost access to the medium (`others`: everyone who is not registered).

use std::fmt::Write as _;

use reservation::machine::{self, Step};
use reservation::{
    Command, InitiatorPort, Key, Lost, LuReservations, Nexus, PersistentReserveOut,
    RegisterAndMove, Registrant, Reject, Reservation, ReservationType, ServiceAction, State,
    Topology,
};

const TOPOLOGY: Topology<'_> = Topology {
    target_ports: &[1, 2],
    registrant_capacity: 1024,
};

fn initiator(name: &str) -> InitiatorPort {
    InitiatorPort {
        name: name.into(),
        isid: [0; 6],
    }
}

fn nexus(name: &str) -> Nexus {
    Nexus {
        initiator: initiator(name),
        target_port: 1,
    }
}

/// A nexus for reading: `S`, or `S@2` through target port 2.
fn short(nexus: &Nexus) -> String {
    match nexus.target_port {
        1 => nexus.initiator.name.to_string(),
        port => format!("{}@{port}", nexus.initiator.name),
    }
}

fn short_type(kind: ReservationType) -> &'static str {
    match kind {
        ReservationType::WriteExclusive => "WE",
        ReservationType::ExclusiveAccess => "EA",
        ReservationType::WriteExclusiveRegistrantsOnly => "WE-RO",
        ReservationType::ExclusiveAccessRegistrantsOnly => "EA-RO",
        ReservationType::WriteExclusiveAllRegistrants => "WE-AR",
        ReservationType::ExclusiveAccessAllRegistrants => "EA-AR",
    }
}

/// The states in which commands are tried, each with a name.
fn situations() -> Vec<(String, LuReservations)> {
    let state = |sender_registered: bool, reservation: Option<Reservation>| {
        let registrant = |key| Registrant {
            key: Key(key),
            all_target_ports: false,
        };
        let mut registrants: std::collections::BTreeMap<_, _> = [("T", 1), ("H", 2), ("O", 3)]
            .map(|(name, key)| (nexus(name), registrant(key)))
            .into();
        if sender_registered {
            registrants.insert(nexus("S"), registrant(1));
        }
        LuReservations::from(State {
            registrants,
            reservation,
            ..State::default()
        })
    };
    let mut all = vec![
        ("nobody registered".to_owned(), LuReservations::default()),
        (
            "no reservation, S not registered".to_owned(),
            state(false, None),
        ),
        ("no reservation, S registered".to_owned(), state(true, None)),
    ];
    for kind in ReservationType::ALL {
        let name = short_type(kind);
        let mut add = |who: &str, registered, holder: Option<&str>| {
            let reservation = Reservation {
                kind,
                holder: holder.map(nexus),
            };
            all.push((
                format!("{name} {who}"),
                state(registered, Some(reservation)),
            ));
        };
        if kind.is_all_registrants() {
            add("of all, S not registered", false, None);
            add("of all, S registered", true, None);
        } else {
            add("of H, S not registered", false, Some("H"));
            add("of H, S registered", true, Some("H"));
            add("of T, S registered", true, Some("T"));
            add("of S", true, Some("S"));
        }
    }
    let scsi2 = |name| LuReservations {
        scsi2: Some(nexus(name)),
        ..LuReservations::default()
    };
    all.push(("RESERVE of S".to_owned(), scsi2("S")));
    all.push(("RESERVE of X".to_owned(), scsi2("X")));
    let mut lost = state(true, None);
    lost.persistent.lost = Some(Lost::UntilReplaced);
    all.push(("lost, S registered".to_owned(), lost));
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    let of_h = Reservation {
        kind,
        holder: Some(nexus("H")),
    };
    let mut until_registered = |who: &str, registered, recovered: &[&str]| {
        let mut lost = state(registered, Some(of_h.clone()));
        lost.persistent.lost = Some(Lost::UntilRegistered {
            recovered: recovered.iter().map(|name| nexus(name)).collect(),
        });
        all.push((format!("lost, {who}, WE-RO of H"), lost));
    };
    until_registered("S not registered", false, &["H"]);
    until_registered("S recovered", true, &["S", "H"]);
    until_registered("S anew", true, &["H"]);
    let mut nothing = LuReservations::default();
    nothing.persistent.lost = Some(Lost::UntilRegistered {
        recovered: [].into(),
    });
    all.push(("lost, nobody registered".to_owned(), nothing));
    all
}

fn outcome(lu: &LuReservations, command: &Command) -> String {
    let before = &lu.persistent;
    let Step { state, effects } = match machine::step(lu, &TOPOLOGY, &nexus("S"), command) {
        Ok(step) => step,
        Err(Reject::ReservationConflict) => return "RESERVATION CONFLICT".into(),
        Err(reject) => {
            let sense = reject.sense().expect("not a conflict");
            let field = match reject {
                Reject::InvalidFieldInCdb(field) => format!(" {field:?}"),
                Reject::InvalidFieldInParameterList(field) => format!(" {field:?}"),
                _ => String::new(),
            };
            return format!(
                "CHECK {:X}h {:02X}h/{:02X}h{field}",
                sense.sense_key, sense.asc, sense.ascq
            );
        }
    };
    let mut text = String::from("GOOD");
    let after = &state.persistent;
    if after.reservation != before.reservation {
        match &after.reservation {
            None => text += "; res none",
            Some(Reservation { kind, holder }) => {
                let holder = holder.as_ref().map_or_else(|| "all".into(), short);
                let _ = write!(text, "; res {} of {holder}", short_type(*kind));
            }
        }
    }
    if after.registrants != before.registrants {
        text += "; reg";
        for (nexus, registrant) in &after.registrants {
            let _ = write!(text, " {}:{:x}", short(nexus), registrant.key.0);
        }
        if after.registrants.is_empty() {
            text += " none";
        }
    }
    if after.generation != before.generation {
        let _ = write!(
            text,
            "; gen +{}",
            after.generation.wrapping_sub(before.generation)
        );
    }
    for (changed, words) in [
        (after.aptpl != before.aptpl, "APTPL"),
        (
            after.lost.is_some() && after.lost != before.lost,
            "less recovered",
        ),
        (
            after.lost.is_none() && before.lost.is_some(),
            "no longer lost",
        ),
        (
            state.scsi2 != lu.scsi2,
            if state.scsi2.is_some() {
                "SCSI-2 reserved"
            } else {
                "SCSI-2 released"
            },
        ),
    ] {
        if changed {
            let _ = write!(text, "; {words}");
        }
    }
    if !effects.unit_attentions.is_empty() {
        text += "; UA";
        for (nexus, attention) in &effects.unit_attentions {
            let (asc, ascq) = attention.asc_ascq();
            let _ = write!(text, " {}:{asc:02X}h/{ascq:02X}h", short(nexus));
        }
    }
    if !effects.abort.is_empty() {
        let _ = write!(
            text,
            "; abort {}",
            effects
                .abort
                .iter()
                .map(short)
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
    if !effects.narrowed.is_empty() {
        let mut cut: Vec<_> = effects.narrowed.named.iter().map(short).collect();
        if effects.narrowed.all_others {
            cut.push("others".into());
        }
        let _ = write!(text, "; cut {}", cut.join(" "));
    }
    text
}

/// A table for each command: a line for each situation, neighbours with the same outcome together.
fn table(commands: &[(&str, Command)]) -> String {
    let situations = situations();
    let mut text = String::new();
    for (name, command) in commands {
        let _ = writeln!(text, "== {name}");
        for (situation, lu) in &situations {
            let _ = writeln!(text, "{situation:34} {}", outcome(lu, command));
        }
        text.push('\n');
    }
    text
}

fn out(service_action: ServiceAction, change: impl FnOnce(&mut PersistentReserveOut)) -> Command {
    let mut command = PersistentReserveOut::new(service_action);
    command.reservation_key = 1;
    command.kind = 5;
    change(&mut command);
    Command::PersistentReserveOut(command)
}

#[test]
fn register() {
    use ServiceAction::Register;
    let register = |rk, sark| {
        out(Register, |c| {
            c.reservation_key = rk;
            c.service_action_reservation_key = sark;
        })
    };
    crate::assert_table(
        "register",
        &table(&[
            ("REGISTER 0 -> 0", register(0, 0)),
            ("REGISTER 0 -> 5", register(0, 5)),
            ("REGISTER 1 -> 5", register(1, 5)),
            ("REGISTER 1 -> 0", register(1, 0)),
            ("REGISTER 9 -> 5 (wrong key)", register(9, 5)),
            (
                "REGISTER 0 -> 5, ALL_TG_PT, APTPL",
                out(Register, |c| {
                    c.reservation_key = 0;
                    c.service_action_reservation_key = 5;
                    c.all_target_ports = true;
                    c.aptpl = true;
                }),
            ),
            (
                "REGISTER 0 -> 5, SPEC_I_PT N",
                out(Register, |c| {
                    c.reservation_key = 0;
                    c.service_action_reservation_key = 5;
                    c.specified_initiator_ports = Some(vec![initiator("N")]);
                }),
            ),
            (
                "REGISTER 0 -> 5, SPEC_I_PT N O",
                out(Register, |c| {
                    c.reservation_key = 0;
                    c.service_action_reservation_key = 5;
                    c.specified_initiator_ports = Some(vec![initiator("N"), initiator("O")]);
                }),
            ),
            (
                "REGISTER 1 -> 5, SPEC_I_PT N",
                out(Register, |c| {
                    c.service_action_reservation_key = 5;
                    c.specified_initiator_ports = Some(vec![initiator("N")]);
                }),
            ),
        ]),
    );
}

#[test]
fn register_and_ignore_existing_key() {
    let register = |sark, ports: Option<Vec<InitiatorPort>>| {
        out(ServiceAction::RegisterAndIgnoreExistingKey, |c| {
            c.reservation_key = 9;
            c.service_action_reservation_key = sark;
            c.specified_initiator_ports = ports;
        })
    };
    crate::assert_table(
        "register_and_ignore_existing_key",
        &table(&[
            ("REGISTER AND IGNORE EXISTING KEY -> 5", register(5, None)),
            ("REGISTER AND IGNORE EXISTING KEY -> 0", register(0, None)),
            (
                "REGISTER AND IGNORE EXISTING KEY -> 5, SPEC_I_PT N",
                register(5, Some(vec![initiator("N")])),
            ),
        ]),
    );
}

#[test]
fn reserve() {
    let reserve = |rk, scope, kind| {
        out(ServiceAction::Reserve, |c| {
            c.reservation_key = rk;
            c.scope = scope;
            c.kind = kind;
        })
    };
    crate::assert_table(
        "reserve",
        &table(&[
            ("RESERVE WE", reserve(1, 0, 1)),
            ("RESERVE EA-RO", reserve(1, 0, 6)),
            ("RESERVE EA-AR", reserve(1, 0, 8)),
            ("RESERVE, wrong key", reserve(9, 0, 1)),
            ("RESERVE, TYPE 4", reserve(1, 0, 4)),
            ("RESERVE WE, SCOPE 2", reserve(1, 2, 1)),
        ]),
    );
}

#[test]
fn release() {
    let release = |rk, scope, kind| {
        out(ServiceAction::Release, |c| {
            c.reservation_key = rk;
            c.scope = scope;
            c.kind = kind;
        })
    };
    crate::assert_table(
        "release",
        &table(&[
            ("RELEASE WE", release(1, 0, 1)),
            ("RELEASE WE-RO", release(1, 0, 5)),
            ("RELEASE EA-AR", release(1, 0, 8)),
            ("RELEASE WE, SCOPE 2", release(1, 2, 1)),
            ("RELEASE, wrong key", release(9, 0, 1)),
        ]),
    );
}

#[test]
fn clear() {
    let clear = |rk| out(ServiceAction::Clear, |c| c.reservation_key = rk);
    crate::assert_table(
        "clear",
        &table(&[("CLEAR", clear(1)), ("CLEAR, wrong key", clear(9))]),
    );
}

#[test]
fn preempt() {
    let preempt = |sark, kind| {
        out(ServiceAction::Preempt, |c| {
            c.service_action_reservation_key = sark;
            c.kind = kind;
        })
    };
    crate::assert_table(
        "preempt",
        &table(&[
            ("PREEMPT 2 (H), WE-RO", preempt(2, 5)),
            ("PREEMPT 2 (H), TYPE 0", preempt(2, 0)),
            ("PREEMPT 3 (O), TYPE 0", preempt(3, 0)),
            ("PREEMPT 1 (own key, and T's), WE-RO", preempt(1, 5)),
            ("PREEMPT 0, EA", preempt(0, 3)),
            ("PREEMPT 9 (nobody), WE-RO", preempt(9, 5)),
            (
                "PREEMPT 2 (H), wrong key",
                out(ServiceAction::Preempt, |c| {
                    c.reservation_key = 9;
                    c.service_action_reservation_key = 2;
                }),
            ),
        ]),
    );
}

#[test]
fn preempt_and_abort() {
    let preempt = |sark| {
        out(ServiceAction::PreemptAndAbort, |c| {
            c.service_action_reservation_key = sark
        })
    };
    crate::assert_table(
        "preempt_and_abort",
        &table(&[
            ("PREEMPT AND ABORT 2 (H), WE-RO", preempt(2)),
            ("PREEMPT AND ABORT 3 (O), WE-RO", preempt(3)),
            ("PREEMPT AND ABORT 1 (own key, and T's), WE-RO", preempt(1)),
            ("PREEMPT AND ABORT 0, WE-RO", preempt(0)),
        ]),
    );
}

#[test]
fn register_and_move() {
    let register_and_move = |rk, sark, unregister, name: &str, target_port| {
        Command::RegisterAndMove(RegisterAndMove {
            reservation_key: rk,
            service_action_reservation_key: sark,
            unregister,
            aptpl: false,
            destination: Nexus {
                initiator: initiator(name),
                target_port,
            },
        })
    };
    crate::assert_table(
        "register_and_move",
        &table(&[
            (
                "REGISTER AND MOVE to N with 5",
                register_and_move(1, 5, false, "N", 2),
            ),
            (
                "REGISTER AND MOVE to O with 5, UNREG",
                register_and_move(1, 5, true, "O", 1),
            ),
            (
                "REGISTER AND MOVE to N with 0",
                register_and_move(1, 0, false, "N", 1),
            ),
            (
                "REGISTER AND MOVE to S itself",
                register_and_move(1, 5, false, "S", 1),
            ),
            (
                "REGISTER AND MOVE to S through another port",
                register_and_move(1, 5, false, "S", 2),
            ),
            (
                "REGISTER AND MOVE to N through no port",
                register_and_move(1, 5, false, "N", 9),
            ),
            (
                "REGISTER AND MOVE to N, wrong key",
                register_and_move(9, 5, false, "N", 1),
            ),
        ]),
    );
}

#[test]
fn replace_lost_reservation() {
    let replace = |rk, sark, kind| {
        out(ServiceAction::ReplaceLostReservation, |c| {
            c.reservation_key = rk;
            c.service_action_reservation_key = sark;
            c.kind = kind;
            c.aptpl = true;
        })
    };
    crate::assert_table(
        "replace_lost_reservation",
        &table(&[
            ("REPLACE LOST RESERVATION 5, WE, APTPL", replace(0, 5, 1)),
            ("REPLACE LOST RESERVATION 5, EA-AR, APTPL", replace(0, 5, 8)),
            ("REPLACE LOST RESERVATION 0", replace(0, 0, 1)),
            (
                "REPLACE LOST RESERVATION with a reservation key",
                replace(1, 5, 1),
            ),
        ]),
    );
}

#[test]
fn scsi2_reserve_and_release() {
    crate::assert_table(
        "scsi2_reserve_and_release",
        &table(&[
            ("RESERVE(6)", Command::Reserve),
            ("RELEASE(6)", Command::Release),
        ]),
    );
}
