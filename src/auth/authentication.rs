//! Finds out who sends a request: by a token, a JWT or the certificate of its connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use http::HeaderValue;
use kiln_net::causes;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Caller};
use super::certificate::Certificate;
use super::failures::{Failure, Failures, Reason};
use super::file::AccessFileError;
use super::jwt::fetch::{self, FetchError, Refresh};
use super::jwt::keys::{Key, KeyError};
use super::jwt::{JwtOptions, Verifier};
use super::permissions::{Door, Permission};
use super::policy::{Policy, Who};
use super::verified::Verified;
use kiln_net::reload::Reload;

/// Parts of a JWT, with dots between them.
const JWT_PARTS: usize = 3;

#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// Access files, which are read again when they change.
    pub access_files: Vec<PathBuf>,
    /// Ways into the server that need no credentials (`auth.open`).
    pub open: Vec<Door>,
    /// How JWTs are verified; `None`: no JWT is accepted.
    pub jwt: Option<JwtOptions>,
}

/// Why access files or keys cannot be used, at the start or after a change.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    Access(#[from] AccessFileError),
    #[error("keys for tokens: {0}")]
    Key(#[from] KeyError),
    #[error("keys for tokens: {0}")]
    Fetch(#[from] FetchError),
    #[error(
        "no grant in the access files says what a {kind} may do, but {key} is set: add e.g.\n\n\
         [[grant]]\n{example}\nroles = [\"execute\"]"
    )]
    NoGrant { kind: &'static str, key: &'static str, example: &'static str },
}

pub struct Auth {
    options: AuthOptions,
    /// Whether clients are asked for certificates.
    certificates: bool,
    /// Random bytes: tokens that were verified are remembered by a hash with them.
    secret: [u8; 32],
    current: RwLock<Arc<Current>>,
    /// Keys that were fetched from the URL; `None`: there are none, for now.
    fetched: Mutex<Option<Vec<Key>>>,
    refresh: Arc<Refresh>,
    pub failures: Arc<Failures>,
}

/// The policy and the keys that are in force until files or fetched keys change.
struct Current {
    generation: u64,
    policy: Arc<Policy>,
    file_keys: Vec<Key>,
    jwt: Option<Verifier>,
    verified: Verified,
}

/// The client's end of a connection, known by its certificate.
#[derive(Default)]
pub struct Peer {
    certificate: Option<Certificate>,
    /// The rights of the certificate, with the generation of the policy that gave them.
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
    /// `certificates`: whether clients are asked for theirs. `secret`: random bytes.
    pub fn new(
        options: AuthOptions,
        certificates: bool,
        secret: [u8; 32],
        failures: Arc<Failures>,
    ) -> Result<Self, AuthError> {
        let current = Current {
            generation: 0,
            policy: Arc::default(),
            file_keys: Vec::new(),
            jwt: None,
            verified: Verified::new(secret),
        };
        let auth = Self {
            options,
            certificates,
            secret,
            current: RwLock::new(Arc::new(current)),
            fetched: Mutex::default(),
            refresh: Arc::default(),
            failures,
        };
        auth.read_files()?;
        Ok(auth)
    }

    /// Fetches keys for tokens, now and again until `stop` is cancelled; `None`: there is no URL
    /// to fetch from.
    pub async fn keep_keys(
        self: &Arc<Self>,
        stop: CancellationToken,
    ) -> Result<Option<JoinHandle<()>>, AuthError> {
        let jwks = self.options.jwt.as_ref().and_then(|jwt| jwt.jwks.as_ref());
        let Some(jwks) = jwks else { return Ok(None) };
        let auth = self.clone();
        let take = Arc::new(move |keys| auth.take_keys(keys));
        Ok(Some(fetch::start(jwks, self.refresh.clone(), take, stop).await?))
    }

    fn take_keys(&self, keys: Option<Vec<Key>>) {
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        let current = self.current();
        self.replace(current.policy.clone(), current.file_keys.clone());
    }

    fn read_files(&self) -> Result<(), AuthError> {
        let policy = super::file::read(&self.options.access_files)?;
        self.check_grants(&policy)?;
        let jwt = self.options.jwt.as_ref();
        let file_keys = jwt.map_or(Ok(Vec::new()), JwtOptions::read_keys)?;
        self.replace(Arc::new(policy), file_keys);
        Ok(())
    }

    /// Refuses settings that let in credentials to which no grant gives a role.
    fn check_grants(&self, policy: &Policy) -> Result<(), AuthError> {
        if self.certificates && !policy.grants_to(|who| matches!(who, Who::Certificate(_))) {
            return Err(AuthError::NoGrant {
                kind: "client with a certificate",
                key: "tls.client_ca",
                example: "certificate = \"CN=*\"",
            });
        }
        if self.options.jwt.is_some() && !policy.grants_to(|who| matches!(who, Who::Jwt(_))) {
            return Err(AuthError::NoGrant {
                kind: "JWT",
                key: "a key for them (auth.jwt_keys, auth.jwt_secret or auth.jwks_url)",
                example: "jwt = { groups = \"developers\" }",
            });
        }
        Ok(())
    }

    /// Puts a new policy and keys in force and forgets which tokens were verified before, so that
    /// rights that were taken away are refused at once.
    fn replace(&self, policy: Arc<Policy>, file_keys: Vec<Key>) {
        let fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        let verifier = |options| Verifier::new(options, file_keys.clone(), fetched.as_deref());
        let jwt = self.options.jwt.as_ref().map(verifier);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let (generation, verified) = (current.generation + 1, Verified::new(self.secret));
        *current = Arc::new(Current { generation, policy, file_keys, jwt, verified });
    }

    /// Whether everybody may do what takes this permission.
    pub fn opens(&self, permission: Permission) -> bool {
        matches!(permission, Permission::Closable(door, _) if self.options.open.contains(&door))
    }

    /// Who sends a request with this `authorization` header over the connection of `peer`.
    /// `now`: seconds since the Unix epoch.
    pub async fn caller(
        &self,
        peer: &Peer,
        authorization: Option<&HeaderValue>,
        now: i64,
    ) -> Result<Caller, Failure> {
        let caller = self.known_caller(peer, authorization, now);
        match &caller {
            // The provider may have new keys: tokens that are signed with them come at once.
            Err(failure) if failure.reason == Reason::UnknownKey && self.fetches_keys() => {
                if self.refresh.ask().await {
                    return self.known_caller(peer, authorization, now);
                }
                caller
            }
            _ => caller,
        }
    }

    fn fetches_keys(&self) -> bool {
        self.options.jwt.as_ref().is_some_and(|jwt| jwt.jwks.is_some())
    }

    fn known_caller(
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

    /// The rights of the token in the header, and until when they hold (seconds since the Unix
    /// epoch).
    fn verify(&self, header: &HeaderValue, now: i64) -> Result<(Access, i64), Failure> {
        let token = super::credentials::token(header).ok_or_else(|| {
            Failure::new(
                Reason::Malformed,
                "the authorization header is neither `Bearer TOKEN` nor `Basic` with the token \
                 as the password",
            )
        })?;
        match (self.policy.find_token(&token), &self.jwt) {
            (Some(known), _) => known.access(now),
            (None, Some(jwt)) if token.split('.').count() == JWT_PARTS => {
                let (claims, until) = jwt.verify(&token, now)?;
                Ok((self.policy.for_claims(&claims), until))
            }
            _ => Err(Failure::new(
                Reason::UnknownToken,
                "the token is not known: ask whoever runs the server for one, or for its hash \
                 to be added to an access file",
            )),
        }
    }
}

impl Reload for Auth {
    fn what(&self) -> &'static str {
        "access files and keys"
    }

    fn label(&self) -> &'static str {
        "access"
    }

    fn files(&self) -> Vec<PathBuf> {
        let keys = self.options.jwt.iter().flat_map(JwtOptions::files);
        self.options.access_files.iter().chain(keys).cloned().collect()
    }

    fn reload(&self) -> Result<(), String> {
        self.read_files().map_err(|error| causes::chain(&error))
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
        let hash: String =
            super::super::policy::hash(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
    }

    fn house(text: &str) -> House {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.toml");
        std::fs::write(&path, text).unwrap();
        let open = vec![Door::Health];
        let options = AuthOptions { access_files: vec![path], open, jwt: None };
        House { auth: Auth::new(options, false, [1; 32], Arc::default()).unwrap(), dir }
    }

    impl House {
        fn ask(&self, peer: &Peer, token: &str, now: i64) -> Result<Caller, Reason> {
            let header = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            self.auth.known_caller(peer, Some(&header), now).map_err(|failure| failure.reason)
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
        let failure = house.auth.known_caller(&peer, Some(&odd), 0).unwrap_err();
        assert_eq!(failure.reason, Reason::Malformed);
        assert_eq!(house.auth.known_caller(&peer, None, 0).unwrap().name(), None);
    }

    #[test]
    fn what_changes_in_a_file_holds_at_once_also_on_open_connections() {
        let anybody = "[[grant]]\nanonymous = true\nroles = [\"read-cache\"]\n";
        let token = entry("ci", "s3cret", "roles = [\"execute\"]");
        let house = house(&format!("{token}{anybody}"));
        let peer = Peer::default();
        assert!(house.ask(&peer, "s3cret", 0).unwrap().may(Right::Execute, ""));
        assert!(house.auth.known_caller(&peer, None, 0).unwrap().may(Right::Read, ""));

        assert!(house.write("[[grant]]").unwrap_err().contains("roles"));
        assert!(house.ask(&peer, "s3cret", 0).is_ok(), "a broken file changes nothing");
        house.write(&entry("ci", "newer", "roles = [\"execute\"]")).unwrap();
        assert_eq!(house.ask(&peer, "s3cret", 0).err(), Some(Reason::UnknownToken));
        assert!(house.ask(&peer, "newer", 0).is_ok());
        assert!(!house.auth.known_caller(&peer, None, 0).unwrap().may(Right::Read, ""));
    }

    #[test]
    fn a_certificate_ends_on_an_open_connection_as_well() {
        let text = "[[grant]]\ncertificate = \"CN=w\"\nroles = [\"worker\"]\n";
        let house = house(text);
        let names = vec!["CN=w".to_owned()];
        let peer = Peer::new(Some(Certificate { names, not_before: 0, not_after: 100 }));
        assert!(house.auth.known_caller(&peer, None, 100).unwrap().may_everywhere(Right::Work));
        let failure = house.auth.known_caller(&peer, None, 101).unwrap_err();
        assert_eq!(failure.reason, Reason::Expired);
    }

    #[test]
    fn only_what_is_named_is_open() {
        let house = house(&entry("ci", "s3cret", "roles = [\"execute\"]"));
        assert!(house.auth.opens(Permission::Closable(Door::Health, Right::Read)));
        assert!(!house.auth.opens(Permission::Closable(Door::Pages, Right::Read)));
        assert!(!house.auth.opens(Permission::Instance(Right::Read)));
    }
}
