//! A command line, split as Bazel splits it: flag files are what is asked of the tool, the rest is how
//! it is started.

/// Tells a tool to stay, and to read requests from its stdin.
const PERSISTENT_FLAG: &[u8] = b"--persistent_worker";

/// How deep flag files may name each other.
const MAX_DEPTH: usize = 16;
/// Most bytes of all arguments together, once flag files are expanded.
const MAX_BYTES: usize = 16 << 20;
/// Bytes that each argument is charged beside its own, since empty ones take memory too.
const OVERHEAD: usize = 64;
const MAX_FILES: usize = 256;

/// The arguments of a command: those that start the tool, and those that make up the request to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    pub startup: Vec<Vec<u8>>,
    /// The arguments that name flag files, not expanded yet; at least one.
    pub flag_files: Vec<String>,
}

/// Splits a command line; `None`: no argument names a flag file, or no program is left without
/// them.
pub fn split(arguments: &[Vec<u8>]) -> Option<Arguments> {
    let (mut startup, mut flag_files) = (Vec::new(), Vec::new());
    for argument in arguments {
        match std::str::from_utf8(argument) {
            Ok(text) if is_flag_file(text) => flag_files.push(text.to_owned()),
            _ => startup.push(argument.clone()),
        }
    }
    if flag_files.is_empty() || startup.is_empty() {
        return None;
    }
    startup.push(PERSISTENT_FLAG.to_vec());
    Some(Arguments { startup, flag_files })
}

/// Whether the argument names a flag file: `@FILE`, `--flagfile=FILE` or `-flagfile=FILE`.
pub fn is_flag_file(argument: &str) -> bool {
    let named = ["--flagfile=", "-flagfile="].into_iter();
    at_file(argument).is_some()
        || named.filter_map(|prefix| argument.strip_prefix(prefix)).any(|file| !file.is_empty())
}

/// The file whose lines stand for the argument. `@@` is an escaped `@`, and `@repository//...` the
/// label of a target.
fn at_file(argument: &str) -> Option<&str> {
    let file = argument.strip_prefix('@')?;
    let is_file = !file.is_empty() && !file.starts_with('@') && !file.contains("//");
    is_file.then_some(file)
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("flag files name each other more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("more than {MAX_FILES} flag files")]
    TooManyFiles,
    #[error("the arguments have more than {MAX_BYTES} bytes, with {OVERHEAD} for each")]
    TooLarge,
    #[error("the flag file {0} cannot be read")]
    Unreadable(String),
}

/// Replaces `@FILE` by the lines of that file, and so on in these. `--flagfile=FILE` is left to the
/// tool to read. `read` returns a file's content, if it is among the inputs and UTF-8.
pub async fn expand<F>(
    flag_files: &[String],
    mut read: impl FnMut(String) -> F,
) -> Result<Vec<String>, ExpandError>
where
    F: Future<Output = Option<String>>,
{
    let mut expanded = Vec::new();
    let mut pending: Vec<(String, usize)> =
        flag_files.iter().rev().map(|argument| (argument.clone(), 0)).collect();
    let (mut bytes, mut files) = (0, 0);
    while let Some((argument, depth)) = pending.pop() {
        let Some(file) = at_file(&argument) else {
            bytes += argument.len() + OVERHEAD;
            if bytes > MAX_BYTES {
                return Err(ExpandError::TooLarge);
            }
            expanded.push(argument);
            continue;
        };
        files += 1;
        if files > MAX_FILES {
            return Err(ExpandError::TooManyFiles);
        }
        if depth == MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        let unreadable = || ExpandError::Unreadable(file.to_owned());
        let text = read(file.to_owned()).await.ok_or_else(unreadable)?;
        let waiting: usize = pending.iter().map(|(argument, _)| argument.len() + OVERHEAD).sum();
        // Before a line has become a text of its own.
        let ends = text.bytes().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
        if bytes + waiting + text.len() + ends * OVERHEAD > MAX_BYTES {
            return Err(ExpandError::TooLarge);
        }
        pending.extend(lines(&text).into_iter().rev().map(|line| (line, depth + 1)));
    }
    Ok(expanded)
}

/// Lines end with a line feed, a carriage return, or both; the last one need not.
pub fn lines(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn arguments(all: &[&str]) -> Vec<Vec<u8>> {
        all.iter().map(|argument| argument.as_bytes().to_vec()).collect()
    }

    async fn expanded(all: &[&str], files: &[(&str, &str)]) -> Result<Vec<String>, ExpandError> {
        let files: HashMap<_, _> = files.iter().copied().collect();
        let all: Vec<String> = all.iter().map(|&argument| argument.to_owned()).collect();
        expand(&all, |file| {
            let text = files.get(file.as_str()).map(|text| (*text).to_owned());
            async move { text }
        })
        .await
    }

    #[test]
    fn flag_files_are_what_is_asked_and_the_rest_starts_the_tool() {
        let all = ["tool", "--fast", "@a/params", "-x", "--flagfile=b", "-flagfile=c", "@@y"];
        let split = split(&arguments(&all)).unwrap();
        let startup = ["tool", "--fast", "-x", "@@y", "--persistent_worker"];
        assert_eq!(split.startup, arguments(&startup));
        assert_eq!(split.flag_files, ["@a/params", "--flagfile=b", "-flagfile=c"]);
    }

    #[test]
    fn without_a_flag_file_or_a_program_there_is_nothing_to_ask() {
        for all in [&["tool", "-x"][..], &["tool", "@@a", "@", "@r//t", "--flagfile="], &["@a"]] {
            assert_eq!(split(&arguments(all)), None, "{all:?}");
        }
    }

    #[tokio::test]
    async fn lines_of_flag_files_take_their_place() {
        let files =
            [("one", "-a\n@two\n@@b\n\n@r//x\n"), ("two", "c d\r\n--flagfile=e"), ("three", "")];
        let all = ["@one", "--flagfile=f", "@three"];
        let expected = ["-a", "c d", "--flagfile=e", "@@b", "", "@r//x", "--flagfile=f"];
        assert_eq!(expanded(&all, &files).await.unwrap(), expected);
    }

    #[tokio::test]
    async fn what_cannot_be_expanded_ends() {
        let loops = expanded(&["@one"], &[("one", "@one\n")]).await;
        assert_eq!(loops, Err(ExpandError::TooDeep));
        let doubles = expanded(&["@one"], &[("one", "@two\n@two\n"), ("two", "@one")]).await;
        assert_eq!(doubles, Err(ExpandError::TooDeep));
        let many = "@two\n".repeat(MAX_FILES);
        let many = expanded(&["@one"], &[("one", &many), ("two", "")]).await;
        assert_eq!(many, Err(ExpandError::TooManyFiles));
        let large = "x".repeat(MAX_BYTES / 3);
        let large = expanded(&["@one"], &[("one", "@two\n@two\n@two\n"), ("two", &large)]).await;
        assert_eq!(large, Err(ExpandError::TooLarge));
        let empty = "\n".repeat(MAX_BYTES / OVERHEAD);
        let empty = expanded(&["@one"], &[("one", &empty)]).await;
        assert_eq!(empty, Err(ExpandError::TooLarge));
        let absent = expanded(&["@one"], &[("one", "@gone")]).await;
        assert_eq!(absent, Err(ExpandError::Unreadable("gone".into())));
    }

    proptest! {
        #[test]
        fn lines_come_back_however_they_end(
            all in prop::collection::vec("[a-z @=-]{0,9}", 0..9),
            end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        ) {
            let text: String = all.iter().map(|line| format!("{line}{end}")).collect();
            prop_assert_eq!(lines(&text), all);
        }

        #[test]
        fn no_argument_is_lost(all in prop::collection::vec("(@|@@|--flagfile=|)[a-z/]{0,5}", 0..9)) {
            let given: Vec<Vec<u8>> = all.iter().map(|text| text.clone().into_bytes()).collect();
            if let Some(Arguments { startup, flag_files }) = split(&given) {
                prop_assert_eq!(startup.len() + flag_files.len(), given.len() + 1);
                prop_assert!(flag_files.iter().all(|argument| is_flag_file(argument)));
                prop_assert!(!startup.is_empty());
            }
        }
    }
}
