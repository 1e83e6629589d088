//! What Kiln makes of a file of build events, as `bazel --build_event_binary_file` writes it:
//! `cargo run -p kiln-ci --example bep -- FILE`.

use kiln_ci::events::{Build, KeptEvent, Limits};
use kiln_protos::bep;
use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: bep FILE")?;
    let bytes = std::fs::read(path)?;
    let mut rest = &bytes[..];
    let mut build = Build::new("main", "", Limits::default());
    let mut attempts = Vec::new();
    while !rest.is_empty() {
        let event = bep::BuildEvent::decode_length_delimited(&mut rest)?;
        build.apply(&KeptEvent::Bazel(Box::new(event)));
        attempts.extend(build.take_attempts());
    }
    println!("{}", serde_json::to_string_pretty(&build.facts())?);
    for it in attempts {
        let report = it.report.map(|it| it.uri).unwrap_or_default();
        println!("{} {report}", serde_json::to_string(&it.attempt)?);
    }
    Ok(())
}
