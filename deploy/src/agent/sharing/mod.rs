//! Content of releases that comes by pieces: from what is on disk already, from other agents, and from the server; and is given
//! to other agents.
//!
//! | file | what it does |
//! | --- | --- |
//! | `assembly.rs` | puts a release together out of pieces, on disk |
//! | `shelf.rs` | keeps the content of versions, for others and for the next one |
//! | `rate.rs` | so many bytes in a second |
//! | `exchange.rs` | what agents ask each other |
//! | `giving.rs` | whether and what another agent is given |
//! | `alone.rs` | what is missing, from the server |
//! | `crew.rs` | carries out what the downloader says |
//! | `jobs.rs` | which of that comes first |
//! | `pull.rs` | one version, by pieces |
//! | `seeder.rs` | says again and again what is here |

mod alone;
mod assembly;
mod crew;
mod exchange;
mod giving;
mod jobs;
mod pull;
mod rate;
mod seeder;
mod shelf;

pub use assembly::Assembly;
pub use exchange::{Asked, Exchange, Identity, PeerError};
pub use giving::{Given, Giving, Refusal};
pub use pull::Sharing;
pub use rate::Rate;
pub use seeder::Seeder;
pub use shelf::Shelf;
