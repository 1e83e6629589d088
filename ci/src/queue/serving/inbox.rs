//! What lies in the inbox of a lane.

use serde::de::DeserializeOwned;

use super::error::QueueError;
use super::kept::{LaneName, decode};
use crate::storage::{Damage, Record, Records, StorageError};

/// The oldest `limit` requests that can be read, each with its number. Of each other one `pass_by` hears its key and why: it
/// stays, and holds up nobody.
pub async fn requests<T: DeserializeOwned + Send>(
    records: &dyn Records,
    name: &LaneName,
    limit: usize,
    pass_by: &(dyn Fn(&str, &QueueError) + Sync),
) -> Result<Vec<(u64, T)>, StorageError> {
    let inbox = name.inbox();
    let (mut requests, mut after) = (Vec::new(), None::<String>);
    while requests.len() < limit {
        let page = records.list(&inbox, after.as_deref(), false, limit).await?;
        for record in &page {
            match read(&inbox, record) {
                Ok(request) => requests.push(request),
                Err(error) => pass_by(&record.key, &error),
            }
        }
        match page.last() {
            Some(last) if page.len() == limit => after = Some(last.key.clone()),
            _ => break,
        }
    }
    requests.truncate(limit);
    Ok(requests)
}

fn read<T: DeserializeOwned>(inbox: &str, record: &Record) -> Result<(u64, T), QueueError> {
    let number = record.key.strip_prefix(inbox).and_then(|it| it.parse().ok());
    let odd = || QueueError::Damaged { key: record.key.clone(), source: Damage::Form("key") };
    Ok((number.ok_or_else(odd)?, decode(&record.key, &record.value)?))
}
