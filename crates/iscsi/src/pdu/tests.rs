use proptest::prelude::*;

use super::*;

/// A pattern in which every byte differs, so that a wrong offset or width shows.
fn pattern() -> [u8; BHS_BYTES] {
    std::array::from_fn(|i| i as u8 + 1)
}

#[test]
fn fields_are_where_the_standard_puts_them() {
    let command = ScsiCommand(pattern());
    assert_eq!(command.data_segment_length_bytes(), 0x06_07_08);
    assert_eq!(command.lun(), [9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!(command.itt(), 0x11_12_13_14);
    assert_eq!(command.expected_data_transfer_length_bytes(), 0x15_16_17_18);
    assert_eq!(command.cmd_sn(), 0x19_1a_1b_1c);
    assert_eq!(command.exp_stat_sn(), 0x1d_1e_1f_20);
    assert_eq!(command.cdb()[0], 33);
    let login = LoginRequest(pattern());
    assert_eq!(login.isid(), [9, 10, 11, 12, 13, 14]);
    assert_eq!(login.tsih(), 0x0f_10);
    assert_eq!(login.cid(), 0x1516);
    let r2t = ReadyToTransfer(pattern());
    assert_eq!(r2t.r2t_sn(), 0x25_26_27_28);
    assert_eq!(r2t.desired_data_transfer_length_bytes(), 0x2d_2e_2f_30);
}

#[test]
fn setting_a_field_touches_nothing_else() {
    let before = DataIn(pattern());
    let after = before
        .set_residual_bytes(0)
        .set_data_segment_length_bytes(0xaabbcc);
    assert_eq!(after.0[5..8], [0xaa, 0xbb, 0xcc]);
    assert_eq!(after.0[..5], before.0[..5]);
    assert_eq!(after.0[8..44], before.0[8..44]);
    assert_eq!(after.0[44..], [0; 4]);
}

#[test]
fn additional_headers_are_walked_and_overruns_reported() {
    let mut bytes = Vec::new();
    AdditionalHeaders::append(&mut bytes, EXTENDED_CDB, &[0, 1, 2, 3, 4, 5]);
    AdditionalHeaders::append(&mut bytes, BIDIRECTIONAL_READ, &[0, 0, 0, 2, 0]);
    assert_eq!(bytes.len(), 12 + 8);
    let all: Vec<_> = AdditionalHeaders::new(&bytes).collect();
    assert_eq!(
        all,
        [
            Ok(AdditionalHeader {
                kind: 1,
                specific: &[0, 1, 2, 3, 4, 5]
            }),
            Ok(AdditionalHeader {
                kind: 2,
                specific: &[0, 0, 0, 2, 0]
            }),
        ]
    );
    bytes[1] = 200;
    assert!(AdditionalHeaders::new(&bytes).next().unwrap().is_err());
}

proptest! {
    #[test]
    fn walking_any_bytes_ends(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(AdditionalHeaders::new(&bytes).count() <= bytes.len());
    }
}
