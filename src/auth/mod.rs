//! Who calls, and what they may do.
//!
//! A request is taken in by [`Auth::caller`], which finds out who sent it; [`needs`] says what
//! each way in asks of them; services ask [`access::RoleAuthorizer`] for the instance.

pub mod access;
pub mod certificate;
mod credentials;
pub mod failures;
pub mod file;
pub mod needs;
pub mod pattern;
pub mod policy;
pub mod roles;
mod verified;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::HeaderValue;

use crate::reload::Reload;
use access::{Access, Caller};
use certificate::Certificate;
use failures::{Failures, Reason};
use file::AccessFileError;
use needs::{Door, Need};
use policy::Policy;
use verified::Verified;

#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// Read again when they change.
    pub access_files: Vec<PathBuf>,
    /// What everybody may enter.
    pub open: Vec<Door>,
}

/// Credentials came, and cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub reason: Reason,
    /// For whoever sent them: what is wrong, what to do.
    pub message: String,
}

impl Failure {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

pub struct Auth {
    options: AuthOptions,
    /// Random: what is remembered of tokens is hashed with it.
    secret: [u8; 32],
    current: RwLock<Arc<Current>>,
    pub failures: Arc<Failures>,
}

/// What holds until the files change.
struct Current {
    generation: u64,
    policy: Policy,
    verified: Verified,
}

/// A connection's share in who calls.
#[derive(Default)]
pub struct Peer {
    certificate: Option<Certificate>,
    /// With the generation of the policy that it follows.
    access: Mutex<Option<(u64, Arc<Access>)>>,
}

impl Peer {
    /// `certificate`: what the client has shown and an authority vouched for.
    pub fn new(certificate: Option<Certificate>) -> Self {
        Self { certificate, access: Mutex::default() }
    }

    fn access(&self, current: &Current) -> Arc<Access> {
        let mut access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        match &*access {
            Some((generation, access)) if *generation == current.generation => access.clone(),
            _ => {
                let made = Arc::new(current.policy.for_connection(self.certificate.as_ref()));
                *access = Some((current.generation, made.clone()));
                made
            }
        }
    }
}

impl Auth {
    /// `secret`: random bytes.
    pub fn new(
        options: AuthOptions,
        secret: [u8; 32],
        failures: Arc<Failures>,
    ) -> Result<Self, AccessFileError> {
        let policy = file::read(&options.access_files)?;
        let current = Arc::new(Current { generation: 0, policy, verified: Verified::new(secret) });
        Ok(Self { options, secret, current: RwLock::new(current), failures })
    }

    /// Whether everybody may do what has this need.
    pub fn opens(&self, need: Need) -> bool {
        matches!(need, Need::Closable(door, _) if self.options.open.contains(&door))
    }

    /// Who sends a request with this `authorization` header over the connection of `peer`.
    /// `now`: seconds since the Unix epoch.
    pub fn caller(
        &self,
        peer: &Peer,
        authorization: Option<&HeaderValue>,
        now: i64,
    ) -> Result<Caller, Failure> {
        if peer.certificate.as_ref().is_some_and(|certificate| !certificate.is_valid(now)) {
            let message = "the client certificate is not valid any more: connect with a new one";
            return Err(Failure::new(Reason::Expired, message));
        }
        let current = self.current();
        let token = authorization.map(|header| current.token(header, now)).transpose()?;
        Ok(Caller { connection: peer.access(&current), token })
    }

    fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Current {
    fn token(&self, header: &HeaderValue, now: i64) -> Result<Arc<Access>, Failure> {
        let key = self.verified.key(header.as_bytes());
        if let Some(access) = self.verified.get(&key, now) {
            return Ok(access);
        }
        let (access, until) = self.verify(header, now)?;
        let access = Arc::new(access);
        self.verified.insert(key, access.clone(), until);
        Ok(access)
    }

    /// Until when it is valid, as well.
    fn verify(&self, header: &HeaderValue, now: i64) -> Result<(Access, i64), Failure> {
        let token = credentials::token(header).ok_or_else(|| {
            Failure::new(
                Reason::Malformed,
                "the authorization header is neither `Bearer TOKEN` nor `Basic` with the token \
                 as the password",
            )
        })?;
        let known = self.policy.find_token(&token).ok_or_else(|| {
            Failure::new(
                Reason::UnknownToken,
                "the token is not known: ask whoever runs the server for one, or for its hash \
                 to be added to an access file",
            )
        })?;
        match known.expires {
            Some(end) if end <= now => Err(Failure::new(
                Reason::Expired,
                format!("the time of {} is over: ask for a new one", known.name),
            )),
            end => Ok((known.access(), end.unwrap_or(i64::MAX))),
        }
    }
}

impl Reload for Auth {
    fn what(&self) -> &'static str {
        "access files"
    }

    fn files(&self) -> Vec<PathBuf> {
        self.options.access_files.clone()
    }

    /// What was remembered of tokens is forgotten: one that was taken away is refused at once.
    fn reload(&self) -> Result<(), String> {
        let policy = file::read(&self.options.access_files).map_err(|error| error.to_string())?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let (generation, verified) = (current.generation + 1, Verified::new(self.secret));
        *current = Arc::new(Current { generation, policy, verified });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kiln_cas::access::Right;

    use super::*;

    struct House {
        dir: tempfile::TempDir,
        auth: Auth,
    }

    fn entry(name: &str, token: &str, rest: &str) -> String {
        let hash: String = policy::hash(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
    }

    fn house(text: &str) -> House {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.toml");
        std::fs::write(&path, text).unwrap();
        let options = AuthOptions { access_files: vec![path], open: vec![Door::Health] };
        House { auth: Auth::new(options, [1; 32], Arc::default()).unwrap(), dir }
    }

    impl House {
        fn ask(&self, peer: &Peer, token: &str, now: i64) -> Result<Caller, Reason> {
            let header = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            self.auth.caller(peer, Some(&header), now).map_err(|failure| failure.reason)
        }

        fn write(&self, text: &str) -> Result<(), String> {
            std::fs::write(self.dir.path().join("access.toml"), text).unwrap();
            self.auth.reload()
        }
    }

    #[test]
    fn tokens_are_taken_until_their_end_and_unknown_ones_never() {
        let house = house(&entry("ci", "s3cret", "roles = [\"execute\"]\nexpires = 2027-01-31"));
        let (peer, end) = (Peer::default(), 1_801_440_000);
        for now in [0, end - 1, end - 1] {
            assert!(house.ask(&peer, "s3cret", now).unwrap().may(Right::Execute, ""));
        }
        assert_eq!(house.ask(&peer, "s3cret", end).err(), Some(Reason::Expired));
        assert_eq!(house.ask(&peer, "other", 0).err(), Some(Reason::UnknownToken));
        let odd = HeaderValue::from_static("Digest x");
        let failure = house.auth.caller(&peer, Some(&odd), 0).unwrap_err();
        assert_eq!(failure.reason, Reason::Malformed);
        assert_eq!(house.auth.caller(&peer, None, 0).unwrap().name(), None);
    }

    #[test]
    fn what_changes_in_a_file_holds_at_once_also_on_open_connections() {
        let anybody = "[[grant]]\nanonymous = true\nroles = [\"read-cache\"]\n";
        let token = entry("ci", "s3cret", "roles = [\"execute\"]");
        let house = house(&format!("{token}{anybody}"));
        let peer = Peer::default();
        assert!(house.ask(&peer, "s3cret", 0).unwrap().may(Right::Execute, ""));
        assert!(house.auth.caller(&peer, None, 0).unwrap().may(Right::Read, ""));

        assert!(house.write("[[grant]]").unwrap_err().contains("roles"));
        assert!(house.ask(&peer, "s3cret", 0).is_ok(), "a broken file changes nothing");
        house.write(&entry("ci", "newer", "roles = [\"execute\"]")).unwrap();
        assert_eq!(house.ask(&peer, "s3cret", 0).err(), Some(Reason::UnknownToken));
        assert!(house.ask(&peer, "newer", 0).is_ok());
        assert!(!house.auth.caller(&peer, None, 0).unwrap().may(Right::Read, ""));
    }

    #[test]
    fn a_certificate_ends_on_an_open_connection_as_well() {
        let text = "[[grant]]\ncertificate = \"CN=w\"\nroles = [\"worker\"]\n";
        let house = house(text);
        let names = vec!["CN=w".to_owned()];
        let peer = Peer::new(Some(Certificate { names, not_before: 0, not_after: 100 }));
        assert!(house.auth.caller(&peer, None, 100).unwrap().may_everywhere(Right::Work));
        let failure = house.auth.caller(&peer, None, 101).unwrap_err();
        assert_eq!(failure.reason, Reason::Expired);
    }

    #[test]
    fn only_what_is_named_is_open() {
        let house = house(&entry("ci", "s3cret", "roles = [\"execute\"]"));
        assert!(house.auth.opens(Need::Closable(Door::Health, Right::Read)));
        assert!(!house.auth.opens(Need::Closable(Door::Pages, Right::Read)));
        assert!(!house.auth.opens(Need::Instance(Right::Read)));
    }
}
