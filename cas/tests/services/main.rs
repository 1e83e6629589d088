//! The services as clients meet them: generated clients against a server on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail their test")]

mod action_cache;
mod asset;
mod byte_stream;
mod byte_stream_write;
mod capabilities;
mod cas;
mod chunking;
mod download;
mod harness;
mod http_cache;
mod logs;
mod origin;
mod promises;
mod trees;
