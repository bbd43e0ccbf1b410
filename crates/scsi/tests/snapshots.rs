//! A few encodings as hexadecimal, to be read against the standards by a person.

use scsi::cdb::{COMMANDS, Cdb, Transfer, TransferSize};
use scsi::mode::{BlockDescriptor, CachingPage, ControlPage, ModeData, ModePages, mode_sense};
use scsi::pr::{FullStatus, TransportId, encode_full_status};
use scsi::sense::SenseFormat;
use scsi::vpd::{Association, Designator, DesignatorBody, encode_identification};
use scsi::{Sense, unit_attention::UnitAttention};

/// Sixteen bytes a line, each with its offset.
fn hex(data: &[u8]) -> String {
    data.chunks(16)
        .enumerate()
        .map(|(line, bytes)| {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:02x}: {}\n", line * 16, bytes.join(" "))
        })
        .collect()
}

#[test]
fn table_of_commands() {
    let rows: String = COMMANDS
        .iter()
        .map(|row| {
            let usage: Vec<String> = row.usage.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:<62} {}\n", row.name, usage.join(" "))
        })
        .collect();
    insta::assert_snapshot!(rows);
}

#[test]
fn unit_attentions_by_precedence() {
    let rows: String = UnitAttention::ALL
        .iter()
        .map(|condition| format!("{} {}\n", condition.precedence(), condition.additional()))
        .collect();
    insta::assert_snapshot!(rows);
}

#[test]
fn sense_of_a_miscompare() {
    let sense = Sense::miscompare(513);
    let both = format!(
        "{}\n{}",
        hex(&sense.encode(SenseFormat::Fixed)),
        hex(&sense.encode(SenseFormat::Descriptor))
    );
    insta::assert_snapshot!(both);
}

#[test]
fn read_in_every_form() {
    let forms = [
        TransferSize::Six,
        TransferSize::Ten,
        TransferSize::Twelve,
        TransferSize::Sixteen,
    ];
    let rows: String = forms
        .iter()
        .map(|&size| Transfer {
            size,
            lba: 0x01_2345,
            length_blocks: 256,
            dpo: false,
            fua: size != TransferSize::Six,
        })
        .map(|transfer| format!("{:?}\n", Cdb::Read(transfer).encode()))
        .collect();
    insta::assert_snapshot!(rows);
}

#[test]
fn device_identification_page() {
    let designator = |association, body| Designator { association, body };
    let page = encode_identification(&[
        designator(
            Association::LogicalUnit,
            DesignatorBody::NaaLocallyAssigned(0x0123_4567_89ab_cdef),
        ),
        designator(
            Association::TargetPort,
            DesignatorBody::RelativeTargetPort(1),
        ),
        designator(Association::TargetPort, DesignatorBody::TargetPortGroup(1)),
        designator(
            Association::TargetPort,
            DesignatorBody::ScsiName("iqn.2026-11.dev.ringfence:host,t,0x0001".into()),
        ),
    ]);
    insta::assert_snapshot!(hex(&page));
}

#[test]
fn full_status_of_a_holder() {
    let registrant = FullStatus {
        key: 0x0123_4567_89ab_cdef,
        all_tg_pt: false,
        holder: Some((0, 5)),
        relative_target_port: 1,
        transport_id: TransportId {
            name: "iqn.1993-08.org.debian:01:node1".into(),
            isid: Some([0x00, 0x02, 0x3d, 0, 0, 1]),
        },
    };
    insta::assert_snapshot!(hex(&encode_full_status(2, &[registrant])));
}

#[test]
fn every_mode_page() {
    let control = ControlPage {
        task_set_type: 1,
        queue_algorithm_modifier: 1,
        ..ControlPage::default()
    };
    let caching = CachingPage {
        write_cache_enable: true,
        ..CachingPage::default()
    };
    let current = ModePages {
        caching,
        control,
        ..ModePages::default()
    };
    let mode = ModeData {
        write_protected: false,
        dpo_fua: true,
        block: BlockDescriptor {
            blocks: 0x20_0000,
            block_length_bytes: 512,
        },
        current,
        changeable: ModePages::CHANGEABLE,
        default: current,
    };
    let command = [0x1a, 0x00, 0x3f, 0x00, 0xff, 0x00];
    let Ok(Cdb::ModeSense(command)) = Cdb::decode(&command) else {
        panic!("MODE SENSE(6)")
    };
    insta::assert_snapshot!(hex(&mode_sense(&command, &mode).expect("every page")));
}
