//! News in records, kept until somebody outside was told of them.

use std::error::Error;

use kiln_cas::records::{Expect, Record, Records, RecordsError, Write};
use kiln_net::causes::chain;

/// The first `limit` records below `prefix`. What cannot be read is removed: it would hold up all others for ever.
pub async fn read<T, E: Error + 'static>(
    records: &dyn Records,
    prefix: &str,
    limit: usize,
    decode: fn(&Record) -> Result<T, E>,
) -> Result<Vec<T>, RecordsError> {
    let found = records.list(prefix, None, false, limit).await?;
    let mut news = Vec::with_capacity(found.len());
    for stored in found {
        match decode(&stored) {
            Ok(one) => news.push(one),
            Err(error) => {
                let (key, error) = (stored.key, chain(&error));
                tracing::error!(key, error, "news that cannot be read is told to nobody");
                records.write(vec![Write { key, expect: Expect::Anything, value: None }]).await?;
            }
        }
    }
    Ok(news)
}
