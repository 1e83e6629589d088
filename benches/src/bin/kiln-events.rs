//! How fast servers take build events in.

use clap::Parser;
use kiln_benches::events;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    events::run(&events::Options::parse()).await
}
