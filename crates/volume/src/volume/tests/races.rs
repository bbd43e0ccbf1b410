//! Orders of events that chance seldom finds.

use std::cell::Cell;
use std::time::Duration;

use futures_lite::future::{or, pending, poll_once};

use super::lab::*;
use super::*;
use crate::block_device::BlockDevice;
use crate::config::PlexState;
use crate::sim::{Effect, Fault, Operations, Stop, spawn};
use crate::volume::regions::Regions;
use crate::volume::regions::log_page::{LOG_BYTES, LOG_OFFSET};

/// Where the first MiB of the volume is on each disk.
const FIRST: std::ops::Range<u64> = 20 * MIB..21 * MIB;

fn lab(plexes: usize) -> Lab {
    let disks: [&[usize]; 3] = [&[0], &[1], &[2]];
    Lab::new(1, &[512; 3][..plexes], &disks[..plexes], 4 * MIB)
}

fn on_changes(effect: Effect, range: std::ops::Range<u64>) -> Fault {
    Fault::new(effect).on(Operations::CHANGES).range(range)
}

fn region(region: u32) -> Regions {
    let mut regions = Regions::new(4, false);
    regions.set(region);
    regions
}

/// The byte that the first block is full of.
async fn first_byte(volume: &Volume<SimDevice>) -> u8 {
    let block = read(volume, 0, 4096).await;
    assert!(block.iter().all(|byte| *byte == block[0]), "torn");
    block[0]
}

/// The record with a plex taken out of it or with another state.
fn with(volume: &Volume<SimDevice>, change: impl FnOnce(&mut Vec<Plex>)) -> VolumeRecord {
    let mut next = VolumeRecord::clone(&volume.record());
    change(&mut next.plexes);
    next
}

async fn publish(lab: &Lab, volume: &Volume<SimDevice>, devices: &Devices, next: VolumeRecord) {
    let layout = volume.prepare_layout(&next, devices).unwrap();
    lab.commit(&next).await;
    volume.publish(next, layout);
}

fn back(plex: usize) -> impl FnOnce(&mut Vec<Plex>) {
    move |plexes| plexes[plex].state = PlexState::Attached
}

/// The intent of an atomic write that cannot be erased on a plex is replayed after a crash as long as the configuration
/// has the plex: until then nothing may be answered that the replay would undo.
#[test]
fn no_replay_undoes_what_was_answered_while_a_plex_was_about_to_leave() {
    let lab = lab(2);
    let answered = Cell::new(false);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4096, 1).await;
        let lanes = LOG_AT..LOG_AT + LOG_OFFSET;
        lab.world
            .inject(1, on_changes(Effect::Error, lanes).after(1));
        let client = async {
            volume.write_atomic(0, vec![2; 4096].into()).await.unwrap();
            fill(&volume, 0, 4096, 3).await;
            volume.flush().await.unwrap();
            answered.set(true);
            pending::<()>().await;
        };
        let keeper = async {
            lab.reports.listen().await;
            volume.begin_detach(&[plex_uuid(1)]).await.unwrap();
            // The commit takes its time, and then there is a crash.
            lab.world.device(0).sleep(Duration::from_secs(2)).await;
        };
        or(client, keeper).await;
    });
    let lab = lab.after(Stop::Kill, 1);
    lab.world.clear_faults(1);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(false).await;
        let expected = if answered.get() { 3 } else { 2 };
        assert_eq!(first_byte(&volume).await, expected);
    });
}

/// A plex that was removed in health misses what is written after that; an operation that still has the older layout
/// must not copy from it.
#[test]
fn nothing_is_settled_from_a_plex_that_was_removed() {
    let lab = lab(3);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4096, 1).await;
        volume.flush().await.unwrap();
    });
    let lab = lab.after(Stop::Kill, 1);
    lab.world.run(async {
        let (devices, volume) = lab.volume(false).await;
        assert_eq!(volume.unsettled().to_vec(), [0]);
        let old = volume.layout().unwrap();
        let next = with(&volume, |plexes| drop(plexes.remove(0)));
        publish(&lab, &volume, &devices, next).await;
        fill(&volume, 0, 4096, 2).await;
        let tracker = old.tracker.clone().unwrap();
        volume.settle(&old, &tracker, 0..4096).await.unwrap();
        drop(old);
        assert_eq!(first_byte(&volume).await, 2);
        assert_eq!(lab.content(0)[0], 2);
        assert_eq!(lab.content(1)[0], 2);
    });
}

/// The device with the only valid copy of something is missing at one start: nothing is given up.
#[test]
fn the_only_copy_of_a_region_is_not_detached_at_open() {
    let lab = lab(2);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4096, 1).await;
        volume.mark_stale(plex_uuid(1), &region(0)).await.unwrap();
        fill(&volume, 0, 4096, 2).await;
        volume.flush().await.unwrap();
    });
    let lab = lab.after(Stop::PowerCut, 1);
    lab.world.die(0);
    lab.world.run(async {
        let (devices, volume) = lab.opened(false).await;
        let going: Vec<Uuid> = volume
            .to_detach()
            .into_iter()
            .map(|(uuid, _)| uuid)
            .collect();
        assert_eq!(going, [plex_uuid(0)]);
        drop(lab.detach(&volume, &devices, &going).await);
    });
    lab.world.revive(0);
    lab.world.run(async {
        let (devices, volume) = lab.volume(false).await;
        let next = with(&volume, back(0));
        lab.attach(&volume, &devices, next, &[]).await;
        assert_eq!(first_byte(&volume).await, 2);
        lab.resync(&volume).await;
        assert!(lab.content(0) == lab.content(1));
    });
}

/// A region that is being made dirty while a plex comes to take part in everything: what the log says of it and what
/// operations see is the same.
#[test]
fn what_is_written_while_a_plex_comes_can_be_copied_to_it() {
    let lab = lab(2);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        lab.detach(&volume, &devices, &[plex_uuid(1)])
            .await
            .unwrap();
        let next = with(&volume, back(1));
        volume.prepare_attach(&next, &devices, &[]).await.unwrap();
        publish(&lab, &volume, &devices, next).await;
        let mut write = Box::pin(volume.write(0, vec![1; 4096].into()));
        assert!(poll_once(&mut write).await.is_none());
        volume.drained().await;
        write.await.unwrap();
        for number in 0..4 {
            volume.sync_region(number, &Unpaced).await.unwrap();
            volume.finish(&[number]).await.unwrap();
        }
        assert_eq!(volume.stale_count(plex_uuid(1)), 0);
        assert!(lab.content(0) == lab.content(1));
    });
}

/// Whoever attaches a plex keeps everybody from detaching another; a write that waits for that must not be waited for.
#[test]
fn attaching_does_not_wait_for_a_write_that_waits_for_a_detach() {
    let lab = lab(3);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        lab.world.inject(1, on_changes(Effect::Hang(None), FIRST));
        let mut write = Box::pin(volume.write(0, vec![1; 4096].into()));
        let clock = lab.world.device(0);
        let wait = clock.sleep(Duration::from_millis(100));
        or(async { drop((&mut write).await) }, wait).await;
        lab.detach(&volume, &devices, &[plex_uuid(2)])
            .await
            .unwrap();
        let next = with(&volume, back(2));
        let attach = async { Some(volume.prepare_attach(&next, &devices, &[]).await.is_ok()) };
        let late = async {
            clock.sleep(4 * HANG_LIMIT).await;
            None
        };
        assert_eq!(or(attach, late).await, Some(false));
        lab.detach(&volume, &devices, &[plex_uuid(1)])
            .await
            .unwrap();
        write.await.unwrap();
        volume
            .prepare_attach(&next, &devices, &[])
            .await
            .unwrap_err();
        lab.world.resume(1);
    });
}

/// A write that fails on the only valid plex and not on the one that is being filled.
#[test]
fn a_plex_that_has_what_the_client_was_told_failed_is_filled_anew() {
    let lab = lab(2);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4096, 1).await;
        volume.mark_stale(plex_uuid(1), &region(0)).await.unwrap();
        volume.sync_region(0, &Unpaced).await.unwrap();
        lab.world.inject(0, on_changes(Effect::Error, FIRST).once());
        assert!(volume.write(0, vec![2; 4096].into()).await.is_err());
        volume.finish(&[0]).await.unwrap();
        let first = first_byte(&volume).await;
        lab.resync(&volume).await;
        read(&volume, 0, 4096).await;
        assert_eq!(lab.content(0)[0], first);
        assert_eq!(lab.content(1)[0], first);
    });
}

/// The intent of an atomic write is durable, nothing else: what its replay writes is missing on a detached plex.
#[test]
fn a_replay_is_missed_by_a_detached_plex() {
    for seed in 0..10 {
        let lab = lab(2);
        lab.world.run(async {
            let (devices, volume) = lab.volume(true).await;
            fill(&volume, 0, 4096, 1).await;
            volume.close_clean().await.unwrap();
            lab.detach(&volume, &devices, &[plex_uuid(1)])
                .await
                .unwrap();
            let log = LOG_AT + LOG_OFFSET;
            let log = log..log + LOG_BYTES as u64;
            lab.world.inject(0, on_changes(Effect::Hang(None), log));
            let atomic = volume.write_atomic(0, vec![2; 4096].into());
            let clock = lab.world.device(1);
            let wait = clock.sleep(Duration::from_millis(500));
            or(async { drop(atomic.await) }, wait).await;
        });
        let lab = lab.after(Stop::PowerCut, seed);
        lab.world.clear_faults(0);
        lab.world.run(async {
            let (devices, volume) = lab.volume(false).await;
            let next = with(&volume, back(1));
            lab.attach(&volume, &devices, next, &[]).await;
            let found = first_byte(&volume).await;
            lab.resync(&volume).await;
            assert_eq!(lab.content(0)[0], found);
            assert_eq!(lab.content(1)[0], found);
        });
    }
}

/// An error is not answered while the write still runs on a plex that is believed: it could land after a later one.
#[test]
fn an_error_waits_for_what_hangs_on_another_plex() {
    let lab = lab(3);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        lab.world.inject(1, on_changes(Effect::Error, FIRST));
        lab.world.inject(2, on_changes(Effect::Hang(None), FIRST));
        let mut write = Box::pin(volume.write(0, vec![1; 4096].into()));
        let clock = lab.world.device(0);
        let keeper = async {
            clock.sleep(2 * HANG_LIMIT).await;
            volume.last_copy(plex_uuid(1));
            clock.sleep(Duration::from_secs(1)).await;
            true
        };
        let waited = or(async { (&mut write).await.is_ok() }, keeper).await;
        assert!(waited, "answered while it hung");
        lab.detach(&volume, &devices, &[plex_uuid(2)])
            .await
            .unwrap();
        assert!(write.await.is_err());
    });
}

/// A write fails on a plex; before the keeper hears of it, that plex is the only one and the region log is gone.
#[test]
fn a_write_that_failed_on_what_is_the_only_plex_now_is_answered() {
    let lab = lab(2);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        lab.world.inject(1, on_changes(Effect::Error, FIRST));
        let write = async { Some(volume.write(0, vec![1; 4096].into()).await.is_ok()) };
        let clock = lab.world.device(0);
        let removed = async {
            lab.reports.listen().await;
            let next = with(&volume, |plexes| drop(plexes.remove(0)));
            publish(&lab, &volume, &devices, next).await;
            volume.last_copy(plex_uuid(1));
            clock.sleep(Duration::from_secs(60)).await;
            None
        };
        assert_eq!(or(write, removed).await, Some(false));
    });
}

/// A plex that misses a write and has nothing of it in its own log: what it misses is in the logs of the others before the
/// configuration says that it is detached, or nobody would know it after a crash once the region is idle.
#[test]
fn what_a_plex_missed_is_known_after_a_crash_right_behind_its_detach() {
    let lab = lab(2);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4096, 1).await;
        volume.close_clean().await.unwrap();
        lab.world.inject(1, on_changes(Effect::Error, 0..64 * MIB));
        drop(spawn(lab.clone().keep(volume.clone(), devices)));
        fill(&volume, 0, 4096, 2).await;
        assert!(!volume.record().plexes[1].is_attached());
    });
    // The disk is away at the next start, and its region becomes idle.
    let lab = lab.after(Stop::Kill, 1);
    lab.world.clear_faults(1);
    lab.world.die(1);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(false).await;
        volume.close_clean().await.unwrap();
    });
    let lab = lab.after(Stop::Kill, 2);
    lab.world.revive(1);
    lab.world.run(async {
        let (devices, volume) = lab.volume(false).await;
        let next = with(&volume, back(1));
        lab.attach(&volume, &devices, next, &[]).await;
        lab.resync(&volume).await;
        volume.flush().await.unwrap();
        assert_eq!(first_byte(&volume).await, 2);
        assert!(lab.content(0) == lab.content(1));
    });
}

/// A device that was opened anew, and what it lost before: a flush of the volume is not one of what was written then.
#[test]
fn a_flush_does_not_vouch_for_what_was_written_through_an_earlier_opening() {
    let lab = lab(2);
    lab.world.run(async {
        let (devices, volume) = lab.volume(true).await;
        fill(&volume, 0, 4096, 1).await;
        volume.flush().await.unwrap();
        drop(spawn(lab.clone().keep(volume.clone(), devices.clone())));
        fill(&volume, 0, 4096, 2).await;
        let device = &devices[&disk_uuid(1)];
        device.fail("it lost power");
        lab.world.power_cycle(1);
        device.bring_online(lab.world.device(1), "d1".into());
        volume.flush().await.unwrap();
        assert!(
            !volume.record().plexes[1].is_attached(),
            "it is believed, though nobody knows what it has"
        );
    });
    let lab = lab.after(Stop::PowerCut, 1);
    lab.world.run(async {
        let (_devices, volume) = lab.volume(false).await;
        assert_eq!(first_byte(&volume).await, 2, "it was flushed");
    });
}
