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

use kiln_net::process::guard;

/// The word that `kiln` starts its own sandbox processes with.
const ZYGOTE: &str = "sandbox-zygote";

fn main() -> ExitCode {
    // Before anything else: such processes stay small and single-threaded.
    let word = std::env::args_os().nth(1);
    if word.as_ref().is_some_and(|word| word == ZYGOTE) {
        return kiln_executor::sandbox::zygote_main();
    }
    if word.is_some_and(|word| word == guard::WORD) {
        return guard::main(std::env::args_os().nth(2));
    }
    kiln_executor::sandbox::own_signals();
    guard::start_by(vec!["/proc/self/exe".into(), guard::WORD.into()]);
    cli::run()
}
