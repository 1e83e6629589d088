//! How things in pipelines may be called.

use kiln_net::toml::{Field, TableError};

/// Characters of a name.
const MAX_NAME: usize = 100;

/// Names of pipelines and stages: letters, digits, `-`, `_` and `.`, the first of which is a letter or a digit.
pub fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && text.len() <= MAX_NAME && text.chars().all(fits)
}

/// Names of inputs, axes and what stages tell: small letters, digits and `_`, the first of which is a letter.
pub fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    begins && text.len() <= MAX_NAME && text.chars().all(fits)
}

/// Names of environment variables. Those that begin with `KILN_` are Kiln's.
pub fn is_variable(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let own = text.to_ascii_uppercase().starts_with("KILN_");
    begins && !own && text.len() <= MAX_NAME && text.chars().all(fits)
}

pub fn named(field: &Field<'_>) -> Result<String, TableError> {
    let text = field.text()?;
    let wrong = || {
        field
            .error("a name has 1 to 100 letters, digits, `-`, `_` and `.`, a letter or digit first")
    };
    is_name(text).then(|| text.to_owned()).ok_or_else(wrong)
}
