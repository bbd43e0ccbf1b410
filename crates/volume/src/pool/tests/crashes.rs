//! Crashes in every operation of a pool: what a restart finds is the configuration before or after it, with nothing of
//! it half there.

use std::collections::BTreeMap;

use super::*;

/// What an operator sees: devices, and volumes with size and grants.
type View = (Vec<String>, BTreeMap<String, (u64, usize)>);

async fn view(pool: &Pool<SimDevice>) -> View {
    let devices = pool
        .devices()
        .await
        .into_iter()
        .map(|info| info.name)
        .collect();
    let volumes = pool
        .volumes()
        .iter()
        .map(|volume| volume.record())
        .map(|record| {
            (
                record.name.clone(),
                (record.size_bytes, record.grants.len()),
            )
        })
        .collect();
    (devices, volumes)
}

#[test]
fn a_crash_in_any_operation_leaves_the_pool_before_or_after_it() {
    let world = world(&[32, 32, 32]);
    let mut views = Vec::new();
    block_on(async {
        let pool = pool(&world, 1).await;
        // What new volumes must not show.
        let old = pool.volume_create(request("old", 20)).await.unwrap();
        old.write(0, vec![0xee; 20 << 20].into()).await.unwrap();
        old.flush().await.unwrap();
        world.record();
        views.push(view(&pool).await);
        for step in 1u64.. {
            match step {
                1 => pool.volume_delete("old").await.unwrap(),
                2 => drop(pool.volume_create(request("a", 4)).await.unwrap()),
                3 => drop(pool.device_add("d1", source(&world, 1)).await.unwrap()),
                4 => pool.grant("a", "iqn.x", Access::Rw).await.unwrap(),
                5 => drop(pool.device_add("d2", source(&world, 2)).await.unwrap()),
                6 => pool.volume_grow("a", 24 * MIB).await.unwrap(),
                7 => {
                    let keys_on = vec!["d0".into(), "d1".into(), "d2".into()];
                    let request = CreateVolume {
                        on: vec!["d2".into()],
                        keys_on,
                        ..request("b", 3)
                    };
                    drop(pool.volume_create(request).await.unwrap());
                }
                8 => pool.volume_delete("a").await.unwrap(),
                9 => pool.volume_grow("b", 5 * MIB).await.unwrap(),
                10 => pool.volume_delete("b").await.unwrap(),
                11 => pool.device_remove("d0").await.unwrap(),
                12 => pool.device_remove("d2").await.unwrap(),
                _ => break,
            }
            views.push(view(&pool).await);
            world.mark(step);
        }
    });
    let (mut points, mut adopted, mut probes) = (0, 0, 0);
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
            for volume in pool.volumes() {
                assert_eq!(volume.fault(), None);
                if volume.record().name != "old" {
                    let content = read(&volume, 0, volume.size_bytes() as usize).await;
                    assert!(
                        content.iter().all(|byte| *byte == 0),
                        "old data shines through"
                    );
                }
            }
            // Where a deletion was cut off before it gave the space back, the next volume still reads zeroes.
            if acknowledged == 0 && found != views[0] {
                let probe = pool.volume_create(request("probe", 20)).await.unwrap();
                assert!(read(&probe, 0, 20 << 20).await == vec![0; 20 << 20]);
                probes += 1;
            }
            // And it works on.
            if let Some(volume) = pool.volumes().first() {
                pool.grant(&volume.record().name, "iqn.after", Access::Ro)
                    .await
                    .unwrap();
            }
        });
    });
    assert!(points > 200, "{points} crash points");
    assert!(adopted > 10 && probes > 0, "{adopted} {probes}");
}
