//! Promise 1 over the volumes of a domain: when the fence of a member is answered for all of them, nothing of it lands on any.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use uuid::Uuid;

use super::copying::list;
use super::domains::{names, order};
use super::reserving::{pr_out_cdb, register};
use super::stress::{attach, write_somehow};
use super::*;

use scsi::cdb::PersistentReserveOutAction as Action;
use scsi::pr::BasicParameters;

const VOLUMES: usize = 6;
const THREADS: usize = 3;
const ROUNDS: usize = 12;

async fn volumes(world: &World, count: usize) -> Vec<Uuid> {
    for number in 1..count {
        world
            .add_volume(&format!("v{number}"), BlockSize::B512)
            .await;
    }
    let volumes = (0..count).map(|number| world.volume_uuid(&format!("v{number}")));
    volumes.collect()
}

async fn register_on(by: &Initiator, lun: u16, key: u64) {
    let parameters = BasicParameters {
        service_action_reservation_key: key,
        ..BasicParameters::default()
    }
    .encode();
    let cdb = pr_out_cdb(Action::RegisterAndIgnoreExistingKey, 0, &parameters);
    while by.send_to(lun, cdb, &parameters).await.status != Status::Good {}
}

#[test]
fn after_the_answer_nothing_of_the_member_lands_on_any_volume() {
    let world = run(World::new());
    let volumes = run(volumes(&world, VOLUMES));
    let copy_list = list(&world, &[0, 1], &[(0, 0, 1, 512, 8), (1, 0, 0, 512, 8)]);
    let survivor = run(world.initiator("survivor"));
    for lun in 0..VOLUMES as u16 {
        run(register_on(&survivor, lun, 1));
    }
    world.device.dawdle.store(true, SeqCst);
    for round in 0..ROUNDS {
        let first = attach(&world, "victim").session;
        for lun in 0..VOLUMES as u16 {
            let victim = Initiator {
                session: first.clone(),
                next_tag: Cell::new(1 + 100 * u32::from(lun)),
            };
            run(register_on(&victim, lun, 2));
        }
        let (stop, written) = (AtomicBool::new(false), AtomicBool::new(false));
        let at_answer = thread::scope(|scope| {
            for number in 0..THREADS {
                let (session, stop, written) = (first.clone(), &stop, &written);
                let copy_list = &copy_list;
                scope.spawn(move || {
                    let by = Initiator {
                        session,
                        next_tag: Cell::new(10_000 * (number as u32 + 1)),
                    };
                    run(async {
                        let mut turn = number;
                        while !stop.load(SeqCst) {
                            turn += 1;
                            let lun = (turn % VOLUMES) as u16;
                            let cdb = write(1024 + turn as u64 % 64, 1).encode();
                            by.raw(lun, &cdb, &[0xbb; 512]).await;
                            write_somehow(&by, copy_list, turn, 2048).await;
                            // Nor does it get back in.
                            let parameters = BasicParameters {
                                service_action_reservation_key: 2,
                                ..BasicParameters::default()
                            }
                            .encode();
                            let action = Action::RegisterAndIgnoreExistingKey;
                            let cdb = pr_out_cdb(action, 0, &parameters).encode();
                            by.raw(lun, &cdb, &parameters).await;
                            written.store(true, SeqCst);
                        }
                    });
                });
            }
            while !written.load(SeqCst) {
                thread::yield_now();
            }
            // From now on only the victim writes, but for private regions.
            let results = run(world
                .target
                .fence_all(&volumes, &order(&["victim"], &["survivor"])));
            for (volume, result) in results {
                assert!(result.is_ok(), "{volume}: {result:?}");
            }
            let at_answer = (world.device.blocks(0xbb), world.device.landed());
            for _ in 0..50 {
                thread::yield_now();
            }
            stop.store(true, SeqCst);
            at_answer
        });
        assert_eq!(
            at_answer,
            (world.device.blocks(0xbb), world.device.landed()),
            "round {round}"
        );
        for lun in 0..VOLUMES as u16 {
            let unit = world.target.logical_unit(lun).unwrap();
            assert_eq!(unit.registered_initiators(), Some(names(&["survivor"])));
            assert_eq!(unit.in_flight(), 0);
        }
        run(first.detach(DetachReason::NexusLoss));
        run(world.target.unfence(&volumes, &names(&["victim"])));
    }
    assert!(
        world.device.blocks(0xbb) >= ROUNDS,
        "the victim has been writing"
    );
}

#[test]
#[ignore = "a measurement: cargo test --release -p target -- --ignored thousand --nocapture"]
fn a_thousand_volumes() {
    let world = run(World::on(TestDevice::new(16 << 30)));
    let volumes = run(volumes(&world, 1000));
    let (a, b) = (run(world.initiator("a")), run(world.initiator("b")));
    run(register(&a, 1));
    for lun in 0..volumes.len() as u16 {
        run(register_on(&a, lun, 1));
        run(register_on(&b, lun, 2));
    }
    let flushes = world.device.flush_count();
    let begin = Instant::now();
    let results = run(world.target.fence_all(&volumes, &order(&["b"], &["a"])));
    let took = begin.elapsed();
    assert!(results.iter().all(|(_, result)| result.is_ok()));
    let flushes = world.device.flush_count() - flushes;
    println!(
        "{} volumes fenced in {took:?} with {flushes} flushes",
        volumes.len()
    );
}
