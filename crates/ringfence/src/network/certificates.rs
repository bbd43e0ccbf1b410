//! An authority of one's own, for those who have none: `ringfence certificate`.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::Identity;
use super::role::Role;
use crate::failure::Failure;

/// File of the authority's certificate.
pub const AUTHORITY: &str = "ca.pem";
/// File of the authority's key, which only who issues certificates needs.
pub const AUTHORITY_KEY: &str = "ca.key";

/// What a certificate is to be for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// A daemon that listens at these names and addresses, and asks other heads as [`Role::Quorum`].
    Head(Vec<String>),
    /// A client.
    Client {
        /// What it may ask for.
        role: Role,
        /// The only domain that it may ask about.
        domain: Option<String>,
    },
}

fn failed(error: &rcgen::Error) -> Failure {
    Failure::failed(format!("the certificate could not be made: {error}"))
}

/// Writes a file that must not be there yet, readable by its owner alone where it is secret.
fn write_new(path: &Path, text: &str, secret: bool) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    options.mode(if secret { 0o600 } else { 0o644 });
    options
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| {
            let failure = Failure::failed(format!("{} cannot be written: {error}", path.display()));
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    failure.advise("it is kept; move it away if a new one is wanted")
                }
                _ => failure,
            }
        })
}

fn lifetime(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    // Clocks of other machines may be a little behind.
    params.not_before = (now - Duration::from_secs(3600)).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 86_400)).into();
}

/// Makes an authority in the directory: its certificate and its key.
///
/// # Errors
/// One is there already, or the directory cannot be written.
pub fn init(directory: &Path, days: u32) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(|error| {
        Failure::failed(format!("{} cannot be made: {error}", directory.display()))
    })?;
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "ringfence authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    lifetime(&mut params, days);
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    write_new(&directory.join(AUTHORITY_KEY), &key.serialize_pem(), true)?;
    write_new(&directory.join(AUTHORITY), &certificate.pem(), false)
}

/// Issues a certificate `NAME.pem` with its key `NAME.key`, both in the directory of the authority.
///
/// # Errors
/// The authority cannot be read, a name is not one, or the files are there already.
pub fn issue(
    directory: &Path,
    name: &str,
    purpose: &Purpose,
    days: u32,
) -> Result<Identity, Failure> {
    let read = |file: &str| {
        let path = directory.join(file);
        std::fs::read_to_string(&path).map_err(|error| {
            Failure::failed(format!("{} cannot be read: {error}", path.display())).advise(format!(
                "ringfence certificate init {}",
                directory.display()
            ))
        })
    };
    let authority_key = KeyPair::from_pem(&read(AUTHORITY_KEY)?).map_err(|error| failed(&error))?;
    let issuer = Issuer::from_ca_cert_pem(&read(AUTHORITY)?, authority_key)
        .map_err(|error| failed(&error))?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    lifetime(&mut params, days);
    match purpose {
        Purpose::Head(addresses) => {
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let subject = &mut params.distinguished_name;
            subject.push(DnType::OrganizationalUnitName, Role::Quorum.to_string());
            for address in addresses {
                let no_name = || {
                    Failure::usage(format!(
                        "{address:?} is neither a host name nor an IP address"
                    ))
                };
                // By the rules that clients compare by.
                if rustls::pki_types::ServerName::try_from(address.as_str()).is_err() {
                    return Err(no_name());
                }
                let entry = match address.parse::<IpAddr>() {
                    Ok(ip) => SanType::IpAddress(ip),
                    Err(_) => SanType::DnsName(address.clone().try_into().map_err(|_| no_name())?),
                };
                params.subject_alt_names.push(entry);
            }
        }
        Purpose::Client { role, domain } => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let subject = &mut params.distinguished_name;
            subject.push(DnType::OrganizationalUnitName, role.to_string());
            if let Some(domain) = domain {
                subject.push(DnType::OrganizationName, domain.clone());
            }
        }
    }
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let certificate = params
        .signed_by(&key, &issuer)
        .map_err(|error| failed(&error))?;
    let identity = Identity {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
        authority: directory.join(AUTHORITY),
    };
    write_new(&identity.key, &key.serialize_pem(), true)?;
    write_new(&identity.certificate, &certificate.pem(), false)?;
    Ok(identity)
}
