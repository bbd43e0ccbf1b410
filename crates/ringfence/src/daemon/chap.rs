//! The file of `--chap-file`.
//!
//! A line is `user secret [mutual-user mutual-secret] [initiator=NAME]`, fields separated by blanks; `#` begins a
//! comment at the start of a line. `user` and `secret` are what initiators authenticate with; with
//! `initiator=NAME` only that initiator may use the line. The mutual pair is what the target answers with when an
//! initiator wants it to authenticate too; the target has one identity, so all lines that name it agree.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ::iscsi::target::{ChapAccount, ChapConfig};

use crate::failure::Failure;
use crate::names::iscsi_name;

/// The shortest secret in bytes: 96 bits (RFC 7143 9.2.1).
pub const SECRET_MIN_BYTES: usize = 12;

/// Reads `path`. It must belong to root or to the user of the daemon and must not be open to others.
pub fn load(path: &Path) -> Result<ChapConfig, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::failed(format!(
            "the CHAP file {} cannot be read: {error}",
            path.display()
        ))
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.mode() & 0o007 != 0 {
        return Err(Failure::refused(format!(
            "the CHAP file {} is open to every user of this machine (mode {:04o})",
            path.display(),
            metadata.mode() & 0o7777
        ))
        .advise(format!(
            "chmod 600 {}, and change the secrets if others may have read them",
            path.display()
        )));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != own {
        return Err(Failure::refused(format!(
            "the CHAP file {} belongs to another user (uid {})",
            path.display(),
            metadata.uid()
        ))
        .advise(format!(
            "chown it to root or to uid {own}, as which the daemon runs"
        )));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text).map_err(|(line, why)| {
        Failure::usage(format!("{}, line {line}: {why}", path.display()))
            .advise("a line is: user secret [mutual-user mutual-secret] [initiator=NAME]")
    })
}

/// Parses the content; an error comes with the number of its line.
fn parse(text: &str) -> Result<ChapConfig, (usize, String)> {
    let mut initiators = HashMap::new();
    let mut target: Option<(String, Vec<u8>)> = None;
    for (index, line) in text.lines().enumerate() {
        let at = |why: &str| (index + 1, why.to_owned());
        if line.trim_start().starts_with('#') {
            continue;
        }
        let (bound, fields): (Vec<&str>, Vec<&str>) = line
            .split_whitespace()
            .partition(|field| field.starts_with("initiator="));
        let (user, secret, mutual) = match fields.as_slice() {
            [] if bound.is_empty() => continue,
            [user, secret] => (*user, *secret, None),
            [user, secret, mutual_user, mutual_secret] => {
                (*user, *secret, Some((*mutual_user, *mutual_secret)))
            }
            _ => return Err(at("two or four fields are expected")),
        };
        let initiator_name = match bound.as_slice() {
            [] => None,
            [name] => {
                Some(iscsi_name(name.trim_start_matches("initiator=")).map_err(|why| at(&why))?)
            }
            _ => return Err(at("initiator= is given twice")),
        };
        for (whose, secret) in [
            ("the secret", Some(secret)),
            ("the mutual secret", mutual.map(|m| m.1)),
        ] {
            if secret.is_some_and(|secret| secret.len() < SECRET_MIN_BYTES) {
                return Err(at(&format!(
                    "{whose} has fewer than {SECRET_MIN_BYTES} characters (RFC 7143 9.2.1)"
                )));
            }
        }
        if let Some((mutual_user, mutual_secret)) = mutual {
            if mutual_secret == secret {
                return Err(at(
                    "the two directions need different secrets (RFC 7143 9.2.1)",
                ));
            }
            let mutual = (mutual_user.to_owned(), mutual_secret.as_bytes().to_vec());
            if target.as_ref().is_some_and(|other| *other != mutual) {
                return Err(at(
                    "the target has one name and secret: all lines must give the same mutual pair",
                ));
            }
            target = Some(mutual);
        }
        let account = ChapAccount {
            secret: secret.as_bytes().to_vec(),
            initiator_name,
        };
        if initiators.insert(user.to_owned(), account).is_some() {
            return Err(at("the user is named twice"));
        }
    }
    if initiators.is_empty() {
        return Err((
            text.lines().count().max(1),
            "no user is named, so nobody could log in".to_owned(),
        ));
    }
    Ok(ChapConfig {
        initiators,
        target,
        discovery: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureKind;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_documented_format() {
        let config = parse(
            "# comment\n\n\
             vm1 secret-of-vm1-0\n\
             vm2\tsecret-of-vm2-0  head secret-of-head initiator=iqn.2026-11.com.Example:vm2\n",
        )
        .unwrap();
        assert_eq!(config.initiators.len(), 2);
        assert_eq!(config.initiators["vm1"].secret, b"secret-of-vm1-0");
        assert_eq!(config.initiators["vm1"].initiator_name, None);
        assert_eq!(
            config.initiators["vm2"].initiator_name.as_deref(),
            Some("iqn.2026-11.com.example:vm2")
        );
        assert_eq!(
            config.target,
            Some(("head".to_owned(), b"secret-of-head".to_vec()))
        );
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let table = [
            ("", 1, "no user"),
            ("vm1", 1, "two or four"),
            ("vm1 secret-of-vm1-0 x", 1, "two or four"),
            ("initiator=iqn.x:a", 1, "two or four"),
            ("\nvm1 short", 2, "fewer than 12"),
            ("vm1 secret-of-vm1-0 head short", 1, "fewer than 12"),
            ("vm1 secret-of-vm1-0 head secret-of-vm1-0", 1, "different"),
            ("vm1 secret-of-vm1-0\nvm1 secret-of-vm1-1", 2, "twice"),
            ("vm1 secret-of-vm1-0 initiator=vm1", 1, "iSCSI name"),
            (
                "a secret-of-a-000 h1 secret-of-head1\nb secret-of-b-000 h2 secret-of-head2",
                2,
                "same mutual pair",
            ),
        ];
        for (text, line, why) in table {
            let (at, message) = parse(text).unwrap_err();
            assert!(
                at == line && message.contains(why),
                "{text}: {at}: {message}"
            );
        }
    }

    #[test]
    fn a_file_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chap");
        std::fs::write(&path, "vm1 secret-of-vm1-0\n").unwrap();
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match load(&path) {
                Ok(_) => assert!(good, "{mode:o}"),
                Err(failure) => assert!(!good && failure.kind == FailureKind::Refused, "{mode:o}"),
            }
        }
    }
}
