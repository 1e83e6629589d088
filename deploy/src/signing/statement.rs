//! in-toto Statements: which content a claim is about, and which kind of claim it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::dsse::MAX_PAYLOAD_BYTES;
use crate::json::{self, JsonError};
use crate::resource::{DigestSet, NotADigest, ResourceDescriptor};

/// The type of the statements that Kiln writes.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What cosign still writes; the same members mean the same.
const OLDER_TYPE: &str = "https://in-toto.io/Statement/v0.1";
/// The claim, with nothing in it, by which cosign knows that an image was signed.
pub const COSIGN_SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const MAX_SUBJECTS: usize = 10_000;

/// A claim about content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    pub subject: Vec<ResourceDescriptor>,
    pub predicate_type: String,
    #[serde(default)]
    pub predicate: Map<String, Value>,
}

/// Why a statement claims nothing.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    #[error("the statement cannot be read")]
    Json(#[from] JsonError),
    #[error("{0:?} is no statement that is known here")]
    Type(String),
    #[error("the statement has {0} subjects; 1 to {MAX_SUBJECTS} are allowed")]
    Subjects(usize),
    #[error("a subject of the statement is not named by digests")]
    Digest(#[from] NotADigest),
    #[error("the statement does not say what kind of claim it is")]
    NoPredicateType,
}

impl Statement {
    /// A claim of `predicate_type` about `subject`.
    pub fn new(
        subject: Vec<ResourceDescriptor>,
        predicate_type: &str,
        predicate: Map<String, Value>,
    ) -> Result<Self, StatementError> {
        let kind = STATEMENT_TYPE.to_owned();
        let statement =
            Self { kind, subject, predicate_type: predicate_type.to_owned(), predicate };
        statement.check()?;
        Ok(statement)
    }

    /// What `cosign verify` looks for: the image was signed, and nothing more is said of it.
    pub fn cosign_signature(image: &DigestSet) -> Result<Self, StatementError> {
        let subject = ResourceDescriptor { digest: image.clone(), ..ResourceDescriptor::default() };
        Self::new(vec![subject], COSIGN_SIGN_PREDICATE, Map::new())
    }

    /// Reads and checks the payload of an envelope.
    pub fn read(payload: &[u8]) -> Result<Self, StatementError> {
        let statement: Self = json::read(payload, MAX_PAYLOAD_BYTES)?;
        statement.check()?;
        Ok(statement)
    }

    pub fn write(&self) -> Result<Vec<u8>, JsonError> {
        json::write(self)
    }

    /// Whether the statement is of the form that Kiln writes; in releases other forms are refused.
    pub fn is_current(&self) -> bool {
        self.kind == STATEMENT_TYPE
    }

    /// Whether one of its subjects is this content.
    pub fn is_about(&self, content: &DigestSet) -> bool {
        self.subject.iter().any(|it| it.names(content))
    }

    fn check(&self) -> Result<(), StatementError> {
        if self.kind != STATEMENT_TYPE && self.kind != OLDER_TYPE {
            return Err(StatementError::Type(self.kind.clone()));
        }
        if self.subject.is_empty() || self.subject.len() > MAX_SUBJECTS {
            return Err(StatementError::Subjects(self.subject.len()));
        }
        if self.predicate_type.is_empty() {
            return Err(StatementError::NoPredicateType);
        }
        Ok(self.subject.iter().try_for_each(ResourceDescriptor::check)?)
    }
}
