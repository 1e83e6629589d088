//! Times as forges write them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::Time;

/// Characters of a time that is read.
const LONGEST: usize = 40;

/// `2019-05-15T15:20:35Z`, with fractions and offsets; of GitLab also `2017-09-15 16:52:00 UTC`. Nothing of what is no
/// time since 1970.
pub fn read(text: &str) -> Option<Time> {
    if text.len() > LONGEST {
        return None;
    }
    let standard = match text.strip_suffix(" UTC") {
        Some(rest) => format!("{}Z", rest.replacen(' ', "T", 1)),
        None => text.to_owned(),
    };
    let at = OffsetDateTime::parse(&standard, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        assert_eq!(read("1970-01-01T00:00:01Z"), Some(Time(1_000)));
        assert_eq!(read("1970-01-01T02:00:01.5+02:00"), Some(Time(1_500)));
        assert_eq!(read("1970-01-01 00:00:02 UTC"), Some(Time(2_000)));
        for odd in ["", "now", "1970-01-01", "1969-12-31T00:00:00Z", &"9".repeat(60)] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
