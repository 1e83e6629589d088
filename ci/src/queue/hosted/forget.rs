//! A queue that nobody runs any more goes, with all that was kept of it.

use super::error::HostedError;
use super::head::Head;
use super::{Queues, keys};
use crate::queue::serving::{LaneName, decode};
use crate::storage::{Expect, StorageError, Write};

/// Records that are deleted at once.
const AT_ONCE: usize = 250;

impl Queues {
    /// Deletes a queue whose runner is not heard. A runner that comes meanwhile keeps it, and begins anew.
    pub async fn forget(&self, queue: &LaneName) -> Result<(), HostedError> {
        let key = keys::head(queue);
        let found = self.records.get(&key).await?;
        let found = found.ok_or_else(|| HostedError::NoQueue(queue.as_str().to_owned()))?;
        let mut head: Head = decode(&key, &found.value)?;
        if head.connected(self.clock.now()) {
            let (queue, holder) = (queue.as_str().to_owned(), head.about.name);
            return Err(HostedError::Busy { queue, holder });
        }
        // Whoever had it has nothing to say any more.
        head.close();
        let value = Some(self.encoded(&key, &head)?);
        let expect = Expect::Version(found.version);
        let write = Write { key: key.clone(), expect, value: value.clone() };
        self.records.write(vec![write]).await?;
        let closed = self.records.get(&key).await?.filter(|it| Some(&it.value) == value.as_ref());
        loop {
            let page = self.records.list(&queue.key(""), None, false, AT_ONCE).await?;
            if page.is_empty() {
                break;
            }
            let gone = |key| Write { key, expect: Expect::Anything, value: None };
            self.records.write(page.into_iter().map(|it| gone(it.key)).collect()).await?;
        }
        let Some(closed) = closed else { return Ok(()) };
        let last = Write { key, expect: Expect::Version(closed.version), value: None };
        match self.records.write(vec![last]).await {
            // Somebody has taken it.
            Err(StorageError::Conflict(_)) => Ok(()),
            gone => Ok(gone?),
        }
    }
}
