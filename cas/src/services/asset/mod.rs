//! Remote Asset: content that is known by a URI (Fetch and Push).
//!
//! | module | what it does |
//! | --- | --- |
//! | `service`, `config` | the service, and what it may download |
//! | `calls` | the calls, whose messages are counted before they are decoded |
//! | `push` | what callers say of URIs |
//! | `fetch` | what is known of URIs, otherwise downloads |
//! | `complete` | whether a directory is there as a whole |
//! | `names`, `stored`, `time`, `owner` | the records: their keys and values, and which blob they are about |
//! | `downloads`, `places` | downloads under way: shared, bounded, longer than calls |
//! | `download`, `coding`, `gzip` | one of them: requests, redirections, content codings |
//! | `spool` | where its bytes lie until their digest is known |
//! | `qualifiers`, `sri`, `headers` | what a caller asks of it |

mod calls;
mod coding;
mod complete;
mod config;
mod download;
mod downloads;
mod fetch;
mod gzip;
mod headers;
mod names;
mod owner;
mod places;
mod push;
mod qualifiers;
mod service;
mod spool;
mod sri;
mod stored;
mod time;

pub use self::calls::{FetchCalls, PushCalls};
pub use self::config::FetchConfig;
pub use self::headers::{CallerHeaderError, CallerHeaders};
pub use self::names::ASSETS;
pub use self::owner::owner;
#[cfg(test)]
pub use self::owner::remembered;
pub use self::service::AssetService;
