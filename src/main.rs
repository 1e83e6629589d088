//! The `kiln` binary: command line, configuration and wiring.

mod auth;
mod cli;
mod config;
mod data_dir;
mod front;
mod registry;
mod serve;
mod status_server;
mod telemetry;

use std::process::ExitCode;

/// The word that `kiln` starts its own sandbox processes with.
const ZYGOTE: &str = "sandbox-zygote";

fn main() -> ExitCode {
    // Before anything else: this process stays small and single-threaded.
    if std::env::args_os().nth(1).is_some_and(|word| word == ZYGOTE) {
        return kiln_executor::sandbox::zygote_main();
    }
    kiln_executor::sandbox::own_signals();
    cli::run()
}
