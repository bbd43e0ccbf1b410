//! Unit attention conditions: who is told, in which order, by which command.

use scsi::cdb::{Inquiry, ReportLuns, RequestSense};
use scsi::inquiry::StandardInquiry;
use scsi::lun::Lun;
use scsi::sam::TaskManagementFunction;

use super::blocks::{control, mode_select};
use super::*;

const INQUIRY: Cdb = Cdb::Inquiry(Inquiry {
    vpd_page: None,
    allocation_length: 255,
});
const REPORT_LUNS: Cdb = Cdb::ReportLuns(ReportLuns {
    select_report: 0,
    allocation_length: 1024,
});
const REQUEST_SENSE: Cdb = Cdb::RequestSense(RequestSense {
    descriptor: false,
    allocation_length: 252,
});

fn luns(data: &[u8]) -> Vec<u16> {
    let list = scsi::report_luns::parse(data).unwrap();
    let numbers = list
        .into_iter()
        .map(|lun| Lun::decode(lun).unwrap().number());
    numbers.collect()
}

#[test]
fn each_time_a_nexus_comes_up_it_is_told_once() {
    run(async {
        let world = World::new().await;
        let a = world.fresh("a");
        assert_eq!(
            a.settle().await,
            [AdditionalSense::POWER_ON_RESET_OR_BUS_DEVICE_RESET]
        );
        a.session.detach(DetachReason::Logout).await;
        let a = world.fresh("a");
        assert_eq!(
            a.settle().await,
            [AdditionalSense::POWER_ON_RESET_OR_BUS_DEVICE_RESET]
        );
    });
}

#[test]
fn inquiry_and_report_luns_leave_it_pending_and_request_sense_takes_it() {
    run(async {
        let world = World::new().await;
        let a = world.fresh("a");
        a.good(INQUIRY, &[]).await;
        a.good(REPORT_LUNS, &[]).await;
        let told = Sense::parse(&a.good(REQUEST_SENSE, &[]).await).unwrap();
        assert_eq!(
            told.additional,
            AdditionalSense::POWER_ON_RESET_OR_BUS_DEVICE_RESET
        );
        let told = Sense::parse(&a.good(REQUEST_SENSE, &[]).await).unwrap();
        assert_eq!(told.additional, AdditionalSense::NONE);
        a.good(Cdb::TestUnitReady, &[]).await;
    });
}

#[test]
fn it_is_told_even_for_a_command_that_does_not_exist() {
    run(async {
        let world = World::new().await;
        let a = world.fresh("a");
        for expected in [
            AdditionalSense::POWER_ON_RESET_OR_BUS_DEVICE_RESET,
            AdditionalSense::INVALID_COMMAND_OPERATION_CODE,
        ] {
            let Outcome::Response(response) = a.raw(0, &[0xff; 16], &[]).await else {
                panic!()
            };
            assert_eq!(sense(&response).unwrap().additional, expected);
        }
    });
}

#[test]
fn resets_reach_everyone_and_go_first() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        a.good(mode_select(), &control(0, 0, 0)).await;
        let reset = TaskManagementFunction::LogicalUnitReset;
        a.session.task_management(reset, lun_field(0), 0).await;
        let lun_reset = AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED;
        assert_eq!(
            b.settle().await,
            [lun_reset, AdditionalSense::MODE_PARAMETERS_CHANGED]
        );
        assert_eq!(a.settle().await, [lun_reset]);
        let warm = TaskManagementFunction::TargetWarmReset;
        a.session.task_management(warm, [0; 8], 0).await;
        for who in [&a, &b] {
            assert_eq!(
                who.settle().await,
                [AdditionalSense::SCSI_BUS_RESET_OCCURRED]
            );
            assert!(!who.session.stop_requested());
        }
        let cold = TaskManagementFunction::TargetColdReset;
        a.session.task_management(cold, [0; 8], 0).await;
        assert!(a.session.stop_requested() && b.session.stop_requested());
    });
}

#[test]
fn mode_parameters_changed_is_told_to_others() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        a.good(mode_select(), &control(0x04, 0x08, 0x40)).await;
        assert_eq!(a.settle().await, []);
        assert_eq!(b.settle().await, [AdditionalSense::MODE_PARAMETERS_CHANGED]);
        // D_SENSE and SWP are in force for all.
        let response = b.send(write(0, 1), &[0; 512]).await;
        assert_eq!(response.sense[0], 0x72);
        assert_eq!(
            sense(&response).unwrap().additional,
            AdditionalSense::SOFTWARE_WRITE_PROTECTED
        );
        b.good(read(0, 1), &[]).await;
        // The same again changes nothing.
        a.good(mode_select(), &control(0x04, 0x08, 0x40)).await;
        assert_eq!(b.settle().await, []);
        let reset = TaskManagementFunction::LogicalUnitReset;
        a.session.task_management(reset, lun_field(0), 0).await;
        b.settle().await;
        b.good(write(0, 1), &[0; 512]).await;
    });
}

#[test]
fn grants_and_logical_units_that_come_and_go_change_the_list_of_luns() {
    run(async {
        let world = World::new().await;
        let (a, b) = (world.initiator("a").await, world.initiator("b").await);
        let changed = [AdditionalSense::REPORTED_LUNS_DATA_HAS_CHANGED];
        let lun = world.add_volume("v1", BlockSize::B4096).await;
        assert_eq!(a.settle().await, changed);
        assert_eq!(luns(&a.good(REPORT_LUNS, &[]).await), [0, lun]);
        world.grant("v1", "iqn.2026-11.test:a", Access::None).await;
        assert_eq!(a.settle().await, changed);
        assert_eq!(luns(&a.good(REPORT_LUNS, &[]).await), [0]);
        // b had not been told of the first; REPORT LUNS tells it all, and clears.
        assert_eq!(luns(&b.good(REPORT_LUNS, &[]).await), [0, lun]);
        assert_eq!(b.settle().await, []);
        let gone = a.send_to(lun, read(0, 1), &[]).await;
        assert_eq!(
            sense(&gone).unwrap().additional,
            AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED
        );
        let inquiry = a.send_to(lun, INQUIRY, &[]).await;
        let inquiry = StandardInquiry::parse(&inquiry.data_in).unwrap();
        assert_eq!(
            inquiry.qualifier,
            scsi::inquiry::PeripheralQualifier::NotSupported
        );
        world.grant("v1", "iqn.2026-11.test:a", Access::Rw).await;
        assert_eq!(a.settle().await, changed);
        assert!(world.target.remove_logical_unit(lun).await);
        assert_eq!(b.settle().await, changed);
        assert_eq!(luns(&b.good(REPORT_LUNS, &[]).await), [0]);
    });
}

#[test]
fn grow_is_told_and_usable() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let end = CAPACITY_BYTES / 512;
        assert_eq!(
            a.fails(read(end, 1), &[]).await,
            AdditionalSense::LBA_OUT_OF_RANGE
        );
        world
            .pool
            .volume_grow("v0", 2 * CAPACITY_BYTES)
            .await
            .unwrap();
        world.target.capacity_changed(0);
        assert_eq!(
            a.settle().await,
            [AdditionalSense::CAPACITY_DATA_HAS_CHANGED]
        );
        assert_eq!(a.good(read(end, 1), &[]).await, [0; 512]);
    });
}

#[test]
fn commands_to_no_logical_unit() {
    run(async {
        let world = World::new().await;
        let a = world.fresh("a");
        assert_eq!(
            sense(&a.send_to(9, Cdb::TestUnitReady, &[]).await)
                .unwrap()
                .additional,
            AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED
        );
        let told = a.send_to(9, REQUEST_SENSE, &[]).await;
        assert_eq!(told.status, Status::Good);
        assert_eq!(
            Sense::parse(&told.data_in).unwrap().additional,
            AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED
        );
        let listed = a.send_to(9, REPORT_LUNS, &[]).await;
        assert_eq!(luns(&listed.data_in), [0]);
    });
}
