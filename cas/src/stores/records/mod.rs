//! Records: in memory, and on disk in an embedded database.

mod disk;
mod memory;

pub use disk::DiskRecords;
pub use memory::MemoryRecords;

use crate::records::{MAX_BATCH, MAX_KEY, MAX_VALUE, RecordsError, Write};

/// Refuses a batch that no implementation may accept.
pub(crate) fn validate(writes: &[Write]) -> Result<(), RecordsError> {
    if writes.len() > MAX_BATCH {
        let message = format!("a batch of {} writes; at most {MAX_BATCH} fit", writes.len());
        return Err(RecordsError::Invalid(message));
    }
    let mut keys = std::collections::HashSet::with_capacity(writes.len());
    for write in writes {
        if write.key.is_empty() || write.key.len() > MAX_KEY {
            let message = format!("a key of {} bytes; 1 to {MAX_KEY} are allowed", write.key.len());
            return Err(RecordsError::Invalid(message));
        }
        if let Some(value) = &write.value
            && value.len() > MAX_VALUE
        {
            let (key, size) = (&write.key, value.len());
            let message =
                format!("the value of {key} has {size} bytes; at most {MAX_VALUE} are allowed");
            return Err(RecordsError::Invalid(message));
        }
        if !keys.insert(write.key.as_str()) {
            let message = format!("key {} appears twice in one batch", write.key);
            return Err(RecordsError::Invalid(message));
        }
    }
    Ok(())
}

/// The least string that is greater than all that begin with `prefix`. `None`: there is none.
pub(crate) fn successor(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        // The characters in order, without the surrogates that are none.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            _ => char::from_u32(last as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}
