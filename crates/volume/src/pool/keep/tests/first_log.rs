//! What was written before a volume had a region log.

use super::*;
use crate::pool::LayoutRequest;
use crate::sim::Stop;

const WRITES: u64 = 64;

async fn contents(volume: &Volume<SimDevice>) -> Vec<u64> {
    let mut found = Vec::new();
    for block in 0..WRITES {
        let buf = aligned_buffer(BLOCK as usize);
        let (result, buf) = volume.read(block * 64 * BLOCK, buf).await;
        result.unwrap();
        found.push(number_of(&buf));
    }
    found
}

/// It is in no log, and nobody flushed it: where a crash takes it from the plex that it was written to, it must not come
/// back from a copy.
#[test]
fn what_a_crash_took_does_not_come_back_from_the_first_mirror() {
    for seed in 0..400 {
        let world = SimWorld::seeded(250 + seed);
        world.run(async {
            let (pool, _) = pool(&world, &[64; 5]).await;
            let volume = pool
                .volume_create(CreateVolume {
                    layout: LayoutRequest::Striped {
                        columns: Some(2),
                        stripe_unit_bytes: Some(64 << 10),
                    },
                    ..request("v", 2, 1, &["d0", "d1"])
                })
                .await
                .unwrap();
            // The job begins while a client writes: each place once, and nobody flushes.
            let writer = spawn({
                let (volume, world) = (volume.clone(), world.clone());
                async move {
                    for block in 0..WRITES {
                        let data = filled(block + 1);
                        volume.write(block * 64 * BLOCK, data).await.unwrap();
                        let pause = world.chance(0..150);
                        world.device(0).sleep(Duration::from_micros(pause)).await;
                    }
                }
            });
            pool.volume_add_mirror("v", &names(&["d2", "d3"]), None)
                .await
                .unwrap();
            let moment = Duration::from_micros(world.chance(0..20_000));
            world.device(0).sleep(moment).await;
            drop(writer);
        });
        let after = world.after(Stop::PowerCut, seed);
        after.run(async {
            let (pool, _) = open(&after, &[0, 1, 2, 3, 4]).await;
            let volume = pool.volume("v").unwrap();
            let found = contents(&volume).await;
            keep(&pool);
            until(&after, 60, "whole", || is_whole(&volume)).await;
            assert_eq!(contents(&volume).await, found);
            let verified = pool.volume_verify("v", false, |_, _| true).await.unwrap();
            assert!(verified.mismatches.is_empty(), "{:?}", verified.mismatches);
        });
    }
}
