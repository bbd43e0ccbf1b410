//! The simulator itself: it is as good as its faults are real.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures_lite::future::{or, poll_once, zip};

use super::*;
use crate::block_device::{BlockDevice, aligned_buffer};

fn data(byte: u8, length: usize) -> Bytes {
    vec![byte; length].into()
}

async fn read(device: &SimDevice, offset_bytes: u64, length: usize) -> Vec<u8> {
    let (result, buf) = device.read(offset_bytes, aligned_buffer(length)).await;
    result.unwrap();
    buf.to_vec()
}

fn disk(seed: u64) -> (SimWorld, Arc<SimDevice>) {
    let world = SimWorld::seeded(seed);
    let device = world.add(1 << 20, 1);
    (world, device)
}

#[test]
fn hours_cost_nothing_and_sleepers_wake_in_order() {
    let (world, device) = disk(1);
    let woken = Rc::new(RefCell::new(Vec::new()));
    let start = world.time();
    world.run(async {
        let tasks: Vec<_> = [3u64, 1, 2]
            .into_iter()
            .map(|hours| {
                let (device, woken) = (device.clone(), woken.clone());
                spawn(async move {
                    device.sleep(Duration::from_secs(3600 * hours)).await;
                    woken.borrow_mut().push(hours);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
    assert_eq!(*woken.borrow(), [1, 2, 3]);
    assert_eq!(world.time() - start, Duration::from_secs(3 * 3600));
}

/// The order in which ten writes end.
fn order(seed: u64) -> (Vec<u8>, Duration) {
    let (world, device) = disk(seed);
    let order = Rc::new(RefCell::new(Vec::new()));
    world.run(async {
        let tasks: Vec<_> = (0..10u8)
            .map(|number| {
                let (device, order) = (device.clone(), order.clone());
                spawn(async move {
                    let at = u64::from(number) * 512;
                    device.write(at, data(number, 512)).await.unwrap();
                    order.borrow_mut().push(number);
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
    });
    (order.take(), world.time())
}

#[test]
fn operations_end_in_an_order_that_follows_from_the_seed() {
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
    assert_ne!(order(1).0, (0..10).collect::<Vec<_>>());
}

#[test]
fn identities_follow_from_the_seed() {
    let identity = |seed| SimWorld::seeded(seed).run(async { crate::fresh_uuid::fresh_uuid() });
    assert_eq!(identity(1), identity(1));
    assert_ne!(identity(1), identity(2));
    assert_eq!(identity(1).get_version_num(), 4);
    assert!(identity_bits().is_none());
}

#[test]
fn a_future_that_yields_for_ever_does_not_stop_the_clock() {
    let (world, device) = disk(1);
    world.run(or(
        async {
            loop {
                futures_lite::future::yield_now().await;
            }
        },
        async { device.write(0, data(1, 512)).await.unwrap() },
    ));
}

#[test]
#[should_panic(expected = "1 operations hang (a write of disk 0)")]
fn a_run_in_which_nothing_can_go_on_says_so() {
    let (world, device) = disk(1);
    world.hang(0);
    world.run(async { device.write(0, data(1, 512)).await.unwrap() });
}

#[test]
fn a_flush_covers_what_had_completed_when_it_began() {
    let mut lost = 0;
    for seed in 0..100 {
        let (world, device) = disk(seed);
        world.run(async {
            device.write(0, data(1, 512)).await.unwrap();
            let flush = device.flush();
            let late = device.write(512, data(2, 512));
            let (flushed, written) = zip(flush, late).await;
            flushed.unwrap();
            written.unwrap();
        });
        let world = world.after(Stop::PowerCut, seed);
        let device = world.device(0);
        let found = world.run(read(&device, 0, 1024));
        assert_eq!(found[0], 1);
        lost += u32::from(found[512] == 0);
    }
    assert!((10..90).contains(&lost), "{lost}");
}

#[test]
fn a_power_cut_loses_tears_and_reorders_and_a_kill_does_not() {
    let (mut old, mut new, mut torn, mut swapped) = (0, 0, 0, 0);
    for seed in 0..300 {
        let (world, device) = disk(seed);
        world.run(async {
            device.write(0, data(1, 2048)).await.unwrap();
            device.write(4096, data(1, 512)).await.unwrap();
        });
        for (stop, seed) in [(Stop::PowerCut, seed), (Stop::Kill, seed)] {
            let after = world.after(stop, seed);
            let device = after.device(0);
            let found = after.run(read(&device, 0, 8192));
            let sectors: Vec<u8> = (0..4).map(|sector| found[sector * 512]).collect();
            if stop == Stop::Kill {
                assert!(sectors == [1; 4] && found[4096] == 1);
                continue;
            }
            match sectors.iter().sum::<u8>() {
                0 => old += 1,
                4 => new += 1,
                _ => torn += 1,
            }
            swapped += u32::from(sectors == [0; 4] && found[4096] == 1);
        }
    }
    assert!(
        old > 20 && new > 20 && torn > 20 && swapped > 5,
        "{old} {new} {torn} {swapped}"
    );
}

#[test]
fn what_survived_a_kill_is_durable_after_the_next_flush_only() {
    let mut lost = 0;
    for seed in 0..50 {
        let (world, device) = disk(seed);
        world.run(async { device.write(0, data(1, 512)).await.unwrap() });
        let killed = world.after(Stop::Kill, seed);
        let cut = killed.after(Stop::PowerCut, seed);
        lost += u32::from(cut.run(read(&cut.device(0), 0, 512))[0] == 0);
        killed.run(async { killed.device(0).flush().await.unwrap() });
        let cut = killed.after(Stop::PowerCut, seed);
        assert_eq!(cut.run(read(&cut.device(0), 0, 512))[0], 1);
    }
    assert!(lost > 5, "{lost}");
}

#[test]
fn a_hanging_write_whose_future_was_dropped_lands_later() {
    let (world, device) = disk(1);
    world.run(async {
        world.inject(
            0,
            Fault::new(Effect::Hang(Some(Duration::from_secs(60))))
                .on(Operations::CHANGES)
                .once(),
        );
        let write = device.write(0, data(1, 512));
        let patience = device.sleep(Duration::from_secs(1));
        or(async { drop(write.await) }, patience).await;
        assert_eq!((device.in_flight(), device.abandoned()), (1, 1));
        assert_eq!(read(&device, 0, 512).await[0], 0);
        device.sleep(Duration::from_secs(60)).await;
        assert_eq!((device.in_flight(), device.abandoned()), (0, 0));
        assert_eq!(read(&device, 0, 512).await[0], 1);
        // For ever, until somebody resumes it.
        world.hang(0);
        let mut write = Box::pin(device.write(512, data(2, 512)));
        assert!(poll_once(&mut write).await.is_none());
        drop(write);
        device.sleep(Duration::from_secs(3600)).await;
        assert_eq!(device.in_flight(), 1);
        world.resume(0);
        device.sleep(Duration::from_secs(1)).await;
        assert_eq!(device.in_flight(), 0);
        assert_eq!(read(&device, 512, 512).await[0], 2);
    });
}

#[test]
fn faults_meet_what_they_are_meant_for() {
    let (world, device) = disk(1);
    world.run(async {
        let error = Fault::new(Effect::Error).on(Operations::READS);
        world.inject(0, error.range(4096..8192).after(1).times(2));
        for expected in [true, false, false, true] {
            assert!(device.read(0, aligned_buffer(4096)).await.0.is_ok());
            let (result, _) = device.read(4096, aligned_buffer(512)).await;
            assert_eq!(result.is_ok(), expected);
            device.write(4096, data(1, 512)).await.unwrap();
        }
        world.inject(0, Fault::new(Effect::Lose).on(Operations::CHANGES).once());
        device.write(0, data(9, 512)).await.unwrap();
        assert_eq!(read(&device, 0, 512).await[0], 0);
        let elsewhere = Effect::Misdirect(8192..8192 + 1024);
        let misdirect = Fault::new(elsewhere).on(Operations::CHANGES).once();
        world.inject(0, misdirect);
        device.write(0, data(9, 512)).await.unwrap();
        assert_eq!(read(&device, 0, 512).await[0], 0);
        let place = read(&device, 8192, 1024).await;
        assert!(place[0] == 9 || place[512] == 9);
        let corrupt = Fault::new(Effect::Corrupt(1));
        world.inject(0, corrupt.clone().on(Operations::READS).once());
        let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
        assert_eq!(ones(&read(&device, 0, 512).await), 1);
        assert_eq!(ones(&read(&device, 0, 512).await), 0);
        world.inject(0, corrupt.on(Operations::CHANGES).once());
        device.write(0, data(0, 512)).await.unwrap();
        assert_eq!(ones(&read(&device, 0, 512).await), 1);
        world.rot(0, 20_000, 3);
        assert_eq!(read(&device, 20_000, 1).await, [8]);
    });
}

#[test]
fn a_flush_that_lies_makes_nothing_durable() {
    let (world, device) = disk(1);
    world.inject(0, Fault::new(Effect::Lose).on(Operations::FLUSHES));
    world.run(async {
        device.write(0, data(1, 512)).await.unwrap();
        device.flush().await.unwrap();
    });
    let lost = (0..50).filter(|seed| {
        let cut = world.after(Stop::PowerCut, *seed);
        cut.run(read(&cut.device(0), 0, 512))[0] == 0
    });
    assert!(lost.count() > 5);
}

#[test]
fn a_dead_disk_fails_what_is_in_flight_and_comes_back_with_what_it_had() {
    let (world, device) = disk(1);
    world.run(async {
        device.write(0, data(1, 512)).await.unwrap();
        world.hang(0);
        let mut write = Box::pin(device.write(4096, data(2, 8192)));
        assert!(poll_once(&mut write).await.is_none());
        world.die(0);
        assert!(write.await.is_err());
        assert!(device.flush().await.is_err());
        assert!(device.read(0, BytesMut::zeroed(512)).await.0.is_err());
        assert!(device.allocation(0, 512).await.is_err());
        world.clear_faults(0);
        world.revive(0);
        assert_eq!(read(&device, 0, 512).await[0], 1);
        device.flush().await.unwrap();
    });
}

#[test]
fn observers_see_where_writes_land() {
    let (world, device) = disk(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let landed = seen.clone();
    world.observe(move |landing| {
        let first = landing.data.map(|data| data[0]);
        landed.lock().push((landing.offset_bytes, first));
    });
    world.run(async {
        device.write(512, data(7, 512)).await.unwrap();
        device.write_zeroes(0, 4096, true).await.unwrap();
    });
    assert_eq!(*seen.lock(), [(512, Some(7)), (0, None)]);
}

#[test]
fn every_crash_of_a_scheduled_history_has_what_was_flushed() {
    let (world, device) = disk(3);
    world.record();
    world.run(async {
        for round in 1..6u8 {
            let writes = (0..3u64)
                .map(|place| crate::join::boxed(device.write(place * 4096, data(round, 4096))));
            for result in crate::join::join_all(writes).await {
                result.unwrap();
            }
            device.flush().await.unwrap();
            world.mark(u64::from(round));
        }
    });
    assert_eq!(world.history(), (5 * 5, 5));
    let (mut points, mut newer) = (0, 0);
    world.crashes(2, 4, |crash| {
        points += 1;
        let flushed = crash.mark.unwrap_or(0) as u8;
        let world = world.with_images(crash.images);
        let found = world.run(read(&world.device(0), 0, 3 * 4096));
        for byte in found {
            assert!(byte == flushed || byte == flushed + 1);
            newer += u32::from(byte > flushed);
        }
    });
    assert_eq!(points, 25 * 4);
    assert!(newer > 0);
}

#[test]
fn a_disk_that_lost_power_has_what_was_flushed_and_must_be_opened_anew() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..40 {
        let (world, old) = disk(seed);
        world.run(async {
            old.write(0, data(1, 512)).await.unwrap();
            old.flush().await.unwrap();
            old.write(0, data(2, 512)).await.unwrap();
            let mut late = Box::pin(old.write(4096, data(3, 512)));
            assert!(poll_once(&mut late).await.is_none());
            world.power_cycle(0);
            assert!(late.await.is_err(), "it was in flight");
            assert!(old.flush().await.is_err(), "the old handle is of no use");
            let new = world.device(0);
            assert_eq!(read(&new, 4096, 512).await, [0; 512]);
            match read(&new, 0, 1).await[0] {
                1 => lost += 1,
                2 => kept += 1,
                other => panic!("{other}"),
            }
        });
    }
    assert!(lost > 5 && kept > 5, "{lost} {kept}");
}

#[test]
fn a_failed_flush_loses_for_good_what_nobody_sees_yet() {
    let mut lost = 0;
    for seed in 0..40 {
        let (world, device) = disk(seed);
        world.inject(
            0,
            Fault::new(Effect::ErrorAndLoss)
                .on(Operations::FLUSHES)
                .once(),
        );
        world.run(async {
            device.write(0, data(1, 512)).await.unwrap();
            assert!(device.flush().await.is_err());
            device.write(512, data(2, 512)).await.unwrap();
            device.flush().await.unwrap();
            assert_eq!(read(&device, 0, 512).await, [1; 512], "the cache has it");
            world.forget(0);
            assert_eq!(read(&device, 512, 512).await, [2; 512]);
            let found = read(&device, 0, 512).await;
            assert!(found == [0; 512] || found == [1; 512]);
            lost += u32::from(found == [0; 512]);
            let cut = world.after(Stop::PowerCut, seed);
            let mut durable = vec![0; 512];
            cut.image(0).read(0, &mut durable);
            assert_eq!(durable, found);
        });
    }
    assert!((5..35).contains(&lost), "{lost}");
}

#[test]
fn landings_are_waited_for_and_stragglers_come_late() {
    let (world, device) = disk(3);
    world.run(async {
        let begun = world.time();
        let mut landings = Box::pin(world.landings(2));
        device.write(0, data(1, 512)).await.unwrap();
        assert!(poll_once(&mut landings).await.is_none());
        device.write(4096, data(1, 512)).await.unwrap();
        landings.await;
        world.stragglers(0, 1);
        device.write(8192, data(1, 512)).await.unwrap();
        assert!(world.time() - begun > Duration::from_millis(8));
        let mut written = Vec::new();
        world.each_written(0, 4096..1 << 20, |at, bytes| {
            assert_eq!((bytes.len(), bytes[0]), (4096, 1));
            written.push(at);
        });
        assert_eq!(written, [4096, 8192]);
    });
}
