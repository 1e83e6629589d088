//! What expressions ask about, their bounds, and why one is not taken.

/// Bytes of an expression.
pub const MAX_BYTES: usize = 1_024;
pub const MAX_NODES: usize = 400;
/// Lists within lists that are looked through.
pub const MAX_LOOPS: usize = 2;

/// A value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    Text(String),
    Number(i64),
    List(Vec<String>),
}

/// The variables with their members.
pub type Operands = Vec<(&'static str, Vec<(&'static str, Operand)>)>;

/// Why an expression is not taken, or has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error(
        "the expression has {0} bytes; at most {MAX_BYTES} are taken: make several conditions of it"
    )]
    TooLong(usize),
    /// The feature `cel` is not in this build.
    #[error(
        "this kiln was built without expressions in CEL; build it with the feature cel, which is on by default"
    )]
    Absent,
    #[error("no expression in CEL: {0}")]
    Syntax(String),
    #[error("the expression has more than {MAX_NODES} parts: make several conditions of it")]
    TooLarge,
    #[error("lists are looked through within each other more than {MAX_LOOPS} deep")]
    Loops,
    #[error("map() and filter() are not supported: use exists() and all()")]
    Builds,
    #[error("{name} is not known; {hint}")]
    Unknown { name: String, hint: String },
    #[error("the expression cannot be evaluated: {0}")]
    Evaluate(String),
    #[error("the expression is neither true nor false, but {0}")]
    NoAnswer(String),
}
