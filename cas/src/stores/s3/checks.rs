//! What is configured, in the file or in AWS's environment, looked at before it is used: the SDK
//! would only fail with the first request, or end the process.

use std::path::{Path, PathBuf};

use aws_config::{Region, SdkConfig};
use aws_smithy_http_client::tls::TrustStore;
use kiln_net::{Url, urls};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::config::S3Config;
use crate::error::StoreError;

pub const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
const REGION_VARIABLES: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];
const CA_VARIABLE: &str = "AWS_CA_BUNDLE";
/// Most characters of a label of a host name.
const MAX_LABEL: usize = 63;

/// Something that was set, and where.
struct Given {
    value: String,
    origin: &'static str,
}

fn given(origin: &'static str, value: Option<&str>) -> Option<Given> {
    Some(Given { value: value?.to_owned(), origin })
}

/// The first of these variables that is set.
fn variable(names: [&'static str; 2]) -> Option<Given> {
    names.into_iter().find_map(|name| given(name, std::env::var(name).ok().as_deref()))
}

/// The URL of the store; `None`: AWS itself. Errors: `Config`.
pub fn endpoint(config: &S3Config, sdk: &SdkConfig) -> Result<Option<Url>, StoreError> {
    let given = given("s3.endpoint", config.endpoint.as_deref())
        .or_else(|| variable(ENDPOINT_VARIABLES))
        .or_else(|| given("endpoint_url of the profile", sdk.endpoint_url()));
    let Some(Given { value, origin }) = given else { return Ok(None) };
    let wrong = |problem: String| {
        let value = urls::without_secrets(&value);
        StoreError::config(format!(
            "{origin} = {value:?}: expected the URL of an S3-compatible store, \
             http://HOST:PORT or https://HOST, with a path where it has one: {problem}"
        ))
    };
    read_endpoint(&value).map(Some).map_err(wrong)
}

/// Its path ends with a slash: the SDK appends the bucket to it as it is.
fn read_endpoint(text: &str) -> Result<Url, String> {
    let mut url = urls::parse(text).map_err(|error| error.to_string())?;
    if url.query().is_some() || text.contains('#') {
        return Err("it has a query or a fragment".to_owned());
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Errors: `Config`, when requests cannot be signed for this region.
pub fn region(config: &S3Config, sdk: &SdkConfig) -> Result<(), StoreError> {
    let given = given("s3.region", config.region.as_deref())
        .or_else(|| variable(REGION_VARIABLES))
        .or_else(|| given("region of the profile", sdk.region().map(Region::as_ref)));
    match given {
        Some(given) if is_label(&given.value) => Ok(()),
        Some(Given { value, origin }) => Err(StoreError::config(format!(
            "{origin} = {value:?}: expected the name of a region, made of letters, digits and -, \
             e.g. us-east-1"
        ))),
        None => Err(StoreError::config(
            "no region is known for S3: set s3.region or AWS_REGION, or s3.endpoint for a store \
             other than Amazon's"
                .to_owned(),
        )),
    }
}

fn is_label(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (1..=MAX_LABEL).contains(&text.len()) && !text.starts_with('-') && text.chars().all(plain)
}

/// The system's authorities, and those that are configured. Blocks. Errors: `Config`.
pub fn authorities(config: &S3Config) -> Result<TrustStore, StoreError> {
    let variable = || std::env::var_os(CA_VARIABLE).filter(|path| !path.is_empty());
    let from_variable = || variable().map(|path| (CA_VARIABLE, PathBuf::from(path)));
    let given = config.ca.clone().map(|path| ("s3.ca", path)).or_else(from_variable);
    let Some((origin, path)) = given else { return Ok(TrustStore::default()) };
    let pem = read_authorities(&path).map_err(|message| {
        StoreError::config(format!("{origin} = {}: {message}", path.display()))
    })?;
    Ok(TrustStore::default().with_pem_certificate(pem))
}

/// The SDK takes no broken ones.
fn read_authorities(path: &Path) -> Result<Vec<u8>, String> {
    let pem = kiln_net::files::read(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("this is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.is_empty() {
        true => Err("there is no certificate (PEM) in it".to_owned()),
        false => Ok(pem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_and_regions_are_labels() {
        for (good, url) in [
            ("http://minio:9000", "http://minio:9000/"),
            ("HTTPS://s3.example", "https://s3.example/"),
            ("http://[::1]:8333/", "http://[::1]:8333/"),
            ("https://h.example/storage/v1/s3", "https://h.example/storage/v1/s3/"),
            ("https://h.example/storage/v1/s3/", "https://h.example/storage/v1/s3/"),
        ] {
            assert_eq!(read_endpoint(good).unwrap().as_str(), url);
        }
        for bad in [
            "minio:9000",
            "minio",
            "",
            "http://",
            "ftp://minio",
            "http://a b",
            "https://key:secret@minio",
            "https://minio/?x",
        ] {
            assert!(read_endpoint(bad).is_err(), "{bad}");
        }
        for good in ["us-east-1", "garage", "Default"] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "us east", "-x", "us_east", "eu.1", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }
}
