//! What a comment asks for.

/// Begins the first line of a comment that asks for something.
const WORD: &str = "/kiln";
const MAX_PRIORITY: u8 = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Queue the change with this priority, or with that of the configuration.
    Queue(Option<u8>),
    Remove,
}

/// What is wrong with a comment that begins like a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such command; there are /kiln queue, /kiln priority 0 to 9, and /kiln remove")]
pub struct NoCommand;

impl Command {
    /// `/kiln queue`, `/kiln queue 5`, `/kiln priority 5`, `/kiln remove`. Nothing where the comment is none.
    ///
    /// Only the first line counts, from its first character on: what is quoted below, such as the log of a check, is by
    /// others.
    pub fn read(text: &str) -> Option<Result<Self, NoCommand>> {
        let line = text.lines().next()?;
        let rest = line.strip_prefix(WORD)?;
        if !rest.is_empty() && !rest.starts_with([' ', '\t']) {
            return None;
        }
        let words: Vec<_> = rest.split_whitespace().collect();
        Some(match words.as_slice() {
            ["queue"] => Ok(Self::Queue(None)),
            ["queue" | "priority", number] => {
                priority(number).map(|it| Self::Queue(Some(it))).ok_or(NoCommand)
            }
            ["remove"] => Ok(Self::Remove),
            _ => Err(NoCommand),
        })
    }
}

fn priority(text: &str) -> Option<u8> {
    text.parse().ok().filter(|it| *it <= MAX_PRIORITY && !text.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_is_a_command() {
        let read = |text: &str| Command::read(text);
        assert_eq!(read("/kiln queue"), Some(Ok(Command::Queue(None))));
        assert_eq!(read("/kiln  queue 3 \r\nthanks"), Some(Ok(Command::Queue(Some(3)))));
        assert_eq!(read("/kiln priority 9"), Some(Ok(Command::Queue(Some(9)))));
        assert_eq!(read("/kiln remove"), Some(Ok(Command::Remove)));
        for none in
            ["", "please /kiln queue", "rejected\n/kiln queue", "```\n/kiln queue\n```", "/kilns"]
        {
            assert_eq!(read(none), None, "{none}");
        }
        assert_eq!(read("> /kiln queue"), None, "a quotation");
        for wrong in [
            "/kiln",
            "/kiln land",
            "/kiln queue 10",
            "/kiln queue -1",
            "/kiln priority",
            "/kiln priority +1",
            "/kiln remove it",
            "/kiln Queue",
        ] {
            assert_eq!(read(wrong), Some(Err(NoCommand)), "{wrong}");
        }
    }
}
