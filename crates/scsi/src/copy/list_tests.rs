use super::*;

const LIMITS: CopyLimits = CopyLimits {
    cscds: 2,
    segments: 2,
    descriptor_list_bytes: 3 * 32 + 3 * 28,
    inline_data_bytes: 0,
};

fn cscd() -> Cscd {
    Cscd {
        relative_initiator_port: 0,
        code_set: 1,
        association: 0,
        designator_type: 3,
        designator: vec![0x31, 2, 3, 4, 5, 6, 7, 8],
        pad: false,
        block_length_bytes: 512,
    }
}

fn blocks(source: u16, destination: u16) -> Segment {
    Segment {
        cat: false,
        source,
        destination,
        source_lba: 0x0102_0304_0506_0708,
        destination_lba: 9,
        body: SegmentBody::Blocks {
            destination_count: true,
            length_blocks: 2048,
        },
    }
}

fn list() -> CopyList {
    let bytes = SegmentBody::Bytes {
        length_bytes: 70_000,
        source_offset_bytes: 1,
        destination_offset_bytes: 2,
    };
    CopyList {
        list_identifier: 7,
        list_id_usage: ListIdUsage::Discard,
        sequential: true,
        priority: 3,
        cscds: vec![
            cscd(),
            Cscd {
                pad: true,
                ..cscd()
            },
        ],
        segments: vec![
            blocks(0, 1),
            Segment {
                cat: true,
                body: bytes,
                ..blocks(1, 0)
            },
        ],
    }
}

fn error(list: &CopyList, change: impl FnOnce(&mut Vec<u8>)) -> Sense {
    let mut data = list.encode();
    change(&mut data);
    CopyList::parse(&data, &LIMITS).expect_err("faulty")
}

#[test]
fn bytes_by_hand() {
    let data = list().encode();
    assert_eq!(
        data[..16],
        [7, 0x33, 0, 64, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0, 0]
    );
    assert_eq!(data[16..28], [0xe4, 0, 0, 0, 1, 3, 0, 8, 0x31, 2, 3, 4]);
    assert_eq!(data[44..48], [0, 0, 2, 0]);
    assert_eq!(
        data[80..92],
        [0x02, 0x02, 0, 0x18, 0, 0, 0, 1, 0, 0, 0x08, 0x00]
    );
    assert_eq!(
        data[92..108],
        [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9]
    );
    assert_eq!(
        data[108..120],
        [0x0a, 0x01, 0, 0x1c, 0, 1, 0, 0, 0, 1, 0x11, 0x70]
    );
    assert_eq!(data[136..], [0, 1, 0, 2]);
    assert_eq!(CopyList::parse(&data, &LIMITS), Ok(list()));
}

#[test]
fn every_prefix_is_a_length_error() {
    let data = list().encode();
    for cut in 0..data.len() {
        assert_eq!(
            CopyList::parse(&data[..cut], &LIMITS),
            Err(Sense::parameter_list_length_error()),
            "{cut}"
        );
    }
}

#[test]
fn limits_come_with_their_own_codes() {
    let code = |cscds: usize, segments: usize| {
        let list = CopyList {
            cscds: vec![cscd(); cscds],
            segments: vec![blocks(0, 0); segments],
            ..list()
        };
        error(&list, |_| {}).additional
    };
    assert_eq!(code(3, 1), AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS);
    assert_eq!(code(1, 3), AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS);
    assert_eq!(code(3, 4), AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    let inline = error(&list(), |data| {
        data[15] = 1;
        data.push(0);
    });
    assert_eq!(
        inline,
        Sense::parameter_list(AdditionalSense::INLINE_DATA_LENGTH_EXCEEDED, 12, None)
    );
}

#[test]
fn unsupported_descriptors_are_pointed_at() {
    let cscd = error(&list(), |data| data[48] = 0xe0);
    assert_eq!(
        cscd,
        Sense::parameter_list(
            AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE,
            48,
            None
        )
    );
    let segment = error(&list(), |data| data[108] = 0x03);
    assert_eq!(
        segment,
        Sense::parameter_list(
            AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE,
            108,
            None
        )
    );
}

#[test]
fn fields_are_checked() {
    let invalid = |at: usize, value: u8| error(&list(), |data| data[at] = value);
    assert_eq!(
        invalid(1, 0x40),
        Sense::invalid_field_in_parameter_list(1, Some(7))
    );
    assert_eq!(
        invalid(1, 0x08),
        Sense::invalid_field_in_parameter_list(1, Some(4))
    );
    assert_eq!(
        invalid(1, 0x18),
        Sense::invalid_field_in_parameter_list(0, None)
    );
    assert_eq!(
        invalid(5, 1),
        Sense::invalid_field_in_parameter_list(5, None)
    );
    assert_eq!(
        invalid(17, 0x01),
        Sense::invalid_field_in_parameter_list(17, Some(4))
    );
    assert_eq!(
        invalid(23, 21),
        Sense::invalid_field_in_parameter_list(23, None)
    );
    assert_eq!(
        invalid(83, 0x17),
        Sense::invalid_field_in_parameter_list(82, None)
    );
}

#[test]
fn lu_id_type_is_ignored() {
    let mut data = list().encode();
    data[17] = 0xc0;
    assert_eq!(CopyList::parse(&data, &LIMITS), Ok(list()));
}

#[test]
fn a_segment_to_nowhere_aborts_the_copy() {
    let sense = error(
        &CopyList {
            segments: vec![blocks(0, 0), blocks(0, 2)],
            ..list()
        },
        |_| {},
    );
    assert_eq!(sense.key, crate::sense::SenseKey::CopyAborted);
    assert_eq!(sense.additional, AdditionalSense::UNREACHABLE_COPY_TARGET);
    assert_eq!(sense.command_specific, Some(1 << 16));
    let place = SenseKeySpecific::Segment {
        in_segment_descriptor: true,
        bit: None,
        byte: 6,
    };
    assert_eq!(sense.specific, Some(place));
}
