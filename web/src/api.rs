//! What all parts of the JSON API under `/api/v1` share. Errors are `{"error": {"message", "hint"}}`.

use axum::extract::Query as Arguments;
use axum::extract::rejection::QueryRejection;
use kiln_cas::Digest;
use kiln_scheduler::journal::Page;

use super::content::parse_digest;
use super::error::{ApiError, WebError};
use super::json::parse_cursor;

/// Entries of an answer that names no `limit`.
const DEFAULT_LIMIT: usize = 50;
/// Most entries of one answer.
const MAX_LIMIT: usize = 1000;

/// How many entries an answer has.
pub fn limit(limit: Option<usize>) -> Result<usize, WebError> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > MAX_LIMIT {
        let message = format!("limit {limit} is not between 1 and {MAX_LIMIT}");
        return Err(WebError::invalid(message, "Ask for less, and go on with the next page."));
    }
    Ok(limit)
}

pub fn page(limit: Option<usize>, before: Option<&str>) -> Result<Page, WebError> {
    let limit = self::limit(limit)?;
    let before = match before {
        None => None,
        Some(text) => Some(parse_cursor(text).ok_or_else(|| {
            let hint = "Take it from `next_before` of the page before.";
            WebError::invalid("before is not a cursor", hint)
        })?),
    };
    Ok(Page { before, limit })
}

pub fn parse_action(text: &str) -> Result<Digest, WebError> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [hash, size] => parse_digest("sha256", hash, size),
        [function, hash, size] => parse_digest(function, hash, size),
        _ => Err(WebError::invalid(
            "action is not a digest",
            "Write it as HASH/SIZE, or blake3/HASH/SIZE.",
        )),
    }
}

pub fn arguments<T>(arguments: Result<Arguments<T>, QueryRejection>) -> Result<T, WebError> {
    match arguments {
        Ok(Arguments(arguments)) => Ok(arguments),
        Err(rejection) => Err(WebError::invalid(rejection.body_text(), "Correct the query.")),
    }
}

pub async fn unknown() -> ApiError {
    let hint = "There are status, actions, executions, find, builds, invocations, tests, workers, queue, \
                hermeticity, releases, environments, promotions, rollouts, locks, fleet, merge-queues, pipelines, previews, explain and audit; /api/v1/openapi.json describes them.";
    ApiError::from(WebError::not_found("no such part of the API", hint))
}
