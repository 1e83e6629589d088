//! Times as RFC 3339 in UTC, `null` where a step did not happen; in memory they are nanoseconds
//! since the Unix epoch, and 0.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time of `nanos` nanoseconds since the Unix epoch as RFC 3339 in UTC; `None` for 0, which stands for no time.
pub fn rfc3339(nanos: i64) -> Option<String> {
    let text = (nanos != 0).then(|| {
        // 64 bits of nanoseconds end in the year 2262, which a date can be.
        OffsetDateTime::from_unix_timestamp_nanos(nanos.into()).ok()?.format(&Rfc3339).ok()
    });
    text.flatten()
}

pub fn serialize<S: Serializer>(nanos: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    rfc3339(*nanos).serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(0) };
    let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)?;
    i64::try_from(time.unix_timestamp_nanos()).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct At(#[serde(with = "super")] i64);

    #[test]
    fn times_are_text_and_come_back_to_the_nanosecond() {
        for (nanos, text) in [
            (0, "null"),
            (1_795_419_668_000_000_000, "\"2026-11-23T07:41:08Z\""),
            (1_795_419_668_000_000_001, "\"2026-11-23T07:41:08.000000001Z\""),
        ] {
            assert_eq!(serde_json::to_string(&At(nanos)).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<At>(text).expect("a time"), At(nanos));
        }
        assert!(serde_json::from_str::<At>("\"yesterday\"").is_err());
    }
}
