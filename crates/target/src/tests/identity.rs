//! What the target says about itself.

use scsi::cdb::{
    Inquiry, LogSense, ModeSense, ModeSize, PageControl, ReportSupportedOperationCodes,
    ReportSupportedTaskManagementFunctions, ReportTargetPortGroups, ReportingOptions,
};
use scsi::inquiry::StandardInquiry;
use scsi::operation_codes::{parse_all_commands, parse_one_command};
use scsi::vpd::{
    BlockDeviceCharacteristics, BlockLimits, DesignatorBody, LogicalBlockProvisioning,
    parse_identification, parse_supported_pages,
};

use super::*;

async fn page(by: &Initiator, code: u8) -> Vec<u8> {
    let cdb = Cdb::Inquiry(Inquiry {
        vpd_page: Some(code),
        allocation_length: 1024,
    });
    by.good(cdb, &[]).await
}

#[test]
fn standard_inquiry_and_every_page_listed() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let cdb = Cdb::Inquiry(Inquiry {
            vpd_page: None,
            allocation_length: 255,
        });
        let inquiry = StandardInquiry::parse(&a.good(cdb, &[]).await).unwrap();
        assert!(inquiry.multi_port && inquiry.third_party_copy && !inquiry.removable);
        let pages = parse_supported_pages(&page(&a, 0).await).unwrap();
        for code in 0..=255 {
            let cdb = Cdb::Inquiry(Inquiry {
                vpd_page: Some(code),
                allocation_length: 1024,
            });
            let response = a.send(cdb, &[]).await;
            assert_eq!(
                response.status == Status::Good,
                pages.contains(&code),
                "{code:#x}"
            );
        }
        let limits = BlockLimits::parse(&page(&a, 0xb0).await).unwrap();
        assert_eq!(limits.maximum_transfer_blocks, (32 << 20) / 512);
        assert_eq!(limits.maximum_atomic_transfer_blocks, 256);
        let provisioning = LogicalBlockProvisioning::parse(&page(&a, 0xb2).await).unwrap();
        assert!(provisioning.unmap && provisioning.reads_zeroes && !provisioning.anchor);
        let characteristics = page(&a, 0xb1).await;
        let parsed = BlockDeviceCharacteristics::parse(&characteristics).unwrap();
        assert_eq!(parsed.write_after_block_erase_required, 1);
    });
}

#[test]
fn identification_names_the_volume_and_the_port() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let designators = parse_identification(&page(&a, 0x83).await).unwrap();
        let bodies: Vec<_> = designators
            .into_iter()
            .map(|designator| designator.body)
            .collect();
        let name = "iqn.2026-11.dev.ringfence:test";
        for expected in [
            DesignatorBody::RelativeTargetPort(1),
            DesignatorBody::TargetPortGroup(1),
            DesignatorBody::ScsiName(format!("{name},t,0x0001")),
            DesignatorBody::ScsiName(name.into()),
        ] {
            assert!(bodies.contains(&expected), "{expected:?} in {bodies:?}");
        }
        assert!(matches!(bodies[0], DesignatorBody::NaaLocallyAssigned(_)));
    });
}

#[test]
fn every_supported_command_is_reported_alike_alone_and_in_the_list() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        let ask = |options, operation_code, service_action| {
            Cdb::ReportSupportedOperationCodes(ReportSupportedOperationCodes {
                return_timeouts: true,
                options,
                operation_code,
                service_action,
                allocation_length: 1 << 16,
            })
        };
        let all = parse_all_commands(&a.good(ask(ReportingOptions::All, 0, 0), &[]).await).unwrap();
        assert!(all.len() > 60);
        for command in all {
            let (right, wrong) = match command.service_action {
                Some(_) => (
                    ReportingOptions::ServiceAction,
                    ReportingOptions::OperationCode,
                ),
                None => (
                    ReportingOptions::OperationCode,
                    ReportingOptions::ServiceAction,
                ),
            };
            let action = command.service_action.unwrap_or(0);
            let one = a
                .good(ask(right, command.operation_code, action), &[])
                .await;
            let usage = parse_one_command(&one).unwrap().unwrap();
            assert_eq!(usage.len(), usize::from(command.cdb_length_bytes));
            assert_eq!(usage[0], command.operation_code);
            a.fails(ask(wrong, command.operation_code, action), &[])
                .await;
        }
        let erase = ask(ReportingOptions::ServiceAction, 0x48, 0x03);
        assert_eq!(parse_one_command(&a.good(erase, &[]).await), Ok(None));
    });
}

#[test]
fn mode_pages_log_pages_port_groups_and_task_management() {
    run(async {
        let world = World::new().await;
        let a = world.initiator("a").await;
        for size in [ModeSize::Six, ModeSize::Ten] {
            let cdb = Cdb::ModeSense(ModeSense {
                size,
                disable_block_descriptors: false,
                long_lba_accepted: false,
                page_control: PageControl::Current,
                page_code: 0x3f,
                subpage_code: 0,
                allocation_length: 255,
            });
            let data = scsi::mode::parse_mode_data(size, &a.good(cdb, &[]).await).unwrap();
            assert!(data.dpo_fua && !data.write_protected);
            assert!(data.pages.caching.write_cache_enable);
            assert_eq!(data.pages.control.task_set_type, 1);
            assert_eq!(data.block.unwrap().blocks, CAPACITY_BYTES / 512);
        }
        let log = Cdb::LogSense(LogSense {
            save_parameters: false,
            page_control: PageControl::Default,
            page_code: 0,
            subpage_code: 0,
            parameter_pointer: 0,
            allocation_length: 255,
        });
        assert_eq!(a.good(log, &[]).await, [0, 0, 0, 2, 0, 0x2f]);
        let groups = Cdb::ReportTargetPortGroups(ReportTargetPortGroups {
            extended: false,
            allocation_length: 255,
        });
        let data = a.good(groups, &[]).await;
        let groups = scsi::target_port_groups::parse(&data, false).unwrap();
        let ports: Vec<_> = groups
            .iter()
            .map(|group| (group.group, group.ports.clone()))
            .collect();
        assert_eq!(ports, [(1, vec![1]), (2, vec![2])]);
        let functions =
            Cdb::ReportSupportedTaskManagementFunctions(ReportSupportedTaskManagementFunctions {
                extended: false,
                allocation_length: 255,
            });
        assert_eq!(a.good(functions, &[]).await, [0xda, 0, 0, 0]);
    });
}
