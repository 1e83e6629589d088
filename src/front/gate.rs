//! Takes requests in: who sends them, and whether they may come further.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use kiln_cas::access::Refused;
use kiln_net::clock::unix_seconds;
use kiln_scheduler::presence::Connection;
use tonic::Status;

use super::site::Stranger;
use super::unknown::is_grpc;
use crate::auth::access::Caller;
use crate::auth::failures::{Failures, Reason};
use crate::auth::permissions::{Permission, is_registry, of_grpc, of_http};
use crate::auth::{Auth, Failure, Peer};
use crate::registry::challenge::{self, Nobody, is_nobody};
use kiln_web::json::{ErrorBody, ErrorDetail};

/// Browsers and HTTP cache clients send a token as the password.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"kiln: a token is the password\", charset=\"UTF-8\"");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"kiln\"");
const BEARER_INVALID: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"kiln\", error=\"invalid_token\"");
const HINT: &str = "Give a token (--token-file, KILN_TOKEN) or a client certificate \
                    (--tls-client-cert); docs/security.md has more.";

const STRANGER_HINT: &str = "docs/security.md says who may send what.";

/// Lets requests of one server in.
#[derive(Clone)]
pub struct Gate(pub Arc<Auth>);

/// The origin of requests: one connection, and the client at its other end.
pub struct Origin {
    /// The addresses of the connection's two ends: the client's, and this one.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    pub peer: Peer,
    pub connection: Connection,
}

impl Origin {
    /// The address of the client.
    pub fn address(&self) -> Option<SocketAddr> {
        self.ends.map(|(client, _)| client)
    }
}

enum Refusal {
    /// A gRPC call of a method that the server does not have.
    NoSuchMethod,
    Credentials(Failure),
    Access(Refused),
}

/// Answers a request that is not for this server, or that its sender did not mean, and notes it.
pub fn turn_away<B>(
    stranger: &Stranger,
    origin: &Origin,
    request: &Request<B>,
    failures: &Failures,
) -> Response<Body> {
    let path = request.uri().path();
    if let Some(reason) = stranger.reason() {
        failures.count(reason);
        if let Some(left_out) = failures.may_log(Instant::now()) {
            let peer = origin.address().map(tracing::field::display);
            tracing::warn!(peer, path, left_out, "turned away: {stranger}");
        }
    }
    in_words(stranger.status(), stranger.to_string(), path, STRANGER_HINT)
}

impl Gate {
    /// Puts the caller into the request's extensions, or says what to answer instead.
    pub async fn admit<B>(
        &self,
        origin: &Origin,
        request: &mut Request<B>,
    ) -> Result<(), Response<Body>> {
        self.try_admit(origin, request).await.map_err(|refusal| {
            self.note(&refusal, origin, request.uri().path());
            respond(refusal, request)
        })
    }

    async fn try_admit<B>(&self, origin: &Origin, request: &mut Request<B>) -> Result<(), Refusal> {
        let permission = permission(request).ok_or(Refusal::NoSuchMethod)?;
        if self.0.opens(permission) {
            return Ok(());
        }
        // Nobody behind the gate needs it, but for who is asked to introduce whoever sent it.
        let mut header = request.headers_mut().remove(AUTHORIZATION);
        if is_registry(request.uri().path()) && header.as_ref().is_some_and(is_nobody) {
            header = None;
            request.extensions_mut().insert(Nobody);
        }
        let caller = self.0.caller(&origin.peer, header.as_ref(), unix_seconds()).await;
        let caller = caller.map_err(Refusal::Credentials)?;
        check(&caller, permission).map_err(Refusal::Access)?;
        if let (Permission::Introduction, Some(header)) = (permission, header) {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        request.extensions_mut().insert(caller);
        Ok(())
    }

    fn note(&self, refusal: &Refusal, origin: &Origin, path: &str) {
        let failures = &self.0.failures;
        match refusal {
            Refusal::NoSuchMethod => {}
            Refusal::Access(refused) => failures.count(Reason::of(refused)),
            Refusal::Credentials(failure) => {
                failures.count(failure.reason);
                if let Some(left_out) = failures.may_log(Instant::now()) {
                    let peer = origin.address().map(tracing::field::display);
                    let reason = failure.reason.name();
                    tracing::warn!(peer, path, reason, left_out, "authentication failed");
                }
            }
        }
    }
}

fn permission<B>(request: &Request<B>) -> Option<Permission> {
    let path = request.uri().path();
    match of_grpc(path) {
        Some(permission) => Some(permission),
        None if is_grpc(request.headers()) => None,
        None => Some(of_http(request.method(), path)),
    }
}

fn check(caller: &Caller, permission: Permission) -> Result<(), Refused> {
    match permission {
        Permission::Introduction => Ok(()),
        Permission::Instance(right) => caller.check_somewhere(right),
        Permission::All(right) | Permission::Closable(_, right) => caller.check_everywhere(right),
    }
}

fn respond<B>(refusal: Refusal, request: &Request<B>) -> Response<Body> {
    let path = request.uri().path();
    if is_grpc(request.headers()) || of_grpc(path).is_some() {
        return grpc_status(refusal, path).into_http();
    }
    let (status, message, bearer) = match refusal {
        Refusal::NoSuchMethod => (StatusCode::NOT_FOUND, String::new(), BEARER),
        Refusal::Credentials(failure) if failure.reason == Reason::KeysUnavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, failure.message, BEARER)
        }
        Refusal::Credentials(failure) => {
            (StatusCode::UNAUTHORIZED, failure.message, BEARER_INVALID)
        }
        Refusal::Access(Refused::Unauthenticated(message)) => {
            (StatusCode::UNAUTHORIZED, message, BEARER)
        }
        Refusal::Access(Refused::Denied(message)) => (StatusCode::FORBIDDEN, message, BEARER),
    };
    if is_registry(path) {
        return of_registry(status, &message, request);
    }
    let mut response = in_words(status, message, path, HINT);
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().append(WWW_AUTHENTICATE, CHALLENGE);
        response.headers_mut().append(WWW_AUTHENTICATE, bearer);
    }
    response
}

/// Its clients understand one form of errors, and ask for a token where the answer says.
fn of_registry<B>(status: StatusCode, message: &str, request: &Request<B>) -> Response<Body> {
    match status {
        StatusCode::UNAUTHORIZED => {
            challenge::unauthorized(request.uri().path(), request.extensions().get(), message)
        }
        status => challenge::refused(status, message),
    }
}

/// Programs get JSON, people a line.
fn in_words(status: StatusCode, message: String, path: &str, hint: &str) -> Response<Body> {
    match path.starts_with("/api/") {
        true => {
            let error = ErrorDetail { message, hint: hint.to_owned() };
            (status, axum::Json(ErrorBody { error })).into_response()
        }
        false => (status, format!("{message}\n")).into_response(),
    }
}

fn grpc_status(refusal: Refusal, path: &str) -> Status {
    match refusal {
        Refusal::NoSuchMethod => super::unknown::unknown_method(path),
        Refusal::Credentials(Failure { reason: Reason::KeysUnavailable, message }) => {
            Status::unavailable(message)
        }
        Refusal::Credentials(failure) => Status::unauthenticated(failure.message),
        Refusal::Access(refused) => kiln_cas::services::refused_status(refused),
    }
}
