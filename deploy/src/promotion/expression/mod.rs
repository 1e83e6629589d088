//! Conditions in the Common Expression Language, bounded in what they may cost.
//!
//! An expression has at most [`MAX_BYTES`] bytes and [`terms::MAX_NODES`] nodes. It looks through lists with `exists`, `all` and
//! `exists_one`, at most two deep, and builds none (`map` and `filter` could double a list again and again), so that it ends
//! after a known number of steps: there is nothing to interrupt. There are no regular expressions in it.

#[cfg(not(feature = "cel"))]
#[path = "absent.rs"]
mod language;
#[cfg(feature = "cel")]
mod language;
mod terms;

use std::fmt;

use self::language::Parsed;
pub use self::terms::{ExpressionError, MAX_BYTES, Operand, Operands};

/// An expression that was read.
#[derive(Clone)]
pub struct Expression {
    text: String,
    parsed: Parsed,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Expression {
    pub fn read(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_BYTES {
            return Err(ExpressionError::TooLong(text.len()));
        }
        Ok(Self { text: text.to_owned(), parsed: Parsed::read(text)? })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the expression may be true later although it is false now, for the same release.
    pub fn asks_for_now(&self) -> bool {
        self.parsed.asks_for_now()
    }

    pub fn holds(&self, operands: &Operands) -> Result<bool, ExpressionError> {
        self.parsed.holds(operands)
    }
}
