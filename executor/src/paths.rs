//! Paths as the protocol writes them: relative to the input root, `/` between names.

use kiln_cas::tree::MAX_NAME;

/// Longest path in an input root or among outputs, in bytes: Linux' `PATH_MAX` less room for
/// the directory in which the worker keeps the tree.
pub const MAX_PATH_BYTES: usize = 3_800;
/// Longest path of a worker's directory, in bytes: behind it come `/inputs/trees/`, up to 20 digits, `/` and the longest
/// path, and the kernel takes 4,095.
pub const MAX_WORK_DIR: usize = 260;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("{0:?} is absolute; it must be relative to the input root")]
    Absolute(String),
    #[error("{0:?} leads out of the input root")]
    Escapes(String),
    #[error("{path:?} is longer than {MAX_PATH_BYTES} bytes; shorten its names or nest it less")]
    TooLong { path: String },
    #[error("{0:?} has a name longer than {MAX_NAME} bytes; make it shorter")]
    NameTooLong(String),
    #[error("{0:?} contains a NUL byte")]
    Nul(String),
}

/// `path` as seen from the input root, when it was written relative to `base`. The result has
/// no empty, `.` or `..` components; `""` is the input root itself.
pub fn resolve(base: &str, path: &str) -> Result<String, PathError> {
    if path.starts_with('/') {
        return Err(PathError::Absolute(shorten(path)));
    }
    if path.contains('\0') {
        return Err(PathError::Nul(shorten(path)));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| PathError::Escapes(shorten(path)))?;
            }
            name if name.len() > MAX_NAME => {
                return Err(PathError::NameTooLong(shorten(path)));
            }
            name => parts.push(name),
        }
    }
    let resolved = parts.join("/");
    if resolved.len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong { path: shorten(path) });
    }
    Ok(resolved)
}

/// Splits off the last name: `("a/b", "c")` of `a/b/c`, `("", "c")` of `c`.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Joins the two as `directory/name`, or answers `name` alone where `directory` is empty.
pub fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// The beginning of a string that may be hostile: enough to recognise it in a message.
pub fn shorten(text: &str) -> String {
    const KEPT: usize = 200;
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_resolve_against_the_working_directory_and_stay_in_the_root() {
        assert_eq!(resolve("", "a/b").as_deref(), Ok("a/b"));
        assert_eq!(resolve("w/x", "../a//./b/").as_deref(), Ok("w/a/b"));
        assert_eq!(resolve("w", "").as_deref(), Ok("w"));
        assert_eq!(resolve("w", "../..").unwrap_err(), PathError::Escapes("../..".into()));
        assert!(matches!(resolve("", "/etc/passwd"), Err(PathError::Absolute(_))));
        assert!(matches!(resolve("", "a\0b"), Err(PathError::Nul(_))));
        assert!(matches!(resolve("", &"x".repeat(256)), Err(PathError::NameTooLong(_))));
        assert!(matches!(resolve("", &"x/".repeat(1_901)), Err(PathError::TooLong { .. })));
    }
}
