//! Devices: what is taken, what is not, and what goes.

use super::*;

const EXT4_MAGIC: u64 = 1024 + 0x38;

fn blank_ends(world: &SimWorld, disk: usize, size: u64) -> bool {
    let image = world.image(disk);
    let mut tail = vec![1; MIB as usize];
    image.read(size - MIB, &mut tail);
    // The label is at the start.
    let mut head = vec![1; (MIB - 4096) as usize];
    image.read(4096, &mut head);
    head[65_536 - 4096..65_536].fill(0);
    head.iter().chain(&tail).all(|byte| *byte == 0)
}

#[test]
fn force_erases_what_others_left_at_both_ends() {
    let world = world(&[64, 64]);
    block_on(async {
        let pool = pool(&world, 1).await;
        world.overwrite(1, EXT4_MAGIC, b"\x53\xef");
        world.overwrite(1, 300 * 1024, b"more of it");
        world.overwrite(1, 64 * MIB - 512, b"EFI PART");
        let error = pool
            .device_add("d1", source(&world, 1))
            .await
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "/disk1 carries an ext2 file system; if nobody needs it, add the device with --force, which erases it"
        );
        assert_eq!(error.kind(), PoolErrorKind::Refused);
        pool.device_add_with("d1", source(&world, 1), true)
            .await
            .unwrap();
        assert!(blank_ends(&world, 1, 64 * MIB));
        open(&world, &[0, 1])
            .await
            .unwrap()
            .device("d1")
            .await
            .unwrap();
    });
}

#[test]
fn a_member_is_not_taken_again_however_much_one_insists() {
    let world = world(&[64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 2).await;
        let image = world.image(1);
        let error = pool
            .device_add_with("x", source(&world, 1), true)
            .await
            .err()
            .unwrap();
        assert!(
            error
                .to_string()
                .contains("is device d1 of this pool already"),
            "{error}"
        );
        assert_eq!(
            image.first_difference(0..64 * MIB, &world.image(1), 0),
            None
        );
        // Another pool's is, if one insists.
        let other = open(&world, &[]).await.unwrap();
        let error = other
            .device_add("x", source(&world, 1))
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains("belongs to pool"), "{error}");
        other
            .device_add_with("x", source(&world, 1), true)
            .await
            .unwrap();
    });
}

#[test]
fn a_dead_device_that_nothing_needs_can_be_removed_and_is_no_member_when_it_comes_back() {
    let world = world(&[64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 3).await;
        pool.volume_create(CreateVolume {
            on: vec!["d0".into()],
            keys_on: vec!["d0".into()],
            ..request("v", 4)
        })
        .await
        .unwrap();
        world.fail(2, true, true, true);
        pool.device_remove("d2").await.unwrap();
        world.fail(2, false, false, false);
        let pool = open(&world, &[0, 1, 2]).await.unwrap();
        assert_eq!(pool.devices().await.len(), 2);
        // One that is not even there.
        let pool = open(&world, &[0, 1]).await.unwrap();
        pool.device_add("d2", source(&world, 2)).await.unwrap();
        let pool = open(&world, &[0, 2]).await.unwrap();
        pool.device_remove("d1").await.unwrap();
        let pool = open(&world, &[0, 1, 2]).await.unwrap();
        assert_eq!(pool.devices().await.len(), 2);
        pool.device_add("d1", source(&world, 1)).await.unwrap();
    });
}

#[test]
fn what_is_in_use_is_said_by_volume_and_part() {
    let world = world(&[64, 64, 64]);
    block_on(async {
        let pool = pool(&world, 3).await;
        pool.volume_create(CreateVolume {
            on: vec!["d0".into()],
            keys_on: vec!["d1".into()],
            ..request("v", 4)
        })
        .await
        .unwrap();
        pool.volume_create(CreateVolume {
            on: vec!["d1".into()],
            keys_on: vec!["d1".into()],
            ..request("w", 4)
        })
        .await
        .unwrap();
        for (device, expected) in [
            ("d0", "device d0 is in use by v (data, log)"),
            ("d1", "device d1 is in use by v (keys), w (data, log, keys)"),
        ] {
            let error = pool.device_remove(device).await.err().unwrap().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        pool.device_remove("d2").await.unwrap();
    });
}

#[test]
fn nothing_new_goes_to_a_device_that_failed_or_is_hung() {
    let world = SimWorld::seeded(4);
    for _ in 0..5 {
        world.add(64 * MIB, 4096);
    }
    world.run(async {
        let pool = pool(&world, 5).await;
        let d1 = pool.device("d1").await.unwrap().uuid;
        {
            let inner = pool.inner.lock().await;
            inner.devices[&d1].fail("a test says so");
        }
        let named = CreateVolume {
            on: vec!["d1".into()],
            ..request("v", 4)
        };
        let error = pool.volume_create(named).await.err().unwrap().to_string();
        assert!(
            error.contains("d1 cannot be used now: it failed: a test says so"),
            "{error}"
        );
        let mirrored = CreateVolume {
            mirrors: 4,
            on: ["d0", "d1", "d2", "d3"].map(String::from).into(),
            ..request("v", 4)
        };
        let error = pool
            .volume_create(mirrored)
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("d1 cannot be used now"), "{error}");
        let striped = CreateVolume {
            layout: LayoutRequest::Striped {
                columns: Some(5),
                stripe_unit_bytes: None,
            },
            ..request("v", 4)
        };
        let error = pool.volume_create(striped).await.err().unwrap().to_string();
        assert!(
            error.contains("needs 5 devices") && error.contains("there are 4"),
            "{error}"
        );
        let volume = pool.volume_create(request("v", 4)).await.unwrap();
        assert!(volume.record().extents().all(|extent| extent.device != d1));
        // An operation that was given up may still land.
        let d2 = pool.device("d2").await.unwrap().uuid;
        let device = pool.inner.lock().await.devices[&d2].clone();
        world.hang(2);
        let write = device.write(60 * MIB, aligned_buffer(4096).freeze());
        assert!(
            device
                .within(std::time::Duration::from_secs(1), write)
                .await
                .is_none()
        );
        let named = CreateVolume {
            on: vec!["d2".into()],
            ..request("w", 4)
        };
        let error = pool.volume_create(named).await.err().unwrap().to_string();
        assert!(error.contains("may still land"), "{error}");
        let volume = pool.volume_create(request("w", 4)).await.unwrap();
        assert!(
            volume
                .record()
                .extents()
                .all(|extent| extent.device != d1 && extent.device != d2)
        );
    });
}

/// Which devices are given, after which history: what comes up. `a` to `c` are the disks; the verdict on labels and on
/// the copies has tables of its own, this is the whole way.
#[test]
fn the_whole_way_as_a_table() {
    #[derive(Clone, Copy)]
    enum History {
        Nothing,
        /// A change while c was away.
        WithoutC,
        /// A change while c was away, then another while a was.
        WithoutCThenA,
        /// Two halves that each went on alone, which no crash does.
        Forked,
        TornC,
        NoiseOnC,
        ConfigOfC,
        RemovedC,
        ShrunkC,
    }
    use History::*;
    for (history, given, expected) in [
        (Nothing, "abc", "a b c"),
        (Nothing, "cba", "a b c"),
        (Nothing, "ab", "a b c(missing)"),
        (
            Nothing,
            "c",
            "only 1 of 3 copies could be read and 2 are needed",
        ),
        (Nothing, "", "empty"),
        (WithoutC, "abc", "a b c +1"),
        (WithoutC, "bc", "a(missing) b c +1"),
        (WithoutCThenA, "abc", "a b c +2"),
        (WithoutCThenA, "ac", "a b(missing) c +2"),
        (Forked, "abc", "disagree in a way that no crash explains"),
        (TornC, "abc", "a b c(missing)"),
        (TornC, "c", "label is damaged in both copies"),
        (NoiseOnC, "abc", "a b c(missing)"),
        (NoiseOnC, "ac", "only 1 of 3"),
        (ConfigOfC, "abc", "a b c"),
        (ConfigOfC, "ac", "only 1 of 3"),
        (RemovedC, "abc", "a b"),
        (RemovedC, "ac", "only 1 of 2"),
        (ShrunkC, "abc", "a b c(missing)"),
    ] {
        let world = world(&[32, 32, 32]);
        let said = block_on(async {
            let pool = pool(&world, 3).await;
            let c = world.image(2);
            let count = |pool: Pool<SimDevice>, name: &'static str| async move {
                let request = CreateVolume {
                    on: vec!["d1".into()],
                    keys_on: vec!["d1".into()],
                    ..request(name, 1)
                };
                pool.volume_create(request).await.unwrap();
            };
            match history {
                Nothing => drop(pool),
                WithoutC => {
                    drop(pool);
                    count(open(&world, &[0, 1]).await.unwrap(), "one").await;
                }
                WithoutCThenA => {
                    drop(pool);
                    count(open(&world, &[0, 1]).await.unwrap(), "one").await;
                    count(open(&world, &[1, 2]).await.unwrap(), "two").await;
                }
                Forked => {
                    drop(pool);
                    let b = world.image(1);
                    let twin = world.with_images((0..3).map(|disk| world.image(disk)).collect());
                    count(open(&world, &[0, 1]).await.unwrap(), "one").await;
                    count(open(&twin, &[1, 2]).await.unwrap(), "other").await;
                    let images = vec![world.image(0), b, twin.image(2)];
                    let forked = world.with_images(images);
                    for disk in 0..3 {
                        let image = forked.image(disk);
                        let mut bytes = vec![0; 32 << 20];
                        image.read(0, &mut bytes);
                        world.overwrite(disk, 0, &bytes);
                    }
                }
                TornC => {
                    drop(pool);
                    world.overwrite(2, 300, b"x");
                    world.overwrite(2, 65_536 + 300, b"x");
                }
                NoiseOnC => {
                    drop(pool);
                    world.overwrite(2, 0, &[0x5a; 6 << 20]);
                }
                ConfigOfC => {
                    drop(pool);
                    world.overwrite(2, MIB, &[0x5a; 4 << 20]);
                }
                RemovedC => {
                    // While it was away, so that it keeps its label.
                    drop(pool);
                    let pool = open(&world, &[0, 1]).await.unwrap();
                    pool.device_remove("d2").await.unwrap();
                    let mut bytes = vec![0; 5 << 20];
                    c.read(0, &mut bytes);
                    world.overwrite(2, 0, &bytes);
                }
                ShrunkC => {
                    drop(pool);
                    // Its label says that it was larger.
                    let handle = world.device(2);
                    let device = Device::new(Uuid::nil(), String::new(), String::new(), handle);
                    let mut label = crate::label::read(&device).await.unwrap();
                    label.size_bytes = 64 * MIB;
                    crate::label::write(&device, &label).await.unwrap();
                }
            }
            let disks: Vec<usize> = given.bytes().map(|disk| usize::from(disk - b'a')).collect();
            let pool = match open(&world, &disks).await {
                Ok(pool) => pool,
                Err(error) => return error.to_string(),
            };
            if pool.info().await.is_none() {
                return "empty".to_owned();
            }
            let mut said: Vec<String> = Vec::new();
            for info in pool.devices().await {
                let name = ["a", "b", "c"][usize::from(info.name.as_bytes()[1] - b'0')];
                said.push(match (info.present, info.config_current) {
                    (true, true) => name.to_owned(),
                    (true, false) => format!("{name}(stale)"),
                    (false, _) => format!("{name}(missing)"),
                });
            }
            if !pool.volumes().is_empty() {
                said.push(format!("+{}", pool.volumes().len()));
            }
            said.join(" ")
        });
        let matches = if expected.starts_with("a ") || expected.starts_with("a(") {
            said == expected
        } else {
            said.contains(expected)
        };
        let number = history as usize;
        assert!(matches, "{number} {given}: {said:?}, expected {expected:?}");
    }
}
