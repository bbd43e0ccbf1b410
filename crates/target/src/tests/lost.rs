//! Lost reservation information (docs/decisions/0005): everyone is shut out until it is replaced, or an operator ends it, or,
//! where the operator chose so, each until it registers anew.

use std::sync::atomic::Ordering::SeqCst;

use reservation::{Event, LostUntil, LuReservations, State, machine};
use scsi::cdb::PersistentReserveOutAction as Action;

use super::reserving::{keys, pr, pr_out, register};
use super::*;

/// The keys come back from a recovery: some of them, marked as lost.
async fn lose(world: &World, until: LostUntil) {
    assert!(world.target.remove_logical_unit(0).await);
    let volume = world.pool.volume("v0").unwrap();
    let region = volume.private_region().unwrap();
    let before = LuReservations::from(region.load().await.unwrap());
    let lost = machine::apply(&before, &Event::InformationLost { until }).state;
    region.commit(&lost.persistent).await.unwrap();
    world.target.add_logical_unit(volume).await.unwrap();
}

/// What a restart would find.
async fn stored(world: &World) -> State {
    let volume = world.pool.volume("v0").unwrap();
    volume.private_region().unwrap().load().await.unwrap()
}

/// A restart of the daemon, as far as the logical unit sees it.
async fn serve_again(world: &World) {
    assert!(world.target.remove_logical_unit(0).await);
    let volume = world.pool.volume("v0").unwrap();
    world.target.add_logical_unit(volume).await.unwrap();
}

/// What TEST UNIT READY reports: unit attentions first, then whether the medium may be used.
async fn attentions(by: &Initiator) -> Vec<AdditionalSense> {
    let mut reported = Vec::new();
    loop {
        let response = by.send(Cdb::TestUnitReady, &[]).await;
        match sense(&response) {
            Some(sense) if sense.additional != LOST => reported.push(sense.additional),
            _ => return reported,
        }
    }
}

const LOST: AdditionalSense = AdditionalSense {
    code: 0x44,
    qualifier: 0x01,
};

const RESERVATIONS_PREEMPTED: AdditionalSense = AdditionalSense {
    code: 0x2a,
    qualifier: 0x03,
};

async fn is_told(by: &Initiator) {
    assert_eq!(by.fails(read(0, 1), &[]).await, LOST);
    assert_eq!(by.fails(write(0, 1), &[0; 512]).await, LOST);
    for (action, key, sark) in [(Action::Clear, 0xa, 0), (Action::Preempt, 0xa, 0xb)] {
        let response = pr_out(by, action, 1, key, sark).await;
        assert_eq!(sense(&response).unwrap().additional, LOST, "{action:?}");
    }
}

async fn shut_out(by: &Initiator) {
    is_told(by).await;
    for action in [Action::Register, Action::RegisterAndIgnoreExistingKey] {
        let response = pr_out(by, action, 1, 0, 5).await;
        assert_eq!(sense(&response).unwrap().additional, LOST, "{action:?}");
    }
}

/// `a` and `b` are registered, `a` holds Write Exclusive for registrants; then most is lost.
async fn recovered(world: &World) -> [Initiator; 3] {
    let all = [
        world.initiator("a").await,
        world.initiator("b").await,
        world.initiator("c").await,
    ];
    register(&all[0], 0xa).await;
    register(&all[1], 0xb).await;
    pr(&all[0], Action::Reserve, 5, 0xa, 0).await;
    lose(world, LostUntil::Registered).await;
    for initiator in &all {
        attentions(initiator).await;
        is_told(initiator).await;
    }
    all
}

#[test]
fn an_operator_ends_it_for_guests_that_know_only_register() {
    run(async {
        let world = World::new().await;
        let (a, b, c) = (
            world.initiator("a").await,
            world.initiator("b").await,
            world.initiator("c").await,
        );
        register(&a, 0xa).await;
        register(&b, 0xb).await;
        pr(&a, Action::Reserve, 5, 0xa, 0).await;
        assert_eq!(
            world.target.end_lost_information(0).await,
            Err(EndLostError::NotLost)
        );
        lose(&world, LostUntil::Replaced).await;
        for initiator in [&a, &b, &c] {
            attentions(initiator).await;
            shut_out(initiator).await;
        }
        assert_eq!(world.target.end_lost_information(0).await, Ok(()));
        assert_eq!(attentions(&a).await, [RESERVATIONS_PREEMPTED]);
        assert_eq!(attentions(&b).await, [RESERVATIONS_PREEMPTED]);
        assert_eq!(attentions(&c).await, []);
        c.good(write(0, 1), &[1; 512]).await;
        register(&b, 0xb2).await;
        assert_eq!(keys(&b).await, (4, vec![0xb2]));
        assert_eq!(
            world.target.end_lost_information(0).await,
            Err(EndLostError::NotLost)
        );
        assert_eq!(
            world.target.end_lost_information(7).await,
            Err(EndLostError::NoSuchUnit(7))
        );
        let stored = stored(&world).await;
        assert!(stored.lost.is_none() && stored.registrants.len() == 1);
    });
}

#[test]
fn replace_lost_reservation_ends_it() {
    for until in [LostUntil::Replaced, LostUntil::Registered] {
        run(async move {
            let world = World::new().await;
            let (a, b) = (world.initiator("a").await, world.initiator("b").await);
            register(&a, 0xa).await;
            lose(&world, until).await;
            attentions(&a).await;
            attentions(&b).await;
            is_told(&a).await;
            pr(&b, Action::ReplaceLostReservation, 5, 0, 0xb).await;
            b.good(write(0, 1), &[1; 512]).await;
            a.conflicts(write(0, 1), &[1; 512]).await;
            assert_eq!(keys(&b).await, (0, vec![0xb]));
        });
    }
}

#[test]
fn what_cannot_be_written_is_not_ended() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        register(&a, 0xa).await;
        lose(&world, LostUntil::Replaced).await;
        world.device.fail_writes.store(true, SeqCst);
        assert!(world.target.end_lost_information(0).await.is_err());
        world.device.fail_writes.store(false, SeqCst);
        let volume = world.pool.volume("v0").unwrap();
        let region = volume.private_region().unwrap();
        assert!(region.recover().await.unwrap().lost.is_some());
    });
}

#[test]
fn who_registers_anew_is_served_and_lets_nobody_else_in() {
    run(async {
        let world = World::new().await;
        let [a, b, c] = recovered(&world).await;
        // With a wrong key, or none where there is one, nothing is registered.
        for key in [0, 0xb] {
            let response = pr_out(&a, Action::Register, 0, key, 0xa2).await;
            assert_eq!(response.status, Status::ReservationConflict);
        }
        is_told(&a).await;
        pr(&a, Action::Register, 0, 0xa, 0xa2).await;
        a.good(write(0, 1), &[1; 512]).await;
        assert_eq!(keys(&a).await.1, [0xa2, 0xb]);
        is_told(&b).await;
        is_told(&c).await;
        // Nor over a restart.
        serve_again(&world).await;
        for initiator in [&a, &b, &c] {
            attentions(initiator).await;
        }
        a.good(write(0, 1), &[1; 512]).await;
        is_told(&b).await;
        is_told(&c).await;
        // A stranger that registers is a registrant, and the rest waits still.
        pr(&c, Action::RegisterAndIgnoreExistingKey, 0, 0, 0xc).await;
        c.good(write(0, 1), &[2; 512]).await;
        is_told(&b).await;
        // It leaves: it is a stranger once more, and told once more.
        pr(&c, Action::Register, 0, 0xc, 0).await;
        is_told(&c).await;
        pr(&b, Action::Register, 0, 0xb, 0xb).await;
        b.good(write(0, 1), &[3; 512]).await;
        c.conflicts(write(0, 1), &[3; 512]).await;
        assert_eq!(stored(&world).await.lost, None);
    });
}

#[test]
fn survivors_preempt_the_dead_one_and_it_is_over() {
    run(async {
        let world = World::new().await;
        let [a, b, c] = recovered(&world).await;
        pr(&b, Action::RegisterAndIgnoreExistingKey, 0, 0, 0xb2).await;
        b.good(write(0, 1), &[1; 512]).await;
        pr(&b, Action::PreemptAndAbort, 5, 0xb2, 0xa).await;
        assert_eq!(stored(&world).await.lost, None);
        assert!(!attentions(&a).await.contains(&LOST));
        for stranger in [&a, &c] {
            stranger.conflicts(write(0, 1), &[2; 512]).await;
        }
        b.good(write(0, 1), &[3; 512]).await;
        assert_eq!(keys(&b).await.1, [0xb2]);
    });
}

#[test]
fn a_fence_of_the_last_that_is_recovered_ends_it() {
    run(async {
        let world = World::new().await;
        let [a, b, c] = recovered(&world).await;
        pr(&b, Action::Register, 0, 0xb, 0xb).await;
        let volume = world.pool.volume("v0").unwrap().uuid();
        let order = FenceOrder {
            initiators: [nexus("a").initiator.name.to_string()].into(),
            heirs: vec![nexus("b").initiator.name.to_string()],
            ..FenceOrder::default()
        };
        world.target.fence(volume, &order).await.unwrap();
        assert_eq!(stored(&world).await.lost, None);
        attentions(&a).await;
        b.good(write(0, 1), &[1; 512]).await;
        for stranger in [&a, &c] {
            stranger.conflicts(write(0, 1), &[2; 512]).await;
        }
    });
}

#[test]
fn who_cannot_be_recorded_as_registered_anew_is_told_still() {
    run(async {
        let world = World::new().await;
        let [a, b, _] = recovered(&world).await;
        world.device.fail_writes.store(true, SeqCst);
        let response = pr_out(&a, Action::Register, 0, 0xa, 0xa2).await;
        assert_eq!(response.status, Status::CheckCondition);
        world.device.fail_writes.store(false, SeqCst);
        assert!(stored(&world).await.is_recovered(&nexus("a")));
        serve_again(&world).await;
        for initiator in [&a, &b] {
            attentions(initiator).await;
            is_told(initiator).await;
        }
    });
}

/// `reserve-release`: nobody gets a SCSI-2 reservation while information is lost, nor is anybody told that one has it.
#[test]
fn no_owner_while_information_is_lost() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        lose(&world, LostUntil::Registered).await;
        let volume = world.pool.volume("v0").unwrap().uuid();
        let name = |name| nexus(name).initiator.name.to_string();
        let order = FenceOrder {
            initiators: [name("a")].into(),
            scsi2_owners: vec![name("b")],
            ..FenceOrder::default()
        };
        let done = world.target.fence(volume, &order).await.unwrap();
        assert_eq!(done.ownership, Ownership::Registrants);
        for initiator in [&a, &b] {
            attentions(initiator).await;
        }
        is_told(&b).await;
        a.conflicts(write(0, 1), &[1; 512]).await;
        assert!(
            stored(&world).await.lost.is_some(),
            "a fence of nobody who was recovered"
        );
    });
}
