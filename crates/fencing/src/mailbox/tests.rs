use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::envelope::{HEADER_BYTES, MAGIC};
use super::*;
use crate::domain::Secret;
use crate::slots::SlotSet;

const DOMAIN: Uuid = Uuid::from_u128(7);

fn slot(beat: u64) -> MemberSlot {
    MemberSlot {
        member: "vm1".into(),
        incarnation: Uuid::from_u128(9),
        beat,
        status: Status::Member,
        addresses: vec!["192.0.2.1:7440".parse().unwrap()],
        heard: SlotSet::from_bits(0b110),
        view: Some(View {
            number: 3,
            master: 1,
            members: SlotSet::from_bits(0b110),
        }),
        claim: None,
        wants_unfence: false,
    }
}

/// The longest head area that its bounds allow.
fn longest_head() -> HeadArea {
    let all = SlotSet::from_bits(u64::MAX);
    let member = HeadMember {
        name: "m".repeat(MAX_NAME_BYTES),
        votes: u32::MAX,
        registered: false,
        suspect: false,
        fenced: Some(u64::MAX),
        unproven: false,
    };
    let mut answer = Answer::refused(Uuid::max(), u64::MAX, &"\"".repeat(500));
    answer.winners = all;
    answer.fenced = all;
    HeadArea {
        name: "d".repeat(MAX_NAME_BYTES),
        incarnation: Uuid::max(),
        beat: u64::MAX,
        epoch: u64::MAX,
        secret: Secret::new([0xff; 32]),
        directory_sequence: u64::MAX,
        members: (0..64).map(|slot| (slot, member.clone())).collect(),
        verdict: Some(LastVerdict {
            epoch: u64::MAX,
            winners: all,
            fenced: all,
        }),
        answers: (0..64).map(|slot| (slot, answer.clone())).collect(),
    }
}

/// The two copies of slot 1 as a disk has them.
struct Disk([Vec<u8>; 2]);

impl Disk {
    fn new() -> Self {
        Disk([vec![0; UNIT_BYTES], vec![0; UNIT_BYTES]])
    }

    fn write(&mut self, write: &CopyWrite, keep_sectors: usize) {
        let start = slot_place(1).unwrap().offset_bytes;
        let copy = usize::try_from(write.offset_bytes - start).unwrap() / UNIT_BYTES;
        let bytes = keep_sectors * 512;
        self.0[copy][..bytes].copy_from_slice(&write.bytes[..bytes]);
    }

    fn read(&self) -> Result<Read<MemberSlot>, ReadError> {
        MemberSlot::decode([&self.0[0], &self.0[1]], 1, DOMAIN)
    }
}

#[test]
fn the_layout_is_that_of_the_manual() {
    assert_eq!(slot_window_bytes(0), Some(131_072..139_264));
    assert_eq!(slot_window_bytes(63), Some(647_168..655_360));
    assert_eq!(slot_window_bytes(64), None);
    assert_eq!(HEAD.copy_offset_bytes(1), 65_536);
    assert_eq!(DIRECTORY.copy_offset_bytes(0), 655_360);
    assert_eq!(DIRECTORY.copy_offset_bytes(1), 851_968);
    let write = slot(1).encode(DOMAIN, 1, 0x0102).unwrap();
    assert_eq!(write.offset_bytes, 139_264);
    assert_eq!(write.bytes.len(), UNIT_BYTES);
    assert_eq!(write.bytes[..8], MAGIC);
    assert_eq!(write.bytes[8..16], [1, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(write.bytes[16..32], *DOMAIN.as_bytes());
    assert_eq!(write.bytes[32..40], [2, 1, 0, 0, 0, 0, 0, 0]);
    let length = u32::from_le_bytes(write.bytes[40..44].try_into().unwrap()) as usize;
    assert_eq!(write.bytes[44..48], [1, 0, 0, 0]);
    assert_eq!(write.bytes[52..64], [0; 12]);
    assert_eq!(write.bytes[HEADER_BYTES], b'{');
    assert_eq!(write.bytes[HEADER_BYTES + length - 1], b'}');
    let mut summed = write.bytes[..HEADER_BYTES + length].to_vec();
    summed[48..52].fill(0);
    assert_eq!(write.bytes[48..52], crc32c::crc32c(&summed).to_le_bytes());
}

#[test]
fn a_write_torn_anywhere_leaves_the_one_before() {
    let mut disk = Disk::new();
    assert_eq!(disk.read(), Err(ReadError::Empty));
    for sequence in 1..6 {
        let write = slot(sequence).encode(DOMAIN, 1, sequence).unwrap();
        for sectors in 0..8 {
            disk.write(&write, sectors);
            let complete = sectors * 512 >= 600; // longer than the payload
            match disk.read() {
                Ok(read) if complete => assert_eq!(read.payload.beat, sequence),
                Ok(read) => {
                    assert!(read.payload.beat == sequence || read.payload.beat + 1 == sequence)
                }
                Err(error) => assert!(sequence == 1 && error != ReadError::Foreign, "{error}"),
            }
        }
        disk.write(&write, 8);
        assert_eq!(disk.read().unwrap().payload, slot(sequence));
    }
}

#[test]
fn what_is_not_of_this_mailbox_is_foreign() {
    let place = slot_place(1).unwrap();
    let empty = [0; UNIT_BYTES];
    let read = |write: &CopyWrite| MemberSlot::decode([&write.bytes, &empty], 1, DOMAIN);
    let whole = slot(2).encode(DOMAIN, 1, 2).unwrap();
    assert_eq!(read(&whole).unwrap().sequence, 2);
    for write in [
        slot(2).encode(Uuid::from_u128(8), 1, 2).unwrap(),
        slot(2).encode(DOMAIN, 2, 2).unwrap(),
        HEAD.encode(DOMAIN, 2, &slot(2)).unwrap(),
        // An odd number in the first copy.
        slot(2).encode(DOMAIN, 1, 3).unwrap(),
    ] {
        assert_eq!(read(&write), Err(ReadError::Foreign));
    }
    let noise = [0x5a; UNIT_BYTES];
    assert_eq!(
        place.decode::<MemberSlot>([&noise, &empty], None),
        Err(ReadError::Foreign)
    );
    assert_eq!(
        place.decode::<MemberSlot>([&[], &[]], None),
        Err(ReadError::Foreign)
    );
    let mut later = whole.clone();
    later.bytes[8] = 2;
    assert_eq!(read(&later), Err(ReadError::Unsupported(2)));
    let mut torn = whole;
    torn.bytes[100] ^= 1;
    assert_eq!(read(&torn), Err(ReadError::Torn));
}

#[test]
fn a_right_checksum_over_nonsense_is_no_reason_to_believe_the_older_copy() {
    let old = slot(2).encode(DOMAIN, 1, 2).unwrap();
    let decode = |new: &CopyWrite| MemberSlot::decode([&old.bytes, &new.bytes], 1, DOMAIN);
    let place = slot_place(1).unwrap();
    let nonsense = place.encode(DOMAIN, 3, &"nonsense").unwrap();
    assert!(matches!(decode(&nonsense), Err(ReadError::Impossible(_))));
    let mut without_itself = slot(3);
    without_itself.claim = Some(SlotClaim {
        id: Uuid::nil(),
        epoch: 0,
        group: SlotSet::one(2),
    });
    let write = without_itself.encode(DOMAIN, 1, 3).unwrap();
    assert!(matches!(decode(&write), Err(ReadError::Impossible(_))));
    let mut headless = slot(3);
    headless.view = Some(View {
        number: 1,
        master: 2,
        members: SlotSet::from_bits(0b110),
    });
    let write = headless.encode(DOMAIN, 1, 3).unwrap();
    assert!(matches!(decode(&write), Err(ReadError::Impossible(_))));
}

#[test]
fn the_longest_payloads_fit() {
    let head = longest_head();
    let write = head.encode(DOMAIN, 5).unwrap();
    assert_eq!(
        HEAD.length_bytes(&write.bytes[..UNIT_BYTES]),
        write.bytes.len()
    );
    let empty = [0; UNIT_BYTES];
    assert_eq!(
        HeadArea::decode([&empty, &write.bytes], None)
            .unwrap()
            .payload,
        head
    );
    let all = SlotSet::from_bits(u64::MAX);
    let longest = MemberSlot {
        member: "m".repeat(MAX_NAME_BYTES),
        incarnation: Uuid::max(),
        beat: u64::MAX,
        status: Status::Starting,
        addresses: vec![
            "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535"
                .parse()
                .unwrap();
            4
        ],
        heard: all,
        view: Some(View {
            number: u64::MAX,
            master: 0,
            members: all,
        }),
        claim: Some(SlotClaim {
            id: Uuid::max(),
            epoch: u64::MAX,
            group: all,
        }),
        wants_unfence: false,
    };
    let write = longest.encode(DOMAIN, 63, 4).unwrap();
    assert_eq!(
        MemberSlot::decode([&write.bytes, &empty], 63, DOMAIN)
            .unwrap()
            .payload,
        longest
    );
}

#[test]
fn a_directory_has_room_for_the_most_volumes() {
    let directory = Directory {
        members: (0..64)
            .map(|slot| {
                let initiators = vec![format!("iqn.2026-01.com.example:{slot}")];
                let name = "m".repeat(MAX_NAME_BYTES);
                (slot, DirectoryMember { name, initiators })
            })
            .collect(),
        volumes: vec!["6".repeat(32); crate::domain::MAX_VOLUMES],
    };
    let write = directory.encode(DOMAIN, 1).unwrap();
    let empty = [0; UNIT_BYTES];
    let read = Directory::decode([&empty, &write.bytes], Some(DOMAIN)).unwrap();
    assert_eq!(read.payload, directory);
    assert_eq!(
        read.payload.slot_of_initiator("IQN.2026-01.com.example:3"),
        Some(3)
    );
    let mut long = directory;
    long.volumes = vec![long.volumes[0].clone(); 6000];
    assert!(long.encode(DOMAIN, 1).is_err());
    long.volumes = vec!["x".repeat(32)];
    let write = long.encode(DOMAIN, 1).unwrap();
    assert!(Directory::decode([&empty, &write.bytes], None).is_err());
}

#[test]
fn members_that_are_nobody_are_refused() {
    let mut head = longest_head();
    head.answers = BTreeMap::new();
    let member = head.members[&0].clone();
    head.members.insert(64, member);
    let write = head.encode(DOMAIN, 0).unwrap();
    let empty = [0; UNIT_BYTES];
    assert!(matches!(
        HeadArea::decode([&write.bytes, &empty], None),
        Err(ReadError::Impossible(_))
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 12 {
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        }
        let length = HEAD.length_bytes(&bytes);
        prop_assert!(length <= HEAD.copy_bytes && length.is_multiple_of(UNIT_BYTES) && length > 0);
        prop_assert!(HeadArea::decode([&bytes, &bytes], None).is_err());
        prop_assert!(MemberSlot::decode([&bytes, &bytes], 0, DOMAIN).is_err());
    }
}
