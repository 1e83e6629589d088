//! Writes one execution as a line: its target and how it ended.

use crate::cli::text::{Look, look};
use kiln_web::format::{code_name, duration, short};
use kiln_web::json::{self, Execution};

/// Longest target that is listed, in characters.
pub const MAX_TARGET: usize = 80;

/// The columns of one execution: run time, end, target and mnemonic, digest.
pub fn row(run: &Execution) -> [String; 4] {
    let ran = match run.timeline.run_ns() {
        0 => String::new(),
        nanos => duration(nanos),
    };
    [ran, ended(run), what(run), named(run.action.as_ref(), &run.digest_function)]
}

/// How the run ended: its origin, its exit code or its error.
pub fn ended(run: &Execution) -> String {
    match (run.status_code, run.exit_code) {
        _ if run.cancelled => look(Look::Dim, "cancelled"),
        (0, Some(0) | None) => run.origin.replace('_', " "),
        (0, Some(code)) => look(Look::Bad, &format!("exit code {code}")),
        (code, _) => look(Look::Bad, code_name(code)),
    }
}

/// The target and the mnemonic of an execution.
pub fn what(run: &Execution) -> String {
    let target = short(&run.target_id, MAX_TARGET);
    match (target.as_str(), run.mnemonic.as_str()) {
        ("", "") => "(no target named)".to_owned(),
        (target, mnemonic) => format!("{target} {mnemonic}").trim().to_owned(),
    }
}

/// A digest as other commands take it; nothing where there is none.
pub fn named(digest: Option<&json::Digest>, function: &str) -> String {
    let Some(digest) = digest else { return String::new() };
    let function = if function == "blake3" { "blake3/" } else { "" };
    format!("{function}{}/{}", digest.hash, digest.size_bytes)
}

/// Whether the run itself failed; one that was cancelled did not.
pub fn has_failed(run: &Execution) -> bool {
    !run.cancelled && (run.exit_code.is_some_and(|code| code != 0) || run.status_code != 0)
}
