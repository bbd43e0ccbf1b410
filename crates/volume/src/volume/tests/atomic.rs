//! Atomic writes.

use super::*;

#[test]
fn after_a_power_cut_an_atomic_write_is_there_whole_or_not_at_all() {
    for alignment in [512, 4096] {
        let (world, pool, volume) = volume(alignment, BlockSize::B512);
        // Across the border of two extents on different disks, and not on a block of 4 KiB.
        let at = 5 * MIB - 10 * 512;
        let length = 20 * 512;
        block_on(async {
            volume.write(at, vec![1; length].into()).await.unwrap();
            volume.flush().await.unwrap();
            world.record();
            for round in 2u8..6 {
                volume
                    .write_atomic(at, vec![round; length].into())
                    .await
                    .unwrap();
                world.mark(u64::from(round));
            }
            // A plain write after it must survive the replay of what is left of the intent.
            volume.write(at, vec![9; 512].into()).await.unwrap();
            volume.flush().await.unwrap();
            world.mark(9);
        });
        drop(pool);
        let mut in_flight = 0;
        world.crashes(6, 5, |crash| {
            let acknowledged = crash.mark.unwrap_or(1) as u8;
            let world = world.with_images(crash.images);
            block_on(async {
                let sources = (0..2)
                    .map(|disk| DeviceSource {
                        path: format!("/disk{disk}"),
                        device: world.device(disk),
                    })
                    .collect();
                let pool = Pool::open(sources, Uuid::nil()).await.unwrap();
                let volume = pool.volume("v").unwrap();
                assert_eq!(volume.fault(), None);
                let (result, found) = volume.read(at, BytesMut::zeroed(length)).await;
                result.unwrap();
                let last = found[length - 1];
                match acknowledged {
                    9 => assert_eq!((found[0], last), (9, 5)),
                    5 => assert!(last == 5 && [5, 9].contains(&found[0])),
                    _ => {
                        assert!(found.iter().all(|byte| *byte == last), "torn");
                        assert!(last == acknowledged || last == acknowledged + 1);
                        in_flight += u32::from(last != acknowledged);
                    }
                }
            });
        });
        assert!(in_flight > 10, "{in_flight}");
    }
}

#[test]
fn an_intent_that_stays_stops_writes_until_the_pool_is_opened_again() {
    // Writes: the lane, two parts in place, the erased header.
    for fuse in 0..5 {
        let (world, _pool, volume) = volume(512, BlockSize::B512);
        block_on(async {
            volume.write(0, vec![1; 4096].into()).await.unwrap();
            world.fuse(0, Some(fuse));
            let result = volume.write_atomic(0, vec![2; 4096].into()).await;
            world.fuse(0, None);
            if fuse >= 3 {
                result.unwrap();
                volume.write(0, vec![3; 4096].into()).await.unwrap();
                return;
            }
            result.unwrap_err();
            let refused = volume.write(0, vec![3; 4096].into()).await.unwrap_err();
            assert!(matches!(refused, VolumeError::WritesRefused { .. }));
            assert!(volume.write_zeroes(0, 512, false).await.is_err());
            assert!(volume.write_atomic(0, vec![3; 512].into()).await.is_err());
            // What may change still is not shown.
            let (undecided, _) = volume.read(3584, BytesMut::zeroed(1024)).await;
            assert!(matches!(undecided, Err(VolumeError::Undecided { .. })));
            let (result, _) = volume.read(4096, BytesMut::zeroed(512)).await;
            result.unwrap();
            let sources = (0..2)
                .map(|disk| DeviceSource {
                    path: format!("/disk{disk}"),
                    device: world.device(disk),
                })
                .collect();
            let pool = Pool::open(sources, Uuid::nil()).await.unwrap();
            let volume = pool.volume("v").unwrap();
            let (_, found) = volume.read(0, BytesMut::zeroed(4096)).await;
            let expected = if fuse == 0 { 1 } else { 2 };
            assert!(found.iter().all(|byte| *byte == expected), "fuse {fuse}");
            volume.write(0, vec![3; 4096].into()).await.unwrap();
        });
    }
}

/// The keeper does what opening would: after it nothing is refused, and nothing of the old write is left to be replayed.
#[test]
fn an_intent_that_stays_comes_to_its_end_without_a_restart() {
    for fuse in 0..3 {
        let (world, pool, volume) = volume(512, BlockSize::B512);
        let at = 5 * MIB - 10 * 512;
        let length = 20 * 512;
        block_on(async {
            volume.write(at, vec![1; length].into()).await.unwrap();
            volume.flush().await.unwrap();
            world.record();
            // The intent is on d0; the last part in place is not always.
            world.fuse(0, Some(fuse));
            let result = volume.write_atomic(at, vec![2; length].into()).await;
            result.unwrap_err();
            assert!(volume.has_stuck_intents());
            assert!(volume.finish_intents().await.is_err());
            assert!(volume.writes_refused().is_some());
            world.fuse(0, None);
            world.mark(1);
            volume.finish_intents().await.unwrap();
            assert_eq!(volume.writes_refused(), None);
            world.mark(2);
            let expected = if fuse == 0 { 1 } else { 2 };
            let (_, found) = volume.read(at, BytesMut::zeroed(length)).await;
            assert!(found.iter().all(|byte| *byte == expected), "fuse {fuse}");
            // All lanes are free again.
            for _ in 0..4 {
                let other = vec![7; 512];
                volume.write_atomic(0, other.into()).await.unwrap();
            }
            volume.write(at, vec![9; 512].into()).await.unwrap();
            volume.flush().await.unwrap();
            world.mark(3);
        });
        drop(pool);
        let mut points = [0; 4];
        world.crashes(7, 3, |crash| {
            let mark = crash.mark.unwrap_or(0) as usize;
            points[mark] += 1;
            let world = world.with_images(crash.images);
            block_on(async {
                let sources = (0..2)
                    .map(|disk| DeviceSource {
                        path: format!("/disk{disk}"),
                        device: world.device(disk),
                    })
                    .collect();
                let pool = Pool::open(sources, Uuid::nil()).await.unwrap();
                let volume = pool.volume("v").unwrap();
                let (result, found) = volume.read(at, BytesMut::zeroed(length)).await;
                result.unwrap();
                let last = found[length - 1];
                assert!(found[512..].iter().all(|byte| *byte == last), "torn");
                match mark {
                    3 => assert_eq!((found[0], last), (9, if fuse == 0 { 1 } else { 2 })),
                    2 => assert_eq!(last, if fuse == 0 { 1 } else { 2 }),
                    _ => assert!(last == 1 || last == 2, "{last}"),
                }
            });
        });
        assert!(points[1..].iter().all(|points| *points > 0), "{points:?}");
    }
}

#[test]
fn many_atomic_writes_share_the_lanes() {
    let (_world, _pool, volume) = volume(512, BlockSize::B512);
    block_on(async {
        let writes = (0..20u8).map(|number| {
            let data = vec![number; MAX_ATOMIC_BYTES as usize];
            crate::join::boxed(
                volume.write_atomic(u64::from(number) * MAX_ATOMIC_BYTES, data.into()),
            )
        });
        for result in crate::join::join_all(writes).await {
            result.unwrap();
        }
        for number in 0..20u8 {
            let at = u64::from(number) * MAX_ATOMIC_BYTES;
            let (_, found) = volume
                .read(at, BytesMut::zeroed(MAX_ATOMIC_BYTES as usize))
                .await;
            assert!(found.iter().all(|byte| *byte == number));
        }
        let too_long = vec![0; MAX_ATOMIC_BYTES as usize + 512];
        assert!(matches!(
            volume.write_atomic(0, too_long.into()).await,
            Err(VolumeError::AtomicTooLong { .. })
        ));
    });
}
