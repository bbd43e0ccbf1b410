//! Commits, crashes and reboots of the private region, driven by the real reservation machine.

use std::sync::Arc;

use futures_lite::future::block_on;
use reservation::machine::step;
use reservation::{
    Command, InitiatorPort, Key, Lost, LostUntil, Nexus, PersistentReserveOut, RegisterAndMove,
    Registrant, Reservation, ReservationType, ServiceAction, Topology,
};

use super::*;
use crate::device::Device;
use crate::sim::{SimDevice, SimWorld};

const VOLUME: Uuid = Uuid::from_u128(0x1234);
const BOOT: Uuid = Uuid::from_u128(0xb007);

fn world(disks: usize) -> SimWorld {
    let world = SimWorld::default();
    for _ in 0..disks {
        world.add(4 << 20, 4096);
    }
    world
}

fn replicas(world: &SimWorld, disks: usize) -> Vec<Replica<SimDevice>> {
    (0..disks)
        .map(|disk| Replica {
            uuid: Uuid::from_u128(disk as u128 + 1),
            device: Arc::new(Device::new(
                Uuid::from_u128(disk as u128 + 1),
                format!("d{disk}"),
                String::new(),
                world.device(disk),
            )),
            offset_bytes: 1 << 20,
            length_bytes: MIN_REGION_BYTES,
        })
        .collect()
}

fn nexus(number: u64) -> Nexus {
    Nexus {
        initiator: InitiatorPort {
            name: format!("iqn.2026-11.test:{number}").into(),
            isid: [0x80, 0, 0, 0, 0, number as u8],
        },
        target_port: (number % 2 + 1) as u16,
    }
}

/// A random command of one of nine nexuses.
fn command(random: &mut impl FnMut(u64) -> u64) -> (Nexus, Command) {
    let sender = nexus(random(9));
    let key = 1 + random(4);
    if random(12) == 0 {
        let moved = RegisterAndMove {
            reservation_key: key,
            service_action_reservation_key: 1 + random(4),
            unregister: random(2) == 0,
            aptpl: random(2) == 0,
            destination: nexus(random(9)),
        };
        return (sender, Command::RegisterAndMove(moved));
    }
    let action = ServiceAction::ALL[random(8) as usize];
    let out = PersistentReserveOut {
        kind: ReservationType::ALL[random(6) as usize].code(),
        reservation_key: key,
        service_action_reservation_key: random(5),
        all_target_ports: random(4) == 0,
        aptpl: random(2) == 0,
        ..PersistentReserveOut::new(action)
    };
    (sender, Command::PersistentReserveOut(out))
}

fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % bound
    }
}

/// Runs `count` random accepted commands and returns the states, the first one included.
fn history(
    region: &PrivateRegion<SimDevice>,
    world: &SimWorld,
    count: usize,
    seed: u64,
) -> Vec<State> {
    let mut random = random(seed);
    let topology = Topology {
        target_ports: &[1, 2],
        registrant_capacity: REGISTRANT_CAPACITY,
    };
    let mut now = LuReservations::default();
    let mut states = vec![now.persistent.clone()];
    while states.len() <= count {
        let next = if random(20) == 0 {
            let until = if random(3) == 0 {
                LostUntil::Replaced
            } else {
                LostUntil::Registered
            };
            apply(&now, &Event::InformationLost { until })
        } else {
            let (sender, command) = command(&mut random);
            let Ok(next) = step(&now, &topology, &sender, &command) else {
                continue;
            };
            next
        };
        if next.state.persistent == now.persistent {
            continue;
        }
        now = next.state;
        block_on(region.commit(&now.persistent)).unwrap();
        states.push(now.persistent.clone());
        world.mark(states.len() as u64 - 1);
    }
    states
}

#[test]
fn a_crash_in_any_command_leaves_the_last_acknowledged_state_or_the_one_in_flight() {
    let mut points = 0;
    let mut in_flight_found = 0;
    let mut marked = 0;
    for (disks, seed) in [(1, 7), (1, 77), (3, 5)] {
        let world = world(disks);
        let region = block_on(PrivateRegion::create(
            VOLUME,
            replicas(&world, disks),
            BOOT,
            Persist::Aptpl,
        ))
        .unwrap();
        world.record();
        let states = history(&region, &world, if disks == 1 { 60 } else { 25 }, seed);
        marked += states.iter().filter(|state| has_marks(state)).count();
        world.crashes(3, seed, |crash| {
            points += 1;
            let acknowledged = crash.mark.unwrap_or(0) as usize;
            let world = world.with_images(crash.images);
            let open = || {
                block_on(PrivateRegion::open(
                    VOLUME,
                    replicas(&world, disks),
                    BOOT,
                    Persist::Aptpl,
                ))
                .unwrap()
            };
            let found = block_on(open().load()).unwrap();
            if found != states[acknowledged] {
                assert_eq!(Some(&found), states.get(acknowledged + 1), "neither");
                in_flight_found += 1;
            }
            // It stays what it was found to be, and takes commits.
            let region = open();
            assert_eq!(block_on(region.load()).unwrap(), found);
            assert_eq!(block_on(region.read_back()).unwrap().state, found);
            block_on(region.commit(&states[states.len() - 1])).unwrap();
            assert_eq!(block_on(open().load()).unwrap(), states[states.len() - 1]);
        });
    }
    assert!(points > 1000, "{points}");
    assert!(in_flight_found > 10, "{in_flight_found}");
    assert!(marked > 5, "{marked}");
}

/// Some registrations are recovered, and others were made since.
fn has_marks(state: &State) -> bool {
    match &state.lost {
        Some(Lost::UntilRegistered { recovered }) => {
            !recovered.is_empty() && recovered.len() < state.registrants.len()
        }
        _ => false,
    }
}

fn registered(count: u64) -> State {
    State {
        generation: count as u32,
        registrants: (0..count)
            .map(|number| {
                let registrant = Registrant {
                    key: Key(number + 1),
                    all_target_ports: number % 2 == 0,
                };
                (long_nexus(number), registrant)
            })
            .collect(),
        ..State::default()
    }
}

type StateChange = Box<dyn Fn(&mut State)>;

/// The longest names there are.
fn long_nexus(number: u64) -> Nexus {
    Nexus {
        initiator: InitiatorPort {
            name: format!("{number:0>223}").into(),
            isid: [1; 6],
        },
        target_port: u16::MAX,
    }
}

#[test]
fn all_slots_can_be_used_and_one_more_is_refused() {
    let world = world(1);
    block_on(async {
        let region = PrivateRegion::create(VOLUME, replicas(&world, 1), BOOT, Persist::Aptpl)
            .await
            .unwrap();
        let full = registered(REGISTRANT_CAPACITY as u64);
        region.commit(&full).await.unwrap();
        assert!(matches!(
            region
                .commit(&registered(REGISTRANT_CAPACITY as u64 + 1))
                .await,
            Err(PrivateRegionError::Full { .. })
        ));
        let region = PrivateRegion::open(VOLUME, replicas(&world, 1), BOOT, Persist::Aptpl)
            .await
            .unwrap();
        assert_eq!(region.load().await.unwrap(), full);
    });
}

#[test]
fn taking_away_and_reserving_write_the_header_only() {
    let world = world(1);
    block_on(async {
        let region = PrivateRegion::create(VOLUME, replicas(&world, 1), BOOT, Persist::Aptpl)
            .await
            .unwrap();
        let mut state = registered(40);
        region.commit(&state).await.unwrap();
        let reservation = |holder: Option<u64>, kind| {
            Some(Reservation {
                kind,
                holder: holder.map(long_nexus),
            })
        };
        let mut steps: Vec<StateChange> = Vec::new();
        // RESERVE, PREEMPT of the holder and of others, RELEASE, CLEAR.
        steps.push(Box::new(move |state| {
            state.reservation = reservation(Some(3), ReservationType::WriteExclusive);
        }));
        steps.push(Box::new(move |state| {
            state.registrants.remove(&long_nexus(3));
            state.reservation =
                reservation(Some(4), ReservationType::ExclusiveAccessRegistrantsOnly);
        }));
        steps.push(Box::new(|state| {
            state.registrants.retain(|nexus, _| *nexus <= long_nexus(9));
        }));
        steps.push(Box::new(|state| state.reservation = None));
        steps.push(Box::new(|state| state.registrants.clear()));
        for change in steps {
            change(&mut state);
            state.generation += 1;
            world.record();
            region.commit(&state).await.unwrap();
            assert_eq!(world.history(), (2, 1));
        }
        world.record();
        region.commit(&state).await.unwrap();
        assert_eq!(world.history(), (0, 0), "nothing changed");
    });
}

#[test]
fn a_reboot_drops_what_aptpl_does_not_keep() {
    for (aptpl, persist, kept) in [
        (false, Persist::Aptpl, false),
        (true, Persist::Aptpl, true),
        (false, Persist::Always, true),
    ] {
        let world = world(1);
        block_on(async {
            let state = State {
                aptpl,
                ..registered(3)
            };
            let region = PrivateRegion::create(VOLUME, replicas(&world, 1), BOOT, persist)
                .await
                .unwrap();
            region.commit(&state).await.unwrap();
            let open = |boot| PrivateRegion::open(VOLUME, replicas(&world, 1), boot, persist);
            let restarted = open(BOOT).await.unwrap();
            assert_eq!(restarted.load().await.unwrap(), state, "same boot");
            let rebooted = open(Uuid::from_u128(2)).await.unwrap();
            let found = rebooted.load().await.unwrap();
            assert_eq!(found.generation, 0, "SPC-4 6.15.2");
            assert_eq!(!found.registrants.is_empty(), kept);
            // And it is durable: going back to the old boot id does not bring it back.
            let again = open(BOOT).await.unwrap();
            assert_eq!(again.load().await.unwrap(), found);
        });
    }
}

#[test]
fn damage_is_refused_never_served_empty() {
    let world = world(1);
    block_on(async {
        let region = PrivateRegion::create(VOLUME, replicas(&world, 1), BOOT, Persist::Aptpl)
            .await
            .unwrap();
        region.commit(&registered(20)).await.unwrap();
        let healthy = world.image(0);
        let base = 1u64 << 20;
        for (what, offset, length) in [
            ("both headers", 0, 8192),
            ("a page", 8192 + 4096, 512),
            ("everything", 0, MIN_REGION_BYTES as usize),
        ] {
            for byte in [0x00, 0xff] {
                let damaged = world.with_images(vec![healthy.clone()]);
                damaged.overwrite(0, base + offset, &vec![byte; length]);
                let opened =
                    PrivateRegion::open(VOLUME, replicas(&damaged, 1), BOOT, Persist::Aptpl).await;
                assert!(opened.is_err(), "{what} overwritten with {byte}");
            }
        }
        let other = PrivateRegion::open(
            Uuid::from_u128(9),
            replicas(&world, 1),
            BOOT,
            Persist::Aptpl,
        );
        assert!(matches!(
            other.await.err(),
            Some(PrivateRegionError::Store(StoreError::Foreign { .. }))
        ));
    });
}

#[test]
fn a_commit_that_fails_is_settled_by_recover() {
    let world = world(1);
    block_on(async {
        let region = PrivateRegion::create(VOLUME, replicas(&world, 1), BOOT, Persist::Aptpl)
            .await
            .unwrap();
        let state = State {
            generation: 5,
            ..State::default()
        };
        world.fail(0, false, true, false);
        assert!(region.commit(&state).await.is_err());
        assert!(region.load().await.is_err());
        assert!(region.recover().await.is_err(), "the disk still fails");
        world.fail(0, false, false, false);
        assert_eq!(region.recover().await.unwrap(), State::default());
        region.commit(&state).await.unwrap();
        assert_eq!(region.load().await.unwrap(), state);
    });
}

#[test]
fn read_back_tells_each_replica() {
    let world = world(3);
    block_on(async {
        let region = PrivateRegion::create(VOLUME, replicas(&world, 3), BOOT, Persist::Aptpl)
            .await
            .unwrap();
        world.fail(2, false, true, true);
        region.commit(&registered(2)).await.unwrap();
        let back = region.read_back().await.unwrap();
        assert_eq!(back.state, registered(2));
        let says: Vec<(&str, Option<u64>)> = back
            .replicas
            .iter()
            .map(|replica| (&replica.state[..5], replica.sequence))
            .collect();
        assert_eq!(
            says,
            [("curre", Some(2)), ("curre", Some(2)), ("stale", Some(1))]
        );
    });
}

/// Replicas come, are damaged and repaired, and go, with a change of the keys between any two steps; a crash after any write
/// leaves the last acknowledged keys, from every majority of the replicas that count then.
#[test]
fn a_crash_while_replicas_change_leaves_the_acknowledged_keys() {
    let world = world(4);
    block_on(async {
        let all = replicas(&world, 4);
        let region = PrivateRegion::create(VOLUME, vec![all[0].clone()], BOOT, Persist::Aptpl)
            .await
            .unwrap();
        world.record();
        let mut mark = 0;
        for step in 0..8 {
            match step {
                0 => region.add_replica(all[1].clone()).await.unwrap(),
                1 => region.add_replica(all[2].clone()).await.unwrap(),
                2 => region.add_replica(all[1].clone()).await.unwrap(), // once more
                3 => {
                    world.fail(0, false, true, false);
                    region.commit(&registered(40)).await.unwrap();
                    world.fail(0, false, false, false);
                    let stale = region.health().await[0].health.clone();
                    assert_ne!(stale, ReplicaHealth::Current);
                    region.repair(all[0].uuid).await.unwrap();
                }
                4 => {
                    let found = region.verify(true).await.unwrap();
                    assert_eq!(found, []);
                }
                5 => region.remove_replica(all[0].uuid).await.unwrap(),
                6 => region.add_replica(all[3].clone()).await.unwrap(),
                _ => region.remove_replica(all[1].uuid).await.unwrap(),
            }
            mark += 1;
            region.commit(&registered(mark)).await.unwrap();
            world.mark(mark);
        }
        let health = region.health().await;
        let counts: Vec<Uuid> = health.iter().map(|info| info.uuid).collect();
        assert_eq!(counts, [all[2].uuid, all[3].uuid]);
        assert!(
            health
                .iter()
                .all(|info| info.health == ReplicaHealth::Current)
        );
    });
    let mut points = 0;
    world.crashes(2, 11, |crash| {
        points += 1;
        let acknowledged = crash.mark.unwrap_or(0) as usize;
        let world = world.with_images(crash.images);
        block_on(async {
            let region = PrivateRegion::open(VOLUME, replicas(&world, 4), BOOT, Persist::Aptpl)
                .await
                .unwrap();
            let found = region.load().await.unwrap().registrants.len();
            let possible = [acknowledged, acknowledged + 1, 40];
            assert!(possible.contains(&found), "{found} after {acknowledged}");
            let members: Vec<Uuid> = region.health().await.iter().map(|info| info.uuid).collect();
            for left_out in &members {
                let some = replicas(&world, 4)
                    .into_iter()
                    .filter(|replica| members.len() < 3 || replica.uuid != *left_out);
                let again = PrivateRegion::open(VOLUME, some.collect(), BOOT, Persist::Aptpl)
                    .await
                    .unwrap();
                assert_eq!(again.load().await.unwrap().registrants.len(), found);
            }
        });
    });
    assert!(points > 200, "{points} crash points");
}

#[test]
fn a_region_that_is_closed_touches_no_device() {
    let world = world(1);
    block_on(async {
        let region = PrivateRegion::create(VOLUME, replicas(&world, 1), BOOT, Persist::Aptpl)
            .await
            .unwrap();
        region.close().await;
        world.record();
        let closed = |error| matches!(error, PrivateRegionError::Closed);
        assert!(closed(region.commit(&registered(1)).await.unwrap_err()));
        assert!(closed(region.recover().await.unwrap_err()));
        assert!(closed(region.repair(Uuid::from_u128(1)).await.unwrap_err()));
        assert!(closed(region.load().await.unwrap_err()));
        assert_eq!(world.history(), (0, 0));
    });
}

#[test]
fn the_health_of_replicas_is_told_while_a_commit_hangs() {
    let world = world(3);
    world.run(async {
        let all = replicas(&world, 3);
        let device = all[0].device.clone();
        let region = PrivateRegion::create(VOLUME, all, BOOT, Persist::Aptpl)
            .await
            .unwrap();
        let region = std::rc::Rc::new(region);
        world.hang(1);
        world.hang(2);
        let committing = region.clone();
        let commit = crate::sim::spawn(async move { committing.commit(&registered(1)).await });
        device.sleep(std::time::Duration::from_secs(60)).await;
        assert!(!commit.is_done());
        assert_eq!(region.health().await.len(), 3);
        assert_eq!(region.is_unsettled(), None);
        world.resume(1);
        commit.await.unwrap();
        let health = region.health().await;
        let stale = |info: &&ReplicaInfo| info.health != ReplicaHealth::Current;
        let stale: Vec<Uuid> = health.iter().filter(stale).map(|info| info.uuid).collect();
        assert_eq!(stale, [Uuid::from_u128(3)]);
        assert_eq!(region.is_unsettled(), Some(false));
    });
}

/// Nine registrants, over two pages, of which two have registered since.
fn partly_recovered() -> State {
    let state = registered(9);
    let recovered = state.registrants.keys().skip(2).cloned().collect();
    State {
        aptpl: true,
        lost: Some(Lost::UntilRegistered { recovered }),
        ..state
    }
}

#[test]
fn marks_without_the_condition_are_refused_and_the_condition_without_marks_is_the_strict_one() {
    let decode = |state: &State, lost| {
        let (table, dirty) = Table::default().with(state).unwrap();
        let mut record = table.record(BOOT, false);
        record.lost = lost;
        let (used, pages): (Vec<u32>, Vec<Bytes>) = table
            .pages(VOLUME, &dirty)
            .into_iter()
            .map(|(page, change)| match change {
                crate::page_store::PageChange::Write(bytes) => (page, bytes),
                crate::page_store::PageChange::Free => panic!("nothing is freed"),
            })
            .unzip();
        Table::decode(VOLUME, &record.encode(), &used, &pages).map(|table| table.state().clone())
    };
    let marked = partly_recovered();
    let (registered_anew, replaced) = (Some(LostUntil::Registered), Some(LostUntil::Replaced));
    assert_eq!(decode(&marked, registered_anew).unwrap(), marked);
    assert!(decode(&marked, replaced).is_err());
    assert!(decode(&marked, None).is_err());
    // As written before there were marks.
    let strict = State {
        lost: Some(Lost::UntilReplaced),
        ..registered(9)
    };
    assert_eq!(decode(&registered(9), replaced).unwrap(), strict);
    assert!(
        decode(&registered(9), registered_anew).is_err(),
        "it is over"
    );
}

/// Lost twice: what had registered anew after the first time counts as recovered, or waits for REPLACE LOST RESERVATION
/// like everybody.
#[test]
fn going_on_from_a_copy_marks_everything_in_it() {
    for until in [LostUntil::Registered, LostUntil::Replaced] {
        let world = world(2);
        block_on(async {
            let both = replicas(&world, 2);
            let region = PrivateRegion::create(VOLUME, both[..1].into(), BOOT, Persist::Aptpl);
            let state = partly_recovered();
            region.await.unwrap().commit(&state).await.unwrap();
            let said = PrivateRegion::inspect(VOLUME, &both[..1]).await.unwrap();
            let token = said.versions[0].token;
            let (from, targets) = (both[0].uuid, both[1..].to_vec());
            PrivateRegion::recover_from(VOLUME, &both[..1], from, token, until, targets)
                .await
                .unwrap();
            let open = |boot| {
                let target = replicas(&world, 2).split_off(1);
                PrivateRegion::open(VOLUME, target, boot, Persist::Aptpl)
            };
            let lost = match until {
                LostUntil::Replaced => Lost::UntilReplaced,
                LostUntil::Registered => Lost::UntilRegistered {
                    recovered: state.registrants.keys().cloned().collect(),
                },
            };
            let mut expected = State {
                lost: Some(lost),
                ..state
            };
            assert_eq!(open(BOOT).await.unwrap().load().await.unwrap(), expected);
            // With APTPL a reboot keeps the registrations, and the marks with them.
            expected.generation = 0;
            let rebooted = open(Uuid::from_u128(2)).await.unwrap();
            assert_eq!(rebooted.load().await.unwrap(), expected);
        });
    }
}
