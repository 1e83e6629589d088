//! Certificates and keys in PEM files, with errors that say which file and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore};

use crate::files;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {path}: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error(
        "{path} holds no certificate: expected PEM that begins with -----BEGIN CERTIFICATE-----"
    )]
    NoCertificate { path: PathBuf },
    #[error(
        "{path} holds no private key: expected PEM that begins with -----BEGIN PRIVATE KEY-----"
    )]
    NoKey { path: PathBuf },
    #[error("{path} is not valid: {reason}")]
    Malformed { path: PathBuf, reason: String },
    #[error(
        "the key in {key} does not belong to the first certificate in {certificate}: give the \
         pair that was made together, the server's own certificate before those of authorities"
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("this machine trusts no certificate authority: name one in a file (--tls-ca)")]
    NoSystemRoots,
    #[error("TLS cannot be used: {0}")]
    Unusable(Error),
}

/// The cryptography that everything here uses.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Reads all certificates of a file, in order. Errors: there is none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let none = || FileError::NoCertificate { path: path.to_owned() };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    let found = found.map_err(|error| refuse(path, error, none))?;
    if found.is_empty() {
        return Err(none());
    }
    Ok(found)
}

/// A certificate chain and the key of its first certificate.
pub fn certified_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, FileError> {
    let chain = certificates(certificate)?;
    let none = || FileError::NoKey { path: key.to_owned() };
    let private = PrivateKeyDer::from_pem_slice(&read(key)?);
    let private = private.map_err(|error| refuse(key, error, none))?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(_) => {
            FileError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
        }
        Error::InvalidCertificate(reason) => {
            malformed(certificate, format!("its first certificate cannot be used: {reason:?}"))
        }
        error => malformed(key, error.to_string()),
    })
}

/// The authorities in a file.
pub fn roots(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| malformed(path, error.to_string()))?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    files::read(path).map_err(|error| FileError::Unreadable { path: path.to_owned(), error })
}

fn refuse(path: &Path, error: pem::Error, none: impl FnOnce() -> FileError) -> FileError {
    match error {
        pem::Error::NoItemsFound => none(),
        error => malformed(path, error.to_string()),
    }
}

fn malformed(path: &Path, reason: String) -> FileError {
    FileError::Malformed { path: path.to_owned(), reason }
}
