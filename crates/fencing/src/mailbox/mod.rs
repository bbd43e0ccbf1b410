//! The mailbox volume, as bytes: through it a domain's members and its head talk over the storage path alone.
//!
//! ```text
//!     0         head area, copy 0 (64 KiB)        the head writes, members read
//!     64 KiB    head area, copy 1
//!     128 KiB   slot 0, copy 0 and 1 (4 KiB each)  member 0 writes, all read
//!     136 KiB   slot 1 ...
//!     640 KiB   directory, copy 0 (192 KiB)        the head writes, members read
//!     832 KiB   directory, copy 1
//!     1 MiB     end
//! ```
//!
//! Every copy has an envelope ([`envelope`]) and a payload in JSON. A write goes to the copy that is not the newest, so
//! that a torn one never takes the last sound one away. Fields that are not known are passed over: a later version may
//! add some.
//!
//! **What is believed.** The head area and the directory: only the head can write them. A slot: its member wrote it (the
//! driver lets no other nexus), so it speaks for that member and for nobody else. All bounds are checked here
//! ([`ReadError::Impossible`]).

pub mod directory;
pub mod envelope;
pub mod head;
pub mod slot;
#[cfg(test)]
mod tests;

use crate::domain::MAX_MEMBERS;

pub use directory::{Directory, DirectoryMember};
pub use envelope::{CopyWrite, Place, Read, ReadError, TooLong};
pub use head::{Answer, AnswerVerdict, HeadArea, HeadMember, LastVerdict};
pub use slot::{MemberSlot, SlotClaim, Status, View};

/// Bytes of the mailbox volume.
pub const MAILBOX_BYTES: u64 = 1 << 20;
/// Everything is read and written in multiples of this.
pub const UNIT_BYTES: usize = 4096;
/// Most bytes of a member's name.
pub const MAX_NAME_BYTES: usize = 64;

const SLOTS_OFFSET_BYTES: u64 = 128 << 10;
const SLOT_BYTES: u64 = 2 * UNIT_BYTES as u64;
const DIRECTORY_OFFSET_BYTES: u64 = 640 << 10;

/// The head area.
pub const HEAD: Place = Place {
    kind: 1,
    index: 0,
    offset_bytes: 0,
    copy_bytes: 64 << 10,
};

/// The directory.
pub const DIRECTORY: Place = Place {
    kind: 3,
    index: 0,
    offset_bytes: DIRECTORY_OFFSET_BYTES,
    copy_bytes: 192 << 10,
};

const _: () =
    assert!(SLOTS_OFFSET_BYTES + MAX_MEMBERS as u64 * SLOT_BYTES == DIRECTORY_OFFSET_BYTES);
const _: () = assert!(DIRECTORY_OFFSET_BYTES + 2 * DIRECTORY.copy_bytes as u64 == MAILBOX_BYTES);

/// The slot of a member; `None` for a number that is none.
pub fn slot_place(slot: u16) -> Option<Place> {
    (usize::from(slot) < MAX_MEMBERS).then(|| Place {
        kind: 2,
        index: slot.into(),
        offset_bytes: SLOTS_OFFSET_BYTES + u64::from(slot) * SLOT_BYTES,
        copy_bytes: UNIT_BYTES,
    })
}

/// The bytes of the volume that a member may write: its slot, both copies.
pub fn slot_window_bytes(slot: u16) -> Option<std::ops::Range<u64>> {
    slot_place(slot).map(|place| place.offset_bytes..place.offset_bytes + SLOT_BYTES)
}

/// Whether a text can be the name of a member: 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit.
pub fn is_member_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
