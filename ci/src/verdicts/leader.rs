//! Which of several servers decides: whoever holds one record, and says so again and again. Each write of a
//! decision expects that record as it was, so that a server that was paused while another one took over writes
//! nothing. No clock of another machine is believed: who has been silent is seen by the record alone.

use std::time::Duration;

use bytes::Bytes;

use crate::storage::{Expect, Record};

/// A leader that says nothing for so long has gone.
pub const TERM: Duration = Duration::from_secs(60);

/// What follows from the record as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Another one decides.
    Follow,
    /// Nobody does: who writes the record with this expectation is next.
    Free(Expect),
    /// This one does, by the record of this version.
    Lead(u64),
}

/// One server's view of who decides.
#[derive(Debug)]
pub struct Watch {
    name: String,
    /// The version that was seen last, and since when.
    seen: Option<(u64, Duration)>,
}

impl Watch {
    /// `name` is this server's alone, also among those that it was before.
    pub fn new(name: String) -> Self {
        Self { name, seen: None }
    }

    /// `now` is any clock that never runs backwards.
    pub fn look(&mut self, record: Option<&Record>, now: Duration) -> Standing {
        let Some(record) = record else { return Standing::Free(Expect::Absent) };
        if record.value == self.claim() {
            return Standing::Lead(record.version);
        }
        let since = match self.seen {
            Some((version, since)) if version == record.version => since,
            _ => {
                self.seen = Some((record.version, now));
                now
            }
        };
        let given_up = record.value.is_empty();
        match given_up || now.saturating_sub(since) >= TERM {
            true => Standing::Free(Expect::Version(record.version)),
            false => Standing::Follow,
        }
    }

    /// What the record says while this one decides.
    pub fn claim(&self) -> Bytes {
        Bytes::copy_from_slice(self.name.as_bytes())
    }

    /// What it says once it has given up.
    pub fn resignation() -> Bytes {
        Bytes::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: u64, name: &str) -> Record {
        Record { key: "k".into(), version, value: Bytes::copy_from_slice(name.as_bytes()) }
    }

    #[test]
    fn silence_alone_makes_another_one_leader() {
        let at = Duration::from_secs;
        let mut watch = Watch::new("b".into());
        assert_eq!(watch.look(None, at(0)), Standing::Free(Expect::Absent));
        assert_eq!(watch.look(Some(&record(1, "a")), at(0)), Standing::Follow);
        assert_eq!(watch.look(Some(&record(2, "a")), at(30)), Standing::Follow);
        assert_eq!(watch.look(Some(&record(2, "a")), at(89)), Standing::Follow);
        let free = Standing::Free(Expect::Version(2));
        assert_eq!(watch.look(Some(&record(2, "a")), at(90)), free);
        assert_eq!(watch.look(Some(&record(3, "b")), at(90)), Standing::Lead(3));
        // Who gives up is not waited for.
        assert_eq!(watch.look(Some(&record(4, "")), at(90)), Standing::Free(Expect::Version(4)));
    }
}
