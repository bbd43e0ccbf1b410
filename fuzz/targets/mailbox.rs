//! The mailbox: any bytes, and valid copies with damage under a right checksum. Nothing panics, the newest sound copy
//! is what is read, and what is believed is the same after another round.

#![no_main]

mod damage;

use damage::damage;
use fencing::mailbox::{DIRECTORY, Directory, HEAD, HeadArea, MemberSlot, Place, slot_place};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

const DOMAIN: Uuid = Uuid::from_u128(1);
const HEADER_BYTES: usize = 64;

fuzz_target!(|data: &[u8]| {
    let half = data.len() / 2;
    let copies = [&data[..half], &data[half..]];
    let _ = HeadArea::decode(copies, None);
    let _ = Directory::decode(copies, Some(DOMAIN));
    let _ = MemberSlot::decode(copies, 1, DOMAIN);
    // The payload as it is, in a sound envelope.
    if let Some(slot) = slot_place(1) {
        let bytes = enveloped(slot, data, 4);
        if let Ok(read) = MemberSlot::decode([&bytes, &[]], 1, DOMAIN) {
            let again = read
                .payload
                .encode(DOMAIN, 1, 4)
                .expect("what was believed fits");
            let again =
                MemberSlot::decode([&again.bytes, &[]], 1, DOMAIN).expect("what was believed");
            assert_eq!(again, read);
        }
    }
    let bytes = enveloped(HEAD, data, 4);
    if let Ok(read) = HeadArea::decode([&bytes, &[]], None) {
        let again = read
            .payload
            .encode(DOMAIN, 4)
            .expect("what was believed fits");
        let again = HeadArea::decode([&again.bytes, &[]], None).expect("what was believed");
        assert_eq!(again, read);
    }
    let bytes = enveloped(DIRECTORY, data, 4);
    let _ = Directory::decode([&bytes, &[]], Some(DOMAIN));
    newest(data);
});

fn enveloped(place: Place, payload: &[u8], sequence: u64) -> Vec<u8> {
    let mut bytes = place.encode(DOMAIN, sequence, &0).expect("one byte").bytes;
    let payload = &payload[..payload.len().min(place.copy_bytes - HEADER_BYTES)];
    bytes.truncate(HEADER_BYTES);
    bytes.extend_from_slice(payload);
    bytes[40..44].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    bytes[48..52].fill(0);
    let length = u32::from_le_bytes([bytes[40], bytes[41], bytes[42], bytes[43]]) as usize;
    let end = HEADER_BYTES.saturating_add(length).min(bytes.len());
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[48..52].copy_from_slice(&crc.to_le_bytes());
}

/// Two copies, damaged, one of them under a right checksum.
fn newest(recipe: &[u8]) {
    let place = slot_place(2).expect("a slot");
    let mut copies = [4, 5].map(|sequence| {
        place
            .encode(DOMAIN, sequence, &sequence)
            .expect("short")
            .bytes
    });
    let half = recipe.len() / 2;
    damage(&mut copies[0], &recipe[..half]);
    damage(&mut copies[1], &recipe[half..]);
    seal(&mut copies[0]);
    if let Ok(read) = place.decode::<serde_json::Value>([&copies[0], &copies[1]], Some(DOMAIN)) {
        let copy = &copies[(read.sequence % 2) as usize];
        assert_eq!(copy[32..40], read.sequence.to_le_bytes());
        assert_eq!(read.domain, DOMAIN);
    }
}
