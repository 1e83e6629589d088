//! The `authorization` header of a request.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// Longest header taken, in bytes.
const MAX_HEADER: usize = 24 << 10;

/// The token in a header: `Bearer TOKEN`, or `Basic` with the token as the password (or as the
/// user's name where there is no password), which is all that HTTP cache clients and browsers
/// can send. `None`: it is neither.
pub fn token(header: &HeaderValue) -> Option<String> {
    if header.len() > MAX_HEADER {
        return None;
    }
    let (scheme, value) = header.to_str().ok()?.split_once(' ')?;
    let value = value.trim();
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        value.to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
        match pair.split_once(':') {
            Some((user, "")) => user.to_owned(),
            Some((_, password)) => password.to_owned(),
            None => return None,
        }
    } else {
        return None;
    };
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Option<String> {
        token(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn bearer_and_basic_carry_a_token() {
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for header in
            ["Bearer abc".to_owned(), "bearer  abc".into(), basic("me:abc"), basic("abc:")]
        {
            assert_eq!(of(&header).as_deref(), Some("abc"), "{header}");
        }
        assert_eq!(of(&basic("me:a:b")).as_deref(), Some("a:b"));
        for header in ["", "abc", "Bearer", "Bearer ", "Digest abc", "Basic ???", &basic("abc")] {
            assert_eq!(of(header), None, "{header}");
        }
        assert_eq!(of(&basic(":")), None);
        assert_eq!(of(&format!("Bearer {}", "x".repeat(MAX_HEADER))), None);
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(bytes: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = token(&value);
            }
        }
    }
}
