//! Certificates of agents: each makes its own when it begins, signed by itself, and nobody trusts it for what it says. The
//! server names its fingerprint to others.

use std::sync::Arc;

use kiln_deploy::oci::ContentDigest;
use kiln_net::tls::provider;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use crate::cli::error::CliError;

/// The certificate that this agent shows to others, with its key.
pub struct Own {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    pub fingerprint: String,
}

/// SHA-256 of a certificate in hexadecimal digits.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    ContentDigest::of(certificate.as_ref()).hex().to_owned()
}

impl Own {
    pub fn generate() -> Result<Self, CliError> {
        let unusable = |error: rcgen::Error| {
            CliError::machine(format!("a certificate for other agents cannot be made: {error}"))
        };
        let key = rcgen::KeyPair::generate().map_err(unusable)?;
        let params = rcgen::CertificateParams::new(vec!["kiln-agent".to_owned()]);
        let certificate = params.and_then(|it| it.self_signed(&key)).map_err(unusable)?;
        let certificate = certificate.der().clone();
        let fingerprint = fingerprint(&certificate);
        Ok(Self { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()), fingerprint })
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    /// The TLS configuration for a connection to the agent whose certificate has this fingerprint.
    pub fn client(&self, fingerprint: &str) -> Result<ClientConfig, Error> {
        let verifier =
            Known { fingerprint: Some(fingerprint.to_owned()), algorithms: algorithms() };
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key())
    }

    /// The TLS configuration for connections from those who show any certificate: their passes say
    /// what they may have.
    pub fn server(&self) -> Result<ServerConfig, Error> {
        let verifier = Known { fingerprint: None, algorithms: algorithms() };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(vec![self.certificate.clone()], self.key())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Nothing is remembered of anybody.
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Verifies a certificate by its fingerprint alone. That whoever shows it has its key is verified
/// as ever.
#[derive(Debug)]
struct Known {
    /// The fingerprint that the certificate has to have; `None`: any will do.
    fingerprint: Option<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Known {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        match &self.fingerprint {
            Some(expected) if *expected != fingerprint(shown) => {
                Err(Error::General("it is not the agent that the server named".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
