//! Reading and writing values.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::error::ConfigError;
use super::keys::{Key, Kind};
use super::setting::Setting;
use crate::front::Listen;

/// The largest size in bytes: more is a mistake, and would make sums overflow.
const MAX_SIZE: u64 = 1 << 60;
/// The longest duration, ten years: no clock can count to a longer one from any day.
const MAX_DURATION: Duration = Duration::from_secs(3_650 * 86_400);

/// Reads a size such as `512`, `512MiB` or `10GB`, in bytes; `None`: it is not written like that.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration as a flag takes it. Errors: in words, what is taken.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "not a time like 90s, 5m or 1h".to_owned())
}

/// Reads a duration such as `250ms`, `30s`, `10m`, `12h` or `7d`; `None`: it is not written like
/// that.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

/// A value for people: of a secret, what is before the `@` of a URL is left out.
pub fn shown(key: &Key, setting: &Setting) -> String {
    let text = &setting.text;
    match (key.kind, text.split_once("://")) {
        (Kind::Secret, Some((scheme, rest))) => match rest.rsplit_once('@') {
            Some((_, place)) => format!("{scheme}://(secret)@{place}"),
            None => text.clone(),
        },
        (Kind::Secret, None) if !text.is_empty() => "(secret)".to_owned(),
        _ => text.clone(),
    }
}

pub fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn is_valid(kind: Kind, text: &str) -> bool {
    let number = |least: u64, most: u64| {
        text == "auto" || text.parse().is_ok_and(|number| (least..=most).contains(&number))
    };
    let size = |least| {
        text == "auto" || parse_size(text).is_some_and(|size| (least..=MAX_SIZE).contains(&size))
    };
    let duration = |least: u64| {
        let range = Duration::from_millis(least)..=MAX_DURATION;
        parse_duration(text).is_some_and(|duration| range.contains(&duration))
    };
    match kind {
        Kind::Text | Kind::Secret | Kind::List => true,
        Kind::Path => !is_home(text),
        Kind::Paths => !items(text).any(is_home),
        Kind::OptionalAddress => text.is_empty() || Listen::parse(text).is_some(),
        Kind::Address => Listen::parse(text).is_some(),
        Kind::BaseUrl => text == "auto" || is_base_url(text),
        Kind::Number => number(0, u64::MAX),
        Kind::NumberIn(least, most) => number(least, most),
        Kind::Share => text.parse().is_ok_and(|share: f64| (0.0..=1.0).contains(&share)),
        Kind::Bool => matches!(text, "true" | "false"),
        Kind::Size => size(0),
        Kind::SizeFrom(least) => size(least),
        Kind::Duration => duration(0),
        Kind::DurationFrom(least) => duration(least),
        Kind::LogFilter => is_log_filter(text),
        Kind::Properties => items(text)
            .all(|item| item.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty())),
        Kind::Choice(choices) => choices.contains(&text),
    }
}

/// Whether a path begins with `~`: shells replace that before a program sees it; in files it would
/// name a directory `~`.
fn is_home(path: &str) -> bool {
    path == "~" || path.starts_with("~/")
}

fn is_base_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && url.query().is_none()
            // A user and a password would be in every link.
            && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && !text.contains('#')
    })
}

/// A word alone is a level. The filter's own parser takes any other for the name of something that
/// is to be logged, so that a level spelled wrong would silence everything.
fn is_log_filter(text: &str) -> bool {
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let bare = |item: &&str| !item.contains(['=', '[']);
    EnvFilter::try_new(text).is_ok()
        && items(text).next().is_some()
        && items(text).filter(bare).all(is_level)
}

/// A path as it is used: what is relative is meant from `base`. Links and `..` stay.
fn from_base(base: &Path, text: &str) -> PathBuf {
    // Without a trailing slash and `.` in between.
    base.join(text).components().collect()
}

/// Makes the paths in a value absolute; `base` is asked where one is relative.
pub fn absolute<E>(
    key: &Key,
    text: String,
    base: impl Fn() -> Result<PathBuf, E>,
) -> Result<String, E> {
    let one = |path: &str| match path {
        "" => Ok(String::new()),
        path if Path::new(path).is_absolute() || is_home(path) => Ok(path.to_owned()),
        // The base is shown as text as well, so that nothing is lost here that was not before.
        path => Ok(from_base(&base()?, path).to_string_lossy().into_owned()),
    };
    match key.kind {
        Kind::Path if text == "auto" && key.default == "auto" => Ok(text),
        Kind::Path => one(&text),
        Kind::Paths => Ok(items(&text).map(one).collect::<Result<Vec<_>, E>>()?.join(", ")),
        _ => Ok(text),
    }
}

pub fn check(key: &Key, setting: &Setting) -> Result<(), ConfigError> {
    let text = &setting.text;
    let auto_without_meaning =
        text == "auto" && key.default != "auto" && !matches!(key.kind, Kind::Text | Kind::Path);
    let nothing_without_meaning =
        text.is_empty() && !key.default.is_empty() && matches!(key.kind, Kind::Path | Kind::Text);
    if is_valid(key.kind, text) && !auto_without_meaning && !nothing_without_meaning {
        return Ok(());
    }
    Err(ConfigError::Value {
        name: key.name,
        value: text.clone(),
        origin: setting.origin.clone(),
        expected: key.kind.expected(),
    })
}

/// The text form of a value in a file. Lists and tables become comma-separated.
pub fn from_toml(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(values) => values.iter().map(from_toml).collect::<Vec<_>>().join(", "),
        toml::Value::Table(table) => table
            .iter()
            .map(|(name, value)| format!("{name}={}", from_toml(value)))
            .collect::<Vec<_>>()
            .join(", "),
        other => other.to_string(),
    }
}

/// The default of a key as it stands in a file.
pub fn to_toml(key: &Key) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    match key.kind {
        Kind::List | Kind::Paths | Kind::Properties => {
            let all: Vec<_> = items(key.default).map(quoted).collect();
            format!("[{}]", all.join(", "))
        }
        Kind::Bool => key.default.to_owned(),
        Kind::Number | Kind::NumberIn(..) if key.default != "auto" => key.default.to_owned(),
        _ => quoted(key.default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_as_people_write_them() {
        assert_eq!(parse_size("10GB"), Some(10_000_000_000));
        assert_eq!(parse_size("512 MiB"), Some(512 << 20));
        assert_eq!(parse_size("7"), Some(7));
        for bad in ["", "GB", "1.5GB", "-1", "1XB", "99999999999999TB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(parse_duration("12h"), Some(Duration::from_secs(43_200)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "12", "h", "1.5h", "1y"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
