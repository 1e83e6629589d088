//! Files in which an operator lists what others may name.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_net::toml::{Fields, TableError, document};

/// Reads one such file; the error says in words for the operator what is wrong with it.
pub fn read_file<T>(
    path: &Path,
    read: impl FnOnce(&Fields<'_>) -> Result<T, TableError>,
) -> Result<T, String> {
    let shown = path.display();
    let text = kiln_net::files::read_text(path).map_err(|error| format!("{shown}: {error}"))?;
    document(&text, read).map_err(|error| format!("{shown}: {error}"))
}

/// The tables of one kind by their names, `most` at most. None where the kind is not in the file.
pub fn each<T>(
    top: &Fields<'_>,
    kind: &str,
    most: usize,
    read: impl Fn(&Fields<'_>) -> Result<T, TableError>,
) -> Result<BTreeMap<String, T>, TableError> {
    let Some(field) = top.get(kind) else { return Ok(BTreeMap::new()) };
    let entries = field.fields()?.entries(most)?;
    entries.into_iter().map(|(name, field)| Ok((name, read(&field.fields()?)?))).collect()
}
