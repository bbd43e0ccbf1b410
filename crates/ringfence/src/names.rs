//! Rules for the names of devices and volumes and of initiators.

/// Longest name of a device or volume, in bytes.
pub const NAME_MAX_BYTES: usize = 63;

/// Checks the name of a device or volume: 1 to 63 letters, digits, `-`, `_` and `.`, beginning with a letter or
/// digit, so that it needs no quoting anywhere.
pub fn object_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_MAX_BYTES {
        return Err(format!("a name has 1 to {NAME_MAX_BYTES} characters"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.chars().all(allowed) || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(
            "a name is made of letters, digits, '-', '_' and '.', and begins with a letter or digit"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// Checks and normalizes an iSCSI name (RFC 7143 4.2.7): `iqn.`, `eui.` or `naa.`, at most 223 bytes, lower case,
/// as the login does it.
pub fn iscsi_name(text: &str) -> Result<String, String> {
    let name = text.to_lowercase();
    let typed = ["iqn.", "eui.", "naa."]
        .iter()
        .any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
    if !typed {
        return Err(
            "an iSCSI name begins with iqn., eui. or naa., like iqn.2026-11.com.example:vm1"
                .to_owned(),
        );
    }
    if name.len() > 223 {
        return Err("an iSCSI name has at most 223 bytes".to_owned());
    }
    let forbidden = |c: char| {
        c.is_control()
            || c.is_whitespace()
            || (c.is_ascii() && !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | ':'))
    };
    if let Some(bad) = name.chars().find(|c| forbidden(*c)) {
        return Err(format!("an iSCSI name cannot contain {bad:?}"));
    }
    Ok(name)
}

/// An initiator to grant to: an iSCSI name, or `*` for everyone.
pub fn grantee(text: &str) -> Result<String, String> {
    if text == "*" {
        Ok(text.to_owned())
    } else {
        iscsi_name(text).map_err(|error| format!("{error}; or '*' (quoted) for everyone"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_need_no_quoting() {
        for good in ["a", "vol-1", "0", "Disk_2.old", &"x".repeat(63)] {
            assert_eq!(object_name(good).as_deref(), Ok(good));
        }
        for bad in ["", "-a", ".", "a b", "a/b", "é", &"x".repeat(64)] {
            assert!(object_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn initiator_names_are_normalized() {
        assert_eq!(
            iscsi_name("IQN.2026-11.com.Example:VM1").as_deref(),
            Ok("iqn.2026-11.com.example:vm1")
        );
        for bad in [
            "",
            "vm1",
            "iqn.",
            "iqn.a b",
            "iqn.a_b",
            "iqn.a,b",
            &format!("iqn.{}", "x".repeat(220)),
        ] {
            assert!(iscsi_name(bad).is_err(), "{bad}");
        }
        assert_eq!(grantee("*").as_deref(), Ok("*"));
        assert!(grantee("**").is_err());
    }
}
