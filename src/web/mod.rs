//! Web pages and the JSON API: read-only views of builds, actions, queue and storage.
//!
//! Pages are rendered on the server, need no script and load nothing from elsewhere.

mod action;
pub mod ansi;
mod api;
mod blobs;
mod compare;
mod content;
mod error;
mod explain;
mod find;
pub mod format;
pub mod json;
mod live;
mod pages;
mod progress;
mod security;
#[cfg(test)]
mod tests;
mod tree;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kiln_cas::logs::LogStreams;
use kiln_cas::stores::StorageSnapshot;
use kiln_cas::stores::indexed::Indexed;
use kiln_cas::{SharedActionCache, SharedBlobStore, StoreError};
use kiln_scheduler::api::Unavailable;
use kiln_scheduler::hermeticity::Checker;
use kiln_scheduler::journal::Journal;
use kiln_scheduler::{Scheduler, Snapshot};

use error::WebError;

/// The scheduler as pages see it.
#[async_trait]
pub trait QueueView: Send + Sync + 'static {
    async fn snapshot(&self) -> Result<Snapshot, Unavailable>;
}

#[async_trait]
impl QueueView for Scheduler {
    async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        Self::snapshot(self).await
    }
}

/// What a fleet shares, as pages see it.
#[async_trait]
pub trait SharedView: Send + Sync + 'static {
    async fn usage(&self) -> Result<json::Shared, StoreError>;
}

#[async_trait]
impl SharedView for Indexed {
    async fn usage(&self) -> Result<json::Shared, StoreError> {
        let usage = Indexed::usage(self).await?;
        Ok(json::Shared {
            blobs: usage.blobs,
            bytes: usage.bytes,
            pending: usage.pending,
            index_incomplete: self.stats().index_incomplete,
        })
    }
}

/// What the pages show.
#[derive(Clone)]
pub struct WebState {
    pub blobs: SharedBlobStore,
    pub actions: SharedActionCache,
    /// What running actions print.
    pub logs: LogStreams,
    pub journal: Journal,
    pub hermeticity: Checker,
    pub queue: Arc<dyn QueueView>,
    pub storage: Arc<dyn Fn() -> StorageSnapshot + Send + Sync>,
    /// `None`: nothing is shared with other servers.
    pub shared: Option<Arc<dyn SharedView>>,
    /// How clients reach this server, without a slash at the end: `http://host:8980`.
    pub base_url: Arc<str>,
    pub version: &'static str,
    pub started: SystemTime,
}

/// All routes. Each answers GET (and HEAD) only; answers carry a strict content security policy.
pub fn router(state: WebState) -> Router {
    Router::new()
        .route("/", get(pages::overview::page))
        .route("/builds", get(pages::builds::page))
        .route("/builds/{*invocation}", get(pages::build::page))
        .route("/actions/{function}/{hash}/{size}", get(pages::action::page))
        .route("/cas/tree/{function}/{hash}/{size}", get(pages::tree::root))
        .route("/cas/tree/{function}/{hash}/{size}/{*path}", get(pages::tree::below))
        .route("/queue", get(pages::queue::page))
        .route("/hermeticity", get(pages::hermeticity::page))
        .route("/blobs/{function}/{hash}/{size}", get(blobs::download))
        .route("/style.css", get(pages::layout::stylesheet))
        .route("/favicon.svg", get(pages::layout::favicon))
        .nest("/api/v1", api::routes())
        .layer(axum::middleware::map_response(security::headers))
        .with_state(state)
}

/// The page for an address at which there is none.
pub fn no_page(path: &str) -> Response {
    let message = format!("there is no page {:?}", format::short(path, 200));
    let hint = "The pages are below; what was built is under Builds.";
    security::with_headers(WebError::not_found(message, hint).into_response())
}
