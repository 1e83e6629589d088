//! The sandbox's own process.

use std::process::ExitCode;

/// The whole body of the zygote: call it first in `main`, before any thread or runtime.
pub fn zygote_main() -> ExitCode {
    ExitCode::SUCCESS
}
