//! Amazon S3, or any store that speaks its protocol: the object store below an index.
//!
//! A blob is the object `{prefix}/blobs/{function}/{hh}/{hash}-{size}-{generation}`, where `hh`
//! are the first two digits of the hash and the generation is 16 hexadecimal digits.

mod body;
mod checks;
mod client;
mod config;
mod counts;
mod error;
mod key;
#[cfg(test)]
mod measure;
mod objects;
mod read;
#[cfg(test)]
mod tests;
mod upload;

pub use config::{S3Config, S3Credentials, S3UrlError};
pub use counts::{S3_METHODS, S3_OUTCOMES, S3Outcome, S3Stats};
pub use objects::S3Objects;
