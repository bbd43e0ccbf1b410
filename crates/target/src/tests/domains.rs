//! Fencing members of domains: what they lose, on one volume and on many, and that they get nothing back.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;

use futures_lite::future::zip;
use reservation::{ReservationType, State};
use scsi::cdb::{PersistentReserveOutAction as Action, ReserveSize, Sanitize, SanitizeAction};
use scsi::pr::{BasicParameters, MoveParameters, TransportId};
use scsi::sam::TaskManagementFunction;
use scsi::sanitize::OverwriteParameters;
use uuid::Uuid;

use super::copying::{copy, list};
use super::reserving::{keys, pr, pr_out, pr_out_cdb, register};
use super::*;

pub fn name(of: &str) -> String {
    nexus(of).initiator.name.to_string()
}

pub fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|of| name(of)).collect()
}

pub fn order(fenced: &[&str], heirs: &[&str]) -> FenceOrder {
    FenceOrder {
        initiators: names(fenced),
        heirs: heirs.iter().map(|heir| name(heir)).collect(),
        scsi2_owners: Vec::new(),
    }
}

pub fn policy(fenced: &[&str], heirs: &[&str]) -> UnitPolicy {
    UnitPolicy {
        fenced: names(fenced),
        heirs: heirs.iter().map(|heir| name(heir)).collect(),
        ..UnitPolicy::default()
    }
}

impl World {
    pub fn volume_uuid(&self, volume: &str) -> Uuid {
        self.pool.volume(volume).unwrap().uuid()
    }

    async fn fence(&self, order: &FenceOrder) -> Result<FenceDone, FenceError> {
        self.target.fence(self.volume_uuid("v0"), order).await
    }

    async fn stored(&self, volume: &str) -> State {
        let volume = self.pool.volume(volume).unwrap();
        volume.private_region().unwrap().load().await.unwrap()
    }

    /// Takes the logical unit of v0 away and serves it again, as after a failure of its volume.
    async fn serve_again(&self) {
        assert!(self.target.remove_logical_unit(0).await);
        let volume = self.pool.volume("v0").unwrap();
        self.target.add_logical_unit(volume).await.unwrap();
    }
}

/// `a`, `b` and `c`, registered with 1, 2 and 3; `a` holds a reservation of this type.
async fn cluster(world: &World, kind: u8) -> [Initiator; 3] {
    let all = [
        world.initiator("a").await,
        world.initiator("b").await,
        world.initiator("c").await,
    ];
    for (who, key) in all.iter().zip(1..) {
        register(who, key).await;
    }
    pr(&all[0], Action::Reserve, kind, 1, 0).await;
    all
}

/// A nexus that is fenced on LUN 0: nothing but harmless questions is answered.
async fn is_fenced(by: &Initiator) {
    by.conflicts(read(0, 1), &[]).await;
    by.conflicts(write(0, 1), &[0xee; 512]).await;
    for action in [
        Action::Register,
        Action::RegisterAndIgnoreExistingKey,
        Action::Reserve,
        Action::Preempt,
        Action::PreemptAndAbort,
        Action::Clear,
        Action::Release,
        Action::ReplaceLostReservation,
    ] {
        let response = pr_out(by, action, 5, 0, 9).await;
        assert_eq!(response.status, Status::ReservationConflict, "{action:?}");
    }
    for cdb in [
        Cdb::Reserve(ReserveSize::Six),
        Cdb::Release(ReserveSize::Ten),
    ] {
        by.conflicts(cdb, &[]).await;
    }
    by.good(Cdb::TestUnitReady, &[]).await;
    keys(by).await;
}

#[test]
fn a_fenced_member_loses_everything_and_an_heir_inherits() {
    for (kind, passed) in [
        (1, true),
        (3, true),
        (5, true),
        (6, true),
        (7, false),
        (8, false),
    ] {
        run(async {
            let world = World::new().await;
            let [a, b, c] = cluster(&world, kind).await;
            let (generation, _) = keys(&b).await;
            let done = world
                .fence(&order(&["a"], &["nobody", "c", "b"]))
                .await
                .unwrap();
            assert_eq!(done.registrations_removed, 1);
            assert_eq!(done.sessions, 1);
            assert_eq!(done.passed_to, passed.then(|| nexus("c")), "type {kind}");
            assert_eq!((done.released, done.ownership), (None, Ownership::NotAsked));
            assert_eq!(keys(&b).await, (generation + 1, vec![2, 3]));
            let stored = world.stored("v0").await;
            let reservation = stored.reservation.unwrap();
            assert_eq!(reservation.kind.code(), kind);
            assert_eq!(reservation.holder, passed.then(|| nexus("c")));
            assert_eq!(a.settle().await, [AdditionalSense::REGISTRATIONS_PREEMPTED]);
            is_fenced(&a).await;
            assert_eq!(b.settle().await, []);
            c.good(write(0, 1), &[3; 512]).await;
            if kind >= 5 {
                b.good(write(0, 1), &[2; 512]).await;
            }
            let unit = world.target.logical_unit(0).unwrap();
            assert_eq!(unit.registered_initiators(), Some(names(&["b", "c"])));
            let holders = if passed {
                names(&["c"])
            } else {
                names(&["b", "c"])
            };
            assert_eq!(unit.holder_initiators(), Some(holders));
            // Again it is done, and there is nothing to do.
            let again = world.fence(&order(&["a"], &["b"])).await.unwrap();
            assert_eq!((again.registrations_removed, again.passed_to), (0, None));
            assert_eq!(keys(&b).await.0, generation + 1);
        });
    }
}

#[test]
fn without_an_heir_the_reservation_ends() {
    run(async {
        let world = World::new().await;
        let [a, b, c] = cluster(&world, 5).await;
        let done = world.fence(&order(&["a"], &["x"])).await.unwrap();
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        assert_eq!((done.passed_to, done.released), (None, Some(kind)));
        for other in [&b, &c] {
            assert_eq!(
                other.settle().await,
                [AdditionalSense::RESERVATIONS_RELEASED]
            );
        }
        a.settle().await;
        is_fenced(&a).await;
        world
            .initiator("stranger")
            .await
            .good(write(0, 1), &[1; 512])
            .await;
        // What reservations come and go changes nothing.
        pr(&b, Action::Reserve, 5, 2, 0).await;
        pr(&b, Action::Clear, 0, 2, 0).await;
        is_fenced(&a).await;
    });
}

#[test]
fn everyone_of_an_all_registrants_reservation_fenced_ends_it() {
    run(async {
        let world = World::new().await;
        let [_a, _b, _c] = cluster(&world, 8).await;
        let done = world.fence(&order(&["a", "b", "c"], &[])).await.unwrap();
        assert_eq!(done.registrations_removed, 3);
        assert_eq!(
            done.released,
            Some(ReservationType::ExclusiveAccessAllRegistrants)
        );
        assert_eq!(world.stored("v0").await.registrants.len(), 0);
    });
}

#[test]
fn every_session_of_a_member_is_fenced_also_one_that_comes_later() {
    run(async {
        let world = World::new().await;
        let [a, ..] = cluster(&world, 5).await;
        let other = Nexus {
            target_port: 2,
            ..nexus("a")
        };
        let through = |nexus: Nexus| Initiator {
            session: world.target.attach(nexus, "192.0.2.1:40001").unwrap(),
            next_tag: Cell::new(1),
        };
        let second = through(other.clone());
        second.settle().await;
        register(&second, 1).await;
        let done = world.fence(&order(&["a"], &["b"])).await.unwrap();
        assert_eq!((done.registrations_removed, done.sessions), (2, 2));
        second.settle().await;
        is_fenced(&second).await;
        a.session.detach(DetachReason::Logout).await;
        let a = world.initiator("a").await;
        is_fenced(&a).await;
        let mut third = other;
        third.initiator.isid = [9; 6];
        let third = through(third);
        third.settle().await;
        is_fenced(&third).await;
    });
}

#[test]
fn the_answer_waits_for_what_the_member_has_in_flight() {
    run(async {
        let world = World::new().await;
        let [_a, b, _c] = cluster(&world, 5).await;
        world.device.writes.close();
        let mut victim = pin!(b.send(write(0, 1), &[0xbb; 512]));
        assert!(stuck(victim.as_mut()).await);
        world.device.writes.hold_those_waiting();
        let members = order(&["b"], &[]);
        let mut fence = pin!(world.fence(&members));
        assert!(
            stuck(fence.as_mut()).await,
            "answered before the write landed"
        );
        assert_eq!(world.device.blocks(0xbb), 0);
        world.device.writes.open();
        let at_answer = async {
            let done = fence.await;
            (done, world.device.blocks(0xbb))
        };
        let ((done, landed), victim) = zip(at_answer, victim).await;
        assert_eq!(landed, 1);
        assert_eq!(done.unwrap().registrations_removed, 1);
        assert_eq!(victim.status, Status::TaskAborted);
    });
}

/// The decision is durable before a fence begins, so nothing new is let in while the private region is written.
#[test]
fn access_is_gone_before_the_registration_is() {
    run(async {
        let world = World::new().await;
        let [a, b, _c] = cluster(&world, 5).await;
        world.device.flushes.close();
        let members = order(&["b"], &[]);
        let mut fence = pin!(world.fence(&members));
        assert!(stuck(fence.as_mut()).await);
        b.settle().await;
        b.conflicts(write(0, 1), &[0xbb; 512]).await;
        assert_eq!(keys(&a).await.1, [1, 2, 3]);
        world.device.flushes.open();
        fence.await.unwrap();
        assert_eq!(keys(&a).await.1, [1, 3]);
        assert_eq!(world.device.blocks(0xbb), 0);
    });
}

#[test]
fn unfenced_a_member_starts_anew() {
    run(async {
        let world = World::new().await;
        let [_a, b, c] = cluster(&world, 5).await;
        world.fence(&order(&["b", "c"], &[])).await.unwrap();
        let volumes = [world.volume_uuid("v0")];
        let results = world.target.unfence(&volumes, &names(&["b"])).await;
        assert!(results[0].1.is_ok());
        b.settle().await;
        b.conflicts(write(0, 1), &[2; 512]).await;
        register(&b, 22).await;
        b.good(write(0, 1), &[2; 512]).await;
        c.settle().await;
        is_fenced(&c).await;
        let unit = world.target.logical_unit(0).unwrap();
        assert_eq!(unit.policy().fenced, names(&["c"]));
    });
}

/// Neither REGISTER with SPEC_I_PT nor REGISTER AND MOVE brings a fenced member back in.
#[test]
fn others_cannot_register_a_fenced_member() {
    run(async {
        let world = World::new().await;
        let [a, _b, _c] = cluster(&world, 5).await;
        world.fence(&order(&["b"], &[])).await.unwrap();
        let transport_id = TransportId {
            name: name("b"),
            isid: Some(nexus("b").initiator.isid),
        };
        let moved = MoveParameters {
            reservation_key: 1,
            service_action_reservation_key: 2,
            unregister: false,
            aptpl: false,
            relative_target_port: 1,
            transport_id: transport_id.clone(),
        }
        .encode();
        let cdb = pr_out_cdb(Action::RegisterAndMove, 5, &moved);
        let wrong = AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST;
        assert_eq!(a.fails(cdb, &moved).await, wrong);
        let d = world.initiator("d").await;
        let specified = BasicParameters {
            service_action_reservation_key: 4,
            spec_i_pt: true,
            transport_ids: vec![transport_id],
            ..BasicParameters::default()
        }
        .encode();
        let cdb = pr_out_cdb(Action::Register, 0, &specified);
        assert_eq!(d.fails(cdb, &specified).await, wrong);
        assert_eq!(keys(&a).await.1, [1, 3]);
    });
}

/// Invariant F, when a volume that was not served comes up: nothing of the member is left before anyone gets in.
#[test]
fn a_fence_is_completed_before_a_volume_is_served() {
    run(async {
        let world = World::new().await;
        let [a, b, c] = cluster(&world, 1).await;
        assert!(world.target.remove_logical_unit(0).await);
        let done = world.fence(&order(&["a"], &["b"])).await.unwrap_err();
        assert!(done.counts_as_fenced(), "{done}");
        assert_eq!(world.stored("v0").await.registrants.len(), 3);
        let volume = world.pool.volume("v0").unwrap();
        world.target.add_logical_unit(volume).await.unwrap();
        let stored = world.stored("v0").await;
        assert_eq!(stored.registrants.len(), 2);
        assert_eq!(stored.reservation.unwrap().holder, Some(nexus("b")));
        let attentions = a.settle().await;
        assert!(attentions.contains(&AdditionalSense::REGISTRATIONS_PREEMPTED));
        is_fenced(&a).await;
        b.settle().await;
        b.good(write(0, 1), &[2; 512]).await;
        c.settle().await;
        c.conflicts(write(0, 1), &[3; 512]).await;
        assert!(world.fence(&order(&["a"], &["b"])).await.is_ok());
        // And however it is served from now on.
        world.serve_again().await;
        a.settle().await;
        is_fenced(&a).await;
    });
}

#[test]
fn a_policy_that_is_known_before_the_volume_is_served_holds() {
    run(async {
        let world = World::new().await;
        let [a, ..] = cluster(&world, 5).await;
        assert!(world.target.remove_logical_unit(0).await);
        let volume = world.pool.volume("v0").unwrap();
        let set = world
            .target
            .set_policy(volume.uuid(), policy(&["a"], &["c"]));
        assert!(matches!(set.await, Err(FenceError::NotServed(_))));
        world.target.add_logical_unit(volume.clone()).await.unwrap();
        assert_eq!(
            world.stored("v0").await.reservation.unwrap().holder,
            Some(nexus("c"))
        );
        a.settle().await;
        is_fenced(&a).await;
        // A policy without the fence does not end it.
        let plain = world
            .target
            .set_policy(volume.uuid(), UnitPolicy::default());
        plain.await.unwrap();
        is_fenced(&a).await;
        world.target.forget_policy(volume.uuid()).await.unwrap();
        register(&a, 5).await;
    });
}

#[test]
fn a_fence_that_cannot_be_recorded_closes_the_volume_to_everyone() {
    run(async {
        let world = World::new().await;
        let [a, b, c] = cluster(&world, 5).await;
        world.device.fail_writes.store(true, SeqCst);
        let error = world.fence(&order(&["a"], &["b"])).await.unwrap_err();
        assert!(error.counts_as_fenced(), "{error}");
        for who in [&a, &b, &c] {
            who.settle_to_not_ready().await;
        }
        let again = world.fence(&order(&["a"], &["b"])).await.unwrap_err();
        assert!(matches!(again, FenceError::NotServed(_)));
        assert_eq!(
            world
                .target
                .logical_unit(0)
                .unwrap()
                .registered_initiators(),
            None
        );
    });
}

impl Initiator {
    /// Whatever else is reported first, the logical unit is not ready.
    async fn settle_to_not_ready(&self) {
        for _ in 0..5 {
            let response = self.send(write(0, 1), &[0xdd; 512]).await;
            let sense = sense(&response).expect("refused");
            if sense.key == scsi::sense::SenseKey::NotReady {
                return;
            }
        }
        panic!("ready");
    }
}

#[test]
fn nothing_is_copied_to_or_from_a_volume_where_the_member_is_fenced() {
    run(async {
        let world = World::new().await;
        let lun = world.add_volume("v1", BlockSize::B512).await;
        let a = world.initiator("a").await;
        a.good(write(0, 1), &[0xaa; 512]).await;
        world.fence(&order(&["a"], &[])).await.unwrap();
        a.settle().await;
        // On LUN 1 the member is not fenced.
        while a.send_to(lun, Cdb::TestUnitReady, &[]).await.status != Status::Good {}
        for segment in [(0, 0, 1, 0, 1), (1, 0, 0, 0, 1)] {
            let list = list(&world, &[0, lun], &[segment]);
            let response = a.send_to(lun, copy(&list), &list).await;
            assert_ne!(response.status, Status::Good);
        }
        let unit = a.send_to(lun, read(0, 1), &[]).await;
        assert!(unit.data_in.iter().all(|byte| *byte == 0));
    });
}

/// A member can end its own tasks, and nobody else's.
#[test]
fn a_fenced_member_resets_nothing() {
    run(async {
        let world = World::new().await;
        let [a, b, _c] = cluster(&world, 5).await;
        world.fence(&order(&["a"], &["b"])).await.unwrap();
        a.settle().await;
        let lun = lun_field(0);
        for function in [
            TaskManagementFunction::LogicalUnitReset,
            TaskManagementFunction::TargetWarmReset,
            TaskManagementFunction::AbortTaskSet,
        ] {
            let response = a.session.task_management(function, lun, 0).await;
            assert_eq!(
                response,
                scsi::sam::TaskManagementResponse::FunctionComplete,
                "{function:?}"
            );
        }
        let cold = TaskManagementFunction::TargetColdReset;
        let response = a.session.task_management(cold, lun, 0).await;
        assert_eq!(
            response,
            scsi::sam::TaskManagementResponse::FunctionAuthorizationFailed
        );
        assert!(!b.session.stop_requested());
        assert_eq!(b.settle().await, []);
    });
}

#[test]
fn the_sanitize_of_a_member_ends_before_the_fence_is_answered() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let parameters = OverwriteParameters {
            invert: false,
            passes: 1,
            pattern: vec![0xa5],
        }
        .encode();
        let sanitize = Cdb::Sanitize(Sanitize {
            action: SanitizeAction::Overwrite,
            immediate: true,
            allow_unrestricted_exit: true,
            parameter_list_length: parameters.len() as u16,
        });
        world.device.writes.close();
        a.good(sanitize, &parameters).await;
        while world.device.writes.waiting() == 0 {
            yield_now().await;
        }
        let members = order(&["a"], &[]);
        let mut fence = pin!(world.fence(&members));
        assert!(stuck(fence.as_mut()).await);
        world.device.writes.open();
        fence.await.unwrap();
        let landed = |world: &World| world.device.log().iter().filter(|w| w.tag == 0xa5).count();
        assert_eq!(landed(&world), 1, "the part in flight and no other");
        for _ in 0..100 {
            yield_now().await;
        }
        assert_eq!(landed(&world), 1);
        assert!(
            world
                .events()
                .contains(&EventKind::SanitizeEnded { complete: false })
        );
    });
}

#[test]
fn grants_of_a_domain_are_below_an_own_grant_and_above_everyones() {
    run(async {
        let world = World::new().await;
        world.grant("v0", "*", Access::Ro).await;
        world.grant("v0", &name("c"), Access::None).await;
        let domain = UnitPolicy {
            grants: ["a", "c"].map(|who| (name(who), Access::Rw)).into(),
            ..UnitPolicy::default()
        };
        world
            .target
            .set_policy(world.volume_uuid("v0"), domain)
            .await
            .unwrap();
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        a.good(write(0, 1), &[1; 512]).await;
        assert_eq!(
            b.fails(write(0, 1), &[1; 512]).await,
            AdditionalSense::WRITE_PROTECTED
        );
        assert!(world.fresh("c").session.visible(0).is_none());
        world
            .target
            .forget_policy(world.volume_uuid("v0"))
            .await
            .unwrap();
        assert_eq!(a.settle().await, [AdditionalSense::MODE_PARAMETERS_CHANGED]);
        assert_eq!(
            a.fails(write(0, 1), &[1; 512]).await,
            AdditionalSense::WRITE_PROTECTED
        );
    });
}

#[test]
fn the_survivor_of_two_owns_the_volume_as_long_as_the_fence_stands() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let stranger = world.initiator("stranger").await;
        let order = FenceOrder {
            scsi2_owners: vec![name("a")],
            ..order(&["b"], &[])
        };
        let done = world.fence(&order).await.unwrap();
        assert_eq!(done.ownership, Ownership::Owner(nexus("a")));
        b.settle().await;
        is_fenced(&b).await;
        stranger.conflicts(write(0, 1), &[0xcc; 512]).await;
        a.good(write(0, 1), &[0xaa; 512]).await;
        let reset = TaskManagementFunction::LogicalUnitReset;
        a.session.task_management(reset, lun_field(0), 0).await;
        stranger.settle_reset().await;
        stranger.conflicts(write(0, 1), &[0xcc; 512]).await;
        // It goes and comes again.
        a.session.detach(DetachReason::NexusLoss).await;
        stranger.good(Cdb::TestUnitReady, &[]).await;
        let a = world.initiator("a").await;
        for _ in 0..10 {
            yield_now().await;
        }
        stranger.conflicts(Cdb::TestUnitReady, &[]).await;
        a.good(write(0, 1), &[0xaa; 512]).await;
        world.serve_again().await;
        a.settle().await;
        for _ in 0..10 {
            yield_now().await;
        }
        stranger.settle_reset().await;
        stranger.conflicts(Cdb::TestUnitReady, &[]).await;
        let volumes = [world.volume_uuid("v0")];
        world.target.unfence(&volumes, &names(&["b"])).await;
        assert!(world.target.policy(volumes[0]).is_empty());
    });
}

impl Initiator {
    /// Takes unit attentions, also where everything else conflicts.
    async fn settle_reset(&self) {
        while self.send(Cdb::TestUnitReady, &[]).await.status == Status::CheckCondition {}
    }
}

#[test]
fn where_somebody_is_registered_nobody_owns() {
    run(async {
        let world = World::new().await;
        let [_a, _b, _c] = cluster(&world, 5).await;
        let order = FenceOrder {
            scsi2_owners: vec![name("a")],
            ..order(&["b"], &[])
        };
        let done = world.fence(&order).await.unwrap();
        assert_eq!(done.ownership, Ownership::Registrants);
    });
}

#[test]
fn who_is_cut_off_is_gone_and_comes_not_back() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let cut_off = names(&["a"]);
        let mut cut = pin!(world.target.cut(&cut_off));
        assert!(stuck(cut.as_mut()).await);
        assert!(a.session.stop_requested() && !b.session.stop_requested());
        let refused = world.target.attach(nexus("a"), "192.0.2.1:40000");
        assert!(matches!(refused, Err(AttachError::Refused)));
        // The transport closes the connection.
        a.session.detach(DetachReason::NexusLoss).await;
        cut.await;
        assert!(world.target.is_cut(&name("a")) && !world.target.is_cut(&name("b")));
        let refused = world.target.attach(nexus("a"), "192.0.2.1:40000");
        assert!(matches!(refused, Err(AttachError::Refused)));
        world.target.restore(&cut_off);
        world.initiator("a").await;
    });
}

#[test]
fn a_fence_on_many_volumes_has_a_result_for_each() {
    run(async {
        let world = World::new().await;
        let mut volumes = vec![world.volume_uuid("v0")];
        for number in 1..6 {
            let name = format!("v{number}");
            world.add_volume(&name, BlockSize::B512).await;
            volumes.push(world.volume_uuid(&name));
        }
        let [_a, _b, _c] = cluster(&world, 5).await;
        let unknown = Uuid::from_u128(99);
        volumes.insert(3, unknown);
        let results = world
            .target
            .fence_all(&volumes, &order(&["a"], &["b"]))
            .await;
        assert!(results.iter().map(|(volume, _)| volume).eq(&volumes));
        for (volume, result) in &results {
            let removed = result.as_ref().map(|done| done.registrations_removed);
            match *volume {
                volume if volume == volumes[0] => assert_eq!(removed, Ok(1)),
                volume if volume == unknown => assert!(removed.unwrap_err().counts_as_fenced()),
                _ => assert_eq!(removed, Ok(0)),
            }
        }
    });
}

/// A flush that began after a commit's write vouches for it: many private regions on one device do not flush one by one.
#[test]
fn the_commits_of_many_volumes_share_flushes() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        register(&a, 1).await;
        let mut volumes = vec![world.volume_uuid("v0")];
        for number in 1..6 {
            let name = format!("v{number}");
            world.add_volume(&name, BlockSize::B512).await;
            let volume = world.pool.volume(&name).unwrap();
            let state = world.stored("v0").await;
            let region = volume.private_region().unwrap();
            region.commit(&state).await.unwrap();
            assert!(world.target.remove_logical_unit(volume.lun()).await);
            world.target.add_logical_unit(volume.clone()).await.unwrap();
            volumes.push(volume.uuid());
        }
        let before = world.device.flush_count();
        world.device.flushes.close();
        let members = order(&["a"], &[]);
        let mut fence = pin!(world.target.fence_all(&volumes, &members));
        assert!(stuck(fence.as_mut()).await);
        world.device.flushes.open();
        for (_, result) in fence.await {
            assert_eq!(result.unwrap().registrations_removed, 1);
        }
        let flushes = world.device.flush_count() - before;
        assert!(flushes <= 4, "{flushes} flushes for 6 volumes");
    });
}
