//! Web pages and the JSON API: a folder for each subject, which has its pages, its part of the API, and the routes to both.
//!
//! Pages change nothing: what people and programs ask for comes over the API, and takes a role.
//!
//! Pages are rendered on the server, need no script and load nothing from elsewhere.

mod actions;
pub mod ansi;
mod api;
mod audit;
mod blobs;
mod builds;
mod content;
mod design;
mod error;
mod find;
mod fleet;
mod forges;
pub mod format;
mod hermeticity;
mod imports;
pub mod json;
mod kept;
mod live;
mod merge_queue;
mod openapi;
mod overview;
mod pipelines;
mod plans;
mod previews;
mod profile;
mod progress;
mod promotion;
mod releases;
mod rollouts;
mod routes;
mod security;
mod state;
mod suite;
#[cfg(test)]
mod tests;
mod verdicts;
mod workers;

pub use forges::router as forges;
pub use kept::Kept;
pub use routes::{no_page, router};
#[cfg(test)]
pub use state::QueueView;
pub use state::WebState;
