//! Documents and quorum regions.

use futures_lite::future::zip;

use super::*;
use crate::config::{DocumentRecord, Extent};
use crate::pool::{QUORUM_LIMIT, QuorumError};
use crate::sim::{SimDevice, Stop};

const DOCUMENT: Uuid = Uuid::from_u128(0xd0c);

fn document(name: &str, body: &[u8]) -> DocumentRecord {
    DocumentRecord {
        uuid: DOCUMENT,
        kind: "domain".into(),
        name: name.into(),
        extents: Vec::new(),
        body: body.into(),
    }
}

/// A document with a quorum region on `device`.
async fn with_region(pool: &Pool<SimDevice>, device: &str, name: &str) -> Extent {
    let extent = pool.reserve_quorum_region(device, DOCUMENT).await.unwrap();
    let record = DocumentRecord {
        extents: vec![extent],
        ..document(name, b"{}")
    };
    pool.put_document(record).await.unwrap();
    extent
}

#[test]
fn documents_of_any_length_outlive_a_restart() {
    block_on(async {
        let world = world(&[64, 64, 64]);
        let pool = pool(&world, 3).await;
        for length in [0usize, 1, 4000, 4032, 4033, 100_000, 5] {
            let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            pool.put_document(document("prod", &body)).await.unwrap();
            let again = open(&world, &[0, 1, 2]).await.unwrap();
            assert_eq!(again.documents("domain").await, [document("prod", &body)]);
            assert!(again.documents("quorum").await.is_empty());
        }
        let other = DocumentRecord {
            uuid: Uuid::from_u128(1),
            ..document("prod", b"")
        };
        let taken = pool.put_document(other.clone()).await;
        assert!(matches!(taken, Err(PoolError::NameTaken { .. })));
        let kind = DocumentRecord {
            kind: "quorum".into(),
            ..other
        };
        pool.put_document(kind).await.unwrap();
        pool.put_document(document("test", b"renamed"))
            .await
            .unwrap();
        pool.remove_document(Uuid::from_u128(1)).await.unwrap();
        pool.remove_document(Uuid::from_u128(1)).await.unwrap();
        let again = open(&world, &[0, 1, 2]).await.unwrap();
        assert_eq!(
            again.documents("domain").await,
            [document("test", b"renamed")]
        );
        assert!(again.documents("quorum").await.is_empty());
    });
}

#[test]
fn a_document_is_not_put_in_the_place_of_something_else() {
    block_on(async {
        let world = world(&[64]);
        let pool = pool(&world, 1).await;
        let volume = pool.volume_create(request("v", 1)).await.unwrap();
        let device = pool.device("d0").await.unwrap().uuid;
        for uuid in [volume.uuid(), device, pool.uuid().await.unwrap()] {
            let record = DocumentRecord {
                uuid,
                ..document("x", b"")
            };
            let put = pool.put_document(record).await;
            assert!(matches!(put, Err(PoolError::InvalidDocument { .. })));
            pool.remove_document(uuid).await.unwrap();
        }
        assert_eq!(pool.volumes().len(), 1);
        // Nor may it claim an extent that nobody gave it.
        let record = DocumentRecord {
            extents: vec![*volume.record().extents().next().unwrap()],
            ..document("x", b"")
        };
        let put = pool.put_document(record).await;
        assert!(matches!(put, Err(PoolError::InvalidDocument { .. })));
        let again = open(&world, &[0]).await.unwrap();
        assert_eq!(again.volumes().len(), 1);
    });
}

#[test]
fn what_is_written_to_a_quorum_region_is_read_after_a_power_cut() {
    block_on(async {
        let world = world(&[64, 64, 64]);
        let pool = pool(&world, 3).await;
        with_region(&pool, "d1", "prod").await;
        assert_eq!(pool.quorum_read(DOCUMENT).await.unwrap(), b"");
        for length in [1usize, 32 << 10, 0, 4088, 4089, 77] {
            let content: Vec<u8> = (0..length).map(|at| (at % 13) as u8).collect();
            pool.quorum_write(DOCUMENT, &content).await.unwrap();
            let after = world.after(Stop::PowerCut, length as u64);
            let again = open(&after, &[0, 1, 2]).await.unwrap();
            assert_eq!(again.quorum_read(DOCUMENT).await.unwrap(), content);
        }
        let long = pool.quorum_write(DOCUMENT, &[0; (32 << 10) + 1]).await;
        assert!(matches!(long, Err(QuorumError::TooLong(32_769))));
        let none = pool.quorum_read(Uuid::from_u128(7)).await;
        assert!(matches!(none, Err(QuorumError::NoRegion(_))));
    });
}

#[test]
fn nobody_gets_the_space_of_a_quorum_region() {
    block_on(async {
        let world = world(&[64]);
        let pool = pool(&world, 1).await;
        let info = |pool: &Pool<SimDevice>| block_on(pool.device("d0")).unwrap();
        let free = info(&pool).free_bytes;
        // Reserved twice, released, and reserved for good: no space is lost.
        pool.reserve_quorum_region("d0", DOCUMENT).await.unwrap();
        pool.reserve_quorum_region("d0", DOCUMENT).await.unwrap();
        pool.release_quorum_region(DOCUMENT).await;
        assert_eq!(info(&pool).free_bytes, free);
        let extent = with_region(&pool, "d0", "prod").await;
        pool.quorum_write(DOCUMENT, b"granted").await.unwrap();
        assert_eq!(info(&pool).free_bytes, free - extent.length_bytes);
        assert_eq!(info(&pool).volumes, ["domain prod (quorum)"]);
        let again = open(&world, &[0]).await.unwrap();
        assert_eq!(info(&again).free_bytes, free - extent.length_bytes);
        // Volumes until nothing more fits, after the restart.
        let pool = again;
        let mut number = 0;
        while let Ok(volume) = pool.volume_create(request(&format!("v{number}"), 1)).await {
            for other in volume.record().extents() {
                let apart = other.offset_bytes + other.length_bytes <= extent.offset_bytes
                    || extent.offset_bytes + extent.length_bytes <= other.offset_bytes;
                assert!(apart, "{other:?} overlaps {extent:?}");
            }
            volume.write(0, vec![0xff; 4096].into()).await.unwrap();
            number += 1;
        }
        assert!(number > 3);
        assert_eq!(pool.quorum_read(DOCUMENT).await.unwrap(), b"granted");
        pool.remove_document(DOCUMENT).await.unwrap();
        assert!(!info(&pool).volumes.contains(&"domain prod (quorum)".into()));
        assert!(open(&world, &[0]).await.is_ok());
    });
}

#[test]
fn a_device_with_a_quorum_region_is_not_emptied() {
    block_on(async {
        let world = world(&[64, 64, 64, 64]);
        let pool = pool(&world, 3).await;
        with_region(&pool, "d1", "prod").await;
        let removed = pool.device_remove("d1").await.unwrap_err();
        assert!(removed.to_string().contains("domain prod"), "{removed}");
        let evacuated = pool.device_evacuate("d1", None).await.unwrap_err();
        assert!(evacuated.to_string().contains("domain prod"), "{evacuated}");
        let replaced = pool.device_replace("d1", "d2", None).await.unwrap_err();
        assert!(matches!(replaced, PoolError::QuorumDevice { .. }));
        // To another device: then the first may go.
        with_region(&pool, "d2", "prod").await;
        pool.device_remove("d1").await.unwrap();
        assert_eq!(pool.quorum_read(DOCUMENT).await.unwrap(), b"");
        pool.device_remove("d0").await.unwrap();
        pool.remove_document(DOCUMENT).await.unwrap();
        // Documents keep the last device.
        pool.put_document(document("prod", b"")).await.unwrap();
        let last = pool.device_remove("d2").await.unwrap_err();
        assert!(last.to_string().contains("domain prod"), "{last}");
    });
}

#[test]
fn losing_the_quorum_device_costs_nothing_else() {
    block_on(async {
        let world = world(&[64, 64, 64]);
        let pool = pool(&world, 3).await;
        let volume = pool.volume_create(request("v", 1)).await.unwrap();
        with_region(&pool, "d2", "prod").await;
        pool.quorum_write(DOCUMENT, b"granted").await.unwrap();
        world.die(2);
        assert!(pool.quorum_read(DOCUMENT).await.is_err());
        assert!(pool.quorum_write(DOCUMENT, b"more").await.is_err());
        volume.write(0, vec![1; 4096].into()).await.unwrap();
        // The document can still change, and be read without the device.
        let mut record = pool.documents("domain").await.remove(0);
        record.body = b"changed".to_vec();
        pool.put_document(record.clone()).await.unwrap();
        let again = open(&world, &[0, 1]).await.unwrap();
        assert_eq!(again.documents("domain").await, [record]);
        assert!(matches!(
            again.quorum_read(DOCUMENT).await,
            Err(QuorumError::Device(PoolError::DeviceMissing { .. }))
        ));
        assert!(again.volume("v").unwrap().fault().is_none());
    });
}

/// What a restart must find of a document: its name and content, and what its quorum region says.
type View = (Option<(String, Vec<u8>)>, Option<Vec<u8>>);

async fn view(pool: &Pool<SimDevice>) -> View {
    let document = pool.documents("domain").await.pop();
    let region = match document.as_ref().map(|record| record.extents.len()) {
        Some(1) => Some(pool.quorum_read(DOCUMENT).await.unwrap()),
        _ => None,
    };
    (document.map(|record| (record.name, record.body)), region)
}

#[test]
fn a_crash_at_any_write_leaves_documents_and_regions_before_or_after_a_change() {
    let world = world(&[32, 32, 32]);
    let mut views = Vec::new();
    block_on(async {
        let pool = pool(&world, 3).await;
        world.record();
        views.push(view(&pool).await);
        for step in 1u64.. {
            match step {
                1 => pool.put_document(document("a", &[1; 9000])).await.unwrap(),
                2 => drop(with_region(&pool, "d1", "a").await),
                3..=6 => {
                    let content = vec![step as u8; [9000, 1, 5000, 300][step as usize - 3]];
                    pool.quorum_write(DOCUMENT, &content).await.unwrap();
                }
                7 => {
                    let mut record = pool.documents("domain").await.remove(0);
                    record.body = vec![7; 20_000];
                    pool.put_document(record).await.unwrap();
                }
                8 => drop(with_region(&pool, "d2", "b").await),
                9 => pool.quorum_write(DOCUMENT, b"on d2").await.unwrap(),
                10 => pool
                    .put_document(document("b", b"no region"))
                    .await
                    .unwrap(),
                11 => pool.remove_document(DOCUMENT).await.unwrap(),
                _ => break,
            }
            views.push(view(&pool).await);
            world.mark(step);
        }
    });
    let (mut points, mut adopted) = (0, 0);
    world.crashes(1, 11, |crash| {
        points += 1;
        let acknowledged = crash.mark.unwrap_or(0) as usize;
        let world = world.with_images(crash.images);
        block_on(async {
            let pool = open(&world, &[0, 1, 2]).await.unwrap();
            let found = view(&pool).await;
            if found != views[acknowledged] {
                assert_eq!(Some(&found), views.get(acknowledged + 1));
                adopted += 1;
            }
            if found.1.is_some() {
                pool.quorum_write(DOCUMENT, b"after").await.unwrap();
                assert_eq!(pool.quorum_read(DOCUMENT).await.unwrap(), b"after");
            }
            pool.put_document(document("after", b"")).await.unwrap();
        });
    });
    assert!(points > 100 && adopted > 10, "{points} {adopted}");
}

/// A fence is decided by a commit, which must not wait for a quorum device.
#[test]
fn a_document_changes_while_the_quorum_device_hangs() {
    let world = world(&[64, 64, 64]);
    let pool = block_on(pool(&world, 3));
    block_on(with_region(&pool, "d2", "prod"));
    world.hang(2);
    let asked = world.time();
    let (read, put) = world.run(async {
        let mut record = pool.documents("domain").await.remove(0);
        record.body = b"changed".to_vec();
        let put = async {
            pool.put_document(record).await.unwrap();
            world.time() - asked
        };
        zip(pool.quorum_read(DOCUMENT), put).await
    });
    assert!(read.is_err());
    assert!(put < QUORUM_LIMIT, "{put:?}");
}
