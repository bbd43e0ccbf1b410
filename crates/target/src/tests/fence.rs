//! Promise 1: persist, publish, drain, answer.

use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;

use futures_lite::future::zip;
use scsi::cdb::PersistentReserveOutAction as Action;
use scsi::sam::TaskManagementFunction;

use super::reserving::{keys, pr, pr_out, register};
use super::*;

/// Two registrants under Write Exclusive for registrants, held by `a`.
async fn cluster(world: &World) -> (Initiator, Initiator) {
    let (a, b) = (world.initiator("a").await, world.initiator("b").await);
    register(&a, 1).await;
    register(&b, 2).await;
    pr(&a, Action::Reserve, 5, 1, 0).await;
    (a, b)
}

fn task_aborted() -> Outcome {
    Outcome::Response(Response::status(Status::TaskAborted))
}

/// The blocks that landed with this first byte.
fn landed(world: &World, tag: u8) -> usize {
    world.device.blocks(tag)
}

#[test]
fn the_answer_waits_for_the_writes_of_the_victim() {
    run(async {
        let world = World::new().await;
        let (a, b) = cluster(&world).await;
        let slow = write(0, 1);
        let data = [0xbb; 512];
        // The write is admitted and hangs in the device. The device then lets others pass.
        world.device.writes.close();
        let mut victim = pin!(b.send(slow, &data));
        assert!(stuck(victim.as_mut()).await);
        assert_eq!(world.device.writes.waiting(), 1);
        // Only flushes of the private region matter from here; its writes must pass, the victim's must not.
        world.device.writes.hold_those_waiting();
        let mut preempt = pin!(pr_out(&a, Action::Preempt, 5, 1, 2));
        assert!(
            stuck(preempt.as_mut()).await,
            "answered before the victim's write landed"
        );
        assert_eq!(landed(&world, 0xbb), 0);
        // The new state is already in force for everything new, and durable.
        b.settle().await;
        b.conflicts(write(8, 1), &[0xcc; 512]).await;
        let volume = world.pool.volume("v0").unwrap();
        let stored = volume.private_region().unwrap().load().await.unwrap();
        assert_eq!(stored.registrants.len(), 1);
        world.device.writes.open();
        let at_answer = async {
            let response = preempt.await;
            (response.status, landed(&world, 0xbb))
        };
        let ((status, landed_at_answer), victim) = zip(at_answer, victim).await;
        assert_eq!(status, Status::Good);
        assert_eq!(landed_at_answer, 1, "landed before the answer");
        assert_eq!(victim.status, Status::Good);
        assert_eq!(landed(&world, 0xcc), 0);
    });
}

#[test]
fn no_change_is_published_before_it_is_durable() {
    run(async {
        let world = World::new().await;
        let (a, b) = cluster(&world).await;
        world.device.flushes.close();
        let mut preempt = pin!(pr_out(&a, Action::Preempt, 5, 1, 2));
        assert!(stuck(preempt.as_mut()).await);
        assert!(world.device.flushes.waiting() > 0);
        b.good(write(0, 1), &[1; 512]).await;
        assert_eq!(keys(&b).await.1, [1, 2]);
        world.device.flushes.open();
        assert_eq!(preempt.await.status, Status::Good);
        b.settle().await;
        b.conflicts(write(0, 1), &[1; 512]).await;
    });
}

#[test]
fn what_a_change_gives_is_published_after_the_drain() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&a, 1).await;
        register(&b, 2).await;
        // b holds exclusively; a takes over and must not write before b's write has landed.
        pr(&b, Action::Reserve, 3, 2, 0).await;
        world.device.writes.close();
        let mut victim = pin!(b.send(write(0, 1), &[0xbb; 512]));
        assert!(stuck(victim.as_mut()).await);
        world.device.writes.hold_those_waiting();
        let mut preempt = pin!(pr_out(&a, Action::Preempt, 3, 1, 2));
        assert!(stuck(preempt.as_mut()).await);
        a.conflicts(write(0, 1), &[0xaa; 512]).await;
        world.device.writes.open();
        let (response, _) = zip(preempt, victim).await;
        assert_eq!(response.status, Status::Good);
        a.good(write(0, 1), &[0xaa; 512]).await;
        let log: Vec<u8> = world.device.log().iter().map(|write| write.tag).collect();
        let at = |tag| log.iter().rposition(|landed| *landed == tag).unwrap();
        assert!(at(0xbb) < at(0xaa));
    });
}

#[test]
fn who_is_told_of_a_release_may_use_it() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let c = world.initiator("c").await;
        for (who, key) in [(&a, 1), (&b, 2), (&c, 3)] {
            register(who, key).await;
        }
        pr(&b, Action::Reserve, 3, 2, 0).await;
        world.device.writes.close();
        let mut victim = pin!(b.send(write(0, 1), &[0xbb; 512]));
        assert!(stuck(victim.as_mut()).await);
        world.device.writes.hold_those_waiting();
        let mut preempt = pin!(pr_out(&a, Action::Preempt, 5, 1, 2));
        assert!(stuck(preempt.as_mut()).await);
        c.conflicts(write(0, 1), &[0xcc; 512]).await;
        world.device.writes.open();
        let (preempt, _) = zip(preempt, victim).await;
        assert_eq!(preempt.status, Status::Good);
        assert_eq!(c.settle().await, [AdditionalSense::RESERVATIONS_RELEASED]);
        c.good(write(0, 1), &[0xcc; 512]).await;
    });
}

#[test]
fn the_next_part_of_a_long_write_does_not_start_after_a_preempt() {
    run(async {
        let world = World::new().await;
        let (a, b) = cluster(&world).await;
        world.device.writes.close();
        let data = vec![0xbb; 4 << 20];
        let mut victim = pin!(b.send(write(0, 8192), &data));
        assert!(stuck(victim.as_mut()).await);
        world.device.writes.hold_those_waiting();
        let mut preempt = pin!(pr_out(&a, Action::Preempt, 5, 1, 2));
        assert!(stuck(preempt.as_mut()).await);
        world.device.writes.open();
        let (victim, preempt) = zip(victim, preempt).await;
        assert_eq!(victim.status, Status::ReservationConflict);
        assert_eq!(preempt.status, Status::Good);
        let log = world.device.log();
        let landed: usize = log.iter().filter(|w| w.tag == 0xbb).map(|w| w.length).sum();
        assert_eq!(landed, 1 << 20, "the part in flight and no other");
    });
}

#[test]
fn data_that_comes_after_a_preempt_is_not_written() {
    run(async {
        let world = World::new().await;
        let (a, b) = cluster(&world).await;
        let task = b
            .submit(0, &write(0, 1).encode(), 512, TaskAttribute::Simple)
            .unwrap();
        assert_eq!(task.data_out_bytes(), 512);
        pr(&a, Action::Preempt, 5, 1, 2).await;
        let outcome = task.execute(BytesMut::from(&[0xbb; 512][..])).await;
        let Outcome::Response(response) = outcome else {
            panic!()
        };
        assert_eq!(response.status, Status::ReservationConflict);
        assert_eq!(landed(&world, 0xbb), 0);
    });
}

#[test]
fn preempt_and_abort_ends_the_tasks_as_tas_says() {
    for tas in [false, true] {
        run(async {
            let world = World::new().await;
            let (a, b) = cluster(&world).await;
            if !tas {
                super::blocks::set_control(&a, 0, 0).await;
                b.settle().await;
            }
            let task = b
                .submit(0, &write(0, 1).encode(), 512, TaskAttribute::Simple)
                .unwrap();
            let listener = b.session.abort_event().listen();
            pr(&a, Action::PreemptAndAbort, 5, 1, 2).await;
            listener.await;
            assert!(task.is_aborted());
            let expected = match tas {
                true => task_aborted(),
                false => Outcome::Aborted,
            };
            assert_eq!(task.execute(BytesMut::new()).await, expected);
            let mut told = b.settle().await;
            assert_eq!(told.pop(), Some(AdditionalSense::REGISTRATIONS_PREEMPTED));
            let cleared = AdditionalSense::COMMANDS_CLEARED_BY_ANOTHER_INITIATOR;
            assert_eq!(told, if tas { vec![] } else { vec![cleared] });
        });
    }
}

#[test]
fn a_reduced_grant_is_answered_when_writes_have_ended() {
    for access in [Access::Ro, Access::None] {
        run(async {
            let world = World::new().await;
            let a = world.initiator("a").await;
            world.device.writes.close();
            let mut victim = pin!(a.send(write(0, 1), &[0xbb; 512]));
            assert!(stuck(victim.as_mut()).await);
            world.device.writes.hold_those_waiting();
            let mut grant = pin!(world.grant("v0", "iqn.2026-11.test:a", access));
            assert!(stuck(grant.as_mut()).await);
            let status = a.send(write(0, 1), &[0xcc; 512]).await.status;
            assert_eq!(status, Status::CheckCondition);
            world.device.writes.open();
            let at_answer = async {
                grant.await;
                landed(&world, 0xbb)
            };
            assert_eq!(zip(at_answer, victim).await.0, 1);
            assert_eq!(landed(&world, 0xcc), 0);
        });
    }
}

#[test]
fn a_reset_waits_for_the_writes_it_aborts() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        world.device.writes.close();
        let cdb = write(0, 1).encode();
        let mut victim = pin!(b.raw(0, &cdb, &[0xbb; 512]));
        assert!(stuck(victim.as_mut()).await);
        let function = TaskManagementFunction::LogicalUnitReset;
        let mut reset = pin!(a.session.task_management(function, lun_field(0), 0));
        assert!(stuck(reset.as_mut()).await);
        world.device.writes.open();
        let at_answer = async {
            reset.await;
            landed(&world, 0xbb)
        };
        assert_eq!(zip(at_answer, victim).await, (1, task_aborted()));
    });
}

#[test]
fn a_session_is_detached_when_its_writes_have_ended() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        world.device.writes.close();
        let cdb = write(0, 1).encode();
        let mut victim = pin!(a.raw(0, &cdb, &[0xbb; 512]));
        assert!(stuck(victim.as_mut()).await);
        let mut detach = pin!(a.session.detach(DetachReason::NexusLoss));
        assert!(stuck(detach.as_mut()).await);
        let again = world.target.attach(nexus("a"), "192.0.2.2:1");
        let Err(AttachError::InUse(old)) = again else {
            panic!()
        };
        assert!(old.stop_requested());
        world.device.writes.open();
        let at_end = async {
            detach.await;
            old.detached().await;
            landed(&world, 0xbb)
        };
        assert_eq!(zip(at_end, victim).await, (1, Outcome::Aborted));
        assert!(world.target.attach(nexus("a"), "192.0.2.2:1").is_ok());
    });
}

#[test]
fn a_commit_that_fails_publishes_nothing_and_serves_on_when_the_old_state_is_sure() {
    run(async {
        let world = World::new().await;
        let (a, b) = cluster(&world).await;
        world.device.fail_writes.store(true, SeqCst);
        let response = pr_out(&a, Action::Preempt, 5, 1, 2).await;
        assert_eq!(response.status, Status::CheckCondition);
        assert_eq!(
            sense(&response).unwrap().additional,
            AdditionalSense::INTERNAL_TARGET_FAILURE
        );
        world.device.fail_writes.store(false, SeqCst);
        // Whether the logical unit failed closed or not, it comes back by itself with one of the two states.
        for _ in 0..1000 {
            if keys_or_not_ready(&b).await {
                break;
            }
            yield_now().await;
        }
        let (_, now) = keys(&b).await;
        assert!(now == [1, 2] || now == [1], "{now:?}");
        if now == [1, 2] {
            b.good(write(0, 1), &[1; 512]).await;
        }
        // And it can be changed again.
        pr(&a, Action::RegisterAndIgnoreExistingKey, 0, 0, 9).await;
    });
}

#[test]
fn when_nobody_knows_what_is_durable_the_logical_unit_fails_closed() {
    run(async {
        let world = World::new().await;
        let (a, b) = cluster(&world).await;
        world.device.fail_writes.store(true, SeqCst);
        world.device.fail_reads.store(true, SeqCst);
        let response = pr_out(&a, Action::Preempt, 5, 1, 2).await;
        assert_eq!(
            sense(&response).unwrap().additional,
            AdditionalSense::INTERNAL_TARGET_FAILURE
        );
        for who in [&a, &b] {
            for cdb in [read(0, 1), Cdb::TestUnitReady] {
                assert_eq!(
                    who.fails(cdb, &[]).await,
                    AdditionalSense::MANUAL_INTERVENTION_REQUIRED
                );
            }
        }
        let unit = world.target.logical_unit(0).unwrap();
        assert!(unit.reservations().is_none() && unit.failure().is_some());
        world.device.fail_writes.store(false, SeqCst);
        world.device.fail_reads.store(false, SeqCst);
        world.target.retry(0).await;
        a.settle().await;
        a.good(read(0, 1), &[]).await;
        assert!(unit.failure().is_none());
    });
}

async fn keys_or_not_ready(by: &Initiator) -> bool {
    let cdb = Cdb::PersistentReserveIn(scsi::cdb::PersistentReserveIn {
        action: scsi::cdb::PersistentReserveInAction::ReadKeys,
        allocation_length: 1024,
    });
    by.send(cdb, &[]).await.status == Status::Good
}

#[test]
fn nobody_is_fenced_while_a_restart_could_write_for_the_victim() {
    run(async {
        let world = World::new().await;
        let (a, b) = cluster(&world).await;
        let atomic = || {
            Cdb::WriteAtomic16(scsi::cdb::WriteAtomic16 {
                lba: 0,
                boundary_blocks: 0,
                length_blocks: 1,
                dpo: false,
                fua: false,
            })
        };
        // The intent may have reached the device, and cannot be removed again.
        world.device.writes.close();
        let data = [0xbb; 512];
        let mut write = pin!(b.send(atomic(), &data));
        assert!(stuck(write.as_mut()).await);
        world.device.fail_writes.store(true, SeqCst);
        world.device.writes.open();
        write.await;
        world.device.fail_writes.store(false, SeqCst);
        let response = pr_out(&a, Action::Preempt, 5, 1, 2).await;
        assert_eq!(response.status, Status::CheckCondition);
        assert_eq!(keys(&a).await.1, [1, 2], "refused before anything changed");
        // What takes nothing away still works.
        pr(&a, Action::Register, 0, 1, 3).await;
    });
}
