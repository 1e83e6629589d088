//! What nobody used for too long is removed, a day's records at a time. Days are looked at again when they are too
//! long ago; what was used since then is on a later day as well, and stays.

use kiln_cas::records::{Expect, MAX_BATCH, Record, RecordsError, SharedRecords, Write};
use kiln_protos::executions::{Aging, Kept};
use prost::Message as _;

use super::batch::{delete, split};
use super::clock;
use super::kept::hashes;
use super::keys::{self, RecordId};
use super::store::decode;

/// Parts of days that one look takes up.
const MAX_PARTS: usize = 64;
/// Writes that are made together with what they depend on.
const TOGETHER: usize = MAX_BATCH - 2;

/// Removes what was last used before `before`, a bounded part of it. Returns how many records went, and whether there
/// may be more.
pub async fn remove_old(
    records: &SharedRecords,
    before: u32,
    lost_before: i64,
) -> Result<(u64, bool), RecordsError> {
    let parts = records.list(keys::AGES, None, false, MAX_PARTS).await?;
    let mut removed = 0;
    let is_old = |key: &str| keys::day_of(key).is_none_or(|it| it < before);
    let old: Vec<_> = parts.iter().filter(|it| is_old(&it.key)).collect();
    for part in &old {
        let day = keys::day_of(&part.key).unwrap_or(0);
        let aging = Aging::decode(part.value.clone()).unwrap_or_default();
        for id in aging.ids.iter().filter_map(|it| RecordId::from_bytes(it)) {
            removed += u64::from(remove(records, id, day).await?);
        }
        // The part goes last: what a crash leaves is removed by the next look.
        let gone = aging.uses.into_iter().chain([part.key.clone()]).map(delete);
        for writes in split(gone) {
            records.write(writes).await?;
        }
    }
    let losses = records.list(keys::LOST, None, false, MAX_PARTS).await?;
    let end = keys::lost(lost_before, "");
    let gone = losses.into_iter().map(|it| it.key).filter(|it| *it < end).map(delete);
    for writes in split(gone) {
        records.write(writes).await?;
    }
    Ok((removed, old.len() == MAX_PARTS))
}

/// Deletes what was read, unless somebody wrote it since.
fn delete_as_read(key: String, read: Option<&Record>) -> Write {
    let expect = read.map_or(Expect::Absent, |it| Expect::Version(it.version));
    Write { key, expect, value: None }
}

/// Unless it was used after that day, or is used meanwhile.
async fn remove(records: &SharedRecords, id: RecordId, day: u32) -> Result<bool, RecordsError> {
    let touched = records.get(&keys::touched(id)).await?;
    let used =
        touched.as_ref().and_then(|it| std::str::from_utf8(&it.value).ok()?.parse::<u32>().ok());
    if used.is_some_and(|it| it > day) {
        return Ok(false);
    }
    let found = records.get(&keys::record(id)).await?;
    let kept = found.as_ref().and_then(|it| decode(&it.value)).unwrap_or_default();
    let execution = kept.execution.unwrap_or_default();
    // A record that is written anew is there before it is said that it is used.
    if clock::day(execution.timeline.unwrap_or_default().finished) > day {
        return Ok(false);
    }
    let instance = execution.instance_name.clone();
    let hashes = hashes(&Kept { execution: Some(execution), ..kept });
    let mut made = hashes.into_iter().map(|it| delete(keys::made(&instance, &it, id)));
    let guards = [
        delete_as_read(keys::touched(id), touched.as_ref()),
        delete_as_read(keys::record(id), found.as_ref()),
    ];
    let first: Vec<_> = guards.into_iter().chain(made.by_ref().take(TOGETHER)).collect();
    if !write_unless_used(records, first).await? {
        return Ok(false);
    }
    // Where it is written anew, what leads to it is wanted again.
    loop {
        let rest: Vec<_> = made.by_ref().take(TOGETHER).collect();
        if rest.is_empty() {
            return Ok(true);
        }
        let gone = Write { key: keys::record(id), expect: Expect::Absent, value: None };
        if !write_unless_used(records, [vec![gone], rest].concat()).await? {
            return Ok(true);
        }
    }
}

async fn write_unless_used(
    records: &SharedRecords,
    writes: Vec<Write>,
) -> Result<bool, RecordsError> {
    match records.write(writes).await {
        Ok(_) => Ok(true),
        Err(RecordsError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
