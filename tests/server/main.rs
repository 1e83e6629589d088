//! Tests of the server and the command line: access, connections, start, telemetry, pages and packages.

mod auth;
mod browser;
mod cli;
mod connections;
mod examples;
mod monitoring;
mod package;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod web;
