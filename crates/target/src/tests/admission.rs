//! Task sets: attributes, limits, task management; start and stop.

use std::pin::pin;

use futures_lite::future::zip;
use scsi::cdb::StartStopUnit;
use scsi::sam::{TaskManagementFunction as Function, TaskManagementResponse as Answer};

use super::*;

#[test]
fn ordered_tasks_wait_for_older_and_hold_younger() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let cdb = write(0, 1).encode();
        world.device.writes.close();
        let (one, two, three) = ([1; 512], [2; 512], [3; 512]);
        let mut old = pin!(a.raw(0, &cdb, &one));
        assert!(stuck(old.as_mut()).await);
        let mut ordered = pin!(a.raw_with(0, &cdb, &two, TaskAttribute::Ordered));
        assert!(stuck(ordered.as_mut()).await);
        let mut young = pin!(a.raw(0, &cdb, &three));
        assert!(stuck(young.as_mut()).await);
        assert_eq!(world.device.writes.waiting(), 1);
        let read_cdb = read(0, 1).encode();
        let head = a.raw_with(0, &read_cdb, &[], TaskAttribute::HeadOfQueue);
        assert!(matches!(head.await, Outcome::Response(_)));
        world.device.writes.open();
        let (young, (ordered, old)) = zip(young, zip(ordered, old)).await;
        for outcome in [old, ordered, young] {
            assert!(matches!(outcome, Outcome::Response(_)));
        }
        assert_eq!(a.good(read(0, 1), &[]).await, three);
    });
}

#[test]
fn aca_is_refused_and_a_full_task_set_says_so() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let cdb = write(0, 1).encode();
        let refused = a.submit(0, &cdb, 512, TaskAttribute::Aca).err().unwrap();
        assert_eq!(sense(&refused).unwrap().additional.code, 0x49);
        let mut tasks = Vec::new();
        for _ in 0..crate::task_set::TASKS_MAX {
            tasks.push(a.submit(0, &cdb, 512, TaskAttribute::Simple).unwrap());
        }
        let full = a.submit(0, &cdb, 512, TaskAttribute::Simple).err().unwrap();
        assert_eq!(full.status, Status::TaskSetFull);
        tasks.pop();
        assert!(a.submit(0, &cdb, 512, TaskAttribute::Simple).is_ok());
    });
}

#[test]
fn abort_task_ends_one_task_without_a_response() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let cdb = write(0, 1).encode();
        world.device.writes.close();
        let tag = a.next_tag();
        let mut victim = pin!(a.raw(0, &cdb, &[1; 512]));
        assert!(stuck(victim.as_mut()).await);
        let mut other = pin!(a.raw(0, &cdb, &[2; 512]));
        assert!(stuck(other.as_mut()).await);
        let mut abort = pin!(
            a.session
                .task_management(Function::AbortTask, lun_field(0), tag)
        );
        assert!(stuck(abort.as_mut()).await, "its write is in flight");
        world.device.writes.open();
        let (abort, (victim, other)) = zip(abort, zip(victim, other)).await;
        assert_eq!(
            (abort, victim),
            (Answer::FunctionComplete, Outcome::Aborted)
        );
        assert!(matches!(other, Outcome::Response(_)));
        let again = a
            .session
            .task_management(Function::AbortTask, lun_field(0), tag);
        assert_eq!(again.await, Answer::TaskDoesNotExist);
    });
}

#[test]
fn abort_task_set_is_of_one_nexus_and_one_logical_unit() {
    run(async {
        let world = World::new().await;
        let lun = world.add_volume("v1", BlockSize::B512).await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        a.send_to(lun, Cdb::TestUnitReady, &[]).await;
        let cdb = write(0, 1).encode();
        let submit = |who: &Initiator, lun| who.submit(lun, &cdb, 512, TaskAttribute::Simple);
        let mine = submit(&a, 0).unwrap();
        let elsewhere = submit(&a, lun).unwrap();
        let other = submit(&b, 0).unwrap();
        let function = a
            .session
            .task_management(Function::ClearTaskSet, lun_field(0), 0);
        let mut function = pin!(function);
        assert!(
            stuck(function.as_mut()).await,
            "the task has not been given up yet"
        );
        assert!(mine.is_aborted() && !elsewhere.is_aborted() && !other.is_aborted());
        drop(mine);
        assert_eq!(function.await, Answer::FunctionComplete);
        let data = BytesMut::from(&[1; 512][..]);
        assert!(matches!(other.execute(data).await, Outcome::Response(_)));
    });
}

#[test]
fn task_management_of_what_does_not_exist() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let to = |function, lun| a.session.task_management(function, lun_field(lun), 0);
        assert_eq!(
            to(Function::LogicalUnitReset, 7).await,
            Answer::LunDoesNotExist
        );
        assert_eq!(
            to(Function::ClearAca, 0).await,
            Answer::FunctionNotSupported
        );
    });
}

#[test]
fn a_stopped_logical_unit_asks_for_start() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let start_stop = |start| {
            Cdb::StartStopUnit(StartStopUnit {
                immediate: false,
                power_condition_modifier: 0,
                power_condition: 0,
                no_flush: false,
                load_eject: false,
                start,
            })
        };
        a.good(start_stop(false), &[]).await;
        let asks = AdditionalSense::INITIALIZING_COMMAND_REQUIRED;
        assert_eq!(b.fails(Cdb::TestUnitReady, &[]).await, asks);
        assert_eq!(b.fails(write(0, 1), &[0; 512]).await, asks);
        super::reserving::register(&b, 1).await;
        a.good(start_stop(true), &[]).await;
        b.good(write(0, 1), &[0; 512]).await;
    });
}

#[test]
fn a_nexus_that_is_gone_gets_nothing_done() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let task = a
            .submit(0, &write(0, 1).encode(), 512, TaskAttribute::Simple)
            .unwrap();
        a.session.detach(DetachReason::Logout).await;
        let data = BytesMut::from(&[1; 512][..]);
        assert_eq!(task.execute(data).await, Outcome::Aborted);
        let response = a.send(Cdb::TestUnitReady, &[]).await;
        assert_eq!(response.status, Status::CheckCondition);
        assert!(world.target.sessions().is_empty());
    });
}

#[test]
fn a_reset_takes_the_right_to_write_what_it_resets() {
    use scsi::sam::{TaskManagementFunction as Function, TaskManagementResponse as Answer};
    run(async {
        let world = World::new().await;
        let other = world.add_volume("v1", BlockSize::B512).await;
        let writer = world.initiator("writer").await;
        writer.send_to(other, Cdb::TestUnitReady, &[]).await;
        for (name, first, second) in [
            ("reader", Access::Ro, Access::None),
            ("neighbour", Access::None, Access::Rw),
        ] {
            let name = format!("iqn.2026-11.test:{name}");
            world.grant("v0", &name, first).await;
            world.grant("v1", &name, second).await;
        }
        let reader = world.initiator("reader").await;
        let neighbour = world.fresh("neighbour");
        let reset = async |by: &Initiator, function| {
            let lun = lun_field(0);
            by.session.task_management(function, lun, 0).await
        };
        for function in [
            Function::LogicalUnitReset,
            Function::TargetWarmReset,
            Function::TargetColdReset,
        ] {
            let answer = reset(&reader, function).await;
            assert_eq!(answer, Answer::FunctionAuthorizationFailed, "{function:?}");
        }
        let answer = reset(&neighbour, Function::TargetColdReset).await;
        assert_eq!(answer, Answer::FunctionAuthorizationFailed);
        let answer = reset(&neighbour, Function::TargetWarmReset).await;
        assert_eq!(answer, Answer::FunctionComplete);
        assert!(!writer.session.stop_requested());
        assert_eq!(writer.settle().await, [], "not its logical unit");
        let told = writer.send_to(other, Cdb::TestUnitReady, &[]).await;
        assert!(sense(&told).is_some(), "that was reset");
    });
}
