//! No circle of imports between the folders of a crate: whoever reads one has to know only those beneath it.
//!
//! What counts: A folder needs what its files need (`imports.rs` says what that is). A file beside `lib.rs` stands for
//! itself. The root of a crate is left out: it declares and re-exports all the others, and that none of these needs
//! it in a circle is seen between the files.

use super::imports::{Needs, circles, crates, module_of, needs};

#[test]
fn the_folders_of_a_crate_import_in_no_circle() {
    for (folder, sources) in crates() {
        let circles = circles(&of_folders(&needs(&sources)));
        let shown = circles.join("\n\n");
        assert!(circles.is_empty(), "{folder}: circles of imports between folders\n\n{shown}");
    }
}

/// Which folders need which: for each the first reason, with the file that has it.
fn of_folders(files: &Needs) -> Needs {
    let mut folders = Needs::new();
    for (file, needed) in files {
        let Some(folder) = folder_of(file) else { continue };
        for (other, path) in needed {
            if let Some(other) = folder_of(other).filter(|other| *other != folder) {
                let known = folders.entry(folder.clone()).or_default();
                known.entry(other).or_insert_with(|| format!("{path} (in {file})"));
            }
        }
    }
    folders
}

/// Returns the folder of a file, or `None` for the root of the crate.
fn folder_of(file: &str) -> Option<String> {
    module_of(file).first().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        circles(&of_folders(&needs(&sources.collect())))
    }

    #[test]
    fn a_circle_of_folders_is_found_where_files_make_none() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use b::Used;"),
            ("a/mod.rs", "pub mod low; mod high;"),
            ("a/low.rs", "pub struct Low;"),
            ("a/high.rs", "use crate::Used; pub struct High(Used);"),
            ("b.rs", "use crate::a::low::Low; pub struct Used(Low);"),
        ];
        let sources = files.map(|(file, text)| (file.to_owned(), text.to_owned()));
        assert!(circles(&needs(&sources.into())).is_empty());
        let steps =
            "  a uses crate::Used (in a/high.rs) of b\n  b uses crate::a::low::Low (in b.rs) of a";
        assert_eq!(found(&files), [steps]);
    }

    #[test]
    fn what_leads_one_way_or_stays_in_a_folder_is_no_circle() {
        let inside = [
            ("lib.rs", "mod a; mod b; pub use a::High; pub struct Root(b::Used);"),
            ("a/mod.rs", "mod low; mod high; pub use high::High;"),
            ("a/low.rs", "pub struct Low;"),
            ("a/high.rs", "use super::low::Low; use crate::b::Used; pub struct High(Used, Low);"),
            ("b.rs", "pub struct Used; #[cfg(test)] mod tests { use crate::a::High; }"),
        ];
        assert_eq!(found(&inside), [""; 0]);
        let beneath_the_root = [
            ("main.rs", "mod a; mod b; struct Limit; use b::B; fn main() { B }"),
            ("a.rs", "pub struct A(crate::Limit);"),
            ("b.rs", "use crate::a::A; pub struct B(A);"),
        ];
        assert_eq!(found(&beneath_the_root), [""; 0]);
    }
}
