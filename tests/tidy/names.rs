//! The name of a type has to say what the type is of. Where a dozen files have a type called `State`, the name tells
//! nothing to a reader, in a search or in a message of the compiler, and a file that needs two of them has to rename
//! one.

use super::source;

/// The words that may not be the whole name of a type. Variants and associated functions may have them, because the
/// name of their type stands before them.
const BARE: [&str; 3] = ["Answer", "Entry", "State"];

#[test]
fn the_name_of_a_type_says_of_what() {
    let generated = super::root().join("protos/src/generated");
    let mut files = 0;
    for path in super::files(".rs").iter().filter(|path| !path.starts_with(&generated)) {
        files += 1;
        let bare = bare(&std::fs::read_to_string(path).expect("UTF-8"));
        assert!(bare.is_empty(), "{}: {bare:?}: of what?", path.display());
    }
    assert!(files > 1000, "only {files} files");
}

/// Returns the bare names among the types that a text defines, those for tests included.
fn bare(text: &str) -> Vec<String> {
    let mut types = source::types(text);
    types.retain(|name| BARE.contains(&name.as_str()));
    types
}

#[test]
fn a_bare_name_is_found_wherever_it_is_defined() {
    for text in [
        "struct State;",
        "pub(super) enum State<'a> { Open(&'a str) }",
        "pub trait State { fn ends(&self) -> bool; }",
        "#[cfg(test)] mod tests { type State = (u64, u64); }",
        "use axum::extract::Path; fn f() { union State { a: u8, b: i8 } }",
    ] {
        assert_eq!(bare(text), ["State"], "{text}");
    }
    assert_eq!(bare("struct Answer<T>(T); struct Log; enum Entry {}"), ["Answer", "Entry"]);
}

#[test]
fn a_bare_name_may_be_used_and_be_part_of_another() {
    for text in [
        "use axum::extract::State; async fn f(State(state): State<Web>) {}",
        "struct LogState; enum EntryKind {} type Answers = Vec<u8>;",
        "enum Failure { Answer(u8), State { entry: u8 }, Entry }",
        "// struct State;\n/* enum Entry {} */ const TEXT: &str = \"type Answer = u8;\";",
    ] {
        assert!(bare(text).is_empty(), "{text}");
    }
}
