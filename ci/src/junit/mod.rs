//! Reads reports of test runners in the many dialects of JUnit's XML.
//!
//! A report is read as a stream: memory does not grow with what tests printed, and of the cases that were
//! read only their attempts are counted. Document types are refused, so no entity is ever followed.

mod case;
mod encoding;
mod input;
#[cfg(test)]
mod many;
mod reader;
mod seconds;
mod together;

use std::io;
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

pub use reader::read;
pub use together::{NotTogether, put_together};

use crate::model::CaseResult;

/// What a report may hold at most. All sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole report.
    pub report: u64,
    /// Bytes of one tag with its attributes: some runners write a whole trace into an attribute.
    pub tag: u64,
    /// Bytes of the name, and of the class, of a case: they are kept whole or not at all.
    pub name: usize,
    /// What of a failure's message and trace is kept; the rest is cut off.
    pub message: usize,
    /// How many attempts at cases there may be.
    pub attempts: u64,
    /// How deep elements may be within elements.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            report: 512 << 20,
            tag: 8 << 20,
            name: 16 << 10,
            message: 16 << 10,
            attempts: 2_000_000,
            depth: 64,
        }
    }
}

/// One attempt at one case, as the report says it.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseAttempt {
    /// Names of the suites that the case is in, outermost first, with ` > ` between them.
    pub suite: Arc<str>,
    /// 1 for the first attempt at this case in this report. A case that occurs again is its retry.
    pub attempt: u32,
    /// The class is the suite's name where the runner names none. The name is empty where a suite failed
    /// by itself, before or after its cases.
    pub result: CaseResult,
}

/// Counts of what was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub documents: u64,
    pub suites: u64,
    pub cases: u64,
    pub attempts: u64,
}

/// Why a report is refused, and where.
#[derive(Debug, Error)]
#[error("line {line}: {reason}")]
pub struct Refused {
    /// The line of the report, counted from 1.
    pub line: u64,
    pub reason: Reason,
}

#[derive(Debug, Error)]
pub enum Reason {
    #[error("cannot read it: {0}")]
    Io(#[source] io::Error),
    #[error("there is no report in it")]
    Empty,
    #[error("<{0}> is no JUnit report: its root is <testsuites> or <testsuite>")]
    Root(String),
    #[error("text stands outside of the report")]
    Stray,
    #[error("it has a document type (<!DOCTYPE>): entities are never followed")]
    DocumentType,
    #[error("<! begins neither a comment nor a section of text")]
    Declaration,
    #[error("&{0}; is none of XML's own entities, and no others are followed")]
    Entity(String),
    #[error("it is in {0}: only UTF-8 is read")]
    Encoding(String),
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it ends within <{0}>: it says of a part of the run only, and counts for nothing")]
    CutShort(String),
    #[error("a <testcase> has no name")]
    Nameless,
    #[error("a <testcase> is within another")]
    CaseInCase,
    #[error("the {0} of a case has more than {1} bytes")]
    LongName(&'static str, usize),
    #[error("a tag has more than {0} bytes")]
    LongTag(u64),
    #[error("it has more than {0} bytes")]
    LongReport(u64),
    #[error("it has more than {0} attempts at cases")]
    Attempts(u64),
    #[error("elements are nested more than {0} deep")]
    Depth(usize),
    #[error("it is not well-formed: {0}")]
    Xml(#[source] quick_xml::Error),
}

#[cfg(test)]
mod tests;
