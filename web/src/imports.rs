//! Reports of runs that Kiln did not make become history: `POST /api/v1/tests/import`.

use std::io::{self, Read};

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Query as Arguments, State};
use axum::routing::post;
use axum::{Json, Router};
use futures_util::StreamExt;
use http::{Extensions, Request, StatusCode};
use kiln_cas::budget::Charge;
use kiln_ci::imports::{Import, Imported, Receipt, began};
use kiln_ci::junit::{Reason, Refused};
use kiln_ci::model::Time;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Status};

use super::api::arguments;
use super::error::{ApiError, WebError};
use super::state::WebState;

/// Reports that are read at the same time: each holds a thread for as long as its sender takes.
const MAX_IMPORTS: usize = 4;
static IMPORTS: Semaphore = Semaphore::const_new(MAX_IMPORTS);

/// Pieces of a report that wait to be read.
const MAX_PIECES: usize = 16;
/// What is kept of a report has no more bytes than this for each of its own.
const KEPT: u64 = 2;

/// What a report does not say.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub struct Asked {
    commit: String,
    branch: Option<String>,
    suite: Option<String>,
    #[serde(default)]
    instance: String,
    /// When the run began, in milliseconds since the Unix epoch; now where nobody says.
    at: Option<u64>,
}

/// What is below `/api/v1`.
pub fn api() -> Router<WebState> {
    // The body is read as a stream, and charged as it comes.
    Router::new().route("/tests/import", post(import).layer(DefaultBodyLimit::disable()))
}

async fn import(
    State(state): State<WebState>,
    asked: Result<Arguments<Asked>, QueryRejection>,
    request: Request<Body>,
) -> Result<Json<Receipt>, ApiError> {
    let asked = arguments(asked)?;
    if asked.commit.is_empty() {
        return Err(invalid("commit is empty").into());
    }
    let (parts, body) = request.into_parts();
    let _turn = IMPORTS.try_acquire().map_err(|_| busy())?;
    let instance = state.tests.admit(&parts.extensions, &asked.instance).map_err(refused)?;
    let now = state.tests.clock.now();
    let import = Import {
        instance,
        suite: asked.suite.filter(|it| !it.is_empty()),
        commit: asked.commit,
        branch: asked.branch.filter(|it| !it.is_empty()),
        at: began(asked.at.map(Time), now),
    };
    let imported = read(import, body.into_data_stream(), &parts.extensions).await?;
    let written = state.tests.history.commit(now, std::slice::from_ref(&imported.attempt)).await;
    written.map_err(|error| unavailable(&error))?;
    let noted = state.verdicts.answers.note_import(&imported.attempt, now).await;
    noted.map_err(|error| unavailable(&error))?;
    Ok(Json(imported.receipt()))
}

/// Reads a report on a thread of its own, as it comes.
async fn read(
    import: Import,
    mut body: BodyDataStream,
    caller: &Extensions,
) -> Result<Imported, WebError> {
    let (pieces, received) = mpsc::channel(MAX_PIECES);
    let reading = tokio::task::spawn_blocking(move || import.read(Pieces::new(received)));
    // Held until the report is history.
    let (mut charge, mut bytes) = (Charge::of(caller), 0_u64);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| invalid(format!("the report did not arrive: {error}")));
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                // Without its end it is no report.
                pieces.send(Err(io::ErrorKind::UnexpectedEof.into())).await.ok();
                return Err(error);
            }
        };
        bytes = bytes.saturating_add(piece.len() as u64);
        let room = charge.grow_to(bytes.saturating_mul(KEPT)).await;
        room.map_err(|error| WebError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: error.to_string(),
            hint: "Try again, or raise server.request_memory.".to_owned(),
        })?;
        // An error means that it was refused by its beginning.
        if pieces.send(Ok(piece)).await.is_err() {
            break;
        }
    }
    drop(pieces);
    let read = reading.await.map_err(|error| unavailable(&error))?;
    read.map_err(|refused| not_read(&refused))
}

/// What arrives, for whoever reads and waits.
struct Pieces {
    received: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Pieces {
    fn new(received: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self { received, rest: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => return Ok(0),
            }
        }
        let count = self.rest.len().min(buffer.len());
        let piece = self.rest.split_to(count);
        for (to, from) in buffer.iter_mut().zip(&piece) {
            *to = *from;
        }
        Ok(count)
    }
}

fn invalid(message: impl Into<String>) -> WebError {
    WebError::invalid(message, "Send JUnit's XML to ?commit=SHA; docs/tests.md has more.")
}

fn busy() -> WebError {
    WebError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        message: format!("{MAX_IMPORTS} reports are being read already"),
        hint: "Send it again in a moment.".to_owned(),
    }
}

fn not_read(refused: &Refused) -> WebError {
    let status = match refused.reason {
        Reason::LongReport(_) | Reason::Attempts(_) => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    let hint = "docs/tests.md says which reports are read; nothing of it counts.".to_owned();
    WebError { status, message: refused.to_string(), hint }
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> WebError {
    let hint = "The history of tests cannot be written; the same report may be sent again.";
    WebError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        message: kiln_net::causes::chain(error).to_string(),
        hint: hint.to_owned(),
    }
}

fn refused(status: Status) -> WebError {
    let code = match status.code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        _ => StatusCode::PRECONDITION_FAILED,
    };
    let hint = "Importing takes the role execute or write-cache in the instance.".to_owned();
    WebError { status: code, message: status.message().to_owned(), hint }
}
