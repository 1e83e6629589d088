use crate::error::{Reason, StoreError};
use crate::redis::{FromRedisValue, Script, Value};

/// The scripts of the index; each sees one bucket.
pub(super) struct Scripts {
    pub(super) find: Script,
    pub(super) shorten: Script,
    pub(super) put_small: Script,
    pub(super) place: Script,
    pub(super) forget: Script,
    pub(super) due: Script,
    pub(super) take: Script,
    pub(super) scan: Script,
    pub(super) evict: Script,
    pub(super) draw: Script,
    pub(super) claim: Script,
    pub(super) runs: Script,
}

/// The source of a script, with what all share before it.
macro_rules! source {
    ($file:literal) => {
        concat!(include_str!("lua/common.lua"), include_str!(concat!("lua/", $file, ".lua")))
    };
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            find: Script::idempotent("index.find", source!("find")),
            shorten: Script::idempotent("index.shorten", source!("shorten")),
            put_small: Script::idempotent("index.put_small", source!("put_small")),
            place: Script::idempotent("index.place", source!("place")),
            // Its answer says what it did: a second one would say that nothing was there.
            forget: Script::new("index.forget", source!("forget")),
            due: Script::idempotent("index.due", source!("due")),
            // What is taken without an answer is handed out again when its age has passed.
            take: Script::new("index.take", source!("take")),
            scan: Script::idempotent("index.scan", source!("scan")),
            // As `forget`: whoever repeated it would leave the objects of the first time behind.
            evict: Script::new("index.evict", source!("evict")),
            draw: Script::idempotent("index.draw", source!("draw")),
            claim: Script::idempotent("index.claim", source!("claim")),
            runs: Script::idempotent("index.runs", source!("runs")),
        }
    }
}

pub(super) fn decode<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|error| {
        StoreError::corrupt(Reason::caused(format!("an answer of the index: {error}"), error))
    })
}
