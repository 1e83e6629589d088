//! A key of the configuration, and how its values are written.

use std::time::Duration;

use kiln_net::counts::duration;

/// One setting. Values are text until they are read ([`super::values`]).
#[derive(Debug)]
pub struct Key {
    /// `section.key`, as in the file.
    pub name: &'static str,
    /// The default value as it would stand in the file, without quotes.
    pub default: &'static str,
    pub kind: Kind,
    pub help: &'static str,
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// May hold a password: never shown.
    Secret,
    /// A file or directory. What is relative is meant from the directory of the file that says so,
    /// else from the current one; it is absolute once it is read.
    Path,
    /// A list of files or directories, each read as `Path` is.
    Paths,
    Address,
    /// An address, or empty: none.
    OptionalAddress,
    /// `http://` or `https://`, a host and perhaps a path.
    BaseUrl,
    Number,
    /// A number between these two, both included.
    NumberIn(u64, u64),
    /// A part of a whole, from 0 to 1.
    Share,
    Bool,
    /// A size such as `512MiB` or `10GB`; `auto` where the key says so.
    Size,
    /// A size as `Size` is written, of at least so many bytes.
    SizeFrom(u64),
    /// A time such as `30s` or `12h`.
    Duration,
    /// A time as `Duration` is written, of at least so many milliseconds.
    DurationFrom(u64),
    /// A filter of the log: levels, each alone or for the module that it names.
    LogFilter,
    /// A list of strings.
    List,
    /// A list of `name=value`.
    Properties,
    Choice(&'static [&'static str]),
}

impl Kind {
    /// The values that are expected, in words for a message.
    pub fn expected(self) -> String {
        match self {
            Self::Text | Self::Secret => "text".into(),
            Self::Path => "a path (~ is for shells alone)".into(),
            Self::Paths => "a list of paths (~ is for shells alone)".into(),
            Self::Address => {
                "a host and a port, e.g. 127.0.0.1:8980, [::1]:8980 or localhost:8980".into()
            }
            Self::OptionalAddress => {
                "a host and a port, e.g. 127.0.0.1:8981 or localhost:8981, or nothing".into()
            }
            Self::BaseUrl => {
                "auto, or an address such as https://build.example, without user and password"
                    .into()
            }
            Self::Number => "a whole number, or auto".into(),
            Self::NumberIn(least, most) => {
                format!("a whole number from {least} to {most}, or auto")
            }
            Self::Share => "a number from 0 (none) to 1 (all)".into(),
            Self::Bool => "true or false".into(),
            Self::Size => "a size, e.g. 512MiB or 10GB".into(),
            Self::SizeFrom(least) => {
                format!("a size of {} or more, e.g. 512MiB or 10GB", bytes(least))
            }
            Self::Duration => "a duration of 3650d at most, e.g. 30s, 10m or 12h".into(),
            Self::DurationFrom(least) => {
                let least = duration(Duration::from_millis(least));
                format!("a duration of {least} or more, e.g. 30s, 10m or 12h")
            }
            Self::LogFilter => "levels (error, warn, info, debug, trace, off), each alone or for \
                                what it names, e.g. info,kiln_scheduler=debug"
                .into(),
            Self::List => "a list of strings".into(),
            Self::Properties => "a list of name=value".into(),
            Self::Choice(choices) => format!("one of {}", choices.join(", ")),
        }
    }
}

/// A number of bytes in the largest unit that leaves nothing over.
fn bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes % MIB == 0 => format!("{}MiB", bytes / MIB),
        bytes if bytes % KIB == 0 => format!("{}KiB", bytes / KIB),
        bytes => format!("{bytes} bytes"),
    }
}

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;

pub(super) const fn key(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    help: &'static str,
) -> Key {
    Key { name, default, kind, help }
}
