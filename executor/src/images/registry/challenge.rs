//! `WWW-Authenticate` (RFC 9110, section 11.6.1), and the tokens that registries give.

use kiln_net::Url;
use kiln_net::http::header::HeaderValue;
use kiln_net::urls::{self, UrlError, component};
use serde::Deserialize;

/// Challenges of one answer that are looked at.
const MAX_CHALLENGES: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The name of the scheme in lowercase.
    scheme: String,
    /// Parameters by their names in lowercase.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme == scheme
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The URL at which a token for `scope` is asked for (Docker's token authentication).
    pub fn token_url(&self, scope: &str) -> Option<Result<Url, UrlError>> {
        let realm = self.parameter("realm")?;
        let mut query = format!("scope={}", component(scope));
        if let Some(service) = self.parameter("service") {
            query.push_str(&format!("&service={}", component(service)));
        }
        Some(urls::parse(realm).map(|mut url| {
            let given = url.query().map(|given| format!("{given}&"));
            url.set_query(Some(&(given.unwrap_or_default() + &query)));
            url
        }))
    }
}

/// Reads the challenges of a header; those that cannot be read are left out.
pub fn read<'a>(headers: impl IntoIterator<Item = &'a HeaderValue>) -> Vec<Challenge> {
    let texts = headers.into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(challenges).take(MAX_CHALLENGES).collect()
}

fn challenges(text: &str) -> Vec<Challenge> {
    let mut all: Vec<Challenge> = Vec::new();
    for item in items(text) {
        let name = item.split_once('=').map_or(item, |(name, _)| name).trim();
        // `Scheme name=value`: a new challenge begins.
        let (scheme, parameter) = match (name.split_once(' '), item.contains('=')) {
            (Some((scheme, _)), _) => (Some(scheme), item[scheme.len()..].trim_start()),
            (None, false) => (Some(name), ""),
            (None, true) => (None, item),
        };
        if let Some(scheme) = scheme {
            let scheme = scheme.to_ascii_lowercase();
            all.push(Challenge { scheme, parameters: Vec::new() });
        }
        if let (Some(last), Some((name, value))) = (all.last_mut(), parameter.split_once('=')) {
            let name = name.trim().to_ascii_lowercase();
            last.parameters.push((name, unquoted(value.trim())));
        }
    }
    all
}

/// Cuts a header at the commas that stand in no quotes.
fn items(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text
}

#[derive(Deserialize)]
struct WireToken {
    token: Option<String>,
    access_token: Option<String>,
}

/// The header for an answer with a token.
pub fn token(body: &[u8]) -> Option<HeaderValue> {
    let wire: WireToken = serde_json::from_slice(body).ok()?;
    let token = wire.token.or(wire.access_token).filter(|token| !token.is_empty())?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token_url(challenge: &Challenge, scope: &str) -> String {
        challenge.token_url(scope).unwrap().unwrap().into()
    }

    #[test]
    fn challenges_of_real_registries() {
        let text = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a,b""#;
        let all = challenges(text);
        assert_eq!(all.len(), 1);
        assert!(all[0].is("bearer"));
        assert_eq!(all[0].parameter("scope"), Some("a,b"));
        assert_eq!(
            token_url(&all[0], "repository:a/b:pull"),
            "https://auth.docker.io/token?scope=repository%3Aa%2Fb%3Apull&service=registry.docker.io"
        );
        let both = challenges(r#"Basic realm="x \"y\"", Bearer realm="https://r/t?a=b""#);
        assert_eq!(both[0].parameter("realm"), Some("x \"y\""));
        assert_eq!(token_url(&both[1], "s"), "https://r/t?a=b&scope=s");
        assert!(challenges("Negotiate")[0].is("negotiate"));
        assert_eq!(challenges("Bearer service=x")[0].token_url("s"), None);
    }

    #[test]
    fn tokens_have_two_names() {
        for body in [r#"{"token": "t"}"#, r#"{"access_token": "t", "expires_in": 60}"#] {
            assert_eq!(token(body.as_bytes()).unwrap(), "Bearer t");
        }
        for body in ["", "{}", r#"{"token": ""}"#, r#"{"token": "a\nb"}"#] {
            assert_eq!(token(body.as_bytes()), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in any::<String>()) {
            for challenge in challenges(&text) {
                let _ = challenge.token_url("scope");
            }
        }
    }
}
