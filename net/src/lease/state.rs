//! What one process knows of a lease.
//!
//! Neither a clock of another machine is believed, nor one that can be set. Each process measures by a clock of its own
//! that never runs backwards: the holder from before it sent its last write, the others from after they saw that write
//! first, which is later. A record that was not changed for the whole term is of a holder that has gone.

use std::time::Duration;

use serde_json::{Value, json};

/// Two never have a lease at once as long as each clock runs faster or slower than real time by at most one part in so many.
/// The holder counts on its term less this part, the others wait for the term and this part.
pub const DRIFT: u32 = 16;
/// No record is believed to hold for longer.
pub const MAX_TERM: Duration = Duration::from_secs(600);

/// What a record says. No holder: it was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    holder: String,
    /// Grows with each process that takes it (a fencing token).
    epoch: u64,
    term: Duration,
}

impl Said {
    fn encode(&self) -> Vec<u8> {
        let millis = u64::try_from(self.term.as_millis()).unwrap_or(u64::MAX);
        let said = json!({ "holder": self.holder, "epoch": self.epoch, "millis": millis });
        said.to_string().into_bytes()
    }

    /// Reads the value of a record; `None` where it is of another form.
    fn decode(value: &[u8]) -> Option<Self> {
        let said: Value = serde_json::from_slice(value).ok()?;
        let millis = said.get("millis")?.as_u64()?;
        Some(Self {
            holder: said.get("holder")?.as_str()?.to_owned(),
            epoch: said.get("epoch")?.as_u64()?,
            term: Duration::from_millis(millis).min(MAX_TERM),
        })
    }

    /// How long nobody else takes the lease after the record was seen first.
    fn lasts(&self) -> Duration {
        self.term + self.term / DRIFT
    }
}

/// What is to be written, where the record still has this version. `None`: where there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub expected: Option<u64>,
    pub value: Vec<u8>,
    epoch: u64,
}

/// What goes into a write that only the holder may do. Both values may be written where the record has this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    pub version: u64,
    /// The value that renews the lease.
    pub claim: Vec<u8>,
    /// The value that gives the lease up.
    pub resignation: Vec<u8>,
}

/// What follows for a process that wants the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This process has the lease, under this epoch, and nothing is to be done.
    Held(u64),
    /// Another process has the lease; it makes no sense to look again for so long.
    Elsewhere(Duration),
    /// The record is to be read.
    Read,
    /// This value is to be written to the record.
    Write(Claim),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Nothing,
    /// No process has the lease; the record has this version, or is not there.
    Free {
        version: Option<u64>,
        epoch: u64,
    },
    /// Another process has the lease, by a record that was seen `since` and `looked` at last.
    Other {
        version: u64,
        said: Said,
        since: Duration,
        looked: Duration,
    },
    /// This process has the lease, until then.
    Own {
        version: u64,
        epoch: u64,
        until: Duration,
    },
}

/// Times are those of one clock that never runs backwards, from any origin.
#[derive(Debug)]
pub struct Lease {
    holder: String,
    term: Duration,
    known: Known,
}

impl Lease {
    /// `holder` is this process's alone, and not empty. After `term` without a word of the holder another one takes it.
    pub fn new(holder: String, term: Duration) -> Self {
        Self { holder, term: term.min(MAX_TERM), known: Known::Nothing }
    }

    pub fn next(&self, now: Duration) -> Next {
        match &self.known {
            Known::Nothing => Next::Read,
            Known::Free { version, epoch } => {
                Next::Write(self.claim(*version, epoch.saturating_add(1)))
            }
            // Half of it is left: nothing has to be written.
            Known::Own { epoch, until, .. } if now + self.term / 2 < *until => Next::Held(*epoch),
            Known::Own { version, epoch, .. } => Next::Write(self.claim(Some(*version), *epoch)),
            Known::Other { version, said, since, looked } => {
                // Whoever lives writes at least once in the time between two looks.
                let (over, look) = (*since + said.lasts(), *looked + said.term / 2);
                if now >= over {
                    Next::Write(self.claim(Some(*version), said.epoch.saturating_add(1)))
                } else if now >= look {
                    Next::Read
                } else {
                    Next::Elsewhere(over.min(look).saturating_sub(now))
                }
            }
        }
    }

    /// The epoch under which this process has it; it needs no look at the record.
    pub fn holds(&self, now: Duration) -> Option<u64> {
        match &self.known {
            Known::Own { epoch, until, .. } if now < *until => Some(*epoch),
            _ => None,
        }
    }

    /// How much longer this process has it, if nothing is written any more; it needs no look at the record.
    pub fn left(&self, now: Duration) -> Option<Duration> {
        match &self.known {
            Known::Own { until, .. } => until.checked_sub(now).filter(|left| !left.is_zero()),
            _ => None,
        }
    }

    /// The record was read, with its version and its value; `now` is the time after that. What cannot be read holds up
    /// nobody.
    pub fn saw(&mut self, record: Option<(u64, &[u8])>, now: Duration) {
        let Some((version, value)) = record else {
            self.known = Known::Free { version: None, epoch: 0 };
            return;
        };
        let since = match &self.known {
            Known::Other { version: seen, since, .. } if *seen == version => *since,
            _ => now,
        };
        self.known = match Said::decode(value) {
            // No epoch is larger than the version of its record: each was a write.
            None => Known::Free { version: Some(version), epoch: version },
            Some(said) if said.holder.is_empty() => {
                Known::Free { version: Some(version), epoch: said.epoch }
            }
            // A write of which nothing was heard. It is not known when that was sent, so the lease is to be renewed.
            Some(said) if said.holder == self.holder => {
                Known::Own { version, epoch: said.epoch, until: Duration::ZERO }
            }
            Some(said) => Known::Other { version, said, since, looked: now },
        };
    }

    /// The claim was written, which was begun at `sent`, and the record has this version.
    pub fn written(&mut self, claim: &Claim, version: u64, sent: Duration) {
        let until = sent + self.term - self.term / DRIFT;
        self.known = Known::Own { version, epoch: claim.epoch, until };
    }

    /// Notes that somebody else has written the record.
    pub fn lost(&mut self) {
        self.known = Known::Nothing;
    }

    /// Gives up the lease. Answers with what is to be written so that the next one need not wait, where this process
    /// had it.
    pub fn give_up(&mut self) -> Option<Claim> {
        let Known::Own { version, epoch, .. } = self.known else { return None };
        self.known = Known::Nothing;
        Some(Claim { expected: Some(version), value: self.nobody(epoch), epoch })
    }

    /// That was written, and the record has this version.
    pub fn given_up(&mut self, claim: &Claim, version: u64) {
        self.known = Known::Free { version: Some(version), epoch: claim.epoch };
    }

    /// What goes along with writes of the holder; nothing where this process is not.
    pub fn fence(&self) -> Option<Fence> {
        let Known::Own { version, epoch, .. } = self.known else { return None };
        let claim = self.claim(Some(version), epoch).value;
        Some(Fence { version, claim, resignation: self.nobody(epoch) })
    }

    fn claim(&self, expected: Option<u64>, epoch: u64) -> Claim {
        let said = Said { holder: self.holder.clone(), epoch, term: self.term };
        Claim { expected, value: said.encode(), epoch }
    }

    fn nobody(&self, epoch: u64) -> Vec<u8> {
        Said { holder: String::new(), epoch, term: self.term }.encode()
    }
}
