//! Random bytes into every parser: errors, never a panic; and what a parser takes, the builder gives back.

use proptest::prelude::*;
use scsi::cdb::{COMMANDS, Cdb, ModeSelect, ModeSize, PersistentReserveOutAction};
use scsi::copy::{
    CopyLimits, CopyList, CopyStatus, Cscd, OperatingParameters, Segment, SegmentBody,
};
use scsi::mode::{BlockDescriptor, ModePages, encode_mode_select, mode_select, parse_mode_data};
use scsi::pr::{BasicParameters, Capabilities, MoveParameters, OutParameters, TransportId};
use scsi::sense::{AdditionalSense, FieldPointer, SenseFormat, SenseKey, SenseKeySpecific};
use scsi::{Lun, ParameterListError, Sense};

const ACTIONS: [PersistentReserveOutAction; 9] = [
    PersistentReserveOutAction::Register,
    PersistentReserveOutAction::Reserve,
    PersistentReserveOutAction::Release,
    PersistentReserveOutAction::Clear,
    PersistentReserveOutAction::Preempt,
    PersistentReserveOutAction::PreemptAndAbort,
    PersistentReserveOutAction::RegisterAndIgnoreExistingKey,
    PersistentReserveOutAction::RegisterAndMove,
    PersistentReserveOutAction::ReplaceLostReservation,
];

const LIMITS: CopyLimits = CopyLimits {
    cscds: 3,
    segments: 3,
    descriptor_list_bytes: 1024,
    inline_data_bytes: 16,
};

/// Bytes that are often almost right: small numbers and zeroes, which pass for lengths, between random ones.
fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(0u8), 2 => 0u8..40, 2 => any::<u8>()];
    prop_oneof![
        prop::collection::vec(byte, 0..max),
        prop::collection::vec(any::<u8>(), 0..max)
    ]
}

/// A valid list with up to three bytes changed, and sometimes cut or made longer.
fn damaged(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = valid.len();
    let edits = prop::collection::vec((0..length, prop_oneof![any::<u8>(), 0u8..4]), 0..4);
    let end = prop_oneof![6 => Just(length), 1 => 0..length + 8];
    (edits, end).prop_map(move |(edits, end)| {
        let mut data = valid.clone();
        for (at, value) in edits {
            data[at] = value;
        }
        data.resize(end, 0);
        data
    })
}

fn port(name: &str) -> TransportId {
    TransportId {
        name: name.into(),
        isid: Some([0, 2, 0x3d, 0, 0, 1]),
    }
}

fn valid_register() -> Vec<u8> {
    let transport_ids = vec![
        port("iqn.2026-11.a:b"),
        TransportId {
            isid: None,
            ..port("eui.02004567a425678d")
        },
    ];
    let basic = BasicParameters {
        reservation_key: 1,
        service_action_reservation_key: 2,
        spec_i_pt: true,
        all_tg_pt: false,
        aptpl: true,
        transport_ids,
    };
    basic.encode()
}

fn valid_move() -> Vec<u8> {
    let parameters = MoveParameters {
        reservation_key: 1,
        service_action_reservation_key: 2,
        unregister: true,
        aptpl: false,
        relative_target_port: 1,
        transport_id: port("iqn.2026-11.a:b"),
    };
    parameters.encode()
}

fn valid_copy() -> Vec<u8> {
    let cscd = Cscd {
        relative_initiator_port: 0,
        code_set: 1,
        association: 0,
        designator_type: 3,
        designator: vec![0x31; 8],
        pad: false,
        block_length_bytes: 512,
    };
    let body = SegmentBody::Blocks {
        destination_count: false,
        length_blocks: 8,
    };
    let segment = Segment {
        cat: false,
        source: 0,
        destination: 1,
        source_lba: 0,
        destination_lba: 8,
        body,
    };
    let bytes = SegmentBody::Bytes {
        length_bytes: 8,
        source_offset_bytes: 1,
        destination_offset_bytes: 2,
    };
    let segments = vec![
        segment,
        Segment {
            body: bytes,
            ..segment
        },
    ];
    CopyList {
        cscds: vec![cscd.clone(), cscd],
        segments,
        ..CopyList::default()
    }
    .encode()
}

/// A CDB of a known command with random fields in the places that may be set, or in all places.
fn cdb() -> impl Strategy<Value = Vec<u8>> {
    (
        0..COMMANDS.len(),
        any::<[u8; 16]>(),
        any::<bool>(),
        0usize..=16,
    )
        .prop_map(|(index, random, masked, length)| {
            let row = &COMMANDS[index];
            let mut cdb = random;
            if masked {
                for (at, byte) in cdb.iter_mut().enumerate() {
                    *byte &= row.usage.get(at).copied().unwrap_or(0);
                }
            }
            cdb[0] = row.operation_code;
            if let Some(code) = row.service_action {
                cdb[1] = cdb[1] & 0xe0 | code;
            }
            let length = if masked { 16 } else { length };
            cdb[..length].to_vec()
        })
}

/// The field pointer of an error is within the data or at its end.
fn points_into(error: ParameterListError, length: usize) -> bool {
    match error {
        ParameterListError::InvalidField { byte, .. } => usize::from(byte) <= length,
        ParameterListError::Length | ParameterListError::InvalidFieldInCdb { .. } => true,
    }
}

fn sense() -> impl Strategy<Value = Sense> {
    let bit = prop::option::of(0u8..8);
    let field = (any::<bool>(), bit.clone(), any::<u16>()).prop_map(|(in_cdb, bit, byte)| {
        SenseKeySpecific::Field(FieldPointer { in_cdb, bit, byte })
    });
    let segment =
        (any::<bool>(), bit, any::<u16>()).prop_map(|(in_segment_descriptor, bit, byte)| {
            SenseKeySpecific::Segment {
                in_segment_descriptor,
                bit,
                byte,
            }
        });
    let keyed = prop_oneof![
        (Just(SenseKey::IllegalRequest), field),
        (Just(SenseKey::CopyAborted), segment),
        (
            Just(SenseKey::NotReady),
            any::<u16>().prop_map(SenseKeySpecific::Progress)
        ),
        (
            Just(SenseKey::MediumError),
            any::<u16>().prop_map(SenseKeySpecific::RetryCount)
        ),
        (
            Just(SenseKey::UnitAttention),
            any::<bool>().prop_map(SenseKeySpecific::UnitAttentionOverflow)
        ),
    ];
    (
        any::<bool>(),
        keyed,
        any::<bool>(),
        any::<(u8, u8)>(),
        any::<Option<u64>>(),
        any::<Option<u64>>(),
    )
        .prop_map(
            |(
                deferred,
                (key, specific),
                with_specific,
                (code, qualifier),
                information,
                command_specific,
            )| Sense {
                deferred,
                key,
                additional: AdditionalSense { code, qualifier },
                information,
                command_specific,
                specific: with_specific.then_some(specific),
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn cdbs_decode_and_encode_to_the_same_command(cdb in cdb()) {
        if let Ok(command) = Cdb::decode(&cdb) {
            let encoded = command.encode();
            prop_assert_eq!(encoded.len(), COMMANDS.iter().find(|row| row.operation_code == cdb[0]).map_or(0, |row| row.usage.len()));
            prop_assert_eq!(Cdb::decode(&encoded), Ok(command));
            prop_assert_eq!(Cdb::decode(&encoded.padded()), Ok(command));
        }
    }

    #[test]
    fn random_cdbs_do_not_panic(cdb in bytes(20)) {
        if let Err(error) = Cdb::decode(&cdb) {
            prop_assert_eq!(Sense::from(error).key, SenseKey::IllegalRequest);
        }
    }

    #[test]
    fn sense_in_descriptor_format_loses_nothing(sense in sense()) {
        prop_assert_eq!(Sense::parse(&sense.encode(SenseFormat::Descriptor)), Ok(sense));
    }

    #[test]
    fn sense_in_fixed_format_loses_only_what_has_no_room(sense in sense()) {
        let fits = |value: Option<u64>| value.filter(|&value| value <= u32::MAX.into());
        let expected = Sense {
            information: fits(sense.information),
            command_specific: fits(sense.command_specific).filter(|&value| value != 0),
            ..sense
        };
        prop_assert_eq!(Sense::parse(&sense.encode(SenseFormat::Fixed)), Ok(expected));
    }

    #[test]
    fn random_sense_does_not_panic(code in 0x70u8..0x74, mut data in bytes(80)) {
        if let Some(first) = data.first_mut() {
            *first = code;
        }
        if let Ok(sense) = Sense::parse(&data) {
            prop_assert_eq!(Sense::parse(&sense.encode(SenseFormat::Descriptor)), Ok(sense));
        }
    }

    #[test]
    fn persistent_reserve_out_lists(
        action in 0..ACTIONS.len(),
        data in prop_oneof![bytes(120), damaged(valid_register()), damaged(valid_move())],
    ) {
        // Damage to a REGISTER list is only interesting with REGISTER, mostly.
        for action in [ACTIONS[action], PersistentReserveOutAction::Register, PersistentReserveOutAction::RegisterAndMove] {
            match OutParameters::parse(action, &data) {
                Ok(parameters) => {
                    let encoded = parameters.encode();
                    prop_assert_eq!(OutParameters::parse(action, &encoded), Ok(parameters));
                }
                Err(error) => prop_assert!(points_into(error, data.len())),
            }
        }
    }

    #[test]
    fn transport_ids(data in prop_oneof![bytes(80), damaged(port("iqn.2026-11.a:b").encode())]) {
        match TransportId::parse(&data, 0) {
            Ok((id, used)) => {
                prop_assert!(used <= data.len());
                let encoded = id.encode();
                prop_assert_eq!(TransportId::parse(&encoded, 0), Ok((id, encoded.len())));
            }
            Err(error) => prop_assert!(points_into(error, data.len())),
        }
    }

    #[test]
    fn copy_lists(data in prop_oneof![bytes(200), damaged(valid_copy())]) {
        if let Ok(list) = CopyList::parse(&data, &LIMITS) {
            let known = |index: u16| usize::from(index) < list.cscds.len();
            prop_assert!(list.segments.iter().all(|segment| known(segment.source) && known(segment.destination)));
            prop_assert_eq!(CopyList::parse(&list.encode(), &LIMITS), Ok(list));
        }
    }

    #[test]
    fn mode_select_lists(
        ten in any::<bool>(),
        six_data in prop_oneof![bytes(80), damaged(encode_mode_select(ModeSize::Six, &ModePages::default(), &ModePages::CODES))],
        ten_data in prop_oneof![bytes(80), damaged(encode_mode_select(ModeSize::Ten, &ModePages::default(), &ModePages::CODES))],
    ) {
        let (size, data) = if ten { (ModeSize::Ten, ten_data) } else { (ModeSize::Six, six_data) };
        let command = ModeSelect { size, page_format: true, save_pages: false, parameter_list_length: 0 };
        let block = BlockDescriptor { blocks: 5, block_length_bytes: 512 };
        let current = ModePages::default();
        match mode_select(&command, &data, &current, &ModePages::CHANGEABLE, block) {
            Ok(pages) => {
                // Only the three changeable bits can differ from the current values.
                let mut allowed = pages;
                allowed.control.descriptor_sense = false;
                allowed.control.software_write_protect = false;
                allowed.control.task_aborted_status = false;
                prop_assert_eq!(allowed, current);
            }
            Err(error) => prop_assert!(points_into(error, data.len())),
        }
    }

    #[test]
    fn other_data_out_parsers(data in bytes(100), block_length in 1u32..64) {
        if let Ok(list) = scsi::unmap::parse(&data) {
            prop_assert_eq!(scsi::unmap::parse(&scsi::unmap::encode(&list)), Ok(list));
        }
        if let Ok(parameters) = scsi::sanitize::OverwriteParameters::parse(&data, block_length) {
            prop_assert!((1..=31).contains(&parameters.passes));
            prop_assert!(parameters.pattern.len() <= block_length as usize && !parameters.pattern.is_empty());
        }
    }

    #[test]
    fn data_in_parsers_do_not_panic(data in bytes(200), page in prop_oneof![Just(0x00u8), Just(0x80), Just(0x83), Just(0x86), Just(0xb0), Just(0xb1), Just(0xb2)]) {
        let _ = scsi::report_luns::parse(&data);
        let _ = scsi::lba_status::parse(&data);
        let _ = scsi::capacity::Capacity::parse10(&data);
        let _ = scsi::capacity::Capacity::parse16(&data);
        let _ = scsi::inquiry::StandardInquiry::parse(&data);
        let _ = scsi::pr::parse_keys(&data);
        let _ = scsi::pr::parse_reservation(&data);
        let _ = scsi::pr::parse_full_status(&data);
        let _ = Capabilities::parse(&data);
        let _ = parse_mode_data(ModeSize::Six, &data);
        let _ = parse_mode_data(ModeSize::Ten, &data);
        let _ = scsi::operation_codes::parse_all_commands(&data);
        let _ = scsi::operation_codes::parse_one_command(&data);
        let _ = scsi::operation_codes::SupportedTaskManagement::parse(&data);
        let _ = scsi::target_port_groups::parse(&data, false);
        let _ = scsi::target_port_groups::parse(&data, true);
        let _ = scsi::log::LogPage::parse(&data).map(|page| page.parameters().len());
        let _ = CopyStatus::parse(&data);
        let _ = OperatingParameters::parse(&data);
        let mut data = data;
        if let Some(byte) = data.get_mut(1) {
            *byte = page;
        }
        let _ = scsi::vpd::parse_supported_pages(&data);
        let _ = scsi::vpd::parse_unit_serial_number(&data);
        let _ = scsi::vpd::parse_identification(&data);
        let _ = scsi::vpd::ExtendedInquiry::parse(&data);
        let _ = scsi::vpd::BlockLimits::parse(&data);
        let _ = scsi::vpd::BlockDeviceCharacteristics::parse(&data);
        let _ = scsi::vpd::LogicalBlockProvisioning::parse(&data);
    }

    #[test]
    fn luns(bytes in any::<[u8; 8]>(), high in prop_oneof![Just(0u8), Just(0x40), any::<u8>()]) {
        let mut bytes = bytes;
        bytes[0] = high;
        bytes[2..].fill(0);
        if let Some(lun) = Lun::decode(bytes) {
            prop_assert_eq!(Lun::decode(lun.encode()), Some(lun));
        }
    }
}
