//! Reservation commands through the whole stack, and helpers for them.

use scsi::cdb::{
    PersistentReserveIn, PersistentReserveInAction, PersistentReserveOut,
    PersistentReserveOutAction as Action, ReserveSize,
};
use scsi::pr::{BasicParameters, parse_full_status, parse_keys};

use super::*;

/// PERSISTENT RESERVE OUT with the basic parameter list.
pub async fn pr_out(by: &Initiator, action: Action, kind: u8, key: u64, sark: u64) -> Response {
    let list = BasicParameters {
        reservation_key: key,
        service_action_reservation_key: sark,
        ..BasicParameters::default()
    }
    .encode();
    by.send(pr_out_cdb(action, kind, &list), &list).await
}

pub fn pr_out_cdb(action: Action, kind: u8, list: &[u8]) -> Cdb {
    Cdb::PersistentReserveOut(PersistentReserveOut {
        action,
        scope: 0,
        kind,
        parameter_list_length: list.len() as u32,
    })
}

/// The same, which must end with GOOD.
pub async fn pr(by: &Initiator, action: Action, kind: u8, key: u64, sark: u64) {
    let response = pr_out(by, action, kind, key, sark).await;
    assert_eq!(
        response.status,
        Status::Good,
        "{action:?}: {:?}",
        sense(&response)
    );
}

pub async fn register(by: &Initiator, key: u64) {
    pr(by, Action::Register, 0, 0, key).await;
}

pub async fn keys(by: &Initiator) -> (u32, Vec<u64>) {
    let cdb = Cdb::PersistentReserveIn(PersistentReserveIn {
        action: PersistentReserveInAction::ReadKeys,
        allocation_length: 1024,
    });
    parse_keys(&by.good(cdb, &[]).await).unwrap()
}

#[test]
fn registrations_are_reported_and_durable() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&a, 0xa).await;
        register(&b, 0xb).await;
        assert_eq!(keys(&a).await, (2, vec![0xa, 0xb]));
        let volume = world.pool.volume("v0").unwrap();
        let stored = volume.private_region().unwrap().load().await.unwrap();
        assert_eq!(stored.registrants.len(), 2);
        let cdb = Cdb::PersistentReserveIn(PersistentReserveIn {
            action: PersistentReserveInAction::ReadFullStatus,
            allocation_length: 1024,
        });
        pr(&a, Action::Reserve, 5, 0xa, 0).await;
        let (_, list) = parse_full_status(&a.good(cdb, &[]).await).unwrap();
        assert_eq!(list[0].holder, Some((0, 5)));
        assert_eq!(list[1].holder, None);
        assert_eq!(list[1].transport_id.name, "iqn.2026-11.test:b");
        assert_eq!(list[1].relative_target_port, 1);
    });
}

#[test]
fn each_type_lets_through_whom_it_should() {
    // Type, then may a registrant that is not the holder (read, write), may a stranger.
    let rules = [
        (1, [true, false], [true, false]),
        (3, [false, false], [false, false]),
        (5, [true, true], [true, false]),
        (6, [true, true], [false, false]),
        (7, [true, true], [true, false]),
        (8, [true, true], [false, false]),
    ];
    for (kind, registrant, stranger) in rules {
        run(async {
            let world = World::new().await;
            let (holder, other, outside) = (
                world.initiator("holder").await,
                world.initiator("other").await,
                world.initiator("outside").await,
            );
            register(&holder, 1).await;
            register(&other, 2).await;
            pr(&holder, Action::Reserve, kind, 1, 0).await;
            let data = [7; 512];
            for (who, [reads, writes]) in [
                (&holder, [true, true]),
                (&other, registrant),
                (&outside, stranger),
            ] {
                let allowed = |response: Response| response.status == Status::Good;
                assert_eq!(
                    allowed(who.send(read(0, 1), &[]).await),
                    reads,
                    "type {kind}"
                );
                assert_eq!(
                    allowed(who.send(write(0, 1), &data).await),
                    writes,
                    "type {kind}"
                );
                assert!(allowed(who.send(Cdb::TestUnitReady, &[]).await));
            }
        });
    }
}

#[test]
fn conflict_comes_before_the_fields_of_the_command() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&a, 1).await;
        pr(&a, Action::Reserve, 1, 1, 0).await;
        b.conflicts(write(u64::MAX, 1), &[]).await;
        // A reserved bit in the CDB of a WRITE(10).
        let outcome = b
            .raw(0, &[0x2a, 0x04, 0, 0, 0, 0, 0x80, 0, 1, 0], &[0; 512])
            .await;
        let Outcome::Response(response) = outcome else {
            panic!()
        };
        assert_eq!(response.status, Status::ReservationConflict);
    });
}

#[test]
fn unit_attentions_of_preempt_and_clear_reach_those_concerned() {
    run(async {
        let world = World::new().await;
        let (a, b, c) = (
            world.initiator("a").await,
            world.initiator("b").await,
            world.initiator("c").await,
        );
        for (who, key) in [(&a, 1), (&b, 2), (&c, 3)] {
            register(who, key).await;
        }
        pr(&a, Action::Reserve, 5, 1, 0).await;
        pr(&b, Action::Preempt, 5, 2, 1).await;
        assert_eq!(a.settle().await, [AdditionalSense::REGISTRATIONS_PREEMPTED]);
        assert_eq!(b.settle().await, []);
        pr(&b, Action::Clear, 0, 2, 0).await;
        assert_eq!(a.settle().await, []);
        let told = c.settle().await;
        assert_eq!(told.last(), Some(&AdditionalSense::RESERVATIONS_PREEMPTED));
        assert!(keys(&b).await.1.is_empty());
    });
}

#[test]
fn attentions_of_a_registrant_that_is_away_are_kept() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&a, 1).await;
        register(&b, 2).await;
        b.session.detach(DetachReason::NexusLoss).await;
        pr(&a, Action::Preempt, 5, 1, 2).await;
        let b = world.fresh("b");
        assert_eq!(
            b.settle().await,
            [
                AdditionalSense::POWER_ON_RESET_OR_BUS_DEVICE_RESET,
                AdditionalSense::REGISTRATIONS_PREEMPTED
            ]
        );
    });
}

#[test]
fn scsi2_reservations_end_with_reset_and_nexus_loss() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let reserve = Cdb::Reserve(ReserveSize::Six);
        a.good(reserve, &[]).await;
        a.good(reserve, &[]).await;
        b.conflicts(reserve, &[]).await;
        b.good(Cdb::Release(ReserveSize::Ten), &[]).await;
        b.conflicts(read(0, 1), &[]).await;
        a.good(read(0, 1), &[]).await;
        a.session.detach(DetachReason::NexusLoss).await;
        b.good(reserve, &[]).await;
        let reset = scsi::sam::TaskManagementFunction::LogicalUnitReset;
        let a = world.initiator("a").await;
        a.session.task_management(reset, lun_field(0), 0).await;
        a.settle().await;
        a.good(reserve, &[]).await;
    });
}

#[test]
fn a_read_only_grant_may_look_but_not_reserve_or_change() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        world.grant("v0", "iqn.2026-11.test:a", Access::Ro).await;
        assert_eq!(a.settle().await, [AdditionalSense::MODE_PARAMETERS_CHANGED]);
        a.good(read(0, 1), &[]).await;
        keys(&a).await;
        assert_eq!(
            a.fails(write(0, 1), &[0; 512]).await,
            AdditionalSense::WRITE_PROTECTED
        );
        let response = pr_out(&a, Action::Register, 0, 0, 1).await;
        assert_eq!(
            sense(&response).unwrap().additional,
            AdditionalSense::WRITE_PROTECTED
        );
        let reserve = Cdb::Reserve(ReserveSize::Six);
        assert_eq!(
            a.fails(reserve, &[]).await,
            AdditionalSense::WRITE_PROTECTED
        );
    });
}

#[test]
fn facts_go_to_the_audit_trail_with_their_sender() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&a, 1).await;
        register(&b, 2).await;
        pr(&a, Action::Reserve, 5, 1, 0).await;
        pr(&a, Action::Preempt, 5, 1, 2).await;
        let fenced = EventKind::Fenced {
            nexus: nexus("b"),
            aborted: false,
        };
        let events = world.events.0.lock();
        let event = events.iter().find(|event| event.kind == fenced).unwrap();
        assert_eq!(event.nexus, Some(nexus("a")));
        assert_eq!(event.peer.as_deref(), Some("192.0.2.1:40000"));
        assert_eq!(event.volume.as_deref(), Some("v0"));
    });
}
