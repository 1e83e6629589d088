//! From an address to its handler.

use std::pin::Pin;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use axum::routing::any;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode};
use kiln_cas::promises::on_behalf;
use kiln_deploy::registry::{Code, Endpoint, NoEndpoint};
use kiln_net::urls;

use super::answers::{Failure, VERSION};
use super::challenge::{Nobody, Realm, issue, unauthorized};
use super::incoming::Incoming;
use super::requests::{Parameters, Request};
use super::state::RegistryState;
use super::{blobs, lists, manifests, uploads};

/// The content security policy of answers: pushed content never acts as a page of this server.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'");

/// Everything below `/v2/`.
pub fn router(state: RegistryState) -> Router {
    let all = || any(dispatch);
    Router::new()
        .route("/v2", all())
        .route("/v2/", all())
        .route("/v2/{*rest}", all())
        .with_state(state)
}

async fn dispatch(State(state): State<RegistryState>, request: HttpRequest) -> Response {
    let (parts, body) = request.into_parts();
    let body = Incoming::new(body);
    let answered = answer(&state, &parts, &body).await;
    let mut response = match answered {
        Ok(response) => response,
        Err(failure) => {
            body.read_on().await;
            match failure.status() {
                (StatusCode::UNAUTHORIZED, _) => {
                    let realm = parts.extensions.get::<Realm>();
                    unauthorized(parts.uri.path(), realm, &failure.to_string())
                }
                _ => failure.answer(),
            }
        }
    };
    let headers = response.headers_mut();
    headers.insert(VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}

/// Boxed: what is answered to is borrowed for as long as that takes.
fn answer<'a>(
    state: &'a RegistryState,
    parts: &'a http::request::Parts,
    body: &'a Incoming,
) -> Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send + 'a>> {
    Box::pin(async move {
        // What is not encoded well names nothing as it stands.
        let path = parts.uri.path();
        let path = urls::decoded(path).unwrap_or_else(|| path.to_owned());
        let endpoint = Endpoint::of(&path).map_err(no_endpoint)?;
        let Some(repository) = endpoint.repository() else {
            return match endpoint {
                // Some clients send a form first, and fall back to this where that is not understood.
                Endpoint::Token if matches!(parts.method, Method::GET | Method::HEAD) => {
                    Ok(issue(&parts.headers))
                }
                Endpoint::Token => Err(super::requests::not_allowed()),
                _ => probe(state, parts),
            };
        };
        let parameters = Parameters::of(parts);
        let request = Request { state, parts, repository, body, parameters: &parameters };
        if matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE) {
            return of_repository(&request, &endpoint).await;
        }
        let presence = state.pushes(&parts.extensions, repository);
        on_behalf(presence.as_ref(), of_repository(&request, &endpoint)).await
    })
}

async fn of_repository(request: &Request<'_>, endpoint: &Endpoint) -> Result<Response, Failure> {
    match endpoint {
        Endpoint::Probe | Endpoint::Token => probe(request.state, request.parts),
        Endpoint::Tags(_) => lists::tags(request).await,
        Endpoint::Referrers(_, subject) => lists::referrers(request, subject.as_ref()).await,
        Endpoint::Manifest(_, reference) => manifests::answer(request, reference.as_ref()).await,
        Endpoint::Blob(_, digest) => blobs::answer(request, digest.as_ref()).await,
        Endpoint::Uploads(_) => uploads::begin(request).await,
        Endpoint::Upload(_, id) => uploads::answer(request, id).await,
    }
}

/// Clients look here whether they need credentials: so those are asked for, even where anybody may read.
fn probe(state: &RegistryState, parts: &http::request::Parts) -> Result<Response, Failure> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(super::requests::not_allowed());
    }
    if !state.is_known(&parts.extensions) && parts.extensions.get::<Nobody>().is_none() {
        let message = "credentials are needed: a token of Kiln's is the password";
        return Err(Failure::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message));
    }
    let mut response = blobs::empty(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn no_endpoint(why: NoEndpoint) -> Failure {
    match why {
        NoEndpoint::Name => {
            let message = "this is no name of a repository";
            Failure::new(StatusCode::BAD_REQUEST, Code::NameInvalid, message)
        }
        NoEndpoint::Unknown => {
            let message = "the registry has nothing here";
            Failure::new(StatusCode::NOT_FOUND, Code::Unsupported, message)
        }
    }
}
