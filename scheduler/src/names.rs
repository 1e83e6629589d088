//! Names on the wire: `{instance}/operations/{epoch}-{task}[-{request}]`, hexadecimal.
//!
//! The epoch is drawn at random when the process starts, so that a name or a lease of an
//! earlier process is never taken for one of this process. Frontends that share a queue share
//! its epoch as well: their ids are never given out twice.

//!
//! A lease's name ends in a code that only who knows the queue's secret can make: a worker can
//! guess no lease but its own.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::sync::{PoisonError, RwLock};

use constant_time_eq::constant_time_eq;
use kiln_cas::DigestFunction;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::queue::{LeaseId, OperationId, TaskId};

/// The secret with which lease names are made, as the bytes that HMAC with SHA-256 wants.
pub(crate) type Secret = [u8; 32];
/// Bytes of the code in a lease's name: 128 bits cannot be guessed.
const CODE: usize = 16;

/// Leases of other queues are known by ids from here on. The queue's own stay below for
/// centuries, and both have 16 digits at most.
const FIRST_FOREIGN: u64 = 9_000_000_000_000_000;
const FOREIGN: u64 = 1_000_000_000_000_000;

pub(crate) struct Names {
    epoch: u64,
    key: RwLock<(Secret, hmac::Key)>,
}

/// Draws a new secret from the system's randomness.
pub(crate) fn draw_secret() -> Secret {
    let mut secret = [0; 32];
    SystemRandom::new().fill(&mut secret).expect("the system gives randomness");
    secret
}

fn key(secret: &Secret) -> (Secret, hmac::Key) {
    (*secret, hmac::Key::new(hmac::HMAC_SHA256, secret))
}

impl Names {
    /// The names of a queue in this process.
    pub fn new() -> Self {
        // The standard library seeds its hasher from the system's randomness.
        let epoch = RandomState::new().hash_one(std::process::id());
        Self { epoch, key: RwLock::new(key(&draw_secret())) }
    }

    /// The names of the queue that all with this key share; they should share the secret as well.
    pub fn shared(queue: &[u8], secret: &Secret) -> Self {
        let digest = DigestFunction::Sha256.digest(queue).hash;
        let first = digest.first_chunk().copied().unwrap_or_default();
        Self { epoch: u64::from_be_bytes(first), key: RwLock::new(key(secret)) }
    }

    /// All who share the queue use this secret from now on.
    pub fn use_secret(&self, secret: &Secret) {
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = key(secret);
    }

    pub fn secret(&self) -> Secret {
        self.key.read().unwrap_or_else(PoisonError::into_inner).0
    }

    fn code(&self, lease: LeaseId) -> [u8; CODE] {
        let mut message = [0; 16];
        message[..8].copy_from_slice(&self.epoch.to_be_bytes());
        message[8..].copy_from_slice(&lease.0.to_be_bytes());
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner);
        let tag = hmac::sign(&key.1, &message);
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    fn join(&self, instance: &str, collection: &str, number: u64) -> String {
        let mut name = String::with_capacity(instance.len() + collection.len() + 44);
        if !instance.is_empty() {
            name.push_str(instance);
            name.push('/');
        }
        let _ = write!(name, "{collection}/{:016x}-{number:x}", self.epoch);
        name
    }

    pub fn operation(&self, instance: &str, id: OperationId) -> String {
        let mut name = self.join(instance, "operations", id.task.0);
        if id.request > 0 {
            let _ = write!(name, "-{:x}", id.request);
        }
        name
    }

    /// Parses an operation's name into its instance name and id. `None`: it is not one of this
    /// queue.
    pub fn parse_operation<'a>(&self, name: &'a str) -> Option<(&'a str, OperationId)> {
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

    pub fn lease(&self, lease: LeaseId) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut name = String::with_capacity(34 + 2 * CODE);
        let _ = write!(name, "{:016x}-{:x}-", self.epoch, lease.0);
        for byte in self.code(lease) {
            name.push(char::from(DIGITS[usize::from(byte >> 4)]));
            name.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        name
    }

    /// The id by which a lease of this name is known here, whether it is of this queue or not.
    pub fn lease_id(&self, name: &str) -> LeaseId {
        self.parse_lease(name).unwrap_or_else(|| {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            LeaseId(FIRST_FOREIGN + hasher.finish() % FOREIGN)
        })
    }

    /// The id of a lease that this queue gave out; `None`: the name is of no such lease.
    fn parse_lease(&self, name: &str) -> Option<LeaseId> {
        let mut parts = name.split('-');
        self.check_epoch(parts.next()?)?;
        let lease = LeaseId(parse_hex(parts.next()?)?);
        parts.next()?;
        let genuine = constant_time_eq(self.lease(lease).as_bytes(), name.as_bytes());
        genuine.then_some(lease)
    }

    /// Names of the streams of stdout and stderr, for `ByteStream.Read`; all requests of a task
    /// share them.
    pub fn streams(&self, instance: &str, task: TaskId) -> [String; 2] {
        let base = self.join(instance, "logstreams", task.0);
        [format!("{base}/stdout"), format!("{base}/stderr")]
    }

    fn check_epoch(&self, epoch: &str) -> Option<()> {
        (parse_hex(epoch)? == self.epoch).then_some(())
    }
}

/// The ids by which a session knows the leases of other queues that its worker has listed.
#[derive(Debug, Default)]
pub(crate) struct ForeignLeases(HashMap<LeaseId, String>);

impl ForeignLeases {
    /// Takes in the names of all leases that the worker has now. Returns their ids.
    pub fn list(&mut self, names: &Names, listed: Vec<String>) -> Vec<LeaseId> {
        self.0.clear();
        let id = |name: String| {
            let lease = names.lease_id(&name);
            if lease.0 >= FIRST_FOREIGN {
                self.0.insert(lease, name);
            }
            lease
        };
        listed.into_iter().map(id).collect()
    }

    /// The name by which the worker knows the lease.
    pub fn name(&self, names: &Names, lease: LeaseId) -> String {
        self.0.get(&lease).cloned().unwrap_or_else(|| names.lease(lease))
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
        let of = |epoch, secret| Names { epoch, key: RwLock::new(key(&[secret; 32])) };
        let (names, other) = (of(7, 1), of(8, 1));
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
        let name = names.lease(LeaseId(9));
        assert_eq!(names.lease_id(&name), LeaseId(9));
        assert_eq!(name, names.lease(LeaseId(9)));
        for stranger in [&other, &of(7, 2)] {
            assert!(stranger.lease_id(&name).0 >= FIRST_FOREIGN, "{name}");
        }
        // The number without the code is refused, and so is another number with the same code.
        let (front, code) = name.rsplit_once('-').unwrap();
        for guess in
            [front.to_owned(), format!("{front}-"), format!("{front}0-{code}"), format!("{name}-0")]
        {
            assert!(names.lease_id(&guess).0 >= FIRST_FOREIGN, "{guess}");
        }
        assert_eq!(names.streams("", TaskId(1))[0], "logstreams/0000000000000007-1/stdout");
    }

    #[test]
    fn a_session_knows_foreign_leases_by_their_names() {
        let (names, other) = (Names::new(), Names::new());
        let (own, foreign) = (names.lease(LeaseId(5)), other.lease(LeaseId(5)));
        let mut leases = ForeignLeases::default();
        let ids = leases.list(&names, vec![own.clone(), foreign.clone(), "?".to_owned()]);
        let called: Vec<_> = ids.iter().map(|id| leases.name(&names, *id)).collect();
        assert_eq!(called, [own, foreign, "?".to_owned()]);
        assert_eq!(ids[1].0.to_string().len(), 16, "ids of 16 digits have an order as text");
    }
}
