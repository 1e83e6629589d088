//! Measures REAPI servers side by side.

use std::process::ExitCode;

use clap::Parser;
use kiln_benches::load;

fn main() -> ExitCode {
    match load::run(load::args::Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kiln-load: {error}");
            ExitCode::FAILURE
        }
    }
}
