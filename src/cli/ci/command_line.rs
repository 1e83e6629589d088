//! A command line of Bazel with what is needed to know what came of it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Commands of Bazel that run tests.
const COMMANDS: [&str; 2] = ["test", "coverage"];
const INVOCATION: &str = "--invocation_id";
const EVENTS: &str = "--build_event_binary_file";

/// The command line of Bazel that is run.
#[derive(Debug, PartialEq, Eq)]
pub struct CommandLine {
    pub arguments: Vec<OsString>,
    /// Bazel with its startup options, by which the same server is asked other things.
    pub bazel: Vec<OsString>,
    pub invocation: String,
    /// The file that Bazel writes its build events to.
    pub events: PathBuf,
}

/// Completes a command line with `invocation` and `events` where it names none itself; `None`: it
/// runs no tests.
pub fn complete(arguments: &[OsString], invocation: &str, events: &Path) -> Option<CommandLine> {
    let is_command = |it: &OsString| COMMANDS.iter().any(|name| it == name);
    let at = arguments.iter().skip(1).position(is_command)? + 1;
    let (before, after) = arguments.split_at_checked(at + 1)?;
    let given = |flag: &str| value(after, flag);
    let mut added: Vec<OsString> = Vec::new();
    let invocation = given(INVOCATION).and_then(|it| it.into_string().ok()).unwrap_or_else(|| {
        added.push(format!("{INVOCATION}={invocation}").into());
        invocation.to_owned()
    });
    let events = given(EVENTS).map(PathBuf::from).unwrap_or_else(|| {
        let mut flag = OsString::from(format!("{EVENTS}="));
        flag.push(events);
        added.push(flag);
        events.to_owned()
    });
    let bazel = arguments.iter().take(at).cloned().collect();
    let arguments = [before, &added, after].concat();
    Some(CommandLine { arguments, bazel, invocation, events })
}

/// The value that counts of a flag given as `--flag=value` or `--flag value`: the last one.
/// Everything behind `--` are targets.
fn value(arguments: &[OsString], flag: &str) -> Option<OsString> {
    let mut found = None;
    let flags = arguments.iter().take_while(|it| it.as_os_str() != OsStr::new("--"));
    let mut flags = flags.peekable();
    while let Some(argument) = flags.next() {
        let text = argument.to_string_lossy();
        match text.strip_prefix(flag) {
            Some("") => found = flags.peek().map(|it| (*it).clone()),
            Some(rest) => found = rest.strip_prefix('=').map(OsString::from).or(found),
            None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(line: &str) -> Option<(String, String, PathBuf)> {
        let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
        let it = complete(&arguments, "ID", Path::new("/tmp/e"))?;
        let line: Vec<_> = it.arguments.iter().map(|it| it.to_string_lossy()).collect();
        Some((line.join(" "), it.invocation, it.events))
    }

    #[test]
    fn what_is_missing_comes_behind_the_command() {
        let (line, invocation, events) = completed("bazel --batch test -c opt -- //...").unwrap();
        assert_eq!(
            line,
            "bazel --batch test --invocation_id=ID --build_event_binary_file=/tmp/e -c opt -- //..."
        );
        assert_eq!((invocation.as_str(), events), ("ID", PathBuf::from("/tmp/e")));
    }

    #[test]
    fn what_is_given_stays() {
        let own = "bazel coverage --invocation_id x --build_event_binary_file=/y //a";
        let (line, invocation, events) = completed(own).unwrap();
        assert_eq!((line.as_str(), invocation.as_str()), (own, "x"));
        assert_eq!(events, PathBuf::from("/y"));
        let (line, ..) = completed("bazel test //a -- --invocation_id=x").unwrap();
        assert!(line.starts_with("bazel test --invocation_id=ID "));
    }

    #[test]
    fn startup_options_are_those_of_other_questions_too() {
        let arguments = ["bazel", "--batch", "test", "//a"].map(OsString::from);
        let it = complete(&arguments, "ID", Path::new("/tmp/e")).unwrap();
        assert_eq!(it.bazel, ["bazel", "--batch"]);
    }

    #[test]
    fn what_runs_no_tests_is_none() {
        assert_eq!(completed("bazel build //..."), None);
        assert_eq!(completed("test //..."), None);
    }
}
