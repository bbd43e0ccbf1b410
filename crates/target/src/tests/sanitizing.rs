//! SANITIZE.

use std::pin::pin;
use std::sync::atomic::Ordering::SeqCst;

use scsi::cdb::{GetLbaStatus, RequestSense, Sanitize, SanitizeAction};
use scsi::lba_status::{self, ProvisioningStatus};
use scsi::sam::TaskManagementFunction;
use scsi::sanitize::OverwriteParameters;
use scsi::sense::SenseKeySpecific;

use super::*;

fn sanitize(action: SanitizeAction, immediate: bool, list: &[u8]) -> Cdb {
    Cdb::Sanitize(Sanitize {
        action,
        immediate,
        allow_unrestricted_exit: true,
        parameter_list_length: list.len() as u16,
    })
}

fn pattern(passes: u8, invert: bool) -> Vec<u8> {
    OverwriteParameters {
        invert,
        passes,
        pattern: vec![0xa1, 0xb2, 0xc3],
    }
    .encode()
}

#[test]
fn overwrite_writes_the_pattern_in_every_block() {
    for (passes, invert, flip) in [(1, false, 0x00), (2, true, 0xff)] {
        run(async {
            let world = World::new().await;
            let a = world.initiator("a").await;
            let list = pattern(passes, invert);
            a.good(sanitize(SanitizeAction::Overwrite, false, &list), &list)
                .await;
            let block: Vec<u8> = [0xa1, 0xb2, 0xc3]
                .into_iter()
                .cycle()
                .take(512)
                .map(|byte: u8| byte ^ flip)
                .collect();
            for lba in [0, 1, CAPACITY_BYTES / 512 - 1] {
                assert_eq!(a.good(read(lba, 1), &[]).await, block);
            }
        });
    }
}

#[test]
fn block_erase_unmaps_everything() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        a.good(write(0, 16), &[1; 16 * 512]).await;
        a.good(sanitize(SanitizeAction::BlockErase, false, &[]), &[])
            .await;
        let status = Cdb::GetLbaStatus(GetLbaStatus {
            lba: 0,
            allocation_length: 256,
        });
        let runs = lba_status::parse(&a.good(status, &[]).await).unwrap();
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].status, ProvisioningStatus::Deallocated);
        assert_eq!(a.good(read(0, 16), &[]).await, [0; 16 * 512]);
    });
}

#[test]
fn while_it_runs_others_are_told_and_it_survives_resets_and_nexus_loss() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        world.device.writes.close();
        let list = pattern(1, false);
        let overwrite = sanitize(SanitizeAction::Overwrite, false, &list).encode();
        let mut running = pin!(a.raw(0, &overwrite, &list));
        assert!(stuck(running.as_mut()).await);
        let in_progress = AdditionalSense::SANITIZE_IN_PROGRESS;
        assert_eq!(b.fails(Cdb::TestUnitReady, &[]).await, in_progress);
        assert_eq!(b.fails(write(0, 1), &[0; 512]).await, in_progress);
        let response =
            super::reserving::pr_out(&b, scsi::cdb::PersistentReserveOutAction::Register, 0, 0, 1)
                .await;
        assert_eq!(sense(&response).unwrap().additional, in_progress);
        let request = Cdb::RequestSense(RequestSense {
            descriptor: false,
            allocation_length: 252,
        });
        let told = Sense::parse(&b.good(request, &[]).await).unwrap();
        assert!(matches!(told.specific, Some(SenseKeySpecific::Progress(_))));
        let reset = TaskManagementFunction::LogicalUnitReset;
        b.session.task_management(reset, lun_field(0), 0).await;
        assert_eq!(
            running.await,
            Outcome::Response(Response::status(Status::TaskAborted)),
            "the task, not the operation"
        );
        a.session.detach(DetachReason::NexusLoss).await;
        let told = b.send(Cdb::TestUnitReady, &[]).await;
        assert_eq!(
            sense(&told).unwrap().additional,
            AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED
        );
        assert_eq!(b.fails(Cdb::TestUnitReady, &[]).await, in_progress);
        world.device.writes.open();
        for _ in 0..1000 {
            if b.send(Cdb::TestUnitReady, &[]).await.status == Status::Good {
                break;
            }
            yield_now().await;
        }
        assert_eq!(b.good(read(0, 1), &[]).await[..3], [0xa1, 0xb2, 0xc3]);
        assert!(
            world
                .events()
                .contains(&EventKind::SanitizeEnded { complete: true })
        );
    });
}

#[test]
fn immediate_answers_at_once() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        world.device.writes.close();
        let list = pattern(1, false);
        a.good(sanitize(SanitizeAction::Overwrite, true, &list), &list)
            .await;
        yield_now().await;
        assert_eq!(
            a.fails(Cdb::TestUnitReady, &[]).await,
            AdditionalSense::SANITIZE_IN_PROGRESS
        );
        world.device.writes.open();
    });
}

#[test]
fn a_failure_is_told_until_it_is_left() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let exit = sanitize(SanitizeAction::ExitFailureMode, false, &[]);
        assert_eq!(
            a.fails(exit, &[]).await,
            AdditionalSense::INVALID_FIELD_IN_CDB
        );
        world.device.fail_writes.store(true, SeqCst);
        let list = pattern(1, false);
        let failed = AdditionalSense::SANITIZE_COMMAND_FAILED;
        let overwrite = sanitize(SanitizeAction::Overwrite, false, &list);
        assert_eq!(a.fails(overwrite, &list).await, failed);
        world.device.fail_writes.store(false, SeqCst);
        assert_eq!(a.fails(read(0, 1), &[]).await, failed);
        a.good(exit, &[]).await;
        a.good(read(0, 1), &[]).await;
    });
}

#[test]
fn what_is_not_supported_is_refused() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let erase = sanitize(SanitizeAction::CryptographicErase, false, &[]);
        assert_eq!(
            a.fails(erase, &[]).await,
            AdditionalSense::INVALID_FIELD_IN_CDB
        );
        for wrong in [vec![0; 4], pattern(0, false)] {
            let cdb = sanitize(SanitizeAction::Overwrite, false, &wrong);
            a.fails(cdb, &wrong).await;
        }
        a.good(Cdb::TestUnitReady, &[]).await;
    });
}
