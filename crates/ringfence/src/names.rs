//! Rules for the names of devices, volumes, domains and members, and of initiators.

/// Longest name of a device, volume, domain or member, in bytes.
pub const NAME_MAX_BYTES: usize = 63;

/// Checks the name of a device, volume, domain or member: 1 to 63 letters, digits, `-`, `_` and `.`, beginning with a letter or
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

/// What a grant to all members of a fence domain begins with; no iSCSI name does.
pub const DOMAIN_PREFIX: &str = "domain:";

/// Whom to grant to: an iSCSI name, `domain:NAME` for the members of a fence domain, or `*` for everyone.
pub fn grantee(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    if let Some(domain) = text.strip_prefix(DOMAIN_PREFIX) {
        object_name(domain)?;
        return Ok(text.to_owned());
    }
    iscsi_name(text).map_err(|error| {
        format!("{error}; or domain:NAME for the members of a fence domain, or '*' (quoted) for everyone")
    })
}

/// Checks `HOST:PORT`: a name or an address (IPv6 in brackets) and a port from 1.
pub fn host_port(text: &str) -> Result<String, String> {
    let wrong =
        || "a server is HOST:PORT, like arbiter.example:7654 or [2001:db8::1]:7654".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let fine = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            !host.is_empty() && host.len() <= 253 && host.chars().all(allowed)
        }
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 && fine => Ok(text.to_owned()),
        _ => Err(wrong()),
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
    fn servers_have_a_port() {
        for good in ["a:1", "10.0.0.1:7654", "[::1]:65535"] {
            assert_eq!(host_port(good).as_deref(), Ok(good));
        }
        for bad in ["a", "a:", "a:0", "a:65536", ":1", "::1:1", "[a]:1", "a b:1"] {
            assert!(host_port(bad).is_err(), "{bad}");
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
        assert_eq!(grantee("domain:D1").as_deref(), Ok("domain:D1"));
        assert!(grantee("domain:").is_err());
        assert!(grantee("**").is_err());
    }
}
