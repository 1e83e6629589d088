//! Amazon S3, or any store that speaks its protocol: the object store below an index.
//!
//! A blob is the object `{prefix}/blobs/{function}/{hh}/{hash}-{size}-{generation}`, where `hh`
//! are the first two digits of the hash and the generation is 16 hexadecimal digits.

mod config;
mod stats;

#[cfg(not(feature = "s3"))]
mod absent;
#[cfg(feature = "s3")]
mod body;
#[cfg(feature = "s3")]
mod bucket;
#[cfg(feature = "s3")]
mod checks;
#[cfg(feature = "s3")]
mod client;
#[cfg(feature = "s3")]
mod counts;
#[cfg(feature = "s3")]
mod deletes;
#[cfg(feature = "s3")]
mod error;
#[cfg(feature = "s3")]
mod key;
#[cfg(test)]
#[cfg(feature = "s3")]
mod measure;
#[cfg(feature = "s3")]
mod objects;
#[cfg(feature = "s3")]
mod patience;
#[cfg(feature = "s3")]
mod read;
#[cfg(test)]
#[cfg(feature = "s3")]
mod tests;
#[cfg(feature = "s3")]
mod upload;

#[cfg(not(feature = "s3"))]
pub use absent::S3Objects;
pub use config::{S3Config, S3Credentials, S3UrlError};
#[cfg(feature = "s3")]
pub use objects::S3Objects;
pub use stats::{S3_METHODS, S3_OUTCOMES, S3Outcome, S3Stats};
