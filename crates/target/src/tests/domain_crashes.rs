//! A crash at any write while a member is fenced on the volumes of its domain: what a restart makes of it is all or nothing.

use reservation::{Key, Registrant, Reservation, ReservationType, State};
use volume::config::DocumentRecord;
use volume::sim::{SimDevice, SimWorld};

use super::domains::{order, policy};
use super::*;

const VOLUMES: usize = 5;
const DISKS: usize = 3;
const BOOT: uuid::Uuid = uuid::Uuid::from_u128(0xb007);

/// What the daemon keeps of a domain: here only whether the member is fenced.
fn document(fenced: bool, proven: bool) -> DocumentRecord {
    DocumentRecord {
        uuid: uuid::Uuid::from_u128(0xd0),
        kind: "domain".into(),
        name: "prod".into(),
        extents: Vec::new(),
        body: vec![u8::from(fenced), u8::from(proven)],
    }
}

async fn is_fenced(pool: &Pool<SimDevice>) -> bool {
    let documents = pool.documents("domain").await;
    documents
        .first()
        .is_some_and(|document| document.body[0] == 1)
}

async fn open(world: &SimWorld) -> Pool<SimDevice> {
    let sources = (0..DISKS).map(|disk| DeviceSource {
        path: format!("/disk{disk}"),
        device: world.device(disk),
    });
    Pool::open(sources.collect(), BOOT).await.unwrap()
}

/// `a` and `b` are registered, `a` holds.
fn before() -> State {
    let registrant = |key| Registrant {
        key: Key(key),
        all_target_ports: false,
    };
    State {
        generation: 7,
        aptpl: true,
        registrants: [(nexus("a"), registrant(1)), (nexus("b"), registrant(2))].into(),
        reservation: Some(Reservation {
            kind: ReservationType::WriteExclusiveRegistrantsOnly,
            holder: Some(nexus("a")),
        }),
        lost: None,
    }
}

/// `b` has inherited what `a` had.
fn after() -> State {
    let mut state = before();
    state.generation = 8;
    state.registrants.remove(&nexus("a"));
    if let Some(reservation) = &mut state.reservation {
        reservation.holder = Some(nexus("b"));
    }
    state
}

/// Serves the pool as the daemon does at a start: the policies first.
async fn serve(pool: &Pool<SimDevice>) -> Arc<Target<SimDevice>> {
    let config = TargetConfig {
        name: "iqn.2026-11.dev.ringfence:test".into(),
        ports: vec![1],
        sanitize_bytes_per_second: None,
    };
    let target = Target::new(config, Arc::new(TestRuntime), Arc::new(NoEvents));
    let fenced = is_fenced(pool).await;
    for volume in pool.volumes() {
        if fenced {
            // It is not served yet.
            let set = target
                .set_policy(volume.uuid(), policy(&["a"], &["b"]))
                .await;
            assert!(set.is_err_and(|error| error.counts_as_fenced()));
        }
        target.add_logical_unit(volume).await.unwrap();
    }
    target
}

async fn stored(pool: &Pool<SimDevice>) -> Vec<State> {
    let mut states = Vec::new();
    for volume in pool.volumes() {
        let region = volume.private_region().unwrap();
        states.push(region.load().await.unwrap());
    }
    states
}

#[test]
fn a_restart_finds_all_volumes_fenced_or_none() {
    let world = SimWorld::default();
    for _ in 0..DISKS {
        world.add(48 << 20, 4096);
    }
    run(async {
        let pool = Pool::open(Vec::new(), BOOT).await.unwrap();
        for disk in 0..DISKS {
            let source = DeviceSource {
                path: format!("/disk{disk}"),
                device: world.device(disk),
            };
            pool.device_add(&format!("d{disk}"), source).await.unwrap();
        }
        for number in 0..VOLUMES {
            let request = CreateVolume {
                name: format!("v{number}"),
                size_bytes: 1 << 20,
                ..CreateVolume::default()
            };
            let volume = pool.volume_create(request).await.unwrap();
            let region = volume.private_region().unwrap();
            region.commit(&before()).await.unwrap();
        }
        pool.put_document(document(false, false)).await.unwrap();
        let target = serve(&pool).await;
        world.record();
        // The decision, the fence, the note that it is proven.
        pool.put_document(document(true, false)).await.unwrap();
        world.mark(1);
        let volumes: Vec<_> = pool.volumes().iter().map(|volume| volume.uuid()).collect();
        let results = target.fence_all(&volumes, &order(&["a"], &["b"])).await;
        assert!(results.iter().all(|(_, result)| result.is_ok()));
        world.mark(2);
        pool.put_document(document(true, true)).await.unwrap();
        world.mark(3);
    });
    let (mut points, mut halfway) = (0, 0);
    world.crashes(1, 5, |crash| {
        points += 1;
        let mark = crash.mark.unwrap_or(0);
        let world = world.with_images(crash.images);
        run(async {
            let pool = open(&world).await;
            let fenced = is_fenced(&pool).await;
            assert!(fenced || mark == 0, "the decision was durable");
            let found = stored(&pool).await;
            assert_eq!(found.len(), VOLUMES);
            let done = found.iter().filter(|state| **state == after()).count();
            assert!(
                found
                    .iter()
                    .all(|state| *state == after() || *state == before())
            );
            assert!(fenced || done == 0, "fenced before it was decided");
            assert!(done == VOLUMES || mark < 2, "the fence had been answered");
            halfway += usize::from(0 < done && done < VOLUMES);
            let target = serve(&pool).await;
            let wanted = if fenced { after() } else { before() };
            for unit in target.logical_units() {
                assert_eq!(unit.failure(), None);
                assert_eq!(unit.reservations().unwrap().persistent, wanted);
            }
            drop(target);
            // It is durable before anyone is served.
            let pool = open(&world).await;
            assert!(stored(&pool).await.iter().all(|state| *state == wanted));
        });
    });
    assert!(
        points > 50 && halfway > 10,
        "{points} points, {halfway} halfway"
    );
}

/// One volume whose keys are gone on all disks: the others are fenced, and it lets nobody in.
#[test]
fn a_volume_whose_keys_are_destroyed_keeps_nobody_from_being_fenced_elsewhere() {
    run(async {
        let world = SimWorld::default();
        world.add(48 << 20, 4096);
        let pool = Pool::open(Vec::new(), BOOT).await.unwrap();
        let source = DeviceSource {
            path: "/disk0".into(),
            device: world.device(0),
        };
        pool.device_add("d0", source).await.unwrap();
        for name in ["v0", "v1"] {
            let request = CreateVolume {
                name: name.into(),
                size_bytes: 1 << 20,
                ..CreateVolume::default()
            };
            let volume = pool.volume_create(request).await.unwrap();
            let region = volume.private_region().unwrap();
            region.commit(&before()).await.unwrap();
        }
        let keys = pool.volume("v0").unwrap().record().keys[0].extent;
        let noise = vec![0x5a; keys.length_bytes as usize];
        world.overwrite(0, keys.offset_bytes, &noise);
        let sources = vec![DeviceSource {
            path: "/disk0".into(),
            device: world.device(0),
        }];
        let pool = Pool::open(sources, BOOT).await.unwrap();
        let target = serve(&pool).await;
        let volumes: Vec<_> = pool.volumes().iter().map(|volume| volume.uuid()).collect();
        let results = target.fence_all(&volumes, &order(&["a"], &["b"])).await;
        assert!(
            results[0]
                .1
                .as_ref()
                .is_err_and(FenceError::counts_as_fenced)
        );
        assert_eq!(results[1].1.as_ref().unwrap().registrations_removed, 1);
        assert_eq!(
            pool.volumes()[1]
                .private_region()
                .unwrap()
                .load()
                .await
                .unwrap(),
            after()
        );
        let unit = target.logical_unit(pool.volumes()[0].lun()).unwrap();
        assert!(unit.failure().is_some() && unit.reservations().is_none());
    });
}
