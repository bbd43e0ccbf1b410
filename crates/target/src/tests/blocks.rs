//! Commands that read and write blocks, on both block sizes.

use std::pin::pin;

use futures_lite::future::zip;
use scsi::capacity::Capacity;
use scsi::cdb::{
    ByteCheck, CompareAndWrite, GetLbaStatus, ModeSelect, ModeSize, PreFetch, ReadCapacity10,
    ReadCapacity16, ReadDefectData, SynchronizeCache, Transfer, TransferSize, Unmap, Verify,
    WriteAtomic16, WriteSame,
};
use scsi::lba_status::{self, ProvisioningStatus};
use scsi::unmap::{self, UnmapBlockDescriptor};

use super::*;

/// Sets bytes 4 and 5 of the Control mode page (SWP 08h, TAS 40h) by MODE SELECT(6).
pub async fn set_control(by: &Initiator, byte4: u8, byte5: u8) {
    by.good(mode_select(), &control(0, byte4, byte5)).await;
}

pub fn mode_select() -> Cdb {
    Cdb::ModeSelect(ModeSelect {
        size: ModeSize::Six,
        page_format: true,
        save_pages: false,
        parameter_list_length: 16,
    })
}

/// A MODE SELECT(6) parameter list with the Control page: TST=001b, unrestricted reordering.
pub fn control(d_sense: u8, byte4: u8, byte5: u8) -> Vec<u8> {
    let mut list = vec![0, 0, 0, 0, 0x0a, 0x0a, 0x20 | d_sense, 0x10, byte4, byte5];
    list.resize(16, 0);
    list
}

fn verify(lba: u64, length_blocks: u32, byte_check: ByteCheck) -> Verify {
    Verify {
        size: TransferSize::Sixteen,
        lba,
        length_blocks,
        dpo: false,
        byte_check,
    }
}

/// Runs a test on a world of each block size; it is given the size and the capacity in blocks.
fn both<F: Future<Output = ()>>(test: impl Fn(World, usize, u64) -> F) {
    for size in [BlockSize::B512, BlockSize::B4096] {
        run(async {
            let bytes = u64::from(size.bytes());
            test(
                World::with(size).await,
                bytes as usize,
                CAPACITY_BYTES / bytes,
            )
            .await;
        });
    }
}

#[test]
fn what_is_written_is_read_with_every_form_of_read_and_write() {
    both(|world, block, capacity| async move {
        let a = world.initiator("a").await;
        let sizes = [
            TransferSize::Six,
            TransferSize::Ten,
            TransferSize::Twelve,
            TransferSize::Sixteen,
        ];
        for (index, size) in sizes.into_iter().enumerate() {
            let at = Transfer {
                size,
                ..transfer(capacity - 5, 3)
            };
            let data = vec![index as u8 + 1; 3 * block];
            a.good(Cdb::Write(at), &data).await;
            for size in sizes {
                assert_eq!(a.good(Cdb::Read(Transfer { size, ..at }), &[]).await, data);
            }
        }
        assert_eq!(a.good(read(capacity - 2, 2), &[]).await, vec![0; 2 * block]);
    });
}

#[test]
fn transfers_beyond_the_end_are_refused_whole() {
    both(|world, block, capacity| async move {
        let a = world.initiator("a").await;
        let data = vec![1; 2 * block];
        for lba in [capacity - 1, capacity, u64::MAX, u64::MAX - 1] {
            assert_eq!(
                a.fails(read(lba, 2), &[]).await,
                AdditionalSense::LBA_OUT_OF_RANGE
            );
            assert_eq!(
                a.fails(write(lba, 2), &data).await,
                AdditionalSense::LBA_OUT_OF_RANGE
            );
        }
        assert_eq!(a.good(read(capacity - 1, 1), &[]).await, vec![0; block]);
        a.good(read(capacity, 0), &[]).await;
        assert_eq!(
            a.fails(read(capacity + 1, 0), &[]).await,
            AdditionalSense::LBA_OUT_OF_RANGE
        );
    });
}

#[test]
fn a_transfer_longer_than_the_limit_is_refused_and_one_of_the_limit_is_carried_out() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let blocks = (8 << 20) / 512;
        let data: Vec<u8> = (0..8usize << 20).map(|at| (at / 997) as u8).collect();
        a.good(write(0, blocks), &data).await;
        let task = a.session.submit(Request {
            tag: 1000,
            lun: lun_field(0),
            cdb: &read(0, blocks).encode(),
            attribute: TaskAttribute::Simple,
            data_out_bytes: 0,
            data_in_bytes: 8 << 20,
        });
        let Outcome::Response(response) = task.unwrap().execute(BytesMut::new()).await else {
            panic!()
        };
        assert!(response.data_in == data);
    });
}

#[test]
fn short_and_long_data_out() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        a.good(write(0, 2), &[1; 1024]).await;
        // One block announced of two: one is written, and the residual is that of two.
        let response = a.send(write(0, 2), &[2; 512]).await;
        assert_eq!(response.status, Status::Good);
        assert_eq!(response.transfer_length_bytes, Some(1024));
        assert_eq!(a.good(read(0, 2), &[]).await, [[2; 512], [1; 512]].concat());
        // Nothing announced: nothing written, GOOD.
        let response = a.send(write(0, 1), &[]).await;
        assert_eq!(
            (response.status, response.transfer_length_bytes),
            (Status::Good, Some(512))
        );
        // Not a whole block.
        let response = a.send(write(0, 3), &[3; 512 + 200]).await;
        assert_eq!(response.status, Status::Good);
        assert_eq!(response.transfer_length_bytes, Some(3 * 512));
        let expected = [&[3; 712][..], &[1; 312]].concat();
        assert_eq!(a.good(read(0, 2), &[]).await, expected);
        // A command that has to compare all of it.
        let all = Cdb::Verify(verify(0, 1, ByteCheck::Compare));
        let response = a.send(all, &[3; 200]).await;
        assert_eq!(response.transfer_length_bytes, Some(512));
        assert_eq!(
            sense(&response).unwrap().additional,
            AdditionalSense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT
        );
        a.good(write(0, 2), &[1; 1024]).await;
        // More than wanted.
        let response = a.send(write(0, 1), &[4; 1024]).await;
        assert_eq!(
            (response.status, response.transfer_length_bytes),
            (Status::Good, Some(512))
        );
        assert_eq!(a.good(read(0, 2), &[]).await, [[4; 512], [1; 512]].concat());
        // Commands that need exactly what they ask for.
        let same = WriteSame {
            size: TransferSize::Sixteen,
            lba: 0,
            length_blocks: 1,
            unmap: true,
            anchor: false,
            no_data_out_buffer: false,
        };
        for length in [256, 1024] {
            let response = a.send(Cdb::WriteSame(same), &vec![0; length]).await;
            assert_eq!(response.status, Status::CheckCondition);
        }
    });
}

#[test]
fn a_read_shorter_than_the_cdb_says_is_cut_and_counted() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        a.good(write(0, 1), &[5; 512]).await;
        let task = a.session.submit(Request {
            tag: 99,
            lun: lun_field(0),
            cdb: &read(0, 2).encode(),
            attribute: TaskAttribute::Simple,
            data_out_bytes: 0,
            data_in_bytes: 200,
        });
        let Outcome::Response(response) = task.unwrap().execute(BytesMut::new()).await else {
            panic!()
        };
        assert_eq!(response.data_in, [5; 200][..]);
        assert_eq!(response.transfer_length_bytes, Some(1024));
    });
}

#[test]
fn force_unit_access_flushes_before_the_answer() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        world.device.flushes.close();
        a.good(write(0, 1), &[1; 512]).await;
        let fua = Cdb::Write(Transfer {
            fua: true,
            ..transfer(0, 1)
        });
        let sync = Cdb::SynchronizeCache(SynchronizeCache {
            size: TransferSize::Ten,
            immediate: false,
            lba: 0,
            length_blocks: 0,
        });
        for (cdb, data) in [(fua, &[1; 512][..]), (sync, &[])] {
            let mut command = pin!(a.send(cdb, data));
            assert!(stuck(command.as_mut()).await);
            world.device.flushes.open();
            assert_eq!(command.await.status, Status::Good);
            world.device.flushes.close();
        }
        let immediate = Cdb::SynchronizeCache(SynchronizeCache {
            size: TransferSize::Ten,
            immediate: true,
            lba: 0,
            length_blocks: 0,
        });
        a.good(immediate, &[]).await;
    });
}

#[test]
fn verify_compares_and_says_where() {
    both(|world, block, _| async move {
        let a = world.initiator("a").await;
        let mut data = vec![7; 3 * block];
        a.good(
            Cdb::WriteAndVerify(verify(10, 3, ByteCheck::Compare)),
            &data,
        )
        .await;
        a.good(Cdb::Verify(verify(10, 3, ByteCheck::Medium)), &[])
            .await;
        a.good(Cdb::Verify(verify(10, 3, ByteCheck::Compare)), &data)
            .await;
        a.good(
            Cdb::Verify(verify(10, 3, ByteCheck::CompareOneBlock)),
            &data[..block],
        )
        .await;
        data[2 * block + 9] = 8;
        let response = a
            .send(Cdb::Verify(verify(10, 3, ByteCheck::Compare)), &data)
            .await;
        let told = sense(&response).unwrap();
        assert_eq!(told.additional, AdditionalSense::MISCOMPARE_DURING_VERIFY);
        assert_eq!(told.information, Some(2 * block as u64 + 9));
        assert_eq!(
            a.fails(
                Cdb::Verify(verify(9, 3, ByteCheck::CompareOneBlock)),
                &data[..block]
            )
            .await,
            AdditionalSense::MISCOMPARE_DURING_VERIFY
        );
    });
}

#[test]
fn compare_and_write_writes_only_what_it_found() {
    both(|world, block, _| async move {
        let a = world.initiator("a").await;
        let command = Cdb::CompareAndWrite(CompareAndWrite {
            lba: 4,
            length_blocks: 2,
            dpo: false,
            fua: false,
        });
        let (zero, one) = (vec![0; 2 * block], vec![1; 2 * block]);
        a.good(command, &[zero.clone(), one.clone()].concat()).await;
        assert_eq!(a.good(read(4, 2), &[]).await, one);
        let response = a
            .send(command, &[zero.clone(), zero.clone()].concat())
            .await;
        let told = sense(&response).unwrap();
        assert_eq!(told.additional, AdditionalSense::MISCOMPARE_DURING_VERIFY);
        assert_eq!(told.information, Some(0));
        let mut almost = one.clone();
        almost[block + 3] = 9;
        let response = a.send(command, &[almost, zero].concat()).await;
        assert_eq!(
            sense(&response).unwrap().information,
            Some(block as u64 + 3)
        );
        assert_eq!(a.good(read(4, 2), &[]).await, one);
        assert_eq!(
            a.send(command, &vec![0; block]).await.status,
            Status::CheckCondition
        );
    });
}

#[test]
fn nothing_comes_between_the_halves_of_compare_and_write() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let command = Cdb::CompareAndWrite(CompareAndWrite {
            lba: 0,
            length_blocks: 1,
            dpo: false,
            fua: false,
        });
        world.device.writes.close();
        let swap = [[0; 512], [1; 512]].concat();
        let mut first = pin!(a.send(command, &swap));
        assert!(
            stuck(first.as_mut()).await,
            "it hangs between compare and write"
        );
        let mut second = pin!(b.send(command, &swap));
        assert!(stuck(second.as_mut()).await);
        let mut plain = pin!(b.send(write(0, 1), &[9; 512]));
        assert!(stuck(plain.as_mut()).await);
        assert_eq!(
            world.device.writes.waiting(),
            1,
            "the others did not reach the device"
        );
        b.good(read(1, 1), &[]).await;
        world.device.writes.open();
        let (first, (second, _)) = zip(first, zip(second, plain)).await;
        assert_eq!(first.status, Status::Good);
        assert_eq!(second.status, Status::CheckCondition);
        assert_eq!(b.good(read(0, 1), &[]).await, [9; 512]);
    });
}

#[test]
fn or_write_and_write_atomic() {
    both(|world, block, _| async move {
        let a = world.initiator("a").await;
        a.good(write(0, 2), &vec![0x0f; 2 * block]).await;
        a.good(Cdb::OrWrite16(transfer(0, 2)), &vec![0xa0; 2 * block])
            .await;
        assert_eq!(a.good(read(0, 2), &[]).await, vec![0xaf; 2 * block]);
        let atomic = |length_blocks, boundary_blocks| {
            Cdb::WriteAtomic16(WriteAtomic16 {
                lba: 0,
                boundary_blocks,
                length_blocks,
                dpo: false,
                fua: false,
            })
        };
        let most = (volume::volume::MAX_ATOMIC_BYTES as usize / block) as u16;
        let data = vec![0x55; usize::from(most) * block];
        a.good(atomic(most, 0), &data).await;
        assert_eq!(a.good(read(0, most.into()), &[]).await, data);
        let more = vec![0; (usize::from(most) + 1) * block];
        for (cdb, data) in [
            (atomic(most + 1, 0), &more),
            (atomic(1, 1), &vec![0; block]),
        ] {
            assert_eq!(
                a.fails(cdb, data).await,
                AdditionalSense::INVALID_FIELD_IN_CDB
            );
        }
    });
}

#[test]
fn write_same_unmap_and_lba_status_agree() {
    both(|world, block, capacity| async move {
        let a = world.initiator("a").await;
        let page = 4096 / block as u64;
        let a = &a;
        let same = |lba, blocks: u64, unmap| WriteSame {
            size: TransferSize::Sixteen,
            lba,
            length_blocks: blocks as u32,
            unmap,
            anchor: false,
            no_data_out_buffer: false,
        };
        let status = |lba| async move {
            let cdb = Cdb::GetLbaStatus(GetLbaStatus {
                lba,
                allocation_length: 1024,
            });
            lba_status::parse(&a.good(cdb, &[]).await).unwrap()
        };
        let fresh = status(0).await;
        assert_eq!(fresh.len(), 1, "{fresh:?}");
        assert_eq!(fresh[0].status, ProvisioningStatus::Deallocated);
        assert_eq!(u64::from(fresh[0].length_blocks), capacity);

        a.good(Cdb::WriteSame(same(page, 4 * page, false)), &vec![6; block])
            .await;
        assert_eq!(
            a.good(read(page, 4 * page as u32), &[]).await,
            vec![6; 4 * 4096]
        );
        let runs = status(0).await;
        assert_eq!(runs.len(), 3);
        assert_eq!(
            (runs[1].lba, u64::from(runs[1].length_blocks)),
            (page, 4 * page)
        );
        assert_eq!(runs[1].status, ProvisioningStatus::Mapped);

        // Zeroes with UNMAP give the space back, other data with UNMAP is written.
        a.good(Cdb::WriteSame(same(page, page, true)), &vec![0; block])
            .await;
        a.good(Cdb::WriteSame(same(2 * page, page, true)), &vec![3; block])
            .await;
        let runs = status(page).await;
        assert_eq!(runs[0].status, ProvisioningStatus::Deallocated);
        assert_eq!(u64::from(runs[0].length_blocks), page);
        assert_eq!(a.good(read(2 * page, 1), &[]).await, vec![3; block]);

        let list = unmap::encode(&[
            UnmapBlockDescriptor {
                lba: 2 * page,
                length_blocks: page as u32,
            },
            UnmapBlockDescriptor {
                lba: capacity,
                length_blocks: 0,
            },
        ]);
        let unmap = |list: &[u8]| {
            Cdb::Unmap(Unmap {
                anchor: false,
                parameter_list_length: list.len() as u16,
            })
        };
        a.good(unmap(&list), &list).await;
        assert_eq!(u64::from(status(page).await[0].length_blocks), 2 * page);
        assert_eq!(a.good(read(2 * page, 1), &[]).await, vec![0; block]);
        // One descriptor out of range: none is carried out.
        let wrong = unmap::encode(&[
            UnmapBlockDescriptor {
                lba: 3 * page,
                length_blocks: page as u32,
            },
            UnmapBlockDescriptor {
                lba: capacity,
                length_blocks: 1,
            },
        ]);
        assert_eq!(
            a.fails(unmap(&wrong), &wrong).await,
            AdditionalSense::LBA_OUT_OF_RANGE
        );
        assert_eq!(a.good(read(3 * page, 1), &[]).await, vec![6; block]);
        let none = WriteSame {
            no_data_out_buffer: true,
            ..same(3 * page, 1, false)
        };
        a.good(Cdb::WriteSame(none), &[]).await;
        assert_eq!(a.good(read(3 * page, 1), &[]).await, vec![0; block]);
        for wrong in [
            same(0, 0, false),
            WriteSame {
                anchor: true,
                ..same(0, 1, true)
            },
        ] {
            assert_eq!(
                a.fails(Cdb::WriteSame(wrong), &vec![0; block]).await,
                AdditionalSense::INVALID_FIELD_IN_CDB
            );
        }
    });
}

#[test]
fn capacity_defects_and_prefetch() {
    both(|world, block, capacity| async move {
        let a = world.initiator("a").await;
        let ten = a
            .good(Cdb::ReadCapacity10(ReadCapacity10::default()), &[])
            .await;
        assert_eq!(
            Capacity::parse10(&ten),
            Ok((capacity as u32 - 1, block as u32))
        );
        let sixteen = Cdb::ReadCapacity16(ReadCapacity16 {
            lba: 0,
            pmi: false,
            allocation_length: 32,
        });
        let told = Capacity::parse16(&a.good(sixteen, &[]).await).unwrap();
        assert_eq!(told.last_lba, capacity - 1);
        assert!(told.provisioning_management && told.unmapped_reads_zeroes);
        let defects = ReadDefectData {
            size: TransferSize::Ten,
            primary: true,
            grown: true,
            format: 0,
            descriptor_index: 0,
            allocation_length: 255,
        };
        assert_eq!(
            a.good(Cdb::ReadDefectData(defects), &[]).await,
            [0, 0x18, 0, 0]
        );
        let fetch = |lba| {
            Cdb::PreFetch(PreFetch {
                size: TransferSize::Ten,
                immediate: false,
                lba,
                length_blocks: 1,
            })
        };
        a.good(fetch(0), &[]).await;
        assert_eq!(
            a.fails(fetch(capacity), &[]).await,
            AdditionalSense::LBA_OUT_OF_RANGE
        );
    });
}

#[test]
fn a_failing_medium_is_told_with_its_address() {
    run(async {
        use std::sync::atomic::Ordering::SeqCst;
        let world = World::new().await;
        let a = world.initiator("a").await;
        world.device.fail_reads.store(true, SeqCst);
        world.device.fail_writes.store(true, SeqCst);
        let response = a.send(read(77, 1), &[]).await;
        let told = sense(&response).unwrap();
        assert_eq!(told.additional, AdditionalSense::UNRECOVERED_READ_ERROR);
        assert_eq!(told.information, Some(77));
        assert_eq!(
            a.fails(write(77, 1), &[0; 512]).await,
            AdditionalSense::WRITE_ERROR
        );
    });
}
