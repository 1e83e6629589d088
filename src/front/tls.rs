//! TLS of the one port: certificates from files, read again when they change.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use kiln_net::causes;
use kiln_net::clock::unix_seconds;
use kiln_net::tls::{FileError, certified_key, provider, roots};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use tokio_rustls::TlsAcceptor;

use crate::auth::certificate::{Certificate, CertificateError};
use kiln_net::reload::Reload;

/// The protocols that client and server may agree on (ALPN). gRPC needs the first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// A certificate that ends within this time is warned of, in seconds.
const ENDS_SOON: i64 = 7 * 86_400;

#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Certificate chain (PEM).
    pub certificate: PathBuf,
    /// Private key (PEM).
    pub key: PathBuf,
    /// Authorities (PEM) of client certificates; `None`: no client is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is turned away.
    pub client_required: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS: {0}")]
    File(#[from] FileError),
    #[error("TLS: {path}: {error}")]
    Certificate { path: PathBuf, error: CertificateError },
    #[error("TLS: the certificate in {path} ended {} ago: renew it", days(*.seconds))]
    Expired { path: PathBuf, seconds: i64 },
    #[error(
        "TLS: the certificate in {path} is valid in {} only: is the clock right?", days(*.seconds)
    )]
    NotYetValid { path: PathBuf, seconds: i64 },
    #[error("TLS: {path} cannot vouch for clients: {reason}")]
    ClientAuthorities { path: PathBuf, reason: String },
}

fn days(seconds: i64) -> String {
    match seconds / 86_400 {
        0 => format!("{seconds} s"),
        1 => "a day".to_owned(),
        days => format!("{days} days"),
    }
}

/// The configuration in force.
pub struct Tls {
    options: TlsOptions,
    current: RwLock<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    config: Arc<ServerConfig>,
    /// Seconds since the Unix epoch.
    not_after: i64,
}

impl Tls {
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let current = RwLock::new(load(&options, unix_seconds())?);
        Ok(Self { options, current })
    }

    /// The configuration for the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current().config.into()
    }

    /// When the server's certificate ends, in seconds since the Unix epoch.
    pub fn not_after(&self) -> i64 {
        self.current().not_after
    }

    fn current(&self) -> Loaded {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Reload for Tls {
    fn what(&self) -> &'static str {
        "the TLS certificate"
    }

    fn label(&self) -> &'static str {
        "tls"
    }

    fn files(&self) -> Vec<PathBuf> {
        let TlsOptions { certificate, key, client_ca, .. } = &self.options;
        [certificate, key].into_iter().chain(client_ca).cloned().collect()
    }

    fn reload(&self) -> Result<(), String> {
        let loaded = load(&self.options, unix_seconds()).map_err(|error| causes::chain(&error))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }
}

fn load(options: &TlsOptions, now: i64) -> Result<Loaded, TlsError> {
    let path = &options.certificate;
    let pair = certified_key(path, &options.key)?;
    let not_after = check_validity(options, pair.cert.first().map_or(&[], |own| own), now)?;
    let unusable = |error| TlsError::File(FileError::Unusable(error));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_client_cert_verifier(client_verifier(options)?)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Loaded { config: Arc::new(config), not_after })
}

fn check_validity(options: &TlsOptions, der: &[u8], now: i64) -> Result<i64, TlsError> {
    let path = || options.certificate.clone();
    let own =
        Certificate::parse(der).map_err(|error| TlsError::Certificate { path: path(), error })?;
    if own.not_after < now {
        return Err(TlsError::Expired { path: path(), seconds: now - own.not_after });
    }
    if own.not_before > now {
        return Err(TlsError::NotYetValid { path: path(), seconds: own.not_before - now });
    }
    if own.not_after - now < ENDS_SOON {
        let left = days(own.not_after - now);
        tracing::warn!(path = %path().display(), left, "the TLS certificate ends soon: renew it");
    }
    Ok(own.not_after)
}

fn client_verifier(options: &TlsOptions) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(path) = &options.client_ca else { return Ok(WebPkiClientVerifier::no_client_auth()) };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path)?), provider());
    let verifier = match options.client_required {
        true => verifier,
        false => verifier.allow_unauthenticated(),
    };
    let failed = |error: rustls::server::VerifierBuilderError| TlsError::ClientAuthorities {
        path: path.clone(),
        reason: error.to_string(),
    };
    verifier.build().map_err(failed)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn write(options: &TlsOptions, ends: (i32, u8, u8)) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(ends.0, ends.1, ends.2);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&options.certificate, certificate.pem()).unwrap();
        std::fs::write(&options.key, key.serialize_pem()).unwrap();
        key
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let options = TlsOptions {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
            client_ca: None,
            client_required: false,
        };
        write(&options, (3000, 1, 1));
        let tls = Tls::load(options.clone()).unwrap();
        let first = tls.not_after();

        write(&options, (3001, 1, 1));
        std::fs::write(&options.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let error = tls.reload().unwrap_err();
        assert!(error.contains("does not belong"), "{error}");
        assert_eq!(tls.not_after(), first);

        write(&options, (2021, 1, 1));
        let error = tls.reload().unwrap_err();
        assert!(error.contains("ended"), "{error}");
        assert_eq!(tls.not_after(), first);

        write(&options, (3001, 1, 1));
        tls.reload().unwrap();
        assert!(tls.not_after() > first);
    }

    #[test]
    fn times_are_told_in_days() {
        assert_eq!([days(59), days(86_400), days(200_000)], ["59 s", "a day", "2 days"]);
    }
}
