//! Reads the parts of a request that handlers need.

use axum::extract::Query;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use kiln_cas::access::Right;
use kiln_cas::blob::SharedBlobStore;
use kiln_cas::budget::Charge;
use kiln_deploy::oci::{ContentDigest, Repository};
use kiln_deploy::registry::Code;
use kiln_deploy::registry::store::{Registry, RegistryError};

use super::answers::Failure;
use super::incoming::Incoming;
use super::state::RegistryState;

/// Parameters of an address that are looked at.
const MAX_PARAMETERS: usize = 64;

/// A request, with what it is about.
pub struct Request<'a> {
    pub state: &'a RegistryState,
    pub parts: &'a Parts,
    pub repository: &'a Repository,
    pub body: &'a Incoming,
    pub parameters: &'a Parameters,
}

/// The parameters of a request's address, behind its question mark.
#[derive(Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub fn of(parts: &Parts) -> Self {
        let parsed = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let mut all = parsed.map(|Query(all)| all).unwrap_or_default();
        all.truncate(MAX_PARAMETERS);
        Self(all)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A digest among the parameters; `None`: it is not there. Error: it is there, and is no
    /// digest.
    pub fn digest(&self, name: &str) -> Result<Option<ContentDigest>, Failure> {
        let digest = self.get(name).map(|text| {
            let shown = || RegistryError::NoDigest(text.chars().take(160).collect());
            text.parse().map_err(|_| shown())
        });
        Ok(digest.transpose()?)
    }
}

impl Request<'_> {
    pub fn registry(&self) -> &Registry {
        &self.state.registry
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub fn check(&self, right: Right) -> Result<(), Failure> {
        Ok(self.state.check(&self.parts.extensions, right, self.repository)?)
    }

    pub fn check_publish(&self) -> Result<(), Failure> {
        Ok(self.state.check_publish(&self.parts.extensions, self.repository)?)
    }

    /// Checks that the registry allows deletions at all, and this one to the caller.
    pub fn check_delete(&self) -> Result<(), Failure> {
        if !self.state.delete {
            return Err(Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Unsupported,
                "nothing is deleted here (registry.delete is false)",
            ));
        }
        self.check(Right::Administer)
    }

    pub fn store(&self) -> SharedBlobStore {
        self.state.store(&self.parts.extensions, self.repository)
    }

    pub async fn charge(&self, bytes: u64) -> Result<Charge, Failure> {
        let mut charge = Charge::of(&self.parts.extensions);
        charge.add(bytes).await?;
        Ok(charge)
    }

    pub fn length(&self) -> Option<u64> {
        self.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Whether the client says that it has this content already (`If-None-Match`).
    pub fn has(&self, digest: &ContentDigest) -> bool {
        let own = tag_of(digest);
        let said = self.headers().get_all(header::IF_NONE_MATCH).iter();
        let tags = said.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(','));
        tags.map(str::trim).any(|it| it == "*" || it.strip_prefix("W/").unwrap_or(it) == own)
    }

    pub fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }
}

/// The entity tag of content.
pub fn tag_of(digest: &ContentDigest) -> String {
    format!("\"{digest}\"")
}

/// The value that an address had, or the error to answer instead.
pub fn known<T: Clone>(found: Option<&T>, refusal: impl FnOnce() -> Failure) -> Result<T, Failure> {
    found.cloned().ok_or_else(refusal)
}

pub fn no_digest() -> Failure {
    let message = "the address ends in no digest by SHA-256 or SHA-512";
    Failure::new(StatusCode::BAD_REQUEST, Code::DigestInvalid, message)
}

pub fn not_allowed() -> Failure {
    let message = "this method does nothing here";
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message)
}
