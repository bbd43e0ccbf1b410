//! The directory: what seldom changes and may be long.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::DIRECTORY;
use super::envelope::{CopyWrite, Read, ReadError, TooLong};
use crate::domain::MAX_MEMBERS;

/// What the directory says. There is room for [`crate::domain::MAX_VOLUMES`] volumes and 600 bytes of initiators for each of 64 members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Who the members' initiators are, by slot, so that a node finds out which member it is.
    pub members: BTreeMap<u16, DirectoryMember>,
    /// The volumes of the domain, on which nodes register: their NAA identifiers (SPC-4 7.8.6.6.6, the designator of the
    /// device identification page) as 16 (NAA 3h, 5h) or 32 (NAA 6h) lower case hexadecimal digits.
    pub volumes: Vec<String>,
}

/// A member's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryMember {
    /// Its name.
    pub name: String,
    /// iSCSI names of its initiators.
    pub initiators: Vec<String>,
}

impl Directory {
    /// The copy to be written for `sequence`.
    ///
    /// # Errors
    /// [`TooLong`]: the domain has too many volumes or initiators; whoever configures it must refuse.
    pub fn encode(&self, domain: Uuid, sequence: u64) -> Result<CopyWrite, TooLong> {
        DIRECTORY.encode(domain, sequence, self)
    }

    /// Reads the directory from its two copies, or as much of each as [`super::Place::length_bytes`] asks for.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn decode(copies: [&[u8]; 2], domain: Option<Uuid>) -> Result<Read<Self>, ReadError> {
        let read: Read<Self> = DIRECTORY.decode(copies, domain)?;
        let directory = &read.payload;
        if let Some(slot) = directory
            .members
            .keys()
            .find(|slot| usize::from(**slot) >= MAX_MEMBERS)
        {
            return Err(ReadError::Impossible(format!("{slot} is no slot")));
        }
        for naa in &directory.volumes {
            let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if !matches!(naa.len(), 16 | 32) || !naa.bytes().all(hexadecimal) {
                return Err(ReadError::Impossible(format!(
                    "{:?} is no NAA identifier",
                    naa
                )));
            }
        }
        Ok(read)
    }

    /// Which member an initiator is.
    pub fn slot_of_initiator(&self, initiator: &str) -> Option<u16> {
        let mut members = self.members.iter();
        members
            .find(|(_, member)| {
                let mut names = member.initiators.iter();
                names.any(|name| name.eq_ignore_ascii_case(initiator))
            })
            .map(|(slot, _)| *slot)
    }
}
