//! Names on the wire: `{instance}/operations/{epoch}-{task}[-{request}]`, hexadecimal.
//!
//! The epoch is drawn at random when the process starts, so that a name or a lease of an
//! earlier process is never taken for one of this process. Frontends that share a queue share
//! its epoch as well: their ids are never given out twice.

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};

use kiln_cas::DigestFunction;

use crate::queue::{LeaseId, OperationId, TaskId};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    epoch: u64,
}

impl Names {
    /// Of a queue in this process.
    pub fn new() -> Self {
        // The standard library seeds its hasher from the system's randomness.
        Self { epoch: RandomState::new().hash_one(std::process::id()) }
    }

    /// Of the queue that all with this key share.
    pub fn shared(key: &[u8]) -> Self {
        let digest = DigestFunction::Sha256.digest(key).hash;
        let first = digest.first_chunk().copied().unwrap_or_default();
        Self { epoch: u64::from_be_bytes(first) }
    }

    fn join(self, instance: &str, collection: &str, number: u64) -> String {
        let mut name = String::with_capacity(instance.len() + collection.len() + 44);
        if !instance.is_empty() {
            name.push_str(instance);
            name.push('/');
        }
        let _ = write!(name, "{collection}/{:016x}-{number:x}", self.epoch);
        name
    }

    pub fn operation(self, instance: &str, id: OperationId) -> String {
        let mut name = self.join(instance, "operations", id.task.0);
        if id.request > 0 {
            let _ = write!(name, "-{:x}", id.request);
        }
        name
    }

    /// Instance name and id.
    pub fn parse_operation(self, name: &str) -> Option<(&str, OperationId)> {
        let (front, id) = name.rsplit_once('/')?;
        let instance = match front.strip_suffix("operations")? {
            "" => "",
            instance => instance.strip_suffix('/')?,
        };
        let mut parts = id.split('-');
        self.check_epoch(parts.next()?)?;
        let task = TaskId(parse_hex(parts.next()?)?);
        let request = match parts.next() {
            Some(request) => u32::try_from(parse_hex(request)?).ok()?,
            None => 0,
        };
        parts.next().is_none().then_some((instance, OperationId { task, request }))
    }

    pub fn lease(self, lease: LeaseId) -> String {
        format!("{:016x}-{:x}", self.epoch, lease.0)
    }

    pub fn parse_lease(self, name: &str) -> Option<LeaseId> {
        let (epoch, lease) = name.split_once('-')?;
        self.check_epoch(epoch)?;
        parse_hex(lease).map(LeaseId)
    }

    /// Of stdout and stderr, for `ByteStream.Read`; all requests of a task share them.
    pub fn streams(self, instance: &str, task: TaskId) -> [String; 2] {
        let base = self.join(instance, "logstreams", task.0);
        [format!("{base}/stdout"), format!("{base}/stderr")]
    }

    fn check_epoch(self, epoch: &str) -> Option<()> {
        (parse_hex(epoch)? == self.epoch).then_some(())
    }
}

fn parse_hex(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_foreign_ones_are_refused() {
        let (names, other) = (Names { epoch: 7 }, Names { epoch: 8 });
        for (instance, request) in [("", 0), ("main", 3), ("a/b/operations", 0)] {
            let id = OperationId { task: TaskId(0xabc), request };
            let name = names.operation(instance, id);
            assert_eq!(names.parse_operation(&name), Some((instance, id)), "{name}");
            assert_eq!(other.parse_operation(&name), None);
        }
        assert_eq!(
            names.operation("", OperationId { task: TaskId(1), request: 0 }),
            "operations/0000000000000007-1"
        );
        for bad in [
            "",
            "x",
            "operations/",
            "operations/7",
            "myoperations/7-1",
            "operations/7-1-1-1",
            "operations/7-+1",
        ] {
            assert_eq!(names.parse_operation(bad), None, "{bad}");
        }
        assert_eq!(names.parse_lease(&names.lease(LeaseId(9))), Some(LeaseId(9)));
        assert_eq!(other.parse_lease(&names.lease(LeaseId(9))), None);
        assert_eq!(names.streams("", TaskId(1))[0], "logstreams/0000000000000007-1/stdout");
    }
}
