//! What each runner wants to be told to run the tests of one shard, as words of a shell.

use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Target patterns where the tests are labels, else `--test_filter` for a target's own cases.
    Bazel,
    /// Node ids for pytest.
    Pytest,
    /// A value for `GTEST_FILTER`.
    Googletest,
    /// `--select-method` and `--select-class` of JUnit's console launcher.
    Junit,
    /// A filterset for `cargo nextest run`.
    Nextest,
}

#[derive(Debug, Error, PartialEq)]
pub enum FormatError {
    #[error(
        "{test:?} cannot be named in a filter of googletest: it has {found:?}, which means something else there"
    )]
    Googletest { test: String, found: char },
    #[error(
        "{0:?} is a label, and {1:?} is none: one plan is for targets or for cases of one target"
    )]
    Mixed(String, String),
    #[error("{0:?} has a line break or another control character")]
    Control(String),
}

/// The words for one shard, quoted where a shell would read them otherwise.
pub fn arguments(format: Format, tests: &[String]) -> Result<String, FormatError> {
    if let Some(odd) = tests.iter().find(|test| test.chars().any(char::is_control)) {
        return Err(FormatError::Control(odd.clone()));
    }
    Ok(match format {
        Format::Bazel => return bazel(tests),
        Format::Pytest => words(tests.iter().map(String::as_str)),
        Format::Googletest => format!("GTEST_FILTER={}", quoted(&googletest(tests)?)),
        Format::Junit => words(tests.iter().map(|test| junit(test)).collect::<Vec<_>>()),
        Format::Nextest => format!("-E {}", quoted(&nextest(tests))),
    })
}

fn words<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| quoted(word.as_ref())).collect();
    words.join(" ")
}

/// A word of a POSIX shell.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,#".contains(c);
    let is_comment = word.starts_with('#');
    match !word.is_empty() && !is_comment && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

fn is_label(test: &str) -> bool {
    test.starts_with("//") || test.starts_with('@')
}

fn bazel(tests: &[String]) -> Result<String, FormatError> {
    let (labels, cases): (Vec<&String>, Vec<&String>) =
        tests.iter().partition(|test| is_label(test));
    match (labels.first(), cases.first()) {
        (Some(label), Some(case)) => Err(FormatError::Mixed((*label).clone(), (*case).clone())),
        (Some(_), None) => Ok(words(labels)),
        // Bazel hands the filter on as it is. That of its runner for Java is a regular expression that is
        // looked for in `Class#method`; that of googletest is a list.
        _ if tests.iter().all(|test| test.contains('#')) => {
            let exact: Vec<_> = tests.iter().map(|test| format!("^{}$", literal(test))).collect();
            Ok(quoted(&format!("--test_filter={}", exact.join("|"))))
        }
        _ => Ok(quoted(&format!("--test_filter={}", googletest(tests)?))),
    }
}

/// A regular expression that is the text itself.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\^$.|?*+()[]{}".contains(c) {
            literal.push('\\');
        }
        literal.push(c);
    }
    literal
}

/// Names between colons. A minus begins those to leave out; stars and question marks match others.
fn googletest(tests: &[String]) -> Result<String, FormatError> {
    for test in tests {
        if let Some(found) = test.chars().find(|c| ":-*?".contains(*c)) {
            return Err(FormatError::Googletest { test: test.clone(), found });
        }
    }
    Ok(tests.join(":"))
}

fn junit(test: &str) -> String {
    let select = if test.contains('#') { "method" } else { "class" };
    format!("--select-{select}={test}")
}

/// `binary-id test` is how nextest itself names a test; a name without the binary's is sought in all.
fn nextest(tests: &[String]) -> String {
    let mut all = Vec::new();
    let mut binary: Option<(&str, Vec<String>)> = None;
    let close = |binary: Option<(&str, Vec<String>)>, all: &mut Vec<String>| {
        if let Some((id, tests)) = binary {
            all.push(format!("(binary_id(={}) & ({}))", escaped(id), tests.join(" + ")));
        }
    };
    for test in tests {
        let Some((id, name)) = test.split_once(' ') else {
            all.push(format!("test(={})", escaped(test)));
            continue;
        };
        let name = format!("test(={})", escaped(name));
        match &mut binary {
            Some((open, names)) if *open == id => names.push(name),
            _ => close(binary.replace((id, vec![name])), &mut all),
        }
    }
    close(binary, &mut all);
    all.join(" + ")
}

/// What would end a name in a filterset.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if r"\),".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(format: Format, tests: &[&str]) -> Result<String, FormatError> {
        let tests: Vec<_> = tests.iter().map(|&test| test.to_owned()).collect();
        arguments(format, &tests)
    }

    #[test]
    fn each_runner_is_told_in_its_own_words() {
        for (format, tests, expected) in [
            (
                Format::Pytest,
                &["a.py::t", "a.py::t[x y]", "a.py::t[it's $1]"][..],
                r"a.py::t 'a.py::t[x y]' 'a.py::t[it'\''s $1]'",
            ),
            (Format::Googletest, &["S.A", "I/S.B/0"], "GTEST_FILTER=S.A:I/S.B/0"),
            (Format::Googletest, &["S.A<int>"], "GTEST_FILTER='S.A<int>'"),
            (
                Format::Junit,
                &["org.A#t", "org.A#t(int, int)", "org.B"],
                "--select-method=org.A#t '--select-method=org.A#t(int, int)' --select-class=org.B",
            ),
            (Format::Nextest, &["a::t", "b"], "-E 'test(=a::t) + test(=b)'"),
            (
                Format::Nextest,
                &["k m::t", "k u", "k::b t", "z(1,2)"],
                r"-E '(binary_id(=k) & (test(=m::t) + test(=u))) + test(=z(1\,2\)) + (binary_id(=k::b) & (test(=t)))'",
            ),
            (Format::Bazel, &["//a:b", "@r//c:d"], "//a:b @r//c:d"),
            (Format::Bazel, &["S.A", "S.B"], "--test_filter=S.A:S.B"),
            (
                Format::Bazel,
                &["org.A#t", "org.B#u[0]"],
                r"'--test_filter=^org\.A#t$|^org\.B#u\[0\]$'",
            ),
        ] {
            assert_eq!(said(format, tests).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_cannot_be_said_is_an_error() {
        for name in ["S.A:B", "S.A-B", "S.*", "S.?"] {
            let error = said(Format::Googletest, &["S.A", name]).expect_err(name);
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(matches!(said(Format::Bazel, &["//a:b", "S.A"]), Err(FormatError::Mixed(..))));
        assert!(matches!(said(Format::Pytest, &["a\nb"]), Err(FormatError::Control(_))));
    }

    #[test]
    fn a_shell_reads_the_words_that_were_meant() {
        let odd = ["", "a b", "'", "\"$HOME`x`\\", "a;b|c&d", "*", "#x", "~", "\u{e4}", "-n"];
        let script = format!("printf '%s\\n' {}", words(odd));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            odd.map(|word| format!("{word}\n")).concat()
        );
    }
}
