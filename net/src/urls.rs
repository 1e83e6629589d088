//! URLs of what is fetched. One parser reads them, decides about them and fetches them: two that
//! read the same text in different ways could be played against each other.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::{Host, Url};

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("{text:?} is no URL: {error}")]
    Malformed { text: String, error: url::ParseError },
    #[error("{0:?}: only http:// and https:// can be fetched")]
    Scheme(String),
    /// The text is not repeated: it may be a password.
    #[error("the URL holds a user or a password; send them in a header")]
    Credentials,
    #[error("the location is no text")]
    NoText,
}

/// An absolute http or https URL without user and password. What follows `#` is dropped: it is
/// never sent.
pub fn parse(text: &str) -> Result<Url, UrlError> {
    let malformed = |error| UrlError::Malformed { text: without_secrets(text), error };
    checked(Url::parse(text).map_err(malformed)?)
}

/// The URL that a `Location` header leads to from `from` (RFC 9110, section 10.2.2).
pub fn follow(from: &Url, location: &[u8]) -> Result<Url, UrlError> {
    let text = std::str::from_utf8(location).map_err(|_| UrlError::NoText)?;
    let malformed = |error| UrlError::Malformed { text: without_secrets(text), error };
    checked(from.join(text).map_err(malformed)?)
}

fn checked(mut url: Url) -> Result<Url, UrlError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlError::Scheme(without_secrets(url.as_str())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    url.set_fragment(None);
    Ok(url)
}

/// What was meant as a URL, for messages: without a query, which may be a signature, without user and
/// password, and not of any length.
pub fn without_secrets(text: &str) -> String {
    const LONGEST: usize = 200;
    let text = text.split('?').next().unwrap_or_default();
    let text = text.split_once("://").map_or(text.to_owned(), |(scheme, rest)| {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    });
    text.chars().take(LONGEST).collect()
}

/// The URL as messages show it: queries of signed URLs are as good as passwords.
pub fn shown(url: &Url) -> impl fmt::Display + '_ {
    &url[..url::Position::AfterPath]
}

/// Scheme, host and port are the same: what is sent to one may be sent to the other.
pub fn same_origin(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
}

/// Whether the host is this machine, by name or by number.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_localhost(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Names that lead to this machine by definition (RFC 6761, section 6.3).
pub fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// The address that stands in the URL itself; `None`: a name does.
pub fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    }
}

/// `text` as one component of a URL, such as a segment of a path or a value in a query.
pub fn component(text: &str) -> impl fmt::Display + '_ {
    utf8_percent_encode(text, COMPONENT)
}

/// `text` as a path whose slashes stay.
pub fn path(text: &str) -> impl fmt::Display + '_ {
    const PATH: &AsciiSet = &COMPONENT.remove(b'/');
    utf8_percent_encode(text, PATH)
}

/// The text that was percent-encoded as `text`; `None`: it is not encoded well, or was no UTF-8.
pub fn decoded(text: &str) -> Option<String> {
    let hex = |part: &str| part.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(hex) {
        return None;
    }
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_resolve_as_references() {
        let from = parse("https://a.example:1/dir/y?q").unwrap();
        for (location, expected) in [
            ("http://b/z", "http://b/z"),
            ("HTTP://B/z", "http://b/z"),
            ("//b/z", "https://b/z"),
            ("/z", "https://a.example:1/z"),
            ("z", "https://a.example:1/dir/z"),
            ("../z", "https://a.example:1/z"),
            ("?z", "https://a.example:1/dir/y?z"),
            ("", "https://a.example:1/dir/y?q"),
            ("/a b#c", "https://a.example:1/a%20b"),
            ("/ü", "https://a.example:1/%C3%BC"),
            (" /z ", "https://a.example:1/z"),
            ("http:\\\\b\\z", "http://b/z"),
        ] {
            let url = follow(&from, location.as_bytes()).unwrap();
            assert_eq!(url.as_str(), expected, "{location}");
        }
        for bad in ["ftp://b/z", "https://user:pass@b/", "javascript:x", "http://a:99999/"] {
            assert!(follow(&from, bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(follow(&from, b"/\xff"), Err(UrlError::NoText));
    }

    #[test]
    fn messages_hold_no_secrets() {
        let signed = parse("https://h.example/a?signature=secret#secret").unwrap();
        assert_eq!(shown(&signed).to_string(), "https://h.example/a");
        for bad in
            ["ftp://u:secret@h/a?secret", "https://u:secret@h/", "http://u:secret@h:x/?secret"]
        {
            let error = parse(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn this_machine_has_several_names() {
        for here in
            ["http://localhost:1", "http://a.LOCALHOST.", "http://127.1.2.3", "http://[::1]"]
        {
            assert!(is_loopback(&parse(here).unwrap()), "{here}");
        }
        for there in ["http://localhost.example", "http://10.0.0.1", "http://[::2]"] {
            assert!(!is_loopback(&parse(there).unwrap()), "{there}");
        }
    }

    #[test]
    fn components_are_encoded_and_decoded() {
        let text = "a/b c:ü~%";
        assert_eq!(component(text).to_string(), "a%2Fb%20c%3A%C3%BC~%25");
        assert_eq!(path(text).to_string(), "a/b%20c%3A%C3%BC~%25");
        assert_eq!(decoded(&component(text).to_string()).as_deref(), Some(text));
        for bad in ["%ff", "%", "%4", "a%4gb", "%%41"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }
}
