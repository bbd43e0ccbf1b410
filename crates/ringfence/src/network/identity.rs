//! Certificate, key and certificate authority of one end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::failure::Failure;

/// The PEM files of one end.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate, with those between it and the authority after it.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of the authorities whose certificates the other end may have.
    pub authority: PathBuf,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn wrong(what: &str, path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!(
        "the {what} in {} cannot be used: {error}",
        path.display()
    ))
    .advise("it has to be PEM; 'ringfence certificate' makes an authority and certificates")
}

impl Identity {
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Failure> {
        certificates("certificate", &self.certificate)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, Failure> {
        PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| wrong("private key", &self.key, error))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, Failure> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("authority's certificate", &self.authority)? {
            roots
                .add(certificate)
                .map_err(|error| wrong("authority's certificate", &self.authority, error))?;
        }
        Ok(Arc::new(roots))
    }

    /// The server's end: a client without a certificate of the authority is refused.
    ///
    /// # Errors
    /// A file that cannot be used, and why.
    pub fn server(&self) -> Result<Arc<ServerConfig>, Failure> {
        let unusable = |error: rustls::Error| wrong("certificate", &self.certificate, error);
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|error| wrong("authority's certificate", &self.authority, error))?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.certificates()?, self.private_key()?)
            .map_err(unusable)?;
        Ok(Arc::new(config))
    }

    /// The client's end: a server without a certificate of the authority for its name or address is refused.
    ///
    /// # Errors
    /// A file that cannot be used, and why.
    pub fn client(&self) -> Result<Arc<ClientConfig>, Failure> {
        let unusable = |error: rustls::Error| wrong("certificate", &self.certificate, error);
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(self.certificates()?, self.private_key()?)
            .map_err(unusable)?;
        Ok(Arc::new(config))
    }
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(what, path, error))?
        .collect();
    let all = all.map_err(|error| wrong(what, path, error))?;
    if all.is_empty() {
        return Err(wrong(what, path, "there is none in it"));
    }
    Ok(all)
}
