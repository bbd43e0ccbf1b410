//! The page store and what the private region and the configuration keep in it: headers, commit records, slots,
//! configuration pages. Any bytes, and valid ones with damage under a right checksum.

#![no_main]

mod damage;

use std::sync::Arc;

use bytes::Bytes;
use damage::{damage, sign};
use libfuzzer_sys::fuzz_target;
use reservation::{InitiatorPort, Key, LostUntil, Nexus, Registrant, ReservationType};
use uuid::Uuid;
use volume::config::envelope;
use volume::page_store::header::{Content, Header, Identity, PageEntry, RECORD_BYTES};
use volume::private_region::commit_record::CommitRecord;
use volume::private_region::slot::{self, Registration};

const VOLUME: Uuid = Uuid::from_u128(1);
const REPLICA: Uuid = Uuid::from_u128(2);
const IDENTITY: Identity = Identity {
    store: VOLUME,
    kind: *b"KEYS",
};
const CAPACITY_PAGES: u32 = 129;

fuzz_target!(|data: &[u8]| {
    let Some((&which, recipe)) = data.split_first() else {
        return;
    };
    let _ = Header::decode(recipe, IDENTITY, REPLICA, CAPACITY_PAGES);
    match which % 4 {
        0 => header(recipe),
        1 => commit_record(recipe),
        2 => registrant(recipe),
        _ => configuration(recipe),
    }
});

fn record() -> CommitRecord {
    CommitRecord {
        generation: 7,
        aptpl: true,
        lost: Some(LostUntil::Registered),
        persist_always: false,
        kind: Some(ReservationType::WriteExclusive),
        holder_slot: Some(3),
        boot_id: Uuid::from_u128(5),
        slots: vec![0, 3, 9],
    }
}

fn header(recipe: &[u8]) {
    let whole = Header {
        content: Content {
            epoch: 2,
            sequence: 9,
            writer: Uuid::from_u128(3),
            members: vec![REPLICA, Uuid::from_u128(4)],
            record: record().encode(),
            pages: vec![PageEntry::default(); 3],
        },
        claim: 2,
        replica: REPLICA,
    };
    let mut bytes = whole.encode(IDENTITY);
    damage(&mut bytes, recipe);
    sign(&mut bytes, 508);
    if let Ok(header) = Header::decode(&bytes, IDENTITY, REPLICA, CAPACITY_PAGES) {
        assert!(header.content.pages.len() <= CAPACITY_PAGES as usize);
        let again = header.encode(IDENTITY);
        let again = Header::decode(&again, IDENTITY, REPLICA, CAPACITY_PAGES);
        assert_eq!(again.expect("what was believed"), header);
        let _ = CommitRecord::decode(&header.content.record);
    }
}

fn commit_record(recipe: &[u8]) {
    let mut bytes: [u8; RECORD_BYTES] = record().encode();
    damage(&mut bytes, recipe);
    if let Ok(record) = CommitRecord::decode(&bytes) {
        let holder = record.holder_slot;
        assert!(holder.is_none_or(|slot| record.slots.contains(&slot)));
        assert_eq!(record.encode(), bytes);
    }
}

fn registrant(recipe: &[u8]) {
    let nexus = Nexus {
        initiator: InitiatorPort {
            name: Arc::from("iqn.2026-11.com.example:vm1"),
            isid: [0x80, 0, 0, 0, 0, 1],
        },
        target_port: 1,
    };
    let registration = Registration {
        nexus,
        registrant: Registrant {
            key: Key(0xa1),
            all_target_ports: false,
        },
        recovered: true,
    };
    let mut bytes = [0; slot::SLOT_BYTES];
    slot::encode(&mut bytes, VOLUME, 3, &registration);
    damage(&mut bytes, recipe);
    sign(&mut bytes, 28);
    if let Ok(registration) = slot::decode(&bytes, VOLUME, 3) {
        assert!(registration.registrant.key.0 != 0 && registration.nexus.target_port != 0);
        let mut again = [0; slot::SLOT_BYTES];
        slot::encode(&mut again, VOLUME, 3, &registration);
        let again = slot::decode(&again, VOLUME, 3);
        assert_eq!(again, Ok(registration));
    }
}

fn configuration(recipe: &[u8]) {
    let stored = envelope::Stored {
        kind: 2,
        uuid: Uuid::from_u128(6),
        payload: vec![b'x'; 9000],
    };
    let mut pages: Vec<Vec<u8>> = stored.encode().iter().map(|page| page.to_vec()).collect();
    for (page, recipe) in pages.iter_mut().zip(recipe.chunks(recipe.len() / 3 + 1)) {
        // The head of a page; its payload is serde_json's concern.
        damage(&mut page[..64], recipe);
    }
    let pages = pages.into_iter().map(Bytes::from);
    let _ = envelope::decode((0..).zip(pages));
}
