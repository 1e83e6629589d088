//! Who gets which roles: grants, and static tokens that carry theirs.

use std::sync::Arc;

use constant_time_eq::constant_time_eq_32;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::access::{Access, Scope};
use super::certificate::Certificate;
use super::failures::{Failure, Reason};
use super::pattern::Pattern;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticToken {
    pub name: Arc<str>,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    pub scope: Scope,
    /// When the token ends, in seconds since the Unix epoch; `None`: never.
    pub expires: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub who: Who,
    pub scope: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody, with or without credentials.
    Anybody,
    /// Clients with a certificate of which one name matches.
    Certificate(Pattern),
    /// All of these claims of a verified JWT match: a string, a number or a boolean as it is
    /// written, or one element of a list. `a.b` is `b` within `a`.
    Jwt(Vec<(String, Pattern)>),
}

#[derive(Debug, Clone, Default)]
pub struct Policy {
    tokens: Vec<StaticToken>,
    grants: Vec<Grant>,
}

impl Policy {
    pub fn new(tokens: Vec<StaticToken>, grants: Vec<Grant>) -> Self {
        Self { tokens, grants }
    }

    /// Whether a certificate or a JWT may get a role at all.
    pub fn grants_to(&self, kind: impl Fn(&Who) -> bool) -> bool {
        self.grants.iter().any(|grant| kind(&grant.who))
    }

    /// The rights of a client that is connected: those that everybody has, and those of its
    /// certificate, if any.
    pub fn for_connection(&self, certificate: Option<&Certificate>) -> Access {
        let names = certificate.map_or(&[][..], |certificate| &certificate.names);
        let is_theirs = |grant: &&Grant| match &grant.who {
            Who::Anybody => true,
            Who::Certificate(pattern) => names.iter().any(|name| pattern.matches(name)),
            Who::Jwt(_) => false,
        };
        let name = certificate
            .map(|certificate| certificate.names.first().map_or("without a name", String::as_str));
        Access {
            name: name.map(|name| format!("certificate {name}").into()),
            scopes: self.scopes(is_theirs),
        }
    }

    /// The static token, whichever it is. Takes the same time for any token.
    pub fn find_token(&self, token: &str) -> Option<&StaticToken> {
        let hash = hash(token);
        let mut found = None;
        for known in &self.tokens {
            if constant_time_eq_32(&known.hash, &hash) {
                found = Some(known);
            }
        }
        found
    }

    /// The rights of a verified JWT with these claims.
    pub fn for_claims(&self, claims: &Map<String, Value>) -> Access {
        let is_theirs = |grant: &&Grant| match &grant.who {
            Who::Jwt(wanted) => wanted
                .iter()
                .all(|(name, pattern)| claim(claims, name).is_some_and(|c| holds(c, pattern))),
            Who::Anybody | Who::Certificate(_) => false,
        };
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("without a subject");
        Access { name: Some(format!("jwt {subject}").into()), scopes: self.scopes(is_theirs) }
    }

    fn scopes(&self, is_theirs: impl Fn(&&Grant) -> bool) -> Vec<Scope> {
        self.grants.iter().filter(is_theirs).map(|grant| grant.scope.clone()).collect()
    }
}

impl StaticToken {
    /// The rights of the token, and until when they hold. Times, `now` too, are in seconds since
    /// the Unix epoch.
    pub fn access(&self, now: i64) -> Result<(Access, i64), Failure> {
        match self.expires {
            Some(end) if end <= now => Err(Failure::new(
                Reason::Expired,
                format!("the time of {} is over: ask for a new one", self.name),
            )),
            end => {
                let access =
                    Access { name: Some(self.name.clone()), scopes: vec![self.scope.clone()] };
                Ok((access, end.unwrap_or(i64::MAX)))
            }
        }
    }
}

/// The SHA-256 by which files name a token without holding it.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    claim(claims.get(outer)?.as_object()?, inner)
}

fn holds(value: &Value, pattern: &Pattern) -> bool {
    match value {
        Value::String(text) => pattern.matches(text),
        Value::Array(values) => {
            values.iter().any(|value| !value.is_array() && holds(value, pattern))
        }
        Value::Number(_) | Value::Bool(_) => pattern.matches(&value.to_string()),
        Value::Null | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use kiln_cas::access::Right;

    use super::*;
    use crate::auth::access::Caller;
    use crate::auth::roles::Role;

    fn scope(role: Role) -> Scope {
        let (roles, instances) = ([role].into_iter().collect(), vec![Pattern::everything()]);
        Scope { roles, instances, services: Vec::new(), queues: Vec::new() }
    }

    fn grant(who: Who, role: Role) -> Grant {
        Grant { who, scope: scope(role) }
    }

    fn jwt(claims: &[(&str, &str)]) -> Who {
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), pattern(value)));
        Who::Jwt(claims.collect())
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::from(text.to_owned())
    }

    fn claims(json: &str) -> Map<String, Value> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn claims_match_as_text_in_lists_and_within_others() {
        let policy = Policy::new(
            Vec::new(),
            vec![
                grant(jwt(&[("groups", "dev-*")]), Role::Execute),
                grant(jwt(&[("realm.roles", "boss"), ("email_verified", "true")]), Role::Admin),
            ],
        );
        let roles = |json: &str| {
            let access = policy.for_claims(&claims(json));
            access.scopes.iter().flat_map(|scope| scope.roles.iter()).collect::<Vec<_>>()
        };
        assert_eq!(roles(r#"{"groups": "dev-a"}"#), [Role::Execute]);
        assert_eq!(roles(r#"{"groups": ["x", "dev-b"]}"#), [Role::Execute]);
        for none in [
            "{}",
            r#"{"groups": ["x", ["dev-b"]]}"#,
            r#"{"groups": {"dev-b": 1}}"#,
            r#"{"realm": {"roles": ["boss"]}}"#,
            r#"{"realm": {"roles": ["boss"]}, "email_verified": false}"#,
        ] {
            assert!(roles(none).is_empty(), "{none}");
        }
        let both = r#"{"realm": {"roles": ["boss"]}, "email_verified": true}"#;
        assert_eq!(roles(both), [Role::Admin]);
        assert_eq!(policy.for_claims(&claims(r#"{"sub": "al"}"#)).name.as_deref(), Some("jwt al"));
    }

    #[test]
    fn a_certificate_gets_what_its_names_get_and_nobody_has_no_name() {
        let policy = Policy::new(
            Vec::new(),
            vec![
                grant(Who::Anybody, Role::ReadCache),
                grant(Who::Certificate(pattern("CN=worker-*")), Role::Worker),
            ],
        );
        let worker = Certificate { names: vec!["CN=worker-1".into()], not_before: 0, not_after: 0 };
        let caller = |certificate: Option<&Certificate>| Caller {
            connection: policy.for_connection(certificate).into(),
            token: None,
        };
        assert!(caller(Some(&worker)).may_everywhere(Right::Work));
        let other = Certificate { names: vec!["CN=laptop".into()], ..worker };
        assert!(!caller(Some(&other)).may_everywhere(Right::Work));
        assert!(caller(None).may_everywhere(Right::Read));
        assert_eq!(caller(None).name(), None);
        assert_eq!(caller(Some(&other)).name().map(|n| &**n), Some("certificate CN=laptop"));
    }

    #[test]
    fn a_static_token_is_found_by_what_it_hashes_to() {
        let token = |name: &str, text: &str| StaticToken {
            name: name.into(),
            hash: hash(text),
            scope: scope(Role::Execute),
            expires: None,
        };
        let policy = Policy::new(vec![token("a", "one"), token("b", "two")], Vec::new());
        assert_eq!(policy.find_token("two").map(|token| &*token.name), Some("b"));
        assert_eq!(policy.find_token("three"), None);
    }
}
