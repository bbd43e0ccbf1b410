//! Atomic writes that fail: the volume goes on by itself when its devices do.

use super::*;
use crate::sim::{Effect, Fault, Operations};

/// One write of the disk fails, whichever of an atomic write's it is; and with several copies, of one or of both.
#[test]
fn a_volume_takes_writes_again_after_an_atomic_write_that_failed() {
    let (mut failed, mut refused) = (0, 0);
    for mirrors in [1, 2] {
        for skip in 0..8 {
            let world = SimWorld::seeded(270 + skip);
            world.run(async {
                let (pool, _events) = pool(&world, &[64; 4]).await;
                let on = &["d0", "d1"][..mirrors];
                let request = CreateVolume {
                    keys_on: names(&["d3"]),
                    ..request("v", 8, mirrors, on)
                };
                let volume = pool.volume_create(request).await.unwrap();
                let client = Client::new(&volume);
                client.fill().await;
                for disk in 0..mirrors {
                    let fault = Fault::new(Effect::ErrorInPart).on(Operations::CHANGES);
                    world.inject(disk, fault.after(skip).times(2));
                }
                for block in 0..4 {
                    // Each number that 13 divides is an atomic write.
                    let next = client.model.borrow().next;
                    client.model.borrow_mut().next = next.next_multiple_of(13) + 12;
                    if !client.write(block).await {
                        failed += 1;
                        refused += u32::from(volume.has_stuck_intents());
                    }
                }
                world.clear_faults(0);
                world.clear_faults(1);
                world.device(2).sleep(Duration::from_secs(20)).await;
                assert_eq!(volume.writes_refused(), None);
                for block in 0..4 {
                    assert!(client.write(block).await, "{mirrors} {skip}");
                    assert!(client.write(block).await, "{mirrors} {skip}");
                }
                client.flush().await;
                client.check_all().await;
                drop(pool);
                let (again, _) = open(&world, &[0, 1, 2, 3]).await;
                client.again(&again.volume("v").unwrap()).check_all().await;
            });
        }
    }
    assert!(failed > 8 && refused > 4, "{failed} {refused}");
}

/// The device of the only copy fails in the middle of an atomic write and is brought back.
#[test]
fn a_device_that_is_brought_back_takes_what_was_stuck() {
    let mut refused = 0;
    for skip in 0..6 {
        let world = SimWorld::seeded(280 + skip);
        world.run(async {
            let (pool, _events) = pool(&world, &[64; 3]).await;
            let volume = pool
                .volume_create(request("v", 8, 1, &["d0"]))
                .await
                .unwrap();
            let client = Client::new(&volume);
            client.fill().await;
            client.flush().await;
            let fault = Fault::new(Effect::Error).on(Operations::FLUSHES);
            world.inject(0, fault.after(skip));
            for block in 0..4 {
                let at = block * BLOCK;
                let data = vec![block as u8 + 1; BLOCK as usize];
                if volume.write_atomic(at, data.into()).await.is_err() {
                    break;
                }
            }
            refused += u32::from(volume.has_stuck_intents());
            world.clear_faults(0);
            world.device(1).sleep(Duration::from_secs(5)).await;
            if !pool.device("d0").await.unwrap().online {
                pool.device_online("d0", source(&world, 0)).await.unwrap();
            }
            world.device(1).sleep(Duration::from_secs(5)).await;
            assert_eq!(pool.volume("v").unwrap().writes_refused(), None);
            let written = pool
                .volume("v")
                .unwrap()
                .write(0, vec![9; 512].into())
                .await;
            written.unwrap();
        });
    }
    assert!(refused > 2, "{refused}");
}
