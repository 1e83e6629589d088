//! Names of types say of what. Where a dozen files have a type called `State`, a reader, a search and a
//! message of the compiler tell nothing by it, and a file that needs two of them renames one.

use super::source;

/// What a type may not be called alone. Variants and associated functions may, behind their type's name.
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

/// The names of that kind that a text defines, for tests as well.
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
