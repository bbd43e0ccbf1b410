//! The mailbox as a disk: direct I/O in aligned units, so that nothing comes from a cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fencing::SlotSet;
use fencing::mailbox::{
    CopyWrite, DIRECTORY, Directory, HEAD, HeadArea, MemberSlot, Place, Read, ReadError,
    UNIT_BYTES, slot_place,
};
use fencing::node::MailboxRead;
use thiserror::Error;
use uuid::Uuid;

/// The domain's disk.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
}

/// Why nothing could be read.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The disk fails.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It says nothing sound.
    #[error("{0}")]
    Content(#[from] ReadError),
}

/// A buffer at a multiple of [`UNIT_BYTES`] in memory, as direct I/O wants it.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn new(length: usize) -> Self {
        let bytes = vec![0; length + UNIT_BYTES];
        let address = bytes.as_ptr().addr();
        let start = address.next_multiple_of(UNIT_BYTES) - address;
        Self {
            bytes,
            start,
            length,
        }
    }

    fn slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    fn slice_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

impl Disk {
    /// Opens the disk.
    ///
    /// # Errors
    /// Of open(2); `EINVAL` where there is no direct I/O.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = rustix::fs::OFlags::DIRECT.bits();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags.cast_signed())
            .open(path)?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Another handle of the same disk, for another thread.
    ///
    /// # Errors
    /// As for [`Disk::open`].
    pub fn again(&self) -> io::Result<Self> {
        Self::open(&self.path)
    }

    /// Reads the head area.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn head(&self, domain: Option<Uuid>) -> Result<Read<HeadArea>, DiskError> {
        self.decode(HEAD, |copies| HeadArea::decode(copies, domain))
    }

    /// Reads the directory.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn directory(&self, domain: Uuid) -> Result<Read<Directory>, DiskError> {
        self.decode(DIRECTORY, |copies| Directory::decode(copies, Some(domain)))
    }

    /// Reads a slot.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn slot(&self, slot: u16, domain: Uuid) -> Result<Read<MemberSlot>, DiskError> {
        let place = slot_place(slot).ok_or(ReadError::Foreign)?;
        self.decode(place, |copies| MemberSlot::decode(copies, slot, domain))
    }

    /// Reads the head area and slots; slots that say nothing sound are left out.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn mailbox(&self, domain: Uuid, slots: SlotSet) -> Result<MailboxRead, DiskError> {
        let mut read = Vec::new();
        for slot in slots.iter() {
            match self.slot(slot, domain) {
                Ok(said) => read.push((slot, said.payload)),
                Err(DiskError::Content(_)) => {}
                Err(error) => return Err(error),
            }
        }
        // The head last: what it says is newer than what slots say.
        let head = self.head(Some(domain))?.payload;
        Ok(MailboxRead { head, slots: read })
    }

    /// Writes a copy.
    ///
    /// # Errors
    /// Of pwrite(2).
    pub fn write(&self, write: &CopyWrite) -> io::Result<()> {
        let mut buffer = Aligned::new(write.bytes.len());
        buffer.slice_mut().copy_from_slice(&write.bytes);
        self.file.write_all_at(buffer.slice(), write.offset_bytes)
    }

    /// A copy that is torn was being written while it was read; then the other one is sound, unless that was written
    /// meanwhile, too: once more.
    fn decode<T>(
        &self,
        place: Place,
        decode: impl Fn([&[u8]; 2]) -> Result<T, ReadError>,
    ) -> Result<T, DiskError> {
        let mut result = Err(ReadError::Torn);
        for _ in 0..3 {
            let first = self.copy(place, 0)?;
            let second = self.copy(place, 1)?;
            result = decode([first.slice(), second.slice()]);
            if !matches!(result, Err(ReadError::Torn)) {
                break;
            }
        }
        Ok(result?)
    }

    fn copy(&self, place: Place, copy: u64) -> io::Result<Aligned> {
        let offset_bytes = place.copy_offset_bytes(copy);
        let mut buffer = Aligned::new(UNIT_BYTES);
        self.file.read_exact_at(buffer.slice_mut(), offset_bytes)?;
        let length = place.length_bytes(buffer.slice());
        if length > UNIT_BYTES {
            buffer = Aligned::new(length);
            self.file.read_exact_at(buffer.slice_mut(), offset_bytes)?;
        }
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencing::mailbox::{DirectoryMember, MAILBOX_BYTES};

    #[test]
    fn what_is_written_is_read_in_aligned_units() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAILBOX_BYTES).unwrap();
        let disk = Disk::open(file.path()).unwrap();
        let domain = Uuid::from_u128(3);
        assert!(matches!(
            disk.head(None),
            Err(DiskError::Content(ReadError::Empty))
        ));
        // Longer than a unit.
        let member = DirectoryMember {
            name: "m".repeat(60),
            initiators: vec!["i".repeat(200)],
        };
        let directory = Directory {
            members: (0..64).map(|slot| (slot, member.clone())).collect(),
            volumes: Vec::new(),
        };
        for sequence in 1..4 {
            disk.write(&directory.encode(domain, sequence).unwrap())
                .unwrap();
        }
        let read = disk.again().unwrap().directory(domain).unwrap();
        assert_eq!((read.sequence, read.payload), (3, directory));
    }
}
