//! Fencing methods, as an operator names them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A way to fence a member. Its registrations and its access to the domain's volumes go in any case; the method says
/// what else is done and what counts as proof.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Method {
    /// `reservation`: its registrations are removed from all volumes, durably, and its I/O is drained.
    Reservation,
    /// `reserve-release`: the other member of two becomes the owner by SCSI-2 RESERVE of every volume.
    ReserveRelease,
    /// `fabric`: its sessions are dropped after draining, and its logins refused on every portal.
    Fabric,
    /// `stonith:AGENT[?KEY=VALUE&...]`: a program of the fence-agents convention, or `qmp`, built in. Keys and values are
    /// percent-encoded where they contain `%`, `&`, `=`, `,` or blanks.
    Stonith {
        /// Name of the program, looked for in the directories of the system's programs, or its absolute path; or `qmp`.
        agent: String,
        /// Its options, for its standard input.
        options: BTreeMap<String, String>,
    },
}

/// Why a text is no method.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MethodError {
    /// It is none of them.
    #[error(
        "{0:?} is no fencing method; there are reservation, reserve-release, fabric and stonith:AGENT[?KEY=VALUE&...]"
    )]
    Unknown(String),
    /// The agent's name cannot be one.
    #[error(
        "{0:?} cannot be the name of a fence agent: give a plain file name such as fence_virsh, an absolute path, or qmp"
    )]
    Agent(String),
    /// An option is not understood.
    #[error(
        "the option {0:?} is not of the form KEY=VALUE with a key of letters, digits, - and _, each key once"
    )]
    Option(String),
}

impl Method {
    /// Its name without the options of an agent, which may be secret: for events and answers.
    pub fn public_name(&self) -> String {
        match self {
            Method::Stonith { agent, .. } => format!("stonith:{agent}"),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Reservation => f.write_str("reservation"),
            Method::ReserveRelease => f.write_str("reserve-release"),
            Method::Fabric => f.write_str("fabric"),
            Method::Stonith { agent, options } => {
                write!(f, "stonith:{agent}")?;
                for (number, (key, value)) in options.iter().enumerate() {
                    let mark = if number == 0 { '?' } else { '&' };
                    write!(f, "{mark}{key}={}", encode(value))?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Method {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        match text {
            "reservation" => return Ok(Method::Reservation),
            "reserve-release" => return Ok(Method::ReserveRelease),
            "fabric" => return Ok(Method::Fabric),
            _ => {}
        }
        let rest = text
            .strip_prefix("stonith:")
            .ok_or_else(|| MethodError::Unknown(text.into()))?;
        let (agent, query) = rest.split_once('?').unwrap_or((rest, ""));
        let plain = agent.strip_prefix('/').unwrap_or(agent);
        let named = !plain.is_empty()
            && plain
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."))
            && (agent.starts_with('/') || !plain.contains('/'))
            && plain
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        if !named {
            return Err(MethodError::Agent(agent.into()));
        }
        let mut options = BTreeMap::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let wrong = || MethodError::Option(option.into());
            let (key, value) = option.split_once('=').ok_or_else(wrong)?;
            let fine = !key.is_empty()
                && key
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            let value = decode(value).ok_or_else(wrong)?;
            // The agents read a line an option.
            if !fine
                || value.contains(['\n', '\r', '\0'])
                || options.insert(key.to_owned(), value).is_some()
            {
                return Err(wrong());
            }
        }
        Ok(Method::Stonith {
            agent: agent.to_owned(),
            options,
        })
    }
}

impl TryFrom<String> for Method {
    type Error = MethodError;

    fn try_from(text: String) -> Result<Self, MethodError> {
        text.parse()
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.to_string()
    }
}

fn encode(value: &str) -> String {
    let mut text = String::new();
    for character in value.chars() {
        if matches!(character, '%' | '&' | '=' | ',' | '?')
            || character.is_whitespace()
            || character.is_control()
        {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                text.push_str(&format!("%{byte:02X}"));
            }
        } else {
            text.push(character);
        }
    }
    text
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_names_are_those_of_the_manual() {
        for text in [
            "reservation",
            "reserve-release",
            "fabric",
            "stonith:qmp?action=reset&socket=/run/vm1.qmp",
            "stonith:/usr/sbin/fence_virsh?ip=192.0.2.1&plug=vm1",
            "stonith:fence_ipmilan?password=a%26b%3D%2Cc%20d",
        ] {
            assert_eq!(text.parse::<Method>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for text in [
            "",
            "Reservation",
            "stonith",
            "stonith:",
            "stonith:?a=b",
            "stonith:../x",
            "stonith:a/b",
            "stonith:/a/../b",
            "stonith:x?a",
            "stonith:x?=b",
            "stonith:x?a=b&a=c",
            "stonith:x?a=%0A",
            "stonith:x?a=%zz",
            "stonith:x?a=%C3",
        ] {
            assert!(text.parse::<Method>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn options_round_trip(options in prop::collection::btree_map("[a-z_]{1,8}", "[^\n\r\0]{0,20}", 0..4)) {
            let method = Method::Stonith { agent: "fence_x".into(), options };
            prop_assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
        }
    }
}
