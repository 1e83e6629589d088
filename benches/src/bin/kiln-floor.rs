//! A REAPI server that only answers: constant results from memory, writes thrown away.

use clap::Parser;
use kiln_benches::floor;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    floor::run(&floor::Options::parse())
}
