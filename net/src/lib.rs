//! What goes out of Kiln: TLS and trust, the one HTTP client, URLs and which of them may be fetched.
//!
//! | module | what it does |
//! | --- | --- |
//! | `tls` | certificates, keys and authorities from files |
//! | `files` | reads files that somebody names |
//! | `reload` | reads files again when they change, while a server runs |
//! | `http` | builds the HTTP client that assets, images, keys and the command line use |
//! | `grpc` | connections to servers, tokens, failed calls |
//! | `proxy` | proxies from the environment |
//! | `urls` | reads URLs, follows redirections, shows URLs without secrets |
//! | `allowed` | URLs that an operator lists by their beginnings |
//! | `reach` | which addresses a host name may lead to |
//! | `backoff` | how long to wait before something is tried again |
//! | `process` | runs programs, with an end to their time and their output |
//! | `ids` | ids in the order of time |
//! | `panics` | work whose panic is heard, and work that goes on after one |
//! | `lease` | whose turn it is among processes that share a record |
//! | `toml` | files in TOML, read key by key: what is wrong is told with line and column |
//! | `causes` | an error with what caused it, as one line |
//! | `clock` | what time it is, and waiting until a moment that may never come |
//! | `counts` | numbers with their nouns, in messages |
//! | `unread` | which records cannot be read, each said once |
//! | `troubles` | what is wrong with things that are looked at again and again, said once while it lasts |
//! | `log_limit` | how much of such things is said in the log within a minute |
//! | `ages` | for how long something has been there, as far as this process has seen |

mod ages;
mod allowed;
mod backoff;
pub mod causes;
pub mod clock;
pub mod counts;
pub mod files;
pub mod grpc;
pub mod http;
mod ids;
pub mod lease;
mod log_limit;
pub mod panics;
pub mod process;
mod proxy;
pub mod reach;
pub mod reload;
pub mod tls;
pub mod toml;
mod troubles;
mod unread;
pub mod urls;

pub use ages::Ages;
pub use allowed::{Allowed, AllowedError};
pub use backoff::{Backoff, spread};
pub use ids::id_at;
pub use reach::Reach;
pub use troubles::Troubles;
pub use unread::Unread;
pub use url::Url;
