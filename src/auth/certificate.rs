//! Reads the names of its holder from a client certificate.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Whom a certificate names, and when it is valid (seconds since the Unix epoch, inclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// `CN=…`, `DNS:…`, `URI:…`, `EMAIL:…`: the subject's common name and its alternative names.
    pub names: Vec<String>,
    pub not_before: i64,
    pub not_after: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read: {0}")]
pub struct CertificateError(String);

impl Certificate {
    /// Reads a DER encoded certificate. It says nothing of who vouches for it.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let failed = |error: String| CertificateError(error);
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| failed(error.to_string()))?;
        let common = certificate.subject().iter_common_name();
        let mut names: Vec<String> =
            common.filter_map(|name| name.as_str().ok()).map(|name| format!("CN={name}")).collect();
        let alternative =
            certificate.subject_alternative_name().map_err(|error| failed(error.to_string()))?;
        let alternative = alternative.map_or(&[][..], |names| &names.value.general_names);
        names.extend(alternative.iter().filter_map(spelled));
        let validity = certificate.validity();
        Ok(Self {
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    pub fn is_valid(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

fn spelled(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::URI(uri) => Some(format!("URI:{uri}")),
        GeneralName::RFC822Name(address) => Some(format!("EMAIL:{address}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_and_validity_are_those_of_the_certificate() {
        let mut params = CertificateParams::new(vec!["worker-1.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "worker 1");
        let uri = "spiffe://example/worker".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let certificate = Certificate::parse(certificate.der()).unwrap();
        assert_eq!(
            certificate.names,
            ["CN=worker 1", "DNS:worker-1.example", "URI:spiffe://example/worker"]
        );
        assert_eq!((certificate.not_before, certificate.not_after), (1_577_836_800, 1_609_459_200));
        assert!(certificate.is_valid(1_577_836_800) && !certificate.is_valid(1_609_459_201));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(der: Vec<u8>) {
            let _ = Certificate::parse(&der);
        }
    }
}
