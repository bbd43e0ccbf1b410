//! Crashes while mirrored and striped volumes are made, grown, renamed and deleted, and devices join by force.

use std::collections::BTreeMap;

use super::*;
use crate::config::VolumeRecord;

/// Name and size of each volume, and the names of the devices.
type View = (BTreeMap<String, u64>, Vec<String>);

async fn view(pool: &Pool<SimDevice>) -> View {
    let volumes = pool.volumes();
    let volumes = volumes.iter().map(|volume| volume.record());
    let sizes = volumes.map(|record| (record.name.clone(), record.size_bytes));
    let devices = pool.devices().await.into_iter().map(|info| info.name);
    (sizes.collect(), devices.collect())
}

/// The public region of one plex as it is on the disks.
async fn plex(
    world: &SimWorld,
    pool: &Pool<SimDevice>,
    record: &VolumeRecord,
    plex: usize,
) -> Vec<u8> {
    // Device `d3` is disk 3.
    let disks: BTreeMap<Uuid, usize> = pool
        .devices()
        .await
        .into_iter()
        .map(|info| (info.uuid, usize::from(info.name.as_bytes()[1] - b'0')))
        .collect();
    let map = crate::translate::Map::new(record).unwrap();
    let mut bytes = vec![1; record.size_bytes as usize];
    let region = Region::Public { plex };
    for range in map.translate(region, 0, record.size_bytes).unwrap() {
        let at = range.region_offset_bytes as usize;
        let part = &mut bytes[at..at + range.length_bytes as usize];
        world
            .image(disks[&range.device])
            .read(range.device_offset_bytes, part);
    }
    bytes
}

#[test]
fn before_or_after_and_never_what_others_left() {
    const WRITTEN: usize = 256 << 10;
    let world = world(&[24, 24, 24, 24, 20]);
    for disk in 0..4 {
        world.overwrite(disk, 5 * MIB, &[0xee; 5 << 20]);
    }
    world.overwrite(4, 1024 + 0x38, b"\x53\xef");
    world.overwrite(4, 19 * MIB, &[0xcc; 1 << 20]);
    let mut views = Vec::new();
    let mut written = 0;
    block_on(async {
        let pool = pool(&world, 4).await;
        world.record();
        views.push(view(&pool).await);
        let layout = LayoutRequest::Striped {
            columns: None,
            stripe_unit_bytes: None,
        };
        for step in 1u64.. {
            match step {
                1 => {
                    let request = CreateVolume {
                        layout,
                        mirrors: 2,
                        ..request("sm", 1)
                    };
                    let volume = pool.volume_create(request).await.unwrap();
                    assert_eq!(volume.record().plexes[1].columns.len(), 2);
                }
                2 => {
                    let volume = pool.volume("sm").unwrap();
                    volume.write(0, vec![7; WRITTEN].into()).await.unwrap();
                    volume.flush().await.unwrap();
                    written = step;
                }
                3 => pool.volume_grow("sm", 2 * MIB + 8192).await.unwrap(),
                4 => pool.volume_rename("sm", "other").await.unwrap(),
                5 => pool.volume_grow("other", 4 * MIB).await.unwrap(),
                6 => {
                    let request = CreateVolume {
                        mirrors: 3,
                        ..request("m3", 2)
                    };
                    drop(pool.volume_create(request).await.unwrap());
                }
                7 => {
                    let source = source(&world, 4);
                    drop(pool.device_add_with("d4", source, true).await.unwrap());
                }
                8 => pool.volume_delete("other").await.unwrap(),
                9 => pool.volume_grow("m3", 3 * MIB).await.unwrap(),
                _ => break,
            }
            views.push(view(&pool).await);
            world.mark(step);
        }
    });
    let (mut points, mut adopted) = (0, 0);
    world.crashes(0, 7, |crash| {
        points += 1;
        // Bytes are compared at one moment in seven; the campaigns of `cargo xtask sim` look at more.
        if points % 7 != 0 {
            return;
        }
        let acknowledged = crash.mark.unwrap_or(0);
        let world = world.with_images(crash.images);
        block_on(async {
            let pool = open(&world, &[0, 1, 2, 3, 4]).await.unwrap();
            let found = view(&pool).await;
            if found != views[acknowledged as usize] {
                assert_eq!(Some(&found), views.get(acknowledged as usize + 1));
                adopted += 1;
            }
            for volume in pool.volumes() {
                assert_eq!(volume.fault(), None);
                let record = volume.record();
                let whole = read(&volume, 0, record.size_bytes as usize).await;
                let striped = record.name != "m3";
                let (start, rest) = whole.split_at(WRITTEN);
                if striped && acknowledged >= written {
                    assert!(
                        start.iter().all(|byte| *byte == 7),
                        "what was flushed is gone"
                    );
                } else {
                    assert!(start.iter().all(|byte| [0, 7].contains(byte)));
                }
                assert!(
                    rest.iter().all(|byte| *byte == 0),
                    "old data shines through"
                );
                // With nothing in flight, the copies are the same.
                if acknowledged >= written {
                    for index in 0..record.plexes.len() {
                        let copy = plex(&world, &pool, &record, index).await;
                        assert!(copy == whole, "plex {index} of {} differs", record.name);
                    }
                }
            }
        });
    });
    assert!(points > 150 && adopted > 2, "{points} {adopted}");
}
