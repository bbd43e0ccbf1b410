//! Volumes with several plexes.

use std::time::Duration;

use super::lab::*;
use super::*;
use crate::config::PlexState;
use crate::sim::{self, Effect, Fault, Operations, Stop};
use crate::volume::regions::Regions;
use crate::volume::regions::compare::Mismatch;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_mirror_is_an_array_of_bytes_and_its_plexes_are_alike(
        alignments in prop::collection::vec(prop::sample::select(vec![1usize, 512, 4096]), 4..5),
        striped: bool,
        seed: u64,
        ops in prop::collection::vec(op(), 1..30),
    ) {
        let plexes: &[&[usize]] = if striped { &[&[0, 1], &[2, 3]] } else { &[&[0], &[1], &[2, 3]] };
        let lab = Lab::new(seed, &alignments, plexes, 9 * MIB);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(true).await;
            let mut model = vec![0u8; 9 << 20];
            for op in ops {
                match op {
                    Op::Write { at, blocks, byte, skew } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        let mut data = buffer(length, skew);
                        data.fill(byte);
                        volume.write(at * 512, data.freeze()).await.unwrap();
                        model[from..from + length].fill(byte);
                    }
                    Op::Atomic { at, blocks, byte } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        volume.write_atomic(at * 512, vec![byte; length].into()).await.unwrap();
                        model[from..from + length].fill(byte);
                    }
                    Op::Zero { at, blocks, deallocate } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        volume.write_zeroes(at * 512, blocks * 512, deallocate).await.unwrap();
                        model[from..from + length].fill(0);
                    }
                    Op::Read { at, blocks, skew } => {
                        let (from, length) = ((at * 512) as usize, (blocks * 512) as usize);
                        let (result, buf) = volume.read(at * 512, buffer(length, skew)).await;
                        result.unwrap();
                        assert_eq!(&buf[..], &model[from..from + length]);
                        let allocation = volume.allocation(at * 512, blocks * 512).await.unwrap();
                        assert!(allocation.length_bytes >= 1 && allocation.length_bytes <= blocks * 512);
                        if !allocation.allocated {
                            let known = allocation.length_bytes as usize;
                            assert!(model[from..from + known].iter().all(|byte| *byte == 0));
                        }
                    }
                }
            }
            volume.flush().await.unwrap();
            for position in 0..plexes.len() {
                assert!(lab.content(position) == model, "plex {position}");
            }
            volume.close_clean().await.unwrap();
            assert!(volume.dirty().is_empty());
            let (_, reopened) = lab.volume(false).await;
            assert!(reopened.dirty().is_empty());
            assert!(read(&reopened, 0, 9 << 20).await == model);
        });
    }
}

#[test]
fn a_write_is_on_all_plexes_and_a_dead_one_costs_a_pause() {
    let lab = Lab::new(1, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        drop(sim::spawn(lab.clone().keep(volume.clone(), devices)));
        fill(&volume, 0, 4096, 1).await;
        lab.world.die(1);
        fill(&volume, 4096, 4096, 2).await;
        assert!(!lab.record.lock().plexes[1].is_attached());
        assert_eq!(volume.stale_of(plex_uuid(1)).unwrap().to_vec(), [0]);
        fill(&volume, 2 * MIB, 4096, 3).await;
        assert_eq!(volume.stale_of(plex_uuid(1)).unwrap().to_vec(), [0, 2]);
        assert_eq!(read(&volume, 4096, 4096).await, [2; 4096]);
        volume.flush().await.unwrap();
    });
}

#[test]
fn a_plex_that_hangs_is_left_behind_after_the_limit() {
    for plex in [0, 1] {
        left_behind(plex);
    }
}

fn left_behind(plex: usize) {
    let lab = Lab::new(2, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        drop(sim::spawn(lab.clone().keep(volume.clone(), devices)));
        fill(&volume, 0, 4096, 1).await;
        lab.world.hang(plex);
        let before = lab.world.time();
        fill(&volume, 0, 4096, 2).await;
        let waited = lab.world.time() - before;
        assert!(
            waited >= HANG_LIMIT && waited < 2 * HANG_LIMIT,
            "{waited:?}"
        );
        let before = lab.world.time();
        fill(&volume, 4096, 4096, 3).await;
        assert_eq!(read(&volume, 0, 8192).await[..4096], [2; 4096]);
        assert!(lab.world.time() - before < Duration::from_secs(1));
        // The write that hung lands now: in a plex that nobody believes.
        lab.world.resume(plex);
        assert_eq!(read(&volume, 0, 4096).await, [2; 4096]);
        assert!(volume.stale_of(plex_uuid(plex)).unwrap().get(0));
    });
}

#[test]
fn a_read_that_begins_during_a_write_returns_what_was_written() {
    let lab = Lab::new(3, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 8192, 1).await;
        for round in 2..30u8 {
            lab.world.slow(usize::from(round % 2), 50);
            let write = fill(&volume, 0, 4096, round);
            let (_, found) = zip(write, read(&volume, 512, 1024)).await;
            assert_eq!(found, [round; 1024]);
            lab.world.slow(usize::from(round % 2), 1);
        }
    });
}

#[test]
fn overlapping_writes_leave_the_plexes_alike() {
    for seed in 0..20 {
        let lab = Lab::new(seed, &[4096, 512], &[&[0], &[1]], 4 * MIB);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(true).await;
            let writes = (1..20u64).map(|n| {
                let (volume, at) = (&volume, 512 * (n % 5));
                crate::join::boxed(fill(volume, at, 512 * (1 + n as usize % 7), n as u8))
            });
            crate::join::join_all(writes).await;
            assert!(lab.content(0) == lab.content(1), "seed {seed}");
        });
    }
}

#[test]
fn what_one_plex_cannot_read_another_gives_and_the_place_is_written_again() {
    let lab = Lab::new(4, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 64 * 1024, 7).await;
        for disk in 0..2 {
            // The place of the first MiB; see `Lab::new`.
            let bad = Fault::new(Effect::Error).on(Operations::READS);
            lab.world.inject(disk, bad.range(20 * MIB..20 * MIB + 4096));
            for _ in 0..3 {
                assert_eq!(read(&volume, 0, 8192).await, [7; 8192]);
            }
            lab.world.clear_faults(disk);
        }
        assert!(
            lab.reports.take().is_empty(),
            "nothing is left to complain about"
        );
        // Not even a write helps: the plex is taken out.
        drop(sim::spawn(lab.clone().keep(volume.clone(), devices)));
        for operations in [Operations::READS, Operations::CHANGES] {
            let bad = Fault::new(Effect::Error).on(operations);
            lab.world.inject(0, bad.range(20 * MIB..20 * MIB + 4096));
        }
        while volume.record().plexes[0].is_attached() {
            assert_eq!(read(&volume, 0, 4096).await, [7; 4096]);
        }
        // On the last one it is the client's error.
        let bad = Fault::new(Effect::Error).on(Operations::READS);
        lab.world.inject(1, bad);
        let (result, _) = volume.read(0, BytesMut::zeroed(4096)).await;
        assert!(matches!(result, Err(VolumeError::Device { .. })));
    });
}

#[test]
fn a_write_that_fails_everywhere_is_the_clients_error_and_reads_stay_stable() {
    for seed in 0..20 {
        let lab = Lab::new(seed, &[512, 512], &[&[0], &[1]], 4 * MIB);
        lab.world.run(async {
            let (devices, volume) = lab.volume(true).await;
            drop(sim::spawn(lab.clone().keep(volume.clone(), devices)));
            fill(&volume, 0, 8192, 1).await;
            for disk in 0..2 {
                let full = Fault::new(Effect::ErrorInPart).on(Operations::CHANGES);
                lab.world
                    .inject(disk, full.range(20 * MIB..21 * MIB).once());
            }
            let written = volume.write(0, vec![2; 8192].into()).await;
            assert!(matches!(written, Err(VolumeError::Device { .. })));
            assert!(volume.record().plexes.iter().all(Plex::is_attached));
            assert_eq!(volume.unsettled().to_vec(), [0]);
            let found = read(&volume, 0, 8192).await;
            assert!(volume.unsettled().is_empty());
            assert!(lab.content(0)[..8192] == found && lab.content(1)[..8192] == found);
        });
    }
}

#[test]
fn the_only_valid_copy_is_never_given_up() {
    let lab = Lab::new(5, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        drop(sim::spawn(
            lab.clone().keep(volume.clone(), devices.clone()),
        ));
        fill(&volume, 0, 4096, 1).await;
        // All but flushes: a device that fails one is failed.
        let bad = |disk: usize, range: std::ops::Range<u64>| {
            for operations in [Operations::READS, Operations::CHANGES] {
                let fault = Fault::new(Effect::Error).on(operations);
                lab.world.inject(disk, fault.range(range.clone()));
            }
        };
        let mut regions = Regions::new(4, false);
        regions.set(0);
        volume.mark_stale(plex_uuid(1), &regions).await.unwrap();
        assert!(volume.mark_stale(plex_uuid(0), &regions).await.is_err());
        // Writes and reads of the region go to the other plex alone.
        bad(1, 20 * MIB..21 * MIB);
        fill(&volume, 0, 4096, 2).await;
        assert_eq!(read(&volume, 0, 4096).await, [2; 4096]);
        lab.world.clear_faults(1);
        // Its error is the client's, and it stays.
        bad(0, 20 * MIB..21 * MIB);
        assert!(volume.write(0, vec![3; 4096].into()).await.is_err());
        assert!(volume.read(0, BytesMut::zeroed(512)).await.0.is_err());
        assert!(
            lab.detach(&volume, &devices, &[plex_uuid(0)])
                .await
                .is_err()
        );
        // A failure elsewhere cannot detach it either: the client has to live with it.
        bad(0, 2 * MIB..3 * MIB);
        assert!(volume.write(2 * MIB, vec![3; 4096].into()).await.is_err());
        assert!(volume.record().plexes[0].is_attached());
        lab.world.clear_faults(0);
        lab.resync(&volume).await;
        fill(&volume, 0, 8192, 4).await;
        assert_eq!(read(&volume, 0, 4096).await, [4; 4096]);
        assert_eq!(
            read(&volume, 2 * MIB, 512).await,
            lab.content(1)[2 << 20..][..512]
        );
        volume.flush().await.unwrap();
        assert!(lab.content(0) == lab.content(1));
    });
}

/// The disks of a volume of one plex, and the record with a second one.
fn grown_by_a_plex(lab: &Lab) -> (VolumeRecord, VolumeRecord) {
    let both = lab.record.lock().clone();
    let mut one = both.clone();
    one.plexes.truncate(1);
    (one, both)
}

#[test]
fn a_volume_moves_to_another_plex_under_load_and_back_to_the_straight_path() {
    for seed in 0..15 {
        let lab = Lab::new(seed, &[4096, 512, 512], &[&[0], &[1, 2]], 4 * MIB);
        let (one, both) = grown_by_a_plex(&lab);
        *lab.record.lock() = one;
        lab.world.run(async {
            let (devices, volume) = lab.volume(true).await;
            assert_eq!(volume.regions(), 0);
            let clients = volume.clone();
            let load = sim::spawn(async move {
                let mut last = [0u8; 64];
                for n in 0..600u64 {
                    let slot = n * 7 % 64;
                    last[slot as usize] = n as u8;
                    fill(&clients, slot * 65_536 + 512, 4096, n as u8).await;
                    let found = read(&clients, slot * 65_536 + 512, 4096).await;
                    assert_eq!(found, [n as u8; 4096]);
                }
                last
            });
            // The rest of the stripes is old: it must not be believed.
            for disk in 1..3 {
                lab.world.overwrite(disk, MIB, &vec![0x5a; 2 << 20]);
            }
            let full = Regions::new(4, true);
            lab.attach(&volume, &devices, both.clone(), &[(plex_uuid(1), full)])
                .await;
            assert_eq!(volume.stale_bytes(1), 4 * MIB);
            lab.resync(&volume).await;
            assert_eq!(volume.stale_bytes(1), 0);
            let mut moved = both.clone();
            moved.plexes.remove(0);
            let layout = volume.prepare_layout(&moved, &devices).unwrap();
            lab.commit(&moved).await;
            volume.publish(moved, layout);
            volume.drained().await;
            assert_eq!(volume.regions(), 0, "no region log any more");
            lab.world.die(0);
            let last = load.await;
            for (slot, byte) in last.into_iter().enumerate() {
                let found = read(&volume, slot as u64 * 65_536, 8192).await;
                assert!(found[..512].iter().all(|byte| *byte == 0));
                assert_eq!(found[512..4608], [byte; 4096]);
            }
        });
    }
}

#[test]
fn a_plex_that_takes_anothers_place_shares_what_does_not_move() {
    let lab = Lab::new(6, &[512, 512], &[&[0]], 4 * MIB);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4 << 20, 3).await;
        // The first MiB moves to disk 1, the rest stays where it is.
        let mut next = VolumeRecord::clone(&volume.record());
        let mut fresh = next.plexes[0].clone();
        fresh.uuid = plex_uuid(1);
        fresh.replaces = Some(plex_uuid(0));
        fresh.columns[0].extents[0] = extent(1, MIB, MIB);
        fresh.log = plex(1, &[1], 4 * MIB).log;
        next.plexes.push(fresh);
        let mut stale = Regions::new(4, false);
        stale.set(0);
        lab.attach(&volume, &devices, next, &[(plex_uuid(1), stale)])
            .await;
        let written = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = written.clone();
        lab.world.observe(move |landing| {
            let bytes = landing.data.map_or(0, <[u8]>::len) as u64;
            counter.fetch_add(bytes, std::sync::atomic::Ordering::SeqCst);
        });
        // Region 0 goes to both plexes once it is filled, region 2 is in one place.
        lab.resync(&volume).await;
        written.store(0, std::sync::atomic::Ordering::SeqCst);
        fill(&volume, 0, 4096, 4).await;
        fill(&volume, 0, 4096, 5).await;
        let log = written.swap(0, std::sync::atomic::Ordering::SeqCst) - 4 * 4096;
        assert!(log <= 4 * 4096, "only the log besides: {log}");
        fill(&volume, 2 * MIB, 4096, 6).await;
        written.store(0, std::sync::atomic::Ordering::SeqCst);
        fill(&volume, 2 * MIB, 4096, 7).await;
        assert_eq!(written.load(std::sync::atomic::Ordering::SeqCst), 4096);
        let mut moved = VolumeRecord::clone(&volume.record());
        moved.plexes.remove(0);
        moved.plexes[0].replaces = None;
        let layout = volume.prepare_layout(&moved, &devices).unwrap();
        lab.commit(&moved).await;
        volume.publish(moved, layout);
        volume.drained().await;
        assert_eq!(read(&volume, 0, 8192).await[..4096], [5; 4096]);
        assert_eq!(read(&volume, MIB, 4096).await, [3; 4096]);
        assert_eq!(read(&volume, 2 * MIB, 4096).await, [7; 4096]);
    });
}

#[test]
fn comparing_finds_what_rotted_and_repairs_it() {
    let lab = Lab::new(7, &[512, 512], &[&[0], &[1]], 4 * MIB);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 2 << 20, 9).await;
        assert_eq!(
            volume.compare_region(0, None, &Unpaced).await.unwrap(),
            Default::default()
        );
        lab.world.rot(1, 20 * MIB + 5000, 3);
        let mismatch = |repaired| Mismatch {
            range: 4096..8192,
            plexes: vec![plex_uuid(1)],
            repaired,
        };
        let found = volume.compare_region(0, None, &Unpaced).await.unwrap();
        assert_eq!(found.mismatches, [mismatch(false)]);
        let believed = Some(plex_uuid(0));
        let found = volume.compare_region(0, believed, &Unpaced).await.unwrap();
        assert_eq!(found.mismatches, [mismatch(true)]);
        let found = volume.compare_region(0, believed, &Unpaced).await.unwrap();
        assert_eq!(found, Default::default());
        assert!(lab.content(0) == lab.content(1));
        // What cannot be read is written again from the other.
        let bad = Fault::new(Effect::Error).on(Operations::READS);
        lab.world.inject(0, bad.range(MIB..MIB + 4096));
        let found = volume.compare_region(1, believed, &Unpaced).await.unwrap();
        assert_eq!(found.unreadable, [(plex_uuid(0), MIB..MIB + 4096, true)]);
    });
}

#[test]
fn a_source_that_cannot_be_read_leaves_the_region_stale_and_names_the_place() {
    let lab = Lab::new(8, &[512, 512], &[&[0], &[1]], 4 * MIB);
    let (one, both) = grown_by_a_plex(&lab);
    *lab.record.lock() = one;
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4 << 20, 9).await;
        let full = Regions::new(4, true);
        lab.attach(&volume, &devices, both, &[(plex_uuid(1), full)])
            .await;
        let bad = Fault::new(Effect::Error).on(Operations::READS);
        lab.world.inject(0, bad.range(MIB + 8192..MIB + 8193));
        let synced = volume.sync_region(1, &Unpaced).await.unwrap();
        let unreadable: Vec<_> = synced.unreadable;
        assert_eq!(unreadable, vec![MIB + 8192..MIB + 12_288]);
        assert_eq!(volume.finish(&[1]).await.unwrap(), [0u32; 0]);
        let synced = volume.sync_region(2, &Unpaced).await.unwrap();
        assert_eq!((synced.copied_bytes, synced.zero_bytes), (MIB, 0));
        assert_eq!(volume.finish(&[1, 2]).await.unwrap(), [2]);
        assert_eq!(volume.stale_of(plex_uuid(1)).unwrap().to_vec(), [0, 1, 3]);
        // A client's write of the place makes it readable.
        lab.world.clear_faults(0);
        lab.resync(&volume).await;
        volume.flush().await.unwrap();
        assert!(lab.content(0) == lab.content(1));
    });
}

#[test]
fn zeroes_are_copied_as_holes() {
    let lab = Lab::new(9, &[512, 512], &[&[0], &[1]], 4 * MIB);
    let (one, both) = grown_by_a_plex(&lab);
    *lab.record.lock() = one;
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        fill(&volume, 2 * MIB, 4096, 9).await;
        lab.world.overwrite(1, MIB, &vec![0x77; 4 << 20]);
        lab.world.overwrite(1, 20 * MIB, &vec![0x77; 1 << 20]);
        let full = Regions::new(4, true);
        lab.attach(&volume, &devices, both, &[(plex_uuid(1), full)])
            .await;
        let synced = volume.sync_region(2, &Unpaced).await.unwrap();
        assert_eq!(synced.copied_bytes, 65_536);
        assert_eq!(synced.zero_bytes, MIB - 65_536);
        lab.resync(&volume).await;
        volume.flush().await.unwrap();
        assert!(lab.content(0) == lab.content(1));
    });
}

#[test]
fn a_device_that_is_missing_at_open_is_detached_and_what_it_had_in_flight_is_stale_when_it_returns()
{
    for seed in 0..10 {
        let lab = Lab::new(seed, &[512, 512], &[&[0], &[1]], 4 * MIB);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(true).await;
            fill(&volume, 0, 4096, 1).await;
            volume.close_clean().await.unwrap();
            // In flight at the crash: disk 0 has it, disk 1 has neither the data nor the dirty bit.
            lab.world.hang(1);
            let write = volume.write(0, vec![2; 4096].into());
            let clock = lab.world.device(0);
            use crate::block_device::BlockDevice;
            let wait = clock.sleep(Duration::from_millis(400));
            futures_lite::future::or(async { drop(write.await) }, wait).await;
        });
        let lab = lab.after(Stop::Kill, seed);
        lab.world.clear_faults(1);
        lab.world.die(0);
        lab.world.run(async {
            let (devices, volume) = lab.volume(false).await;
            assert!(!lab.record.lock().plexes[0].is_attached());
            assert_eq!(read(&volume, 0, 4096).await, [1; 4096]);
            drop(devices);
        });
        lab.world.revive(0);
        lab.world.run(async {
            let (devices, volume) = lab.volume(false).await;
            let mut next = VolumeRecord::clone(&volume.record());
            next.plexes[0].state = PlexState::Attached;
            lab.attach(&volume, &devices, next, &[]).await;
            assert_eq!(read(&volume, 0, 4096).await, [1; 4096]);
            lab.resync(&volume).await;
            assert!(lab.content(0) == lab.content(1));
        });
    }
}

#[test]
fn a_log_write_that_was_given_up_is_not_overtaken() {
    for seed in 0..10 {
        let lab = Lab::new(seed, &[512, 512], &[&[0], &[1]], 4 * MIB);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(true).await;
            fill(&volume, 0, 4096, 1).await;
            volume.sweep().await.unwrap();
            // The log of disk 1 hangs for longer than the sweep waits, and lands late.
            let late = Effect::Hang(Some(Duration::from_secs(8)));
            let log = 40 * MIB..41 * MIB;
            lab.world.inject(
                1,
                Fault::new(late).on(Operations::CHANGES).range(log).once(),
            );
            assert!(volume.sweep().await.is_err());
            assert!(volume.dirty().is_empty());
            // What is written now must be in the log for good.
            let before = lab.world.time();
            fill(&volume, 2 * MIB, 4096, 2).await;
            assert!(lab.world.time() - before > Duration::from_secs(2));
            assert!(!lab.reports.take().is_empty());
        });
        let lab = lab.after(Stop::Kill, seed);
        // The other log is not there to say so.
        lab.world.die(0);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(false).await;
            assert!(volume.dirty().get(2), "the late write undid a newer one");
        });
    }
}

#[test]
fn deleting_a_volume_ends_what_waits_for_a_plex() {
    for hangs in [false, true] {
        let lab = Lab::new(11, &[512, 512], &[&[0], &[1]], 4 * MIB);
        lab.world.run(async {
            let (_devices, volume) = lab.volume(true).await;
            fill(&volume, 0, 4096, 1).await;
            if hangs {
                lab.world.hang(1);
            } else {
                lab.world.die(1);
            }
            // One waits for the data, one for the log, one for a flush; nobody detaches the plex.
            let waiting: Vec<_> = (0..3u64)
                .map(|kind| {
                    let volume = volume.clone();
                    sim::spawn(async move {
                        if kind == 2 {
                            return volume.flush().await;
                        }
                        volume.write(kind * 2 * MIB, vec![2; 4096].into()).await
                    })
                })
                .collect();
            let clock = lab.world.device(0);
            crate::block_device::BlockDevice::sleep(&*clock, 2 * HANG_LIMIT).await;
            assert!(!waiting[0].is_done() && !waiting[1].is_done());
            volume.close().await;
            for task in waiting {
                drop(task.await);
            }
        });
    }
}
