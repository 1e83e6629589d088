//! Records: a hash of values, a sorted set of keys for listing, and a counter. All are in one
//! slot, so that a batch is one script.

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Reason;
use crate::records::{Expect, Record, Records, RecordsError, Version, Write};
use crate::redis::{Call, Redis, Script, Value};
use crate::stores::records::{successor, validate};

/// Most bytes of values in one batch: what one script may hold in the server's memory.
const MAX_BATCH_BYTES: usize = 128 << 20;
/// Most records that one script reads for a list.
const PAGE: usize = 512;
/// Bytes of values after which a script reads no further record for a list.
const PAGE_BYTES: usize = 8 << 20;

/// Records in Redis. Versions follow the server's clock in microseconds, and grow where it does
/// not: neither a restart that lost the last writes nor a flush brings an old one back.
///
/// When the answer to a write is lost, the write fails with `Unavailable` and may have been
/// applied: read before writing again, as after a conflict.
pub struct RedisRecords {
    redis: Redis,
    write: Script,
    list: Script,
    values: Vec<u8>,
    names: Vec<u8>,
    version: Vec<u8>,
}

impl RedisRecords {
    pub fn new(redis: Redis) -> Self {
        let key = |rest: &str| redis.key("records", rest);
        let (values, names, version) = (key("values"), key("names"), key("version"));
        Self {
            write: Script::new("records.write", include_str!("write.lua")),
            list: Script::idempotent("records.list", include_str!("list.lua")),
            values,
            names,
            version,
            redis,
        }
    }

    /// Records between two bounds of ZRANGEBYLEX, and whether there may be more.
    async fn page(
        &self,
        (from, to): (&[u8], &[u8]),
        reverse: bool,
        limit: usize,
    ) -> Result<(Vec<Record>, bool), RecordsError> {
        let call = self.list.call(&[&self.values, &self.names]).arg(from).arg(to);
        let call = call.arg(u8::from(reverse)).arg(limit).arg(PAGE_BYTES);
        let (more, found): (bool, Vec<Vec<u8>>) = self.redis.query(call).await?;
        let mut records = Vec::with_capacity(found.len() / 2);
        let mut found = found.into_iter();
        while let (Some(key), Some(stored)) = (found.next(), found.next()) {
            let key = String::from_utf8(key).map_err(|error| {
                RecordsError::Corrupt(Reason::caused("a key is not UTF-8", error))
            })?;
            records.push(decode(key, stored)?);
        }
        Ok((records, more))
    }
}

/// What is stored: the version in decimal, a space, the value.
fn decode(key: String, stored: Vec<u8>) -> Result<Record, RecordsError> {
    let space = stored.iter().position(|&byte| byte == b' ');
    let version = space.and_then(|space| std::str::from_utf8(&stored[..space]).ok()?.parse().ok());
    let (Some(space), Some(version)) = (space, version) else {
        return Err(RecordsError::Corrupt(format!("the value of {key} has no version").into()));
    };
    Ok(Record { key, version, value: Bytes::from(stored).slice(space + 1..) })
}

fn check_size(writes: &[Write]) -> Result<(), RecordsError> {
    let size: usize = writes.iter().filter_map(|write| Some(write.value.as_ref()?.len())).sum();
    if size > MAX_BATCH_BYTES {
        let message = format!("a batch with {size} bytes of values; {MAX_BATCH_BYTES} fit");
        return Err(RecordsError::Invalid(message));
    }
    Ok(())
}

fn add(call: Call, write: &Write) -> Call {
    let call = call.arg(&write.key);
    let call = match write.expect {
        Expect::Absent => call.arg("absent"),
        Expect::Anything => call.arg("any"),
        Expect::Version(version) => call.arg(version.to_string()),
    };
    match &write.value {
        Some(value) => call.arg("put").arg(&value[..]),
        None => call.arg("delete").arg(""),
    }
}

#[async_trait]
impl Records for RedisRecords {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        let get = Call::command("HGET", &self.values).arg(key).idempotent();
        let stored: Option<Vec<u8>> = self.redis.query(get).await?;
        stored.map(|stored| decode(key.to_owned(), stored)).transpose()
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        validate(&writes)?;
        check_size(&writes)?;
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let call = self.write.call(&[&self.values, &self.names, &self.version]);
        let mut call = writes.iter().fold(call, add);
        if writes.iter().all(|write| write.expect == Expect::Anything) {
            call = call.idempotent();
        }
        match self.redis.run(call).await? {
            Value::BulkString(key) => {
                Err(RecordsError::Conflict { key: String::from_utf8_lossy(&key).into_owned() })
            }
            Value::Array(versions) => versions.iter().map(version).collect(),
            other => Err(RecordsError::Corrupt(format!("records.write answered {other:?}").into())),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        let end = successor(prefix);
        let mut from = included(prefix);
        let mut to = end.as_deref().map_or_else(|| b"+".to_vec(), excluded);
        match after {
            Some(after) if reverse && end.as_deref().is_none_or(|end| after < end) => {
                to = excluded(after);
            }
            Some(after) if !reverse && after >= prefix => from = excluded(after),
            _ => {}
        }
        let mut records = Vec::new();
        while records.len() < limit {
            let page = PAGE.min(limit - records.len());
            let (found, more) = self.page((&from, &to), reverse, page).await?;
            records.extend(found);
            let (true, Some(last)) = (more, records.last()) else { break };
            *(if reverse { &mut to } else { &mut from }) = excluded(&last.key);
        }
        Ok(records)
    }
}

fn version(value: &Value) -> Result<Version, RecordsError> {
    match value {
        Value::Int(version) if *version >= 0 => Ok(*version as Version),
        other => Err(RecordsError::Corrupt(format!("{other:?} is no version").into())),
    }
}

fn included(key: &str) -> Vec<u8> {
    [b"[", key.as_bytes()].concat()
}

fn excluded(key: &str) -> Vec<u8> {
    [b"(", key.as_bytes()].concat()
}

#[cfg(test)]
mod tests;
