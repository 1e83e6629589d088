//! Where the bucket is and how to talk to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How long one attempt of a request may take, unless configured.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that is `None` comes from AWS's usual chain: environment variables
/// (`AWS_ENDPOINT_URL_S3`, `AWS_REGION`, `AWS_CA_BUNDLE`, `AWS_ACCESS_KEY_ID`, ...), the profile files, web
/// identity, the ECS and EC2 metadata services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Config {
    pub bucket: String,
    /// Begins every key; without slashes at its ends; may be empty.
    pub prefix: String,
    /// URL of an S3-compatible store, e.g. `http://minio:9000`.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// `true`: `https://endpoint/bucket/key`; `false`: `https://bucket.endpoint/key`. `None`:
    /// the former as soon as an endpoint is set, because few other stores know the latter.
    pub path_style: Option<bool>,
    /// The profile to take from the profile files.
    pub profile: Option<String>,
    pub credentials: Option<S3Credentials>,
    /// Certificate authorities (PEM) that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// How long one attempt of a request may take. Whole requests, which make several attempts,
    /// and uploads take a named multiple of it.
    pub timeout: Duration,
}

/// An access key that is used instead of AWS's chain.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    pub access_key: String,
    pub secret_key: String,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("access_key", &self.access_key)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum S3UrlError {
    #[error("{0:?} is no S3 URL; write s3://BUCKET or s3://BUCKET/PREFIX")]
    Scheme(String),
    #[error("bucket {0:?} is not made of letters, digits, '.', '_' and '-'")]
    Bucket(String),
    #[error("prefix {0:?} is not made of letters, digits, '.', '_', '-' and single slashes")]
    Prefix(String),
}

impl FromStr for S3Config {
    type Err = S3UrlError;

    /// `s3://bucket` or `s3://bucket/prefix`.
    fn from_str(url: &str) -> Result<Self, S3UrlError> {
        let rest = url.strip_prefix("s3://").ok_or_else(|| S3UrlError::Scheme(url.to_owned()))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if !plain(bucket) {
            return Err(S3UrlError::Bucket(bucket.to_owned()));
        }
        if !prefix.is_empty() && !prefix.split('/').all(plain) {
            return Err(S3UrlError::Prefix(prefix.to_owned()));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            path_style: None,
            profile: None,
            credentials: None,
            ca: None,
            timeout: DEFAULT_TIMEOUT,
        })
    }
}

/// Needs no escaping anywhere: in URLs, in headers, in listings.
fn plain(part: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !part.is_empty() && part != "." && part != ".." && part.chars().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_bucket_and_prefix() {
        for (url, bucket, prefix) in [
            ("s3://builds", "builds", ""),
            ("s3://builds/", "builds", ""),
            ("s3://builds/kiln/main/", "builds", "kiln/main"),
        ] {
            let config: S3Config = url.parse().unwrap();
            assert_eq!((config.bucket.as_str(), config.prefix.as_str()), (bucket, prefix));
        }
    }

    #[test]
    fn other_urls_are_refused_with_what_is_wrong() {
        for (url, part) in [
            ("builds/kiln", "s3://BUCKET/PREFIX"),
            ("https://builds/kiln", "s3://BUCKET/PREFIX"),
            ("s3:///kiln", "bucket \"\""),
            ("s3://key:secret@builds", "bucket"),
            ("s3://builds/a//b", "prefix \"a//b\""),
            ("s3://builds/../b", "prefix"),
            ("s3://builds/a?region=x", "prefix"),
        ] {
            let error = url.parse::<S3Config>().unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials =
            S3Credentials { access_key: "AK".to_owned(), secret_key: "hush".to_owned() };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("AK") && !shown.contains("hush"), "{shown}");
    }
}
