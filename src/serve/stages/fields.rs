//! Reads fields that programs and kinds of environments have alike in the file of parts.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_ci::stages::SecretList;
use kiln_net::toml::{Field, Fields, TableError};

/// Entries of one kind, and texts of one list.
pub const MAX_ENTRIES: usize = 200;
pub const MAX_TEXTS: usize = 100;

pub fn seconds(
    fields: &Fields<'_>,
    key: &str,
    default: u64,
    most: u64,
) -> Result<Duration, TableError> {
    let given = fields.get(key).map(|it| it.number(1..=most)).transpose()?;
    Ok(Duration::from_secs(given.unwrap_or(default)))
}

/// A program with its arguments.
pub fn argv(field: &Field<'_>) -> Result<Vec<String>, TableError> {
    let argv = field.texts(MAX_TEXTS)?;
    let named = argv.first().is_some_and(|it| !it.is_empty());
    let whole = argv.iter().all(|it| !it.contains('\0'));
    let wrong = "expected a program with its arguments, as [\"/usr/bin/program\", \"argument\"]";
    (named && whole).then_some(argv).ok_or_else(|| field.error(wrong))
}

/// `secrets = { VARIABLE = "name" }`, each of which is listed.
pub fn secrets(
    fields: &Fields<'_>,
    known: &SecretList,
) -> Result<BTreeMap<String, String>, TableError> {
    let Some(field) = fields.get("secrets") else { return Ok(BTreeMap::new()) };
    let mut secrets = BTreeMap::new();
    for (variable, name) in field.fields()?.entries(MAX_ENTRIES)? {
        let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
        let fits = variable.chars().all(is_name) && !variable.is_empty();
        let listed = name.text()?;
        if !fits || !known.0.contains_key(listed) {
            let message = match fits {
                true => "no such secret is listed under [secrets]",
                false => "what comes before it is no name of a variable",
            };
            return Err(name.error(message));
        }
        secrets.insert(variable, listed.to_owned());
    }
    Ok(secrets)
}
