//! Lost reservation information (docs/decisions/0005): everyone is shut out until it is replaced, or an operator ends it.

use std::sync::atomic::Ordering::SeqCst;

use reservation::State;
use scsi::cdb::PersistentReserveOutAction as Action;

use super::reserving::{keys, pr, pr_out, register};
use super::*;

/// The keys come back from a recovery: some of them, marked as lost.
async fn lose(world: &World) {
    assert!(world.target.remove_logical_unit(0).await);
    let volume = world.pool.volume("v0").unwrap();
    let region = volume.private_region().unwrap();
    let state = State {
        lost: true,
        ..region.load().await.unwrap()
    };
    region.commit(&state).await.unwrap();
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

async fn shut_out(by: &Initiator) {
    assert_eq!(by.fails(read(0, 1), &[]).await, LOST);
    assert_eq!(by.fails(write(0, 1), &[0; 512]).await, LOST);
    for (action, key, sark) in [
        (Action::Register, 0, 5),
        (Action::RegisterAndIgnoreExistingKey, 0, 5),
        (Action::Clear, 0xa, 0),
        (Action::Preempt, 0xa, 0xb),
    ] {
        let response = pr_out(by, action, 1, key, sark).await;
        assert_eq!(sense(&response).unwrap().additional, LOST, "{action:?}");
    }
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
        lose(&world).await;
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
        let volume = world.pool.volume("v0").unwrap();
        let stored = volume.private_region().unwrap().load().await.unwrap();
        assert!(!stored.lost && stored.registrants.len() == 1);
    });
}

#[test]
fn replace_lost_reservation_ends_it() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&a, 0xa).await;
        lose(&world).await;
        attentions(&a).await;
        attentions(&b).await;
        shut_out(&a).await;
        pr(&b, Action::ReplaceLostReservation, 5, 0, 0xb).await;
        b.good(write(0, 1), &[1; 512]).await;
        a.conflicts(write(0, 1), &[1; 512]).await;
        assert_eq!(keys(&b).await, (0, vec![0xb]));
    });
}

#[test]
fn what_cannot_be_written_is_not_ended() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        register(&a, 0xa).await;
        lose(&world).await;
        world.device.fail_writes.store(true, SeqCst);
        assert!(world.target.end_lost_information(0).await.is_err());
        world.device.fail_writes.store(false, SeqCst);
        let volume = world.pool.volume("v0").unwrap();
        let region = volume.private_region().unwrap();
        assert!(region.recover().await.unwrap().lost);
    });
}
