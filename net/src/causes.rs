//! An error with its causes: the outermost alone often says no more than that something failed.

use std::error::Error;
use std::io;

/// The error and everything that caused it, from the outermost in.
pub fn all<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| cause_of(*error))
}

/// An I/O error that wraps another one hides it from `source`.
fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// What is said by the error and its causes, on one line. What an outer error repeats of an inner
/// one is said once.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in all(error) {
        let text = one_line(&cause.to_string());
        if parts.iter().any(|part| part.contains(&text)) {
            continue;
        }
        parts.push(text);
    }
    parts.join(": ")
}

/// What the innermost cause says, on one line.
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    all(error).last().map(|cause| one_line(&cause.to_string())).unwrap_or_default()
}

/// The first error of this type among the error and its causes.
pub fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    all(error).find_map(|cause| cause.downcast_ref())
}

/// Line breaks and repeated spaces become single spaces.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] io::Error);

    #[test]
    fn causes_are_said_once_each_and_wrapped_ones_are_found() {
        let inner = rustls::Error::General("no\n  luck".to_owned());
        let error = Outer("it failed", io::Error::other(inner));
        assert_eq!(chain(&error), "it failed: unexpected error: no luck");
        assert_eq!(innermost(&error), "unexpected error: no luck");
        assert!(find::<rustls::Error>(&error).is_some());
        assert!(find::<std::fmt::Error>(&error).is_none());
    }
}
