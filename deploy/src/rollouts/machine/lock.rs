//! The deploy lock of a service in an environment: one owner at a time, with a reason and an expiry.
//! Its token grows with every owner, so that whoever was paused while it ran out can be told from
//! whoever has it now (a fencing token).

use serde::{Deserialize, Serialize};

use super::spec::Millis;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub owner: String,
    pub reason: String,
    /// When the lock ends unless it is renewed.
    pub expires: Millis,
    pub token: u64,
}

/// Who has the lock that somebody else wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} has the deploy lock until {}: {}", .0.owner, .0.expires, .0.reason)]
pub struct Held(pub Lock);

/// A lock that is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deploy lock ran out, or is somebody else's")]
pub struct Lost;

/// The lock and the tokens that were given out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Locks {
    held: Option<Lock>,
    last: u64,
}

impl Locks {
    /// Locks that nobody has, whose tokens are all newer than this one.
    pub fn since(token: u64) -> Self {
        Self { held: None, last: token }
    }

    /// The lock, where somebody has it.
    pub fn held(&self, now: Millis) -> Option<&Lock> {
        self.held.as_ref().filter(|lock| now < lock.expires)
    }

    /// Takes the lock for `time`. An owner who asks again, as after a crash, gets the one it has.
    pub fn acquire(
        &mut self,
        owner: &str,
        reason: &str,
        now: Millis,
        time: Millis,
    ) -> Result<u64, Held> {
        match self.held(now) {
            Some(lock) if lock.owner == owner => return Ok(lock.token),
            Some(lock) => return Err(Held(lock.clone())),
            None => {}
        }
        self.last += 1;
        let expires = now.saturating_add(time);
        let (owner, reason) = (owner.to_owned(), reason.to_owned());
        self.held = Some(Lock { owner, reason, expires, token: self.last });
        Ok(self.last)
    }

    pub fn renew(&mut self, token: u64, now: Millis, time: Millis) -> Result<(), Lost> {
        match &mut self.held {
            Some(lock) if lock.token == token && now < lock.expires => {
                lock.expires = now.saturating_add(time);
                Ok(())
            }
            _ => Err(Lost),
        }
    }

    /// Gives the lock back; that of somebody else stays.
    pub fn release(&mut self, token: u64) {
        self.held.take_if(|lock| lock.token == token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let mut locks = Locks::default();
        let first = locks.acquire("a", "release 1", 0, 100).unwrap();
        assert_eq!(locks.acquire("a", "release 1", 50, 100), Ok(first), "after a crash");
        let held = locks.acquire("b", "release 2", 99, 100).unwrap_err();
        assert!(held.to_string().contains("a has the deploy lock until 100: release 1"), "{held}");
        locks.renew(first, 99, 100).unwrap();
        assert!(locks.acquire("b", "release 2", 198, 100).is_err());
        let second = locks.acquire("b", "release 2", 199, 100).unwrap();
        assert!(second > first);
        assert_eq!(locks.renew(first, 200, 100), Err(Lost));
        locks.release(first);
        assert!(locks.held(200).is_some(), "it is not the first one's any more");
        locks.release(second);
        assert_eq!(locks.held(200), None);
    }
}
