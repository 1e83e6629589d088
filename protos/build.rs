//! Compiles Kiln's own services without a system `protoc`.

use std::error::Error;

const FILES: [&str; 2] = ["kiln/worker/v1/worker.proto", "kiln/events/v1/events.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
