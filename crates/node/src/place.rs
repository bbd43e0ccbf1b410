//! Which domain and slot this member has.

use std::path::Path;
use std::thread;
use std::time::Duration;

use fencing::mailbox::HeadArea;
use uuid::Uuid;

use crate::disk::{Disk, DiskError};
use crate::error::NodeError;
use crate::{identity, log};

/// How often the mailbox is looked at while this member is not in it.
const LOOK: Duration = Duration::from_millis(500);

/// Where a member belongs.
#[derive(Debug)]
pub struct Place {
    /// The domain.
    pub domain: Uuid,
    /// What the head said when the member was found.
    pub head: HeadArea,
    /// The member's slot.
    pub slot: u16,
}

/// Finds this member in the mailbox, which is at `path`; waits for as long as it is not there yet, and says so.
///
/// # Errors
/// [`NodeError`]: what waiting does not mend.
pub fn find(disk: &Disk, path: &Path, member: Option<&str>) -> Result<Place, NodeError> {
    let mut told = String::new();
    loop {
        let error = match look(disk, path, member) {
            Err(error) if error.may_pass() => error,
            // Who waits already has been able to read: the disk comes back.
            Err(error @ NodeError::Disk { .. }) if !told.is_empty() => error,
            other => return other,
        };
        let text = format!("waits: {error}");
        if text != told {
            log::line(4, &text);
            log::notify(&format!("STATUS={text}"));
            told = text;
        }
        thread::sleep(LOOK);
    }
}

fn look(disk: &Disk, path: &Path, member: Option<&str>) -> Result<Place, NodeError> {
    let content_error = |error| match error {
        DiskError::Io(error) => NodeError::Disk {
            path: path.to_owned(),
            error,
        },
        DiskError::Content(error) => NodeError::Mailbox {
            path: path.to_owned(),
            error,
        },
    };
    let head = disk.head(None).map_err(content_error)?;
    let (domain, head) = (head.domain, head.payload);
    let directory = disk.directory(domain).map_err(content_error)?.payload;
    let slot = identity::slot(member, &head, &directory)?;
    Ok(Place { domain, head, slot })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fencing::Secret;
    use fencing::mailbox::{Directory, HeadMember, MAILBOX_BYTES};
    use std::collections::BTreeMap;

    #[test]
    fn a_member_that_is_not_there_yet_is_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAILBOX_BYTES).unwrap();
        let disk = Disk::open(file.path()).unwrap();
        let domain = Uuid::from_u128(3);
        let write = |members: &[(u16, &str)], sequence| {
            let member = |(slot, name): &(u16, &str)| {
                let name = (*name).to_owned();
                let (votes, registered, suspect) = (1, false, false);
                let (fenced, unproven) = (None, false);
                (
                    *slot,
                    HeadMember {
                        name,
                        votes,
                        registered,
                        suspect,
                        fenced,
                        unproven,
                    },
                )
            };
            let head = HeadArea {
                name: "d".into(),
                incarnation: Uuid::from_u128(1),
                beat: 1,
                epoch: 1,
                secret: Secret::new([1; 32]),
                directory_sequence: 1,
                members: members.iter().map(member).collect(),
                verdict: None,
                answers: BTreeMap::new(),
            };
            let (members, volumes) = (BTreeMap::new(), Vec::new());
            let directory = Directory { members, volumes };
            disk.write(&directory.encode(domain, sequence).unwrap())
                .unwrap();
            disk.write(&head.encode(domain, sequence).unwrap()).unwrap();
        };
        let again = disk.again().unwrap();
        let (sender, found) = std::sync::mpsc::channel();
        let path = file.path().to_owned();
        thread::spawn(move || {
            let _ = sender.send(find(&again, &path, Some("b")));
        });
        let nothing = |why| assert!(found.recv_timeout(2 * LOOK).is_err(), "{why}");
        nothing("an empty mailbox");
        write(&[], 1);
        nothing("no members");
        write(&[(0, "a")], 2);
        nothing("another member");
        write(&[(0, "a"), (1, "b")], 3);
        let place = found.recv().unwrap().unwrap();
        assert_eq!((place.domain, place.slot), (domain, 1));
        // What is no mailbox at all does not become one.
        disk.write(&fencing::mailbox::CopyWrite {
            offset_bytes: 0,
            bytes: vec![7; 128 << 10],
        })
        .unwrap();
        assert!(find(&disk, file.path(), Some("b")).is_err());
    }
}
