//! Who this member is, in this boot.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use fencing::mailbox::{Directory, HeadArea};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::NodeError;

const INITIATOR_NAME_FILE: &str = "/etc/iscsi/initiatorname.iscsi";
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The slot of the member that this machine is: as named, else by the name of its iSCSI initiator.
///
/// # Errors
/// [`NodeError::NoMember`], or [`NodeError::Member`] when nothing tells who it is.
pub fn slot(named: Option<&str>, head: &HeadArea, directory: &Directory) -> Result<u16, NodeError> {
    let names = || {
        let names = head.members.values().map(|member| member.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    if let Some(name) = named {
        return head.slot_of(name).ok_or_else(|| {
            NodeError::NoMember(format!(
                "{} has no member {name}; it has: {}",
                head.name,
                names()
            ))
        });
    }
    let initiator = initiator_name(Path::new(INITIATOR_NAME_FILE)).ok_or_else(|| {
        NodeError::Member(format!(
            "which member is this? {INITIATOR_NAME_FILE} does not tell: give --member, one of {}",
            names()
        ))
    })?;
    directory.slot_of_initiator(&initiator).ok_or_else(|| {
        NodeError::NoMember(format!(
            "the initiator {initiator} is no member of {}: add it with `ringfence domain member add {} NAME --initiator {initiator}`, or give --member, one of {}",
            head.name, head.name, names()
        ))
    })
}

fn initiator_name(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let mut names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("InitiatorName="));
    names.next().map(|name| name.trim().to_owned())
}

/// One for each boot of this machine and member.
///
/// # Errors
/// When the kernel does not tell its boot id.
pub fn incarnation(domain: Uuid, member: &str) -> Result<Uuid, NodeError> {
    let boot = fs::read_to_string(BOOT_ID_FILE).map_err(|error| NodeError::File {
        what: "the kernel's boot id",
        path: BOOT_ID_FILE.into(),
        error,
    })?;
    let mut hash = Sha256::new();
    hash.update(b"ringfence node\0");
    hash.update(domain.as_bytes());
    hash.update(boot.trim().as_bytes());
    hash.update(member.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// The key of this boot: kept in a directory that does not survive one, made when it is not there yet. Never 0.
///
/// # Errors
/// When the file cannot be read or written.
pub fn key(run_dir: &Path, domain: Uuid, member: &str) -> Result<u64, NodeError> {
    let path = run_dir.join(format!("{domain}-{member}.key"));
    let fault = |error| NodeError::File {
        what: "the key of this boot in",
        path: path.display().to_string(),
        error,
    };
    make_directory(run_dir).map_err(fault)?;
    match fs::read_to_string(&path) {
        Ok(text) => {
            let digits = text.trim().trim_start_matches("0x");
            let key = u64::from_str_radix(digits, 16).ok().filter(|key| *key != 0);
            key.ok_or_else(|| fault(io::Error::other("it is no key; remove the file")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random()?.max(1);
            let temporary = path.with_extension("new");
            let written = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)
                .and_then(|mut file| writeln!(file, "{key:#018x}"))
                .and_then(|()| fs::rename(&temporary, &path));
            written.map_err(fault)?;
            Ok(key)
        }
        Err(error) => Err(fault(error)),
    }
}

/// A random number.
///
/// # Errors
/// When the kernel has none.
pub fn random() -> Result<u64, NodeError> {
    getrandom::u64().map_err(|error| NodeError::File {
        what: "random numbers from",
        path: "the kernel".into(),
        error: io::Error::other(error.to_string()),
    })
}

/// Makes a directory, unless it is there.
///
/// # Errors
/// Of mkdir(2).
pub fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_one_key_and_another_boot_another() {
        let run = tempfile::tempdir().unwrap();
        let domain = Uuid::from_u128(5);
        let first = key(&run.path().join("ringfence"), domain, "vm1").unwrap();
        assert_ne!(first, 0);
        assert_eq!(
            key(&run.path().join("ringfence"), domain, "vm1").unwrap(),
            first
        );
        assert_ne!(
            key(&run.path().join("ringfence"), domain, "vm2").unwrap(),
            first
        );
        assert_ne!(
            key(&run.path().join("other"), domain, "vm1").unwrap(),
            first
        );
        fs::write(
            run.path()
                .join("ringfence")
                .join(format!("{domain}-vm1.key")),
            "0",
        )
        .unwrap();
        assert!(key(&run.path().join("ringfence"), domain, "vm1").is_err());
        assert_eq!(
            incarnation(domain, "vm1").unwrap(),
            incarnation(domain, "vm1").unwrap()
        );
        assert_ne!(
            incarnation(domain, "vm1").unwrap(),
            incarnation(domain, "vm2").unwrap()
        );
    }

    #[test]
    fn the_initiators_name_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            file.path(),
            "## comment\nInitiatorName=iqn.2026-11.com.example:vm1\n",
        )
        .unwrap();
        assert_eq!(
            initiator_name(file.path()).as_deref(),
            Some("iqn.2026-11.com.example:vm1")
        );
        fs::write(file.path(), "#InitiatorName=x\n").unwrap();
        assert_eq!(initiator_name(file.path()), None);
    }
}
