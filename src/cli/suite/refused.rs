//! Reports that are not read.

use kiln_ci::junit::{Reason, Refused};

use crate::cli::error::CliError;

/// The error for a report that cannot be read, in the words of a user and with a hint.
pub fn said(file: &str, refused: &Refused) -> CliError {
    let hint = match &refused.reason {
        Reason::Io(_) | Reason::Empty => "name the report that the runner wrote",
        Reason::CutShort(_) => "the runner was stopped while it wrote: run it again",
        Reason::DocumentType | Reason::Entity(_) => "write the report without a document type",
        Reason::Encoding(_) | Reason::NotUtf8 => "let the runner write UTF-8",
        _ => "docs/tests.md says which reports are read",
    };
    CliError::usage(format!("{file}, {refused}")).hint(hint)
}
