//! What an address below `/v2/` is about. Names of repositories have slashes, so that addresses are read from
//! their ends.

use crate::oci::{ContentDigest, Reference, Repository};

/// Longest id of an upload that is looked at.
const MAX_UPLOAD_ID: usize = 64;

/// What is asked for. References and digests that are none are kept as `None`: what to answer depends on the method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v2/`: whether this is a registry, and whether it knows the caller.
    Probe,
    /// `/v2/token`: where clients change a password for a token.
    Token,
    Tags(Repository),
    Manifest(Repository, Option<Reference>),
    Blob(Repository, Option<ContentDigest>),
    /// The address at which uploads to a repository begin.
    Uploads(Repository),
    Upload(Repository, String),
    Referrers(Repository, Option<ContentDigest>),
}

/// Why an address is about nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEndpoint {
    Unknown,
    /// The form is known, the name of the repository is none.
    Name,
}

impl Endpoint {
    /// `path`: percent-decoded, from `/v2` on.
    pub fn of(path: &str) -> Result<Self, NoEndpoint> {
        let rest = path.strip_prefix("/v2").ok_or(NoEndpoint::Unknown)?;
        match rest {
            "" | "/" => return Ok(Self::Probe),
            "/token" => return Ok(Self::Token),
            _ => {}
        }
        let rest = rest.strip_prefix('/').ok_or(NoEndpoint::Unknown)?;
        let uploads = rest.strip_suffix("/blobs/uploads/").or(rest.strip_suffix("/blobs/uploads"));
        if let Some(name) = uploads {
            return Ok(Self::Uploads(repository(name)?));
        }
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(repository(name)?));
        }
        let (before, last) = rest.rsplit_once('/').ok_or(NoEndpoint::Unknown)?;
        if let Some(name) = before.strip_suffix("/blobs/uploads") {
            let fits = last.len() <= MAX_UPLOAD_ID && last.bytes().all(|it| it.is_ascii_hexdigit());
            let id = if fits { last.to_owned() } else { String::new() };
            return Ok(Self::Upload(repository(name)?, id));
        }
        if let Some(name) = before.strip_suffix("/blobs") {
            return Ok(Self::Blob(repository(name)?, last.parse().ok()));
        }
        if let Some(name) = before.strip_suffix("/manifests") {
            return Ok(Self::Manifest(repository(name)?, last.parse().ok()));
        }
        if let Some(name) = before.strip_suffix("/referrers") {
            return Ok(Self::Referrers(repository(name)?, last.parse().ok()));
        }
        Err(NoEndpoint::Unknown)
    }

    /// `None`: it is about no repository.
    pub fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Probe | Self::Token => None,
            Self::Tags(it)
            | Self::Manifest(it, _)
            | Self::Blob(it, _)
            | Self::Uploads(it)
            | Self::Upload(it, _)
            | Self::Referrers(it, _) => Some(it),
        }
    }
}

fn repository(name: &str) -> Result<Repository, NoEndpoint> {
    name.parse().map_err(|_| NoEndpoint::Name)
}

/// The instance that a repository belongs to, by which callers have rights: what stands before its last part. `team/a/app` is
/// `app` of instance `team/a`; `app` is of the instance without a name.
pub fn instance_of(repository: &Repository) -> &str {
    repository.as_str().rsplit_once('/').map_or("", |(instance, _)| instance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(path: &str) -> Endpoint {
        Endpoint::of(path).unwrap()
    }

    #[test]
    fn addresses_are_read_from_their_ends() {
        let name: Repository = "team/blobs/app".parse().unwrap();
        let digest = ContentDigest::of(b"x");
        let at = |rest: &str| format!("/v2/{name}/{rest}");
        assert_eq!((of("/v2"), of("/v2/")), (Endpoint::Probe, Endpoint::Probe));
        assert_eq!(of(&at("tags/list")), Endpoint::Tags(name.clone()));
        assert_eq!(of(&at("blobs/uploads/")), Endpoint::Uploads(name.clone()));
        assert_eq!(of(&at("blobs/uploads/0aF")), Endpoint::Upload(name.clone(), "0aF".into()));
        assert_eq!(of(&at("blobs/uploads/..")), Endpoint::Upload(name.clone(), String::new()));
        assert_eq!(
            of(&at(&format!("blobs/{digest}"))),
            Endpoint::Blob(name.clone(), Some(digest.clone()))
        );
        assert_eq!(of(&at("blobs/sha256:no")), Endpoint::Blob(name.clone(), None));
        assert_eq!(
            of(&at("manifests/v1")),
            Endpoint::Manifest(name.clone(), Some("v1".parse().unwrap()))
        );
        assert_eq!(
            of(&at(&format!("referrers/{digest}"))),
            Endpoint::Referrers(name.clone(), Some(digest))
        );
        assert_eq!(instance_of(&name), "team/blobs");
        assert_eq!(instance_of(&"app".parse().unwrap()), "");
    }

    #[test]
    fn what_is_no_address_says_whether_only_the_name_is_wrong() {
        for (path, expected) in [
            ("/v2/Team/tags/list", NoEndpoint::Name),
            ("/v2/../blobs/uploads/", NoEndpoint::Name),
            ("/v2//manifests/x", NoEndpoint::Name),
            ("/v2/app/other/x", NoEndpoint::Unknown),
            ("/v2x", NoEndpoint::Unknown),
            ("/v2/_catalog", NoEndpoint::Unknown),
        ] {
            assert_eq!(Endpoint::of(path), Err(expected), "{path}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_addresses_never_panic(path in "/v2(/[a-z:.%A]{0,6}){0,6}") {
            let _ = Endpoint::of(&path);
        }
    }
}
