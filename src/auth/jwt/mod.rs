//! JSON Web Tokens: signature, time, issuer and audience.

pub mod fetch;
pub mod keys;
mod ring;
#[cfg(test)]
pub mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use kiln_net::Url;
use serde_json::{Map, Value};

use super::failures::{Failure, Reason};
use keys::{Key, KeyError};

#[derive(Debug, Clone)]
pub struct JwtOptions {
    /// Public keys: PEM or JWKS. Read again when they change.
    pub key_files: Vec<PathBuf>,
    /// A secret for HS256. Read again when it changes.
    pub secret_file: Option<PathBuf>,
    pub jwks: Option<JwksOptions>,
    /// The issuer (`iss`) that a token has to name; `None`: any issuer will do.
    pub issuer: Option<String>,
    /// A token is for one of these; never empty.
    pub audience: Vec<String>,
    /// By how much the clocks of issuers may differ from this one's.
    pub leeway: Duration,
}

#[derive(Debug, Clone)]
pub struct JwksOptions {
    pub url: Url,
    pub refresh: Duration,
}

impl JwtOptions {
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.key_files.iter().chain(&self.secret_file)
    }

    /// Reads all keys that are in files.
    pub fn read_keys(&self) -> Result<Vec<Key>, KeyError> {
        let mut keys = Vec::new();
        for path in &self.key_files {
            keys.extend(keys::key_file(path)?);
        }
        if let Some(path) = &self.secret_file {
            keys.push(keys::secret_file(path)?);
        }
        Ok(keys)
    }
}

/// Checks tokens against the keys of this moment.
pub struct Verifier {
    keys: Vec<Key>,
    /// Keys that should have been fetched were not.
    lacks_keys: bool,
    issuer: Option<HashSet<String>>,
    audience: HashSet<String>,
    /// By how many seconds the clocks of issuers may differ from this one's.
    leeway: i64,
}

impl Verifier {
    /// `fetched`: keys from the URL, if there is one and they came.
    pub fn new(options: &JwtOptions, mut keys: Vec<Key>, fetched: Option<&[Key]>) -> Self {
        ring::install();
        keys.extend_from_slice(fetched.unwrap_or_default());
        Self {
            keys,
            lacks_keys: options.jwks.is_some() && fetched.is_none(),
            issuer: options.issuer.clone().map(|issuer| HashSet::from([issuer])),
            audience: options.audience.iter().cloned().collect(),
            leeway: i64::try_from(options.leeway.as_secs()).unwrap_or(i64::MAX),
        }
    }

    /// The claims of a token, and until when it may be taken for granted (seconds since the Unix
    /// epoch). `now`: the same.
    pub fn verify(&self, token: &str, now: i64) -> Result<(Map<String, Value>, i64), Failure> {
        let claims = self.claims(token)?;
        let time = |name: &str| claims.get(name).and_then(seconds);
        let end = time("exp").ok_or_else(|| {
            Failure::new(Reason::Malformed, "the token has no end (claim exp): it is not accepted")
        })?;
        let until = end.saturating_add(self.leeway);
        if until <= now {
            return Err(Failure::new(
                Reason::Expired,
                format!("the token ended {} s ago (claim exp): get a new one", now - end),
            ));
        }
        match (claims.get("nbf"), time("nbf")) {
            (None, _) => Ok((claims, until)),
            (Some(_), Some(start)) if start <= now.saturating_add(self.leeway) => {
                Ok((claims, until))
            }
            (Some(_), start) => {
                let wait = start.map_or(0, |start| start.saturating_sub(now));
                let message = format!(
                    "the token is valid in {wait} s only (claim nbf): are the clocks right?"
                );
                Err(Failure::new(Reason::NotYetValid, message))
            }
        }
    }

    /// The claims of a token whose signature, issuer and audience are checked, but no times.
    fn claims(&self, token: &str) -> Result<Map<String, Value>, Failure> {
        let header = decode_header(token).map_err(|error| refuse(error.kind()))?;
        if header.crit.is_some() {
            let message = "the token's header asks for what is not supported (crit)";
            return Err(Failure::new(Reason::Malformed, message));
        }
        let mut failure = self.no_key(header.alg);
        for key in self.keys.iter().filter(|key| key.may_sign(header.alg, header.kid.as_deref())) {
            match decode::<Map<String, Value>>(token, &key.key, &self.validation(key.algorithm)) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => failure = refuse(error.kind()),
            }
            if failure.reason != Reason::Signature {
                break;
            }
        }
        Err(failure)
    }

    /// Times are checked by [`Verifier::verify`], which is told what time it is.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.aud = Some(self.audience.clone());
        validation.iss.clone_from(&self.issuer);
        let mut required = vec!["exp", "aud"];
        required.extend(self.issuer.is_some().then_some("iss"));
        validation.set_required_spec_claims(&required);
        validation
    }

    fn no_key(&self, algorithm: Algorithm) -> Failure {
        if self.lacks_keys {
            let message = "the keys to check tokens with cannot be fetched for now: try again";
            return Failure::new(Reason::KeysUnavailable, message);
        }
        Failure::new(
            Reason::UnknownKey,
            format!("the token ({algorithm:?}) is signed by none of the keys that are known here"),
        )
    }
}

/// Reads a NumericDate (RFC 7519, section 2) as seconds since the Unix epoch; `None`: it is no
/// number.
fn seconds(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

fn refuse(kind: &ErrorKind) -> Failure {
    match kind {
        ErrorKind::InvalidSignature => {
            Failure::new(Reason::Signature, "the token's signature is wrong")
        }
        ErrorKind::InvalidIssuer => Failure::new(
            Reason::Issuer,
            "the token is not of the issuer that is accepted here (claim iss)",
        ),
        ErrorKind::InvalidAudience => Failure::new(
            Reason::Audience,
            "the token is not for this server (claim aud): ask for one with its audience",
        ),
        ErrorKind::MissingRequiredClaim(claim) => Failure::new(
            match claim.as_str() {
                "aud" => Reason::Audience,
                "iss" => Reason::Issuer,
                _ => Reason::Malformed,
            },
            format!("the token lacks the claim {claim}"),
        ),
        _ => Failure::new(
            Reason::Malformed,
            "the token is neither one that is known here nor a JWT signed with RS256, ES256 or \
             HS256",
        ),
    }
}
