//! Every crash of a recorded history, on volumes with several plexes.

use super::lab::*;
use super::*;
use crate::sim::Stop;

/// Runs `check` on the volume as each crash of the recorded history leaves it.
fn after_each_crash(
    lab: &Lab,
    records: &[(u64, VolumeRecord)],
    mut check: impl AsyncFnMut(u64, &Lab, Arc<Volume<SimDevice>>),
) {
    let mut seed = 0;
    lab.world.crashes(2, 9, |crash| {
        seed += 1;
        let mark = crash.mark.unwrap_or(0);
        let after = lab.with_world(lab.world.with_images(crash.images));
        if let Some((_, record)) = records.iter().rev().find(|(from, _)| *from <= mark) {
            *after.record.lock() = record.clone();
        }
        after.world.clone().run(async {
            let (_devices, volume) = after.volume(false).await;
            check(mark, &after, volume).await;
        });
    });
}

#[test]
fn an_atomic_write_is_whole_or_absent_on_all_plexes_after_every_crash() {
    let lab = Lab::new(1, &[4096, 512], &[&[0], &[1]], 4 * MIB);
    // Across two extents, and not on a block of 4 KiB.
    let (at, length) = (MIB - 3 * 512, 9 * 512);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(true).await;
        fill(&volume, at, length, 1).await;
        volume.flush().await.unwrap();
        lab.world.record();
        for round in 2u8..5 {
            let data = vec![round; length];
            volume.write_atomic(at, data.into()).await.unwrap();
            lab.world.mark(u64::from(round));
        }
    });
    let mut in_flight = 0;
    after_each_crash(&lab, &[], async |mark, after, volume| {
        let acknowledged = mark.max(1) as u8;
        let found = read(&volume, at, length).await;
        let last = found[length - 1];
        assert!(found.iter().all(|byte| *byte == last), "torn");
        assert!(last == acknowledged || last == acknowledged + 1);
        in_flight += u32::from(last != acknowledged);
        let range = at as usize..at as usize + length;
        assert!(after.content(0)[range.clone()] == after.content(1)[range]);
    });
    assert!(in_flight > 5, "{in_flight}");
}

#[test]
fn what_was_returned_after_a_crash_is_returned_when_the_plex_it_came_from_is_gone() {
    let lab = Lab::new(2, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 8192, 1).await;
        volume.close_clean().await.unwrap();
        lab.world.record();
        for round in 2u8..5 {
            fill(&volume, 1024, 4096, round).await;
            volume.flush().await.unwrap();
            lab.world.mark(u64::from(round));
        }
    });
    let mut turn = 0;
    after_each_crash(&lab, &[], async |mark, after, volume| {
        let first = read(&volume, 0, 8192).await;
        for sector in 2..10 {
            let byte = first[sector * 512];
            assert!(u64::from(byte) == mark.max(1) || u64::from(byte) == mark.max(1) + 1);
        }
        turn += 1;
        // And the power fails at once, and a disk does not come back.
        let again = after.after(Stop::PowerCut, turn);
        again.world.die((turn % 2) as usize);
        again.world.clone().run(async {
            let (_devices, volume) = again.volume(false).await;
            assert!(read(&volume, 0, 8192).await == first, "another answer");
        });
    });
}

#[test]
fn a_volume_that_grows_into_larger_regions_loses_nothing_at_any_crash() {
    let lab = Lab::new(3, &[512, 512], &[&[0], &[1]], 6 * MIB);
    let large = lab.record.lock().clone();
    let mut small = large.clone();
    small.size_bytes = 4 * MIB;
    let mut grown = large.clone();
    grown.region_bytes = 2 * MIB;
    *lab.record.lock() = small.clone();
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4 << 20, 1).await;
        volume.close_clean().await.unwrap();
        let mut stale = crate::volume::regions::Regions::new(4, false);
        stale.set(1);
        volume.mark_stale(plex_uuid(1), &stale).await.unwrap();
        fill(&volume, 3 * MIB, 4096, 2).await;
        fill(&volume, MIB, 4096, 2).await;
        volume.flush().await.unwrap();
        lab.world.record();
        // Given up once, then done.
        let growing = volume.begin_grow(&grown).await.unwrap();
        volume.cancel_grow(growing).await.unwrap();
        fill(&volume, MIB + 8192, 4096, 3).await;
        volume.flush().await.unwrap();
        lab.world.mark(1);
        let growing = volume.begin_grow(&grown).await.unwrap();
        let layout = volume.prepare_layout(&grown, &devices).unwrap();
        lab.world.mark(2);
        volume.publish(grown.clone(), layout);
        drop(growing);
        volume.drained().await;
        fill(&volume, 5 * MIB, 4096, 4).await;
        volume.flush().await.unwrap();
        lab.world.mark(3);
        assert_eq!(volume.stale_of(plex_uuid(1)).unwrap().to_vec(), [0]);
    });
    let records = [(0, small), (2, grown)];
    after_each_crash(&lab, &records, async |mark, _after, volume| {
        assert!(
            volume.stale_count(plex_uuid(1)) > 0,
            "stale regions are forgotten"
        );
        assert_eq!(volume.stale_count(plex_uuid(0)), 0);
        assert_eq!(read(&volume, MIB, 4096).await, [2; 4096]);
        assert_eq!(read(&volume, 3 * MIB, 4096).await, [2; 4096]);
        if mark >= 1 {
            assert_eq!(read(&volume, MIB + 8192, 4096).await, [3; 4096]);
        }
        if mark >= 3 {
            assert_eq!(read(&volume, 5 * MIB, 4096).await, [4; 4096]);
        }
    });
}

#[test]
fn a_damaged_log_costs_time_and_nothing_else() {
    // First byte of the region log on a disk, see `Lab::new`.
    let log = 40 * MIB + 528 * 1024;
    for seed in 0..12u64 {
        let lab = Lab::new(seed, &[512, 512], &[&[0], &[1]], 4 * MIB);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(true).await;
            fill(&volume, 0, 4096, 1).await;
            volume.close_clean().await.unwrap();
            fill(&volume, 2 * MIB, 4096, 2).await;
        });
        let lab = lab.after(Stop::Kill, seed);
        // Both copies of the sector of the dirty regions, on one disk or on both.
        let both = seed % 2 == 0;
        for disk in 0..1 + usize::from(both) {
            for copy in 0..2 {
                lab.world.rot(disk, log + copy * 4096 + 60 + seed, 1);
            }
        }
        lab.world.run(async {
            let (_devices, volume) = lab.volume(false).await;
            assert_eq!(volume.fault(), None);
            assert!(volume.to_detach().is_empty());
            let unsettled = volume.unsettled().to_vec();
            if both {
                assert_eq!(unsettled, [0, 1, 2, 3], "nothing is proven");
            } else {
                assert_eq!(unsettled, [2], "the other log is whole");
            }
            assert_eq!(read(&volume, 2 * MIB, 4096).await, [2; 4096]);
            assert_eq!(read(&volume, 0, 4096).await, [1; 4096]);
        });
    }
}
