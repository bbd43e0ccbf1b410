//! Commands that need their blocks for themselves, among others that are in flight.

use std::pin::pin;

use futures_lite::future::zip;
use scsi::cdb::CompareAndWrite;

use super::copying::{copy, list};
use super::*;

fn compare_and_write(lba: u64) -> Cdb {
    Cdb::CompareAndWrite(CompareAndWrite {
        lba,
        length_blocks: 1,
        dpo: false,
        fua: false,
    })
}

/// Old content zero, new content `tag`.
fn swap(tag: u8) -> Vec<u8> {
    [[0; 512], [tag; 512]].concat()
}

#[test]
fn the_second_exclusive_command_waits_for_io_that_the_first_still_waits_for() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        world.device.writes.close();
        let mut plain = pin!(a.send(write(0, 1), &[0xaa; 512]));
        assert!(stuck(plain.as_mut()).await);
        world.device.writes.hold_those_waiting();
        // The first one, elsewhere, turns exclusion on and waits for all I/O that does not know of it.
        let elsewhere = swap(1);
        let mut first = pin!(b.send(compare_and_write(100), &elsewhere));
        assert!(stuck(first.as_mut()).await);
        let here = swap(0xbb);
        let mut second = pin!(b.send(compare_and_write(0), &here));
        assert!(
            stuck(second.as_mut()).await,
            "a write of the block is in flight"
        );
        world.device.writes.open();
        let (plain, (first, second)) = zip(plain, zip(first, second)).await;
        assert_eq!((plain.status, first.status), (Status::Good, Status::Good));
        // Whichever of the two writes came first, none is lost.
        let miscompare = sense(&second).is_some();
        let block = a.good(read(0, 1), &[]).await;
        assert_eq!(block[0], if miscompare { 0xaa } else { 0xbb });
        assert!(miscompare, "the plain write was first");
    });
}

#[test]
fn a_copy_and_an_exclusive_command_over_both_its_ranges_do_not_wait_for_each_other() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let c = world.initiator("c").await;
        a.good(compare_and_write(100), &swap(1)).await;
        // An exclusive command on the first block of the source hangs in the device.
        world.device.writes.close();
        let mut held = pin!(a.send(Cdb::OrWrite16(transfer(0, 1)), &[1; 512]));
        assert!(stuck(held.as_mut()).await);
        world.device.writes.hold_those_waiting();
        // The copy waits for its source; the other exclusive command, over source and destination, behind it.
        let list = list(&world, &[0], &[(0, 0, 0, 8, 8)]);
        let mut copying = pin!(b.send(copy(&list), &list));
        assert!(stuck(copying.as_mut()).await);
        let ones = [2; 16 * 512];
        let mut over = pin!(c.send(Cdb::OrWrite16(transfer(0, 16)), &ones));
        assert!(stuck(over.as_mut()).await);
        world.device.writes.open();
        let mut all = pin!(async {
            let (held, (copying, over)) = zip(held, zip(copying, over)).await;
            [held.status, copying.status, over.status]
        });
        let mut ended = None;
        for _ in 0..1000 {
            ended = poll_once(all.as_mut()).await;
            if ended.is_some() {
                break;
            }
            yield_now().await;
        }
        assert_eq!(ended, Some([Status::Good; 3]), "they wait for each other");
    });
}
