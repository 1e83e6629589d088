//! No circle of imports between the files of a crate: each can be read, tested and moved without
//! those that use it.
//!
//! What counts: A file needs another one when it names something that is defined there, in a `use`
//! or in a path, however many re-exports lead there. What only tests name does not count.
//!
//! Parents and children: A file that declares modules (`mod.rs`) may re-export what is in them, and
//! they may use what it defines. That is no circle, because a re-export needs nothing. It is one as
//! soon as the parent's own code uses what a child defines, and the child something that the parent
//! defines: then what both need belongs into a file beneath both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use super::source::{self, Import, Module, Source, Written};

/// How many re-exports may lead to a definition.
const HOPS: usize = 16;

#[test]
fn the_files_of_a_crate_import_in_no_circle() {
    for (folder, sources) in crates() {
        let circles = circles(&needs(&sources));
        assert!(circles.is_empty(), "{folder}: circles of imports\n\n{}", circles.join("\n\n"));
    }
}

/// Returns the folder of each crate, with the text of each of its files, whose keys are paths below `src`.
pub fn crates() -> Vec<(String, BTreeMap<String, String>)> {
    let manifest = std::fs::read_to_string(super::root().join("Cargo.toml")).expect("it is there");
    let manifest: toml::Table = manifest.parse().expect("it is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members");
    let members = members.iter().map(|member| member.as_str().expect("a folder"));
    let read = |folder: &str| {
        let sources = sources(&super::root().join(folder).join("src"));
        assert!(!sources.is_empty(), "{folder} has no sources");
        (folder.to_owned(), sources)
    };
    members.chain(["."]).map(read).collect()
}

/// Returns the text of each file below `src`, keyed by the file's path there.
fn sources(src: &Path) -> BTreeMap<String, String> {
    let files = super::files(".rs").into_iter().filter_map(|path| {
        let name = path.strip_prefix(src).ok()?.to_str()?.to_owned();
        Some((name, std::fs::read_to_string(&path).expect("UTF-8")))
    });
    files.collect()
}

/// Which files of a crate need which.
pub fn needs(sources: &BTreeMap<String, String>) -> Needs {
    Crate::read(sources).needs()
}

/// Finds the groups of files that need each other. Returns for each group one circle, with what leads from each file
/// to the next.
pub fn circles(needs: &Needs) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for file in needs.keys() {
        if seen.contains(file) {
            continue;
        }
        if let Some(circle) = shortest(needs, file) {
            seen.extend(circle.iter().map(|(from, _)| from.clone()));
            let steps = circle.iter().map(|(from, why)| format!("  {from} uses {why}"));
            circles.push(steps.collect::<Vec<_>>().join("\n"));
        }
    }
    circles
}

/// For each file the files that it needs, and for each of these the path by which the file names it.
pub type Needs = BTreeMap<String, BTreeMap<String, String>>;

/// The shortest way from a file back to it.
fn shortest(needs: &Needs, start: &String) -> Option<Vec<(String, String)>> {
    let mut came_from: BTreeMap<&String, &String> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for next in needs.get(file).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut way = vec![file];
                while way.last().is_some_and(|last| *last != start) {
                    way.push(came_from[way[way.len() - 1]]);
                }
                way.reverse();
                let ends = way.iter().skip(1).copied().chain([start]);
                let step = |(from, to): (&&String, &String)| {
                    ((*from).clone(), format!("{} of {to}", needs[*from][to]))
                };
                return Some(way.iter().zip(ends).map(step).collect());
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = came_from.entry(next) {
                entry.insert(file);
                queue.push_back(next);
            }
        }
    }
    None
}

struct Crate {
    /// The file of each module.
    files: BTreeMap<Module, String>,
    sources: BTreeMap<String, Source>,
    modules: BTreeSet<Module>,
    imports: BTreeMap<Module, Vec<Import>>,
}

/// What a path in a source file leads to.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Module(Module),
    /// Something that the module with this path defines.
    Item(Module),
}

impl Crate {
    fn read(texts: &BTreeMap<String, String>) -> Self {
        let mut read = Self {
            files: BTreeMap::new(),
            sources: BTreeMap::new(),
            modules: BTreeSet::from([Vec::new()]),
            imports: BTreeMap::new(),
        };
        let mut tests = BTreeSet::new();
        for (file, text) in texts {
            let module = module_of(file);
            let source = source::read(&module, text);
            tests.extend(source.tests.iter().cloned());
            read.modules.extend(source.modules.iter().cloned());
            for import in &source.imports {
                read.imports.entry(import.path.within.clone()).or_default().push(import.clone());
            }
            read.files.insert(module, file.clone());
            read.sources.insert(file.clone(), source);
        }
        let for_tests =
            |module: &Module| (0..=module.len()).any(|length| tests.contains(&module[..length]));
        read.files.retain(|module, _| !for_tests(module));
        let left: BTreeSet<_> = read.files.values().cloned().collect();
        read.sources.retain(|file, _| left.contains(file));
        read
    }

    /// The file in which a module is.
    fn file(&self, module: &[String]) -> Option<&String> {
        (0..=module.len()).rev().find_map(|length| self.files.get(&module[..length]))
    }

    fn needs(&self) -> Needs {
        let mut needs = Needs::new();
        for (file, source) in &self.sources {
            let imports = source.imports.iter().filter(|import| self.counts(source, import));
            let written = imports.map(|import| &import.path).chain(&source.paths);
            for path in written {
                let target = match self.target(path, HOPS) {
                    Some(Target::Item(module)) => module,
                    // A path to a module alone shows no need: the other paths of the file say what it uses of the
                    // module.
                    Some(Target::Module(_)) | None => continue,
                };
                if let Some(other) = self.file(&target).filter(|other| *other != file) {
                    let known = needs.entry(file.clone()).or_default();
                    known.entry(other.clone()).or_insert_with(|| path.segments.join("::"));
                }
            }
        }
        needs
    }

    /// Returns whether an import counts as a need. A re-export of something beneath counts only where the file also
    /// uses it.
    fn counts(&self, source: &Source, import: &Import) -> bool {
        let beneath = match self.target(&import.path, HOPS) {
            Some(Target::Item(module) | Target::Module(module)) => {
                module.starts_with(&import.path.within)
            }
            None => false,
        };
        let used = import.name == "*" || source.words.contains(&import.name);
        used || !(import.public && beneath)
    }

    fn target(&self, path: &Written, hops: usize) -> Option<Target> {
        let (first, rest) = path.segments.split_first()?;
        let start = match first.as_str() {
            "crate" => Target::Module(Vec::new()),
            "self" => Target::Module(path.within.clone()),
            "super" => Target::Module(path.within[..path.within.len().checked_sub(1)?].to_vec()),
            name => self.member(&path.within, name, hops)?,
        };
        self.follow(start, rest, hops)
    }

    fn follow(&self, start: Target, rest: &[String], hops: usize) -> Option<Target> {
        let mut target = start;
        for name in rest {
            let Target::Module(module) = &target else { break };
            target = match name.as_str() {
                "super" => Target::Module(module[..module.len().checked_sub(1)?].to_vec()),
                // The star imports all names of a module, so the file needs the module as a whole.
                "*" => Target::Item(module.clone()),
                name => {
                    self.member(module, name, hops).unwrap_or_else(|| Target::Item(module.clone()))
                }
            };
        }
        Some(target)
    }

    /// What `name` means in a module.
    fn member(&self, module: &Module, name: &str, hops: usize) -> Option<Target> {
        let hops = hops.checked_sub(1)?;
        let child: Module = module.iter().cloned().chain([name.to_owned()]).collect();
        if self.modules.contains(&child) {
            return Some(Target::Module(child));
        }
        if self.defines(module, name) {
            return Some(Target::Item(module.clone()));
        }
        let imports = self.imports.get(module).map_or(&[][..], Vec::as_slice);
        // `use name::…` of another crate imports the crate itself, so it does not say what `name` is here.
        let named = imports
            .iter()
            .filter(|import| import.name == name && import.path.segments != [name.to_owned()])
            .find_map(|import| self.target(&import.path, hops));
        named.or_else(|| {
            let globs = imports.iter().filter(|import| import.name == "*");
            globs.into_iter().find_map(|import| {
                let segments = import.path.segments.split_last()?.1.to_vec();
                let path = Written { within: import.path.within.clone(), segments };
                match self.target(&path, hops)? {
                    Target::Module(all) if all != *module => self.member(&all, name, hops),
                    _ => None,
                }
            })
        })
    }

    fn defines(&self, module: &Module, name: &str) -> bool {
        let source = self.file(module).and_then(|file| self.sources.get(file));
        source.is_some_and(|source| source.defined.contains(&(module.clone(), name.to_owned())))
    }
}

/// The module of a file, by its path below `src`.
pub fn module_of(file: &str) -> Module {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let mut module: Module = path.split('/').map(str::to_owned).collect();
    let last = module.last().map_or("", String::as_str);
    if last == "mod" || (module.len() == 1 && matches!(last, "lib" | "main")) {
        module.pop();
    }
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned()));
        circles(&needs(&sources.collect()))
    }

    /// Returns the circles of a crate in which `a` uses `b` as `text` says, and `b` uses `a`.
    fn circular(text: &str) -> Vec<String> {
        found(&[
            ("lib.rs", "mod a; mod b; pub use b::{B, helper};"),
            ("a.rs", &format!("pub struct A; {text}")),
            ("b.rs", "use crate::a::A; pub struct B(A); pub fn helper() {}"),
        ])
    }

    #[test]
    fn a_circle_is_found_by_imports_and_paths_and_through_re_exports() {
        for text in [
            "use crate::b::B;",
            "use super::b::B;",
            "use crate::{b::{self, B as Other}};",
            "use crate::B;",
            "use super::*; fn f() { helper() } use super::helper;",
            "fn f() { crate::b::helper() }",
            "fn f() { super::helper() }",
            "use super::b; fn f() -> b::B { b::B }",
            "mod inner { use super::super::b::B; }",
            "#[cfg(not(test))] use crate::b::B;",
            "#[cfg(test)] use crate::x::{Y, Z}; use crate::b::B;",
            "struct S { #[cfg(test)] count: u32, b: crate::b::B }",
            "const C: char = '\"'; use crate::b::B; const D: &str = \"\";",
            "fn f<'a>(a: &'a str) {} use crate::b::B;",
            "const R: &str = r#\" \"quoted\" // \"#; use crate::b::B;",
        ] {
            let circles = circular(text);
            assert_eq!(circles.len(), 1, "{text}");
            assert!(circles[0].contains("a.rs uses ") && circles[0].contains(" of b.rs"), "{text}");
            assert!(circles[0].contains("b.rs uses crate::a::A of a.rs"), "{text}");
        }
    }

    #[test]
    fn what_tests_and_comments_and_strings_say_does_not_count() {
        for text in [
            "",
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[cfg(test)] use crate::b::B;",
            "#[cfg(test)] #[allow(unused)] fn f() { crate::b::helper() }",
            "#[cfg(all(test, unix))] fn f() -> Vec<B> { crate::b::helper() }",
            "struct S { #[cfg(test)] b: crate::b::B, }",
            "// use crate::b::B;",
            "/* use /* nested */ crate::b::B; */",
            "const S: &str = \"crate::b::B \\\" crate::b::B\";",
            "const R: &str = r#\"crate::b::B \" crate::b::B\"#;",
            "pub(in crate::b) struct C;",
            "use super::b;",
            "use other::b::B; fn f() { elsewhere::b::helper() }",
        ] {
            assert_eq!(circular(text), [""; 0], "{text}");
        }
        let in_a_file = found(&[
            ("lib.rs", "mod a; #[cfg(test)] mod tests;"),
            ("a.rs", "pub fn f() { crate::tests::help() }"),
            ("tests.rs", "use crate::a::f; pub fn help() {}"),
        ]);
        assert_eq!(in_a_file, [""; 0]);
    }

    #[test]
    fn a_parent_may_re_export_its_children_and_not_use_them_when_they_use_it() {
        let child = "use super::Shared; pub struct Child(Shared);";
        let parent = |text: &str| {
            let text = format!("mod child; pub struct Shared; {text}");
            found(&[
                ("lib.rs", "mod parent;"),
                ("parent/mod.rs", &text),
                ("parent/child.rs", child),
            ])
        };
        assert_eq!(parent("pub use child::Child;"), [""; 0]);
        assert_eq!(parent("pub use child::*;").len(), 1, "nobody knows what is used of it");
        for uses in [
            "use child::Child; fn f(_: Child) {}",
            "pub use child::Child; fn f(_: Child) {}",
            "fn f(_: child::Child) {}",
        ] {
            assert_eq!(parent(uses).len(), 1, "{uses}");
        }
        let other = "use super::Other; pub struct Child(Other);";
        let beneath = found(&[
            ("lib.rs", "mod parent;"),
            ("parent/mod.rs", "mod child; mod other; pub use other::Other; use child::Child;"),
            ("parent/child.rs", other),
            ("parent/other.rs", "pub struct Other;"),
        ]);
        assert_eq!(beneath, [""; 0], "the way to the other child leads through the parent");
    }

    #[test]
    fn the_shortest_circle_of_each_group_is_shown_once() {
        let circles = found(&[
            ("main.rs", "mod a; mod b; mod c; mod x; mod y;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::c::C; pub struct B;"),
            ("c.rs", "use crate::a::A; pub struct C;"),
            ("x.rs", "use crate::y::Y; use crate::a::A; pub struct X;"),
            ("y.rs", "use crate::x::X; pub struct Y;"),
        ]);
        let steps = "  a.rs uses crate::b::B of b.rs\n  b.rs uses crate::c::C of c.rs\n  \
                     c.rs uses crate::a::A of a.rs";
        assert_eq!(circles[0], steps);
        assert_eq!(circles.len(), 2);
    }
}
