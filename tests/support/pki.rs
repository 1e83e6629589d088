//! Certificate authorities and what they sign, as PEM files.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, as a PEM file.
    pub file: PathBuf,
    dir: PathBuf,
}

/// The PEM files of a certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority, whose files are written below `dir`; `name` keeps those of several
    /// authorities apart.
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let file = dir.join("ca.pem");
        std::fs::write(&file, certificate.pem()).expect("the file is written");
        Self { issuer: Issuer::new(params, key), file, dir }
    }

    /// A certificate for a server on this machine.
    pub fn server(&self) -> Pair {
        self.issue("server", server_params())
    }

    /// A certificate for a server, which ended in 2021.
    pub fn expired(&self) -> Pair {
        let mut params = server_params();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.issue("expired", params)
    }

    /// A certificate for a client of this common name and these alternative names.
    pub fn client(&self, common_name: &str, alternative: &[&str]) -> Pair {
        let mut params = client_params(common_name);
        for name in alternative {
            let name = (*name).try_into().expect("a name");
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        self.issue(common_name, params)
    }

    /// A certificate for a client that has a URI for a name.
    pub fn client_with_uri(&self, common_name: &str, uri: &str) -> Pair {
        let mut params = client_params(common_name);
        params.subject_alt_names.push(SanType::URI(uri.try_into().expect("a URI")));
        self.issue(common_name, params)
    }

    /// A certificate for a client, which ended in 2021.
    pub fn ended_client(&self, common_name: &str) -> Pair {
        let mut params = client_params(common_name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.issue("ended", params)
    }

    fn issue(&self, name: &str, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = Pair {
            certificate: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}.key")),
        };
        std::fs::write(&pair.certificate, certificate.pem()).expect("the file is written");
        std::fs::write(&pair.key, key.serialize_pem()).expect("the file is written");
        pair
    }
}

fn client_params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn server_params() -> CertificateParams {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, "kiln under test");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}
