//! Commands that wait for a change of access to end, and meanwhile lose the right to go on: they must not take effect
//! after the answer to what took it from them.

use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::SeqCst;

use scsi::cdb::PersistentReserveOutAction as Action;
use scsi::cdb::{ReserveSize, StartStopUnit};
use scsi::pr::BasicParameters;
use scsi::sam::TaskManagementFunction;

use super::reserving::{keys, pr, pr_out, pr_out_cdb, register};
use super::*;

/// `a` changes its registration, which hangs in the device; then `command` of `b` queues behind it; then the change
/// ends and `meanwhile` happens before `command` goes on. Returns how `command` ends.
async fn overtaken<M: Future>(
    world: &World,
    a: &Initiator,
    command: impl Future<Output = Outcome>,
    meanwhile: impl FnOnce() -> M,
) -> Outcome {
    world.device.flushes.close();
    let mut first = pin!(pr_out(a, Action::RegisterAndIgnoreExistingKey, 0, 0, 0xa));
    assert!(stuck(first.as_mut()).await);
    let mut command: Pin<Box<_>> = Box::pin(command);
    assert!(stuck(command.as_mut()).await, "queued");
    world.device.flushes.open();
    assert_eq!(first.await.status, Status::Good);
    meanwhile().await;
    command.await
}

/// REGISTER AND IGNORE EXISTING KEY with the key b.
async fn register_b(b: &Initiator) -> Outcome {
    let list = BasicParameters {
        service_action_reservation_key: 0xb,
        ..BasicParameters::default()
    }
    .encode();
    let cdb = pr_out_cdb(Action::RegisterAndIgnoreExistingKey, 0, &list);
    b.raw(0, &cdb.encode(), &list).await
}

#[test]
fn a_registration_does_not_come_after_a_reset_that_aborted_it() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let outcome = overtaken(&world, &a, register_b(&b), || async {
            let function = TaskManagementFunction::LogicalUnitReset;
            a.session.task_management(function, lun_field(0), 0).await
        })
        .await;
        assert_ne!(outcome, Outcome::Response(Response::good()));
        a.settle().await;
        assert_eq!(keys(&a).await.1, [0xa]);
    });
}

#[test]
fn a_preempted_nexus_does_not_come_back_by_an_aborted_registration() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&b, 2).await;
        let outcome = overtaken(&world, &a, register_b(&b), || async {
            pr(&a, Action::Reserve, 5, 0xa, 0).await;
            pr(&a, Action::PreemptAndAbort, 5, 0xa, 2).await;
        })
        .await;
        assert_ne!(outcome, Outcome::Response(Response::good()));
        assert_eq!(keys(&a).await.1, [0xa]);
    });
}

#[test]
fn a_registration_does_not_come_after_the_grant_is_gone() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let outcome = overtaken(&world, &a, register_b(&b), || async {
            world.grant("v0", "iqn.2026-11.test:b", Access::None).await;
        })
        .await;
        assert_ne!(outcome, Outcome::Response(Response::good()));
        assert_eq!(keys(&a).await.1, [0xa]);
    });
}

#[test]
fn nothing_is_written_to_the_private_region_of_a_removed_logical_unit() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let volume = world.pool.volume("v0").unwrap();
        let outcome = overtaken(&world, &a, register_b(&b), || async {
            assert!(world.target.remove_logical_unit(0).await);
        })
        .await;
        assert_ne!(outcome, Outcome::Response(Response::good()));
        let stored = volume.private_region().unwrap().load().await.unwrap();
        assert_eq!(stored.registrants.len(), 1);
    });
}

#[test]
fn a_removed_logical_unit_is_not_recovered() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let unit = world.target.logical_unit(0).unwrap();
        world.device.fail_writes.store(true, SeqCst);
        world.device.fail_reads.store(true, SeqCst);
        pr_out(&a, Action::Register, 0, 0, 1).await;
        assert!(unit.failure().is_some());
        world.device.fail_writes.store(false, SeqCst);
        world.device.fail_reads.store(false, SeqCst);
        // Whoever met the failure before tries to recover after.
        assert!(world.target.remove_logical_unit(0).await);
        let before = world.device.log().len();
        unit.recover().await;
        assert_eq!(
            world.device.log().len(),
            before,
            "it is not its space any more"
        );
    });
}

#[test]
fn a_reservation_is_not_made_for_a_nexus_that_has_gone() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let cdb = Cdb::Reserve(ReserveSize::Six).encode();
        overtaken(&world, &a, b.raw(0, &cdb, &[]), || async {
            pr(&a, Action::Clear, 0, 0xa, 0).await;
            b.session.detach(DetachReason::NexusLoss).await;
        })
        .await;
        let unit = world.target.logical_unit(0).unwrap();
        assert_eq!(unit.reservations().unwrap().scsi2, None);
        a.good(write(0, 1), &[1; 512]).await;
    });
}

#[test]
fn a_fenced_nexus_does_not_stop_the_logical_unit() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&b, 2).await;
        let stop = Cdb::StartStopUnit(StartStopUnit {
            start: false,
            ..StartStopUnit::default()
        })
        .encode();
        overtaken(&world, &a, b.raw(0, &stop, &[]), || async {
            pr(&a, Action::Reserve, 5, 0xa, 0).await;
            pr(&a, Action::Preempt, 5, 0xa, 2).await;
        })
        .await;
        a.good(write(0, 1), &[1; 512]).await;
    });
}
