//! Quarantined tests in the words of those who run tests: exactly these and no others. What a runner has no
//! words for is left out, and said.

use std::collections::BTreeSet;

use crate::model::{CaseName, Subject};

/// Bazel allows no more.
const MAX_ATTEMPTS: u32 = 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Arguments, patterns or lines for the runner, one each, not quoted.
    pub arguments: Vec<String>,
    pub left: Vec<Left>,
}

/// A test that is left out, so that it counts as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub subject: Subject,
    pub reason: &'static str,
}

impl Export {
    /// The arguments for a file with one on each line.
    pub fn lines(&self) -> String {
        self.arguments.iter().map(|it| format!("{it}\n")).collect()
    }

    /// The arguments quoted for a POSIX shell.
    pub fn shell(&self) -> String {
        let quoted: Vec<_> = self.arguments.iter().map(|it| quoted(it)).collect();
        quoted.join(" ")
    }

    fn of(
        subjects: &[&Subject],
        argument: impl Fn(&Subject) -> Result<String, &'static str>,
    ) -> Self {
        let mut export = Self::default();
        let mut seen = BTreeSet::new();
        for subject in subjects {
            match argument(subject) {
                // Configurations of one target have one label.
                Ok(argument) if seen.insert(argument.clone()) => export.arguments.push(argument),
                Ok(_) => {}
                Err(reason) => export.left.push(Left { subject: (*subject).clone(), reason }),
            }
        }
        export
    }
}

fn quoted(argument: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./=:,+@%".contains(it);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

/// Lines for `--target_pattern_file`, below the patterns of what is to be tested. Without its targets in
/// quarantine the build does not run them at all.
pub fn bazel_patterns(subjects: &[&Subject]) -> Export {
    Export::of(subjects, |it| {
        let label = target(it)?;
        let name = label.rsplit(':').next().unwrap_or_default();
        let wild = ["all", "*", "all-targets"].contains(&name) || label.contains("/...");
        if wild {
            return Err("as a pattern its label means many targets");
        }
        if label.contains('#') {
            return Err("in a pattern file a comment begins at '#'");
        }
        Ok(format!("-{label}"))
    })
}

/// `--flaky_test_attempts` for each target. The filter is a Java expression which Bazel looks for anywhere in
/// the label, in a list that it cuts at commas and at the first '@'.
pub fn bazel_attempts(subjects: &[&Subject], attempts: u32) -> Export {
    let attempts = attempts.clamp(1, MAX_ATTEMPTS);
    Export::of(subjects, |it| {
        let label = target(it)?;
        let rest = label.trim_start_matches('@');
        let at = r"\x40\x40?";
        // Versions of Bazel differ in how they write labels of the main repository.
        let at = if rest.len() < label.len() { at.to_owned() } else { format!("(?:{at})?") };
        let name: String = rest.chars().map(java).collect();
        Ok(format!("--flaky_test_attempts=^{at}{name}$@{attempts}"))
    })
}

fn java(it: char) -> String {
    match it {
        '@' | ',' => format!("\\x{:02X}", u32::from(it)),
        it if it.is_ascii_alphanumeric() || "/:_".contains(it) || !it.is_ascii() => it.to_string(),
        it => format!("\\{it}"),
    }
}

/// The full label of a target that is in quarantine as a whole.
fn target(subject: &Subject) -> Result<String, &'static str> {
    if subject.case.is_some() {
        return Err("Bazel would leave out its other cases too");
    }
    let label = &subject.test.label;
    let Some((_, rest)) = label.split_once("//") else {
        return Err("it is no Bazel target");
    };
    if rest.is_empty() || label.chars().any(|it| it.is_control() || it.is_whitespace()) {
        return Err("Bazel could not read its label back");
    }
    if rest.contains(':') {
        return Ok(label.clone());
    }
    let name = rest.rsplit('/').next().unwrap_or_default();
    Ok(format!("{label}:{name}"))
}

/// `--deselect` for each case. pytest leaves out what begins with the argument, so all cases that are `known`
/// are needed to see that no other one does.
pub fn pytest_arguments<'a>(
    subjects: &[&Subject],
    known: impl Iterator<Item = &'a CaseName>,
) -> Export {
    let ids = |it: &Subject| it.case.as_ref().map(pytest_node);
    let wanted: BTreeSet<_> = subjects.iter().filter_map(|it| ids(it)).collect();
    let others: BTreeSet<_> = known.map(pytest_node).filter(|it| !wanted.contains(it)).collect();
    Export::of(subjects, |it| {
        let id = ids(it).ok_or("pytest knows cases, not targets")?;
        if id.chars().any(char::is_control) {
            return Err("its name does not fit into a line");
        }
        let next = others.range(id.clone()..).next();
        if next.is_some_and(|it| it.starts_with(&id)) {
            return Err("pytest would leave out another case, whose name begins with this one");
        }
        Ok(format!("--deselect={id}"))
    })
}

/// The node id of a case as pytest's XML names it: modules with dots, then classes, which begin with a capital
/// letter. What holds `::` or a slash is an id already.
pub fn pytest_node(case: &CaseName) -> String {
    let CaseName { class, name } = case;
    if class.is_empty() {
        return name.clone();
    }
    if class.contains("::") || class.contains('/') || class.ends_with(".py") {
        return format!("{class}::{name}");
    }
    let parts: Vec<_> = class.split('.').collect();
    let capital = |it: &&str| it.chars().next().is_some_and(char::is_uppercase);
    let classes = parts.iter().skip(1).position(capital).map_or(parts.len(), |it| it + 1);
    let (modules, classes) = parts.split_at(classes);
    let file = format!("{}.py", modules.join("/"));
    let mut all = vec![file.as_str()];
    all.extend(classes);
    all.push(name);
    all.join("::")
}

/// A filter expression that leaves these tests out: `cargo nextest run -E EXPRESSION`. The class of a case is the id of
/// its binary, as nextest writes it into its XML. nextest refuses an expression with a binary that is not there, so
/// only those of cases that are `known` are named.
pub fn nextest_filter<'a>(
    subjects: &[&Subject],
    known: impl Iterator<Item = &'a CaseName>,
) -> Export {
    let binaries: BTreeSet<_> = known.map(|it| it.class.as_str()).collect();
    let mut export = Export::of(subjects, |it| {
        let case = it.case.as_ref().ok_or("nextest knows cases, not targets")?;
        if case.class.is_empty() || case.name.is_empty() {
            return Err("the id of its binary is not known");
        }
        if !binaries.contains(case.class.as_str()) {
            return Err("its binary is not among those that ran last");
        }
        Ok(format!("(binary_id(={}) & test(={}))", nextest(&case.class), nextest(&case.name)))
    });
    let all = export.arguments.join(" | ");
    let expression = if all.is_empty() { "all()".to_owned() } else { format!("not ({all})") };
    export.arguments = vec![expression];
    export
}

fn nextest(text: &str) -> String {
    let escaped = |it: char| match it {
        '/' | ')' | ',' => format!("\\{it}"),
        ' ' => "\\u{20}".to_owned(),
        it if it.is_ascii_graphic() && it != '\\' => it.to_string(),
        '\\' => "\\\\".to_owned(),
        it => it.escape_unicode().to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::TestKey;

    fn subject(label: &str, case: Option<(&str, &str)>) -> Subject {
        let test = TestKey {
            instance: String::new(),
            label: label.to_owned(),
            configuration: String::new(),
        };
        let name =
            |(class, name): (&str, &str)| CaseName { class: class.into(), name: name.into() };
        Subject { test, case: case.map(name) }
    }

    fn of(export: impl Fn(&[&Subject]) -> Export, label: &str) -> Result<String, &'static str> {
        let export = export(&[&subject(label, None)]);
        export.arguments.into_iter().next().ok_or_else(|| export.left[0].reason)
    }

    #[test]
    fn bazel_patterns_name_one_target_each() {
        assert_eq!(of(bazel_patterns, "//a/b:t").unwrap(), "-//a/b:t");
        assert_eq!(of(bazel_patterns, "@repo//a").unwrap(), "-@repo//a:a");
        for odd in [
            "//a:all",
            "//a:*",
            "//a:all-targets",
            "//a/...",
            "//a:x#1",
            "//a:x\n-//...",
            "suite",
            "//",
        ] {
            assert!(of(bazel_patterns, odd).is_err(), "{odd}");
        }
        let case = subject("//a:t", Some(("C", "m")));
        let both = bazel_patterns(&[&case, &subject("//a:u", None), &subject("//a:u", None)]);
        assert_eq!(both.lines(), "-//a:u\n");
        assert_eq!(both.left[0].reason, "Bazel would leave out its other cases too");
    }

    #[test]
    fn bazel_attempts_are_anchored_and_hold_no_comma_and_one_at() {
        let it = of(|it| bazel_attempts(it, 3), "//a/b.c:t+x").unwrap();
        assert_eq!(it, r"--flaky_test_attempts=^(?:\x40\x40?)?//a/b\.c:t\+x$@3");
        let it = of(|it| bazel_attempts(it, 99), "@@repo~1//a:x,y@z").unwrap();
        assert_eq!(it, r"--flaky_test_attempts=^\x40\x40?repo\~1//a:x\x2Cy\x40z$@10");
    }

    #[test]
    fn pytest_leaves_out_no_neighbour() {
        let case = |class: &str, name: &str| subject("suite", Some((class, name)));
        let a = case("tests.test_a.TestX", "test_one[p 1]");
        let b = case("tests.test_a", "test_two");
        let known = [&a, &b].map(|it| it.case.clone().unwrap());
        let it = pytest_arguments(&[&a, &b], known.iter());
        assert_eq!(
            it.shell(),
            "'--deselect=tests/test_a.py::TestX::test_one[p 1]' --deselect=tests/test_a.py::test_two"
        );
        let neighbour = CaseName { class: "tests.test_a".into(), name: "test_two_more".into() };
        let it = pytest_arguments(&[&a, &b], known.iter().chain([&neighbour]));
        assert_eq!((it.arguments.len(), it.left.len()), (1, 1));
        // The prefix also matches the other test. That does no harm here, because both are in quarantine.
        let more = subject("suite", Some(("tests.test_a", "test_two_more")));
        assert_eq!(pytest_arguments(&[&b, &more], [&neighbour].into_iter()).left, []);
    }

    #[test]
    fn nextest_gets_one_expression() {
        let a = subject("suite", Some(("kiln-ci::simulation", "world::runs")));
        let odd = subject("suite", Some(("x", "a(b),c/d\\ é")));
        let known = [&a, &odd].map(|it| it.case.clone().unwrap());
        let gone = subject("suite", Some(("gone", "t")));
        let export = nextest_filter(&[&a, &odd, &gone], known.iter());
        assert_eq!(export.left.len(), 1);
        assert_eq!(
            export.arguments,
            [
                r"not ((binary_id(=kiln-ci::simulation) & test(=world::runs)) | (binary_id(=x) & test(=a(b\)\,c\/d\\\u{20}\u{e9})))"
            ]
        );
        assert_eq!(nextest_filter(&[], [].into_iter()).arguments, ["all()"]);
    }

    proptest! {
        /// A shell's words are the arguments again.
        #[test]
        fn quoting_is_exact(name in "[ -~]{1,20}") {
            let export = Export { arguments: vec![name.clone()], left: Vec::new() };
            let text = export.shell();
            let back = if text.starts_with('\'') {
                text[1..text.len() - 1].replace("'\\''", "'")
            } else {
                prop_assert!(!text.contains([' ', '\'', '"', '$', '`', '\\', ';', '&', '|', '*', '?', '~', '#', '!']));
                text
            };
            prop_assert_eq!(back, name);
        }

        #[test]
        fn a_line_is_one_argument(label in "\\PC{0,20}|//[a-z:\n\r]{0,12}") {
            for export in [bazel_patterns(&[&subject(&label, None)]), bazel_attempts(&[&subject(&label, None)], 2)] {
                prop_assert_eq!(export.arguments.len() + export.left.len(), 1);
                prop_assert_eq!(export.lines().lines().count(), export.arguments.len());
            }
        }
    }
}
