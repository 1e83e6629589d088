//! Compiles Kiln's own services without a system `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let own = [
        "kiln/worker/v1/worker.proto",
        "kiln/events/v1/events.proto",
        "kiln/logs/v1/logs.proto",
        "kiln/persistent/v1/persistent.proto",
    ];
    let descriptors = protox::compile(own, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    // On its own, because it uses the messages of the others.
    let users = ["kiln/queue/v1/queue.proto", "kiln/audit/v1/audit.proto"];
    let descriptors = protox::compile(users, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".kiln.events.v1", "crate::events")
        .compile_fds(descriptors)?;
    Ok(())
}
