//! Whom a client trusts, and what it shows to servers.

mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use crate::causes::chain;
pub use files::{FileError, certificates, certified_key, provider, roots};

/// Files of a client's TLS. All `None`: the system's authorities are trusted, nothing is shown.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Authorities (PEM) that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// Certificate chain (PEM) and private key, shown to servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.identity.is_none()
    }
}

/// TLS as `files` say, for any HTTP client. The identity is read again for every connection:
/// short-lived certificates are renewed in place.
pub fn client_config(files: &TlsFiles) -> Result<ClientConfig, FileError> {
    let roots = match &files.ca {
        Some(path) => roots(path)?,
        None => system_roots()?,
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(FileError::Unusable)?
        .with_root_certificates(roots);
    Ok(match &files.identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            // What is wrong with the files is said now, not at the first connection.
            certified_key(certificate, key)?;
            let identity = Identity { certificate: certificate.clone(), key: key.clone() };
            config.with_client_cert_resolver(Arc::new(identity))
        }
    })
}

/// TLS that trusts the authorities in `also` besides the system's, which may be none.
pub fn client_config_with(also: Option<&Path>) -> Result<ClientConfig, FileError> {
    let mut trusted = match system_roots() {
        Err(FileError::NoSystemRoots) => RootCertStore::empty(),
        other => other?,
    };
    if let Some(path) = also {
        trusted.extend(roots(path)?.roots);
    }
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(FileError::Unusable)?
        .with_root_certificates(trusted)
        .with_no_client_auth())
}

/// TLS for a client that never speaks it: reading the system's authorities takes time.
pub fn without_trust() -> Result<ClientConfig, FileError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(FileError::Unusable)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn system_roots() -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(FileError::NoSystemRoots);
    }
    Ok(roots)
}

#[derive(Debug)]
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        certified_key(&self.certificate, &self.key)
            .inspect_err(|error| {
                tracing::warn!(
                error = %chain(error),
                "no certificate is shown to the server")
            })
            .ok()
            .map(Arc::new)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
