//! How clients of a registry are asked for credentials, and how they change them for a token.
//!
//! Clients send a password once, to the realm that the challenge names, and what they get there with everything else. A token of
//! Kiln's is taken both ways, so that they get back what they sent. Who sends none gets a word that stands for nobody.

use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use kiln_deploy::registry::Code;
use serde_json::json;

use super::answers::failure;
use crate::auth::credentials::token;
use crate::auth::permissions::REGISTRY_TOKEN;

/// The `authorization` header of a client that has said that it has no credentials.
const NOBODY: &[u8] = b"Bearer anonymous";
const NOBODYS_TOKEN: &str = "anonymous";
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"kiln\", charset=\"UTF-8\"");
/// Seconds after which clients ask again; tokens are checked with each request.
const EXPIRES: u32 = 300;

/// The base URL of the server's addresses as the sender of a request knows them; it travels in the
/// request's extensions.
#[derive(Debug, Clone)]
pub struct Realm(pub String);

/// Whoever sent a request said that it has no credentials; in its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

/// Whether credentials say that there are none.
pub fn is_nobody(header: &HeaderValue) -> bool {
    header.as_bytes() == NOBODY
}

/// The answer to a request that needs other credentials.
pub fn unauthorized(path: &str, realm: Option<&Realm>, message: &str) -> Response {
    let mut response = failure(StatusCode::UNAUTHORIZED, Code::Unauthorized, message);
    let realm =
        realm.map(|it| format!("Bearer realm=\"{}{REGISTRY_TOKEN}\",service=\"kiln\"", it.0));
    let challenge = realm.and_then(|realm| HeaderValue::try_from(realm).ok());
    // One alone: some clients fail where there are two and they have no password.
    let challenge = if path == REGISTRY_TOKEN { BASIC } else { challenge.unwrap_or(BASIC) };
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// The answer to a request that no other credentials would help.
pub fn refused(status: StatusCode, message: &str) -> Response {
    let code = if status == StatusCode::FORBIDDEN { Code::Denied } else { Code::Unknown };
    failure(status, code, message)
}

/// A token for what was sent, which was found to be valid.
pub fn issue(headers: &HeaderMap) -> Response {
    let sent = headers.get(AUTHORIZATION).filter(|it| !is_nobody(it)).and_then(token);
    let token = sent.as_deref().unwrap_or(NOBODYS_TOKEN);
    let document = json!({ "token": token, "access_token": token, "expires_in": EXPIRES });
    let mut response = Response::new(Body::from(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_asked_in_one_way() {
        let realm = Realm("https://kiln.example".to_owned());
        let asked = |path, realm| {
            let response = unauthorized(path, realm, "who?");
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            let all: Vec<_> = response.headers().get_all(WWW_AUTHENTICATE).iter().collect();
            assert_eq!(all.len(), 1);
            all[0].to_str().unwrap().to_owned()
        };
        let bearer = "Bearer realm=\"https://kiln.example/v2/token\",service=\"kiln\"";
        assert_eq!(asked("/v2/", Some(&realm)), bearer);
        assert!(asked("/v2/token", Some(&realm)).starts_with("Basic "));
        assert!(asked("/v2/", None).starts_with("Basic "));
    }
}
