//! Webhooks of forges: `POST /api/v1/forges/NAME/events`. Whoever sends one proves itself by the secret of the forge, and
//! by nothing else.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::StreamExt;
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use kiln_ci::forges::{Accepted, Intake, MAX_DELIVERY, Rejected};
use serde::Serialize;

use super::error::{ApiError, WebError};
use super::security;

const A_MINUTE: HeaderValue = HeaderValue::from_static("60");

/// What a delivery is answered with.
#[derive(Serialize)]
struct Delivered {
    /// `asked`, `already known`, `ignored` or `pong`.
    outcome: &'static str,
    message: String,
}

/// The route to which forges deliver their events.
pub fn router(intake: Arc<Intake>) -> Router {
    // The body is counted as it comes.
    let deliver = post(deliver).layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/api/v1/forges/{name}/events", deliver)
        .layer(axum::middleware::map_response(security::headers))
        .with_state(intake)
}

async fn deliver(
    State(intake): State<Arc<Intake>>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    match delivered(&intake, &name, request).await {
        Ok(accepted) => answer(accepted),
        Err(error) => {
            let waits =
                matches!(error.status.as_u16(), 429 | 503).then_some((RETRY_AFTER, A_MINUTE));
            let mut response = ApiError::from(error).into_response();
            response.headers_mut().extend(waits);
            response
        }
    }
}

async fn delivered(
    intake: &Intake,
    name: &str,
    request: Request<Body>,
) -> Result<Accepted, WebError> {
    let (parts, body) = request.into_parts();
    let header = |name: &str| {
        let value = parts.headers.get(name).and_then(|it| it.to_str().ok());
        value.map(str::to_owned)
    };
    // What brings nothing to prove itself is not waited for.
    let admitted = intake.admit(name, &header).map_err(|it| rejected(&it))?;
    let body = whole(&parts.headers, body).await?;
    intake.take(admitted, &body).await.map_err(|it| rejected(&it))
}

/// The body, if it is no larger than a delivery.
async fn whole(headers: &HeaderMap, body: Body) -> Result<Bytes, WebError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|it| it > MAX_DELIVERY as u64) {
        return Err(large());
    }
    let (mut all, mut body) = (Vec::new(), body.into_data_stream());
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| broken(&error))?;
        if all.len() + piece.len() > MAX_DELIVERY {
            return Err(large());
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

fn answer(accepted: Accepted) -> Response {
    let (status, outcome, message) = match accepted {
        Accepted::Pong => (StatusCode::OK, "pong", "the secret is right".to_owned()),
        Accepted::Asked(words) => (StatusCode::OK, "asked", words),
        Accepted::Known => {
            (StatusCode::OK, "already known", "it was acted on when it came first".to_owned())
        }
        Accepted::Ignored(why) => (StatusCode::ACCEPTED, "ignored", why),
    };
    (status, Json(Delivered { outcome, message })).into_response()
}

fn large() -> WebError {
    WebError {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        message: format!("a delivery has at most {MAX_DELIVERY} bytes"),
        hint: "Let the forge send only the events that docs/forges.md names.".to_owned(),
    }
}

fn broken(error: &axum::Error) -> WebError {
    WebError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        message: format!("the delivery did not arrive whole: {error}"),
        hint: "Deliver it again.".to_owned(),
    }
}

fn rejected(rejected: &Rejected) -> WebError {
    let (status, hint) = match rejected {
        Rejected::NoForge(_) => (StatusCode::NOT_FOUND, "forges.file names forges."),
        Rejected::NotJson => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "docs/forges.md has the steps."),
        Rejected::Invalid(_) => {
            (StatusCode::FORBIDDEN, "Compare the webhook's secret with secret_file.")
        }
        Rejected::Late(_) => (StatusCode::FORBIDDEN, "Do it anew at the forge."),
        Rejected::Malformed(_) => (StatusCode::BAD_REQUEST, "Is the kind of the forge right?"),
        Rejected::Many(_) => (StatusCode::TOO_MANY_REQUESTS, "Deliver it again in a minute."),
        Rejected::Unavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "Deliver it again in a minute.")
        }
    };
    WebError { status, message: rejected.to_string(), hint: hint.to_owned() }
}
