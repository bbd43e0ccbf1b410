//! EXTENDED COPY and RECEIVE COPY RESULTS.

use futures_lite::future::zip;
use scsi::cdb::{
    ExtendedCopy, PersistentReserveOutAction as Action, ReceiveCopyAction, ReceiveCopyResults,
};
use scsi::copy::{CopyList, CopyStatus, CopyStatusCode, Cscd, ListIdUsage, Segment, SegmentBody};

use super::reserving::{pr, register};
use super::*;

fn cscd(world: &World, lun: u16) -> Cscd {
    let unit = world.target.logical_unit(lun).unwrap();
    Cscd {
        relative_initiator_port: 0,
        code_set: 1,
        association: 0,
        designator_type: 3,
        designator: unit.volume().record().naa_bytes().unwrap().to_vec(),
        pad: false,
        block_length_bytes: unit.block_bytes() as u32,
    }
}

pub fn list(world: &World, luns: &[u16], segments: &[(u16, u64, u16, u64, u16)]) -> Vec<u8> {
    let segments = segments.iter().map(
        |&(source, source_lba, destination, destination_lba, length_blocks)| Segment {
            cat: false,
            source,
            destination,
            source_lba,
            destination_lba,
            body: SegmentBody::Blocks {
                destination_count: false,
                length_blocks,
            },
        },
    );
    CopyList {
        list_identifier: 7,
        list_id_usage: ListIdUsage::Hold,
        cscds: luns.iter().map(|lun| cscd(world, *lun)).collect(),
        segments: segments.collect(),
        ..CopyList::default()
    }
    .encode()
}

pub fn copy(list: &[u8]) -> Cdb {
    Cdb::ExtendedCopy(ExtendedCopy {
        parameter_list_length: list.len() as u32,
    })
}

const STATUS: Cdb = Cdb::ReceiveCopyResults(ReceiveCopyResults {
    action: ReceiveCopyAction::CopyStatus,
    list_identifier: 7,
    allocation_length: 1024,
});

#[test]
fn within_and_between_logical_units_of_different_block_sizes() {
    run(async {
        let world = World::new().await;
        let lun = world.add_volume("v1", BlockSize::B4096).await;
        let a = world.initiator("a").await;
        assert_eq!(
            a.fails(STATUS, &[]).await,
            AdditionalSense::INVALID_FIELD_IN_CDB
        );
        let data: Vec<u8> = (0..16 * 512).map(|at| (at / 100) as u8).collect();
        a.good(write(0, 16), &data).await;
        let list = list(&world, &[0, lun], &[(0, 0, 1, 5, 16), (0, 0, 0, 8, 16)]);
        a.good(copy(&list), &list).await;
        a.send_to(lun, Cdb::TestUnitReady, &[]).await;
        assert_eq!(a.send_to(lun, read(5, 2), &[]).await.data_in, data);
        assert_eq!(a.good(read(8, 16), &[]).await, data, "overlapping");
        let status = CopyStatus::parse(&a.good(STATUS, &[]).await).unwrap();
        assert_eq!(status.status, CopyStatusCode::Completed);
        assert_eq!(
            (status.segments_processed, status.transfer_count),
            (2, 2 * 16 * 512)
        );
        a.good(copy(&[]), &[]).await;
    });
}

#[test]
fn beyond_the_end_or_into_the_unknown_is_copy_aborted() {
    run(async {
        let world = World::new().await;
        let lun = world.add_volume("v1", BlockSize::B4096).await;
        let a = world.initiator("a").await;
        world.grant("v1", "iqn.2026-11.test:a", Access::None).await;
        a.settle().await;
        let end = CAPACITY_BYTES / 512;
        for segments in [
            [(0, 0, 0, end - 1, 16)],
            [(0, 0, 1, 0, 16)],
            [(0, 0, 2, 0, 16)],
        ] {
            let list = list(&world, &[0, lun], &segments);
            let response = a.send(copy(&list), &list).await;
            assert_eq!(
                sense(&response).unwrap().key,
                scsi::sense::SenseKey::CopyAborted
            );
        }
        let status = CopyStatus::parse(&a.good(STATUS, &[]).await).unwrap();
        assert_eq!(status.status, CopyStatusCode::Failed);
    });
}

#[test]
fn a_fence_on_either_end_stops_it() {
    for fenced in [0, 1] {
        run(async {
            let world = World::new().await;
            let lun = world.add_volume("v1", BlockSize::B512).await;
            let (a, b) = (world.initiator("a").await, world.initiator("b").await);
            let list = list(&world, &[0, lun], &[(0, 0, 1, 0, 16)]);
            // Exclusive access of b to the source, or to the destination.
            if fenced == 0 {
                register(&b, 1).await;
                pr(&b, Action::Reserve, 3, 1, 0).await;
                // EXTENDED COPY to the fenced logical unit itself.
                a.conflicts(copy(&list), &list).await;
                let through = a.send_to(lun, copy(&list), &list).await;
                a.send_to(lun, Cdb::TestUnitReady, &[]).await;
                assert_eq!(through.status, Status::CheckCondition);
            } else {
                let reserve = Cdb::Reserve(scsi::cdb::ReserveSize::Six).encode();
                b.raw(lun, &reserve, &[]).await;
                b.raw(lun, &reserve, &[]).await;
            }
            let response = match fenced {
                0 => a.send_to(lun, copy(&list), &list).await,
                _ => a.send(copy(&list), &list).await,
            };
            assert_eq!(
                sense(&response).unwrap().key,
                scsi::sense::SenseKey::CopyAborted
            );
            let copied = world
                .device
                .log()
                .iter()
                .any(|write| write.length == 16 * 512);
            assert!(!copied);
        });
    }
}

#[test]
fn preempt_and_abort_where_it_was_sent_waits_for_a_copy_between_others() {
    run(async {
        let world = World::new().await;
        let source = world.add_volume("v1", BlockSize::B512).await;
        let destination = world.add_volume("v2", BlockSize::B512).await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        register(&a, 1).await;
        register(&b, 2).await;
        for lun in [source, destination] {
            b.send_to(lun, Cdb::TestUnitReady, &[]).await;
        }
        let list = list(
            &world,
            &[source, destination],
            &[(0, 0, 1, 0, 4096), (0, 0, 1, 8, 8)],
        );
        world.device.writes.close();
        let cdb = copy(&list).encode();
        let mut copying = pin!(b.raw(0, &cdb, &list));
        assert!(stuck(copying.as_mut()).await);
        world.device.writes.hold_those_waiting();
        let mut preempt = pin!(pr(&a, Action::PreemptAndAbort, 0, 1, 2));
        assert!(
            stuck(preempt.as_mut()).await,
            "its write has not landed yet"
        );
        world.device.writes.open();
        let at_answer = async {
            preempt.await;
            world.device.log().len()
        };
        let (landed, _) = zip(at_answer, copying).await;
        assert_eq!(world.device.log().len(), landed, "the rest is not copied");
    });
}
