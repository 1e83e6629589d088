//! What is said below a change that was rejected. All of it but our own words is by others: the names of tests, and what
//! the check printed. It is shown as it is, and is neither markup nor a mention of anybody nor a command.

use super::status::Rejection;

/// Lines that a comment has of what the check printed.
const MAX_LINES: usize = 40;
const MAX_CHARACTERS: usize = 6_000;

/// `log`: the end of what the check printed, where that is known.
pub fn text(rejection: &Rejection, log: Option<&str>) -> String {
    let queue = rejection.queue.as_str();
    let why = fenced(&plain(&rejection.why));
    let mut text =
        format!("The merge queue [{queue}]({}) rejected this change.\n\n{why}\n", rejection.link);
    if let Some(log) = log.map(end).filter(|it| !it.is_empty()) {
        text.push_str(&format!("\nThe end of what its check printed:\n\n{}\n", fenced(&log)));
    }
    text
}

/// The last lines, without what only a terminal understands.
fn end(log: &str) -> String {
    let text = plain(log);
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(MAX_LINES);
    let last = lines.get(from..).unwrap_or_default().join("\n");
    let over = last.chars().count().saturating_sub(MAX_CHARACTERS);
    last.chars().skip(over).collect::<String>().trim_end().to_owned()
}

/// The text without sequences that begin with an escape, and without other control characters.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(it) = characters.next() {
        match it {
            '\u{1b}' => {
                if characters.next_if_eq(&'[').is_some() {
                    while characters.next_if(|it| !('@'..='~').contains(it)).is_some() {}
                    characters.next();
                }
            }
            '\n' | '\t' => plain.push(it),
            it if it.is_control() => {}
            it => plain.push(it),
        }
    }
    plain
}

/// The text in a fence that is longer than any in it.
fn fenced(text: &str) -> String {
    let longest = text.split(|it: char| it != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forges::command::Command;
    use crate::queue::serving::LaneName;
    use crate::queue::{Branch, RunId};

    fn rejection(why: &str) -> Rejection {
        Rejection {
            queue: LaneName::new("app").unwrap(),
            branch: Branch::new("feature/login").unwrap(),
            why: why.to_owned(),
            run: Some(RunId(3)),
            link: "http://kiln/merge-queues/app/runs/3".to_owned(),
        }
    }

    #[test]
    fn it_says_why_and_shows_the_end_of_the_log() {
        let log = format!("{}\u{1b}[31mFAILED\u{1b}[0m //a:t\r\n", "line\n".repeat(100));
        let text = text(&rejection("rejected: //a:t failed"), Some(&log));
        assert!(
            text.starts_with("The merge queue [app](http://kiln/merge-queues/app/runs/3)"),
            "{text}"
        );
        assert!(text.contains("```text\nrejected: //a:t failed\n```"), "{text}");
        assert!(text.ends_with("line\nFAILED //a:t\n```\n"), "{text}");
        assert_eq!(text.matches("line\n").count(), MAX_LINES - 1);
        let short = super::text(&rejection("x"), Some(" \n"));
        assert!(!short.contains("printed"), "{short}");
    }

    proptest! {
        /// What a branch prints asks for nothing when the comment comes back as an event.
        #[test]
        fn what_is_printed_is_no_command(
            log in "[`/kiln queue@a\n\u{1b}\\[m]{0,60}",
            why in "[`@a/kiln \n]{0,20}",
        ) {
            let text = text(&rejection(&why), Some(&log));
            prop_assert_eq!(Command::read(&text), None);
            let escapes = text.matches('\u{1b}').count();
            prop_assert_eq!(escapes, 0);
        }

        #[test]
        fn nothing_ends_a_fence_but_its_own_end(inside in "[`a\n]{0,40}") {
            let text = fenced(&inside);
            let fence = text.lines().next().and_then(|it| it.strip_suffix("text")).unwrap();
            let ends = text.lines().skip(1).filter(|it| it.starts_with(fence));
            prop_assert_eq!(ends.count(), 1);
            prop_assert!(text.ends_with(fence));
        }
    }
}
