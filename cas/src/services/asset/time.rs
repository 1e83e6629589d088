//! Times as records and messages have them.

pub use kiln_net::clock::unix_nanos as now;
use kiln_protos::protobuf::Timestamp;

/// Nanoseconds since the Unix epoch.
pub fn nanoseconds(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos))
}

pub fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000),
        nanos: nanoseconds.rem_euclid(1_000_000_000) as i32,
    }
}
