//! Which URLs may be fetched: those that begin with one of the prefixes that an operator lists.

use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

use crate::reach::{self, Reach};
use crate::urls::{self, UrlError};

/// URLs that an operator lists by their beginnings.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    prefixes: Vec<Prefix>,
}

/// One prefix of allowed URLs: scheme, host, port and path of a URL have to agree with what the prefix names of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    secure: bool,
    /// Host and port; `None`: any host of the internet.
    host: Option<(Host<String>, Option<u16>)>,
    /// A directory, with a slash at its end, or what a directory or file may be called.
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowedError {
    #[error("{prefix:?}: {error}")]
    Url { prefix: String, error: UrlError },
    #[error("{0:?}: a beginning of URLs has no query and no fragment")]
    Query(String),
    /// What stands for many elsewhere would match nothing here.
    #[error(
        "{0:?}: no host is called so; https:// alone stands for the whole internet, and each host has to be listed"
    )]
    Pattern(String),
}

impl Allowed {
    /// `prefixes`: `https://HOST`, `https://HOST/DIRECTORY/`, or `https://` for every host of the
    /// internet; http likewise.
    pub fn new(prefixes: &[String]) -> Result<Self, AllowedError> {
        let given = prefixes.iter().map(|prefix| prefix.trim()).filter(|prefix| !prefix.is_empty());
        Ok(Self { prefixes: given.map(str::parse).collect::<Result<_, _>>()? })
    }

    /// Whether nothing may be fetched.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// A prefix ends where a part of the URL ends: `https://host` allows neither
    /// `https://host.other` nor `https://host:81`.
    pub fn allows(&self, url: &Url) -> bool {
        !leaves_its_directory(url) && self.prefixes.iter().any(|prefix| prefix.allows(url))
    }

    /// How far a name may reach. One that is listed may lead into the operator's own network; to
    /// this machine only if the server there has to prove by its certificate that it is meant.
    pub fn reach_of(&self, name: &str) -> Reach {
        let named: Vec<_> = self.prefixes.iter().filter(|prefix| prefix.names(name)).collect();
        match named.is_empty() {
            true => Reach::Public,
            false if named.iter().all(|prefix| prefix.secure) => Reach::Anywhere,
            false => reach::of_name(name, Reach::Network),
        }
    }
}

impl FromStr for Prefix {
    type Err = AllowedError;

    fn from_str(text: &str) -> Result<Self, AllowedError> {
        for (scheme, secure) in [("https://", true), ("http://", false)] {
            if text.eq_ignore_ascii_case(scheme) {
                return Ok(Self { secure, host: None, path: "/".to_owned() });
            }
        }
        if text.contains(['?', '#']) {
            return Err(AllowedError::Query(urls::without_secrets(text)));
        }
        let url = urls::parse(text)
            .map_err(|error| AllowedError::Url { prefix: urls::without_secrets(text), error })?;
        if url.host_str().is_some_and(|host| host.contains('*')) {
            return Err(AllowedError::Pattern(urls::without_secrets(text)));
        }
        let host = url.host().map(|host| (host.to_owned(), url.port_or_known_default()));
        Ok(Self { secure: url.scheme() == "https", host, path: url.path().to_owned() })
    }
}

impl Prefix {
    fn allows(&self, url: &Url) -> bool {
        let scheme = if self.secure { "https" } else { "http" };
        url.scheme() == scheme && self.allows_host(url) && self.allows_path(url.path())
    }

    fn allows_host(&self, url: &Url) -> bool {
        match (&self.host, url.host()) {
            (Some((host, port)), Some(given)) => {
                *host == given.to_owned() && *port == url.port_or_known_default()
            }
            (None, Some(Host::Domain(name))) => !urls::is_localhost(name),
            (None, Some(Host::Ipv4(address))) => Reach::Public.includes(IpAddr::V4(address)),
            (None, Some(Host::Ipv6(address))) => Reach::Public.includes(IpAddr::V6(address)),
            (_, None) => false,
        }
    }

    fn allows_path(&self, path: &str) -> bool {
        path.strip_prefix(self.path.as_str()).is_some_and(|rest| {
            self.path.ends_with('/') || rest.is_empty() || rest.starts_with('/')
        })
    }

    fn names(&self, name: &str) -> bool {
        match &self.host {
            Some((Host::Domain(host), _)) => host.eq_ignore_ascii_case(name),
            _ => false,
        }
    }
}

/// The parser resolves `..`; a server may do so as well where a slash beside it is escaped.
fn leaves_its_directory(url: &Url) -> bool {
    let path = url.path().to_ascii_lowercase();
    let path = path.replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    path.split(['/', '\\']).any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allowed(prefixes: &[&str]) -> Allowed {
        let prefixes: Vec<_> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        Allowed::new(&prefixes).unwrap()
    }

    #[test]
    fn prefixes_end_at_parts() {
        let allowed = allowed(&["https://good.example", "http://a.b/c/", "http://a.b/f"]);
        let allows = |text: &str| urls::parse(text).is_ok_and(|url| allowed.allows(&url));
        for url in [
            "https://good.example",
            "HTTPS://GOOD.example:443/x",
            "https://good.example?q",
            "http://a.b/c/d?e",
            "http://a.b/c/x/../d",
            "http://a.b/f",
            "http://a.b/f/g?h",
        ] {
            assert!(allows(url), "{url}");
        }
        for url in [
            "https://good.example.evil/x",
            "https://good.example@evil/x",
            "https://evil@good.example/x",
            "https://good.example:81/x",
            "http://good.example/x",
            "http://a.b/c",
            "http://a.b/c/../d",
            "http://a.b/c/%2E%2e/d",
            "http://a.b/c/..%2Fd",
            "http://a.b/c/..%5Cd",
            "http://a.b/d",
            "http://a.b/fg",
        ] {
            assert!(!allows(url), "{url}");
        }
    }

    #[test]
    fn empty_allows_nothing_and_a_scheme_alone_the_internet() {
        assert!(allowed(&["", " "]).is_empty());
        let any = allowed(&["https://"]);
        let allows = |text: &str| any.allows(&urls::parse(text).unwrap());
        assert!(allows("https://any.example/x") && allows("https://93.184.216.34/"));
        for url in
            ["http://any.example/", "https://localhost/", "https://10.0.0.1/", "https://[::1]/"]
        {
            assert!(!allows(url), "{url}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_named() {
        for (bad, part) in [
            ("good.example", "good.example"),
            ("ftp://a/", "only http"),
            ("https://u:p@a/", "user or a password"),
            ("https://a/?b", "no query"),
            ("https://*", "https:// alone"),
            ("https://*.a.b/c", "https:// alone"),
        ] {
            let error = Allowed::new(&[bad.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn names_reach_as_far_as_the_operator_vouches_for_them() {
        let allowed = allowed(&["https://s.example/", "http://p.example/", "http://localhost:1/"]);
        for (name, reach) in [
            ("s.example", Reach::Anywhere),
            ("P.example", Reach::Network),
            ("localhost", Reach::Anywhere),
            ("other.example", Reach::Public),
        ] {
            assert_eq!(allowed.reach_of(name), reach, "{name}");
        }
    }

    proptest! {
        /// What is allowed has the prefix's host and its path, whatever was written.
        #[test]
        fn nothing_else_is_allowed(text in "(http|https)://[a-z@:/?#%.0-9\\\\]{0,40}") {
            let allowed = allowed(&["https://a.b/c/"]);
            if let Ok(url) = urls::parse(&text) && allowed.allows(&url) {
                prop_assert_eq!(url.host_str(), Some("a.b"));
                prop_assert!(url.path().starts_with("/c/") && url.scheme() == "https");
            }
        }
    }
}
