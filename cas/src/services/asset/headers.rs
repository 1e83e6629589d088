//! Which headers of a download callers may set.
//!
//! What a header may do, the server that gets it knows alone: behind many a proxy `X-Forwarded-Host` names another
//! site and `X-HTTP-Method-Override` another method, so that what is downloaded, and kept for others under its URL,
//! would not be what is there. So callers set what is known to say who asks and for which form of the content.

use std::collections::BTreeSet;

use kiln_net::http::header::{HeaderName, HeaderValue};

/// What clients are known to send: Bazel the credentials of `.netrc` and of credential helpers, rules what
/// registries, package repositories and object stores ask for.
const USUAL: [&str; 23] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cookie",
    "deploy-token",
    "docker-distribution-api-version",
    "job-token",
    "private-token",
    "referer",
    "user-agent",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-request-payer",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-github-api-version",
    "x-goog-api-key",
    "x-goog-user-project",
    "x-jfrog-art-api",
    "x-ms-date",
    "x-ms-version",
];
/// Headers that belong to the connection, or that this client sets itself.
const NOT_THEIRS: [&str; 11] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
];

/// Names of headers.
#[derive(Debug, Clone)]
pub struct CallerHeaders(BTreeSet<String>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerHeaderError {
    #[error("{0:?} is no name of a header")]
    Name(String),
    #[error("{0} belongs to the connection and is for no caller to set")]
    Connection(String),
}

impl Default for CallerHeaders {
    fn default() -> Self {
        Self(USUAL.map(str::to_owned).into())
    }
}

impl CallerHeaders {
    /// The usual ones and `further`.
    pub fn new(further: &[String]) -> Result<Self, CallerHeaderError> {
        let mut names = Self::default().0;
        for name in further {
            let parsed: HeaderName =
                name.parse().map_err(|_| CallerHeaderError::Name(name.clone()))?;
            if NOT_THEIRS.contains(&parsed.as_str()) {
                return Err(CallerHeaderError::Connection(name.clone()));
            }
            names.insert(parsed.as_str().to_owned());
        }
        Ok(Self(names))
    }

    /// A header that a caller wants to be sent. Errors: why it is not; the value is not repeated, it
    /// may be a secret.
    pub fn header(
        &self,
        name: &str,
        value: &str,
    ) -> Result<(HeaderName, HeaderValue), &'static str> {
        let name: HeaderName = name.parse().map_err(|_| "it is no name of a header")?;
        if !self.0.contains(name.as_str()) {
            return Err(
                "that header is not for callers to set; the operator can allow it (fetch.headers)",
            );
        }
        let mut value: HeaderValue = value.parse().map_err(|_| "its value fits no header")?;
        value.set_sensitive(true);
        Ok((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_set_what_is_known_to_be_about_the_content_or_was_allowed() {
        let usual = CallerHeaders::default();
        let (name, value) = usual.header("Authorization", "Bearer x").unwrap();
        assert_eq!((name.as_str(), value.is_sensitive()), ("authorization", true));
        for (name, value) in [
            ("authorization", "se\ncret"),
            ("a b", "x"),
            ("Host", "other.example"),
            ("Transfer-Encoding", "chunked"),
            ("Proxy-Authorization", "x"),
            ("X-Forwarded-Host", "other.example"),
            ("Forwarded", "host=other.example"),
            ("X-Host", "x"),
            ("X-Original-URL", "/admin"),
            ("X-Rewrite-URL", "/admin"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("Range", "bytes=0-1"),
            ("X-Extra", "x"),
        ] {
            assert!(usual.header(name, value).is_err(), "{name}");
        }
        let more = CallerHeaders::new(&["X-Extra".to_owned()]).unwrap();
        assert!(more.header("x-extra", "x").is_ok() && more.header("accept", "x").is_ok());
        for refused in ["Host", "Proxy-Connection", "a b", ""] {
            assert!(CallerHeaders::new(&[refused.to_owned()]).is_err(), "{refused}");
        }
    }
}
