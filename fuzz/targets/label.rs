//! Device labels and intents of atomic writes: any bytes, and valid ones with damage under a right checksum. Nothing
//! panics, and what is believed can be believed: it is the same after another round.

#![no_main]

mod damage;

use damage::damage;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;
use volume::label::{Areas, LABEL_BYTES, Label};
use volume::volume::MAX_ATOMIC_BYTES;
use volume::volume::atomic_write::Intent;

fuzz_target!(|data: &[u8]| {
    let _ = Label::decode(data);
    let _ = Intent::decode(data, Uuid::nil());
    label(data);
    intent(data);
});

fn label(recipe: &[u8]) {
    let size_bytes = 1 << 30;
    let Some(areas) = Areas::of(size_bytes) else {
        return;
    };
    let whole = Label {
        pool: Uuid::from_u128(1),
        device: Uuid::from_u128(2),
        sequence: 3,
        size_bytes,
        areas,
        name: "disk".into(),
    };
    let mut bytes = whole.encode();
    damage(&mut bytes, recipe);
    let crc = crc32c::crc32c(&bytes[..LABEL_BYTES - 4]);
    bytes[LABEL_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    let Ok(label) = Label::decode(&bytes) else {
        return;
    };
    let end = |offset: u64, length: u64| offset.checked_add(length).expect("a sound area");
    let areas = &label.areas;
    let config_end = end(areas.config_offset_bytes, areas.config_length_bytes);
    assert!(config_end <= areas.data_offset_bytes);
    assert!(end(areas.data_offset_bytes, areas.data_length_bytes) <= label.size_bytes);
    let again = Label::decode(&label.encode()).expect("what was believed");
    assert_eq!(format!("{again:?}"), format!("{label:?}"));
}

fn intent(recipe: &[u8]) {
    let volume = Uuid::from_u128(4);
    let whole = Intent {
        offset_bytes: 4096,
        data: vec![0x5a; 512].into(),
    };
    let mut lane = whole.encode(volume).to_vec();
    damage(&mut lane[..512], recipe);
    let crc = crc32c::crc32c(&lane[..508]);
    lane[508..512].copy_from_slice(&crc.to_le_bytes());
    if let Some(intent) = Intent::decode(&lane, volume) {
        assert!(intent.data.len() as u64 <= MAX_ATOMIC_BYTES);
    }
}
