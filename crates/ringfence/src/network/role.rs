//! What a client's certificate is for.
//!
//! The subject's organizational unit (OU) names the role; its organization (O), where there is one, the only domain that the
//! role is good for; its common name (CN) is what the event log calls the client.

use std::fmt;
use std::str::FromStr;

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::failure::Failure;

/// What somebody may ask for over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To look at domains, and to fence and unfence their members: a fence agent.
    Fence,
    /// To ask for the votes of this daemon as a quorum device: another head.
    Quorum,
}

/// A client, as its certificate tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Common name.
    pub name: String,
    /// What it may ask for.
    pub role: Role,
    /// The only domain that it may ask about; `None` for all.
    pub domain: Option<String>,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Fence => "fence",
            Role::Quorum => "quorum",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fence" => Ok(Role::Fence),
            "quorum" => Ok(Role::Quorum),
            _ => Err(format!(
                "{text:?} is no role of a certificate: the roles are fence and quorum"
            )),
        }
    }
}

impl Client {
    /// Reads the subject of a certificate whose signature has been verified.
    ///
    /// # Errors
    /// It names no role.
    pub fn of(certificate: &[u8]) -> Result<Self, Failure> {
        let unusable = |why: &str| {
            Failure::refused(format!("the client's certificate {why}"))
                .advise("its subject needs CN=NAME and OU=fence or OU=quorum; 'ringfence certificate issue' makes such ones")
        };
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| unusable("is not understood"))?;
        let subject = certificate.subject();
        let one = |mut values: Box<dyn Iterator<Item = String> + '_>| match (
            values.next(),
            values.next(),
        ) {
            (value, None) => Ok(value),
            (_, Some(_)) => Err(unusable("has several common names, units or organizations")),
        };
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute.as_str().map(str::to_owned).ok()
        };
        let name = one(Box::new(subject.iter_common_name().filter_map(text)))?;
        let unit = one(Box::new(
            subject.iter_organizational_unit().filter_map(text),
        ))?;
        let domain = one(Box::new(subject.iter_organization().filter_map(text)))?;
        let role = unit
            .ok_or_else(|| unusable("names no role"))?
            .parse()
            .map_err(|error: String| unusable(&format!("names no role: {error}")))?;
        Ok(Self {
            name: name.ok_or_else(|| unusable("has no common name"))?,
            role,
            domain,
        })
    }

    /// Whether this client may ask about `domain` in `role`.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn may(&self, role: Role, domain: Option<&str>) -> Result<(), Failure> {
        if self.role != role {
            return Err(Failure::refused(format!(
                "the certificate of {} is for the role {}, and this takes {role}",
                self.name, self.role
            )));
        }
        match (&self.domain, domain) {
            (Some(only), Some(asked)) if only != asked => Err(Failure::refused(format!(
                "the certificate of {} is for the domain {only}, not for {asked}",
                self.name
            ))),
            _ => Ok(()),
        }
    }
}
