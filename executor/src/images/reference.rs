//! The value of `container-image`: where an image is, and which one it is.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use http::uri::Authority;

/// The registry of a name that has none, as Docker takes it.
pub const DOCKER_HUB: &str = "docker.io";
/// The namespace of Docker's own images.
const OFFICIAL: &str = "library";
/// Longest reference, in bytes.
const MAX_REFERENCE: usize = 1024;
/// Longest name of a repository: the distribution specification's limit.
const MAX_REPOSITORY: usize = 255;
const SHA256_DIGITS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    pub source: ImageSource,
    /// The digest of the manifest or index: SHA-256 in 64 lowercase hexadecimal digits.
    pub digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImageSource {
    /// A repository of a registry; `host` has a port where one is given.
    Registry { host: String, repository: String },
    /// The directory of an OCI image layout on this machine; absolute, without `.` and `..`.
    Layout(PathBuf),
}

/// What is wrong with a reference, and what to write instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReferenceError(pub &'static str);

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_REFERENCE {
            return Err(ReferenceError("it is longer than 1024 bytes"));
        }
        let (name, digest) = text.rsplit_once('@').ok_or(ReferenceError(
            "it names no digest; append @sha256:... (`skopeo inspect --format '{{.Digest}}' \
             docker://IMAGE` prints it): a tag alone may be another image tomorrow",
        ))?;
        let digest = digest
            .strip_prefix("sha256:")
            .ok_or(ReferenceError("the digest has to begin with sha256:"))?;
        if digest.len() != SHA256_DIGITS || !digest.bytes().all(is_hex) {
            return Err(ReferenceError("sha256: has to be followed by 64 digits of 0-9 and a-f"));
        }
        Ok(Self { source: name.parse()?, digest: digest.to_owned() })
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

impl FromStr for ImageSource {
    type Err = ReferenceError;

    /// Reads the part of a reference that stands before the `@`.
    fn from_str(name: &str) -> Result<Self, ReferenceError> {
        if let Some(path) = name.strip_prefix("oci:") {
            return layout_path(path).map(Self::Layout);
        }
        let name = match (name.strip_prefix("docker://"), name.contains("://")) {
            (Some(name), _) => name,
            (None, true) => return Err(ReferenceError("the schemes are docker:// and oci:")),
            (None, false) => name,
        };
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (check_host(first)?, rest),
            _ => (DOCKER_HUB.to_owned(), name),
        };
        let repository = check_repository(without_tag(path))?;
        let official = host == DOCKER_HUB && !repository.contains('/');
        let repository = match official {
            true => format!("{OFFICIAL}/{repository}"),
            false => repository.to_owned(),
        };
        Ok(Self::Registry { host, repository })
    }
}

/// Docker's rule: what has a dot or a port, or is `localhost`, names a registry.
pub(super) fn is_host(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

pub(super) fn check_host(host: &str) -> Result<String, ReferenceError> {
    const FAULT: ReferenceError =
        ReferenceError("the registry has to be HOST or HOST:PORT, as in registry.example:5000");
    let authority: Authority = host.parse().map_err(|_| FAULT)?;
    let port_is_a_number = authority.as_str().len() == authority.host().len()
        || authority.port_u16().is_some_and(|port| port > 0);
    if host.contains('@') || authority.host().is_empty() || !port_is_a_number {
        return Err(FAULT);
    }
    let host = host.to_ascii_lowercase();
    Ok(if host == "index.docker.io" { DOCKER_HUB.to_owned() } else { host })
}

/// Whether a registry that is to be spoken to without TLS is one: `HOST`, `HOST:PORT` or an address.
pub fn check_insecure(host: &str) -> Result<(), ReferenceError> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    check_host(host).map(drop)
}

/// Takes off a tag, which says nothing beside a digest.
fn without_tag(path: &str) -> &str {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    path[name..].find(':').map_or(path, |colon| &path[..name + colon])
}

pub(super) fn check_repository(path: &str) -> Result<&str, ReferenceError> {
    let part_is_fine = |part: &str| {
        let inner = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = part.as_bytes();
        !part.contains("..")
            && bytes.iter().copied().all(inner)
            && outer(bytes.first())
            && outer(bytes.last())
    };
    if path.len() > MAX_REPOSITORY || !path.split('/').all(part_is_fine) {
        return Err(ReferenceError(
            "the repository has to be lowercase letters, digits and single . _ - between them, \
             its parts separated by /",
        ));
    }
    Ok(path)
}

pub(super) fn layout_path(path: &str) -> Result<PathBuf, ReferenceError> {
    let mut parts = Path::new(path).components();
    let absolute = parts.next() == Some(Component::RootDir);
    let plain = parts.all(|part| matches!(part, Component::Normal(_)));
    if !absolute || !plain || path.contains("/./") || path.contains('\0') {
        return Err(ReferenceError(
            "oci: has to be followed by the absolute path of an image layout, without . and ..",
        ));
    }
    Ok(Path::new(path).components().collect())
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@sha256:{}", self.source, self.digest)
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { host, repository } => write!(f, "docker://{host}/{repository}"),
            Self::Layout(path) => write!(f, "oci:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn read(name: &str) -> String {
        let reference: ImageReference = format!("{name}@sha256:{DIGEST}").parse().unwrap();
        assert_eq!(reference.digest, DIGEST);
        reference.source.to_string()
    }

    #[test]
    fn names_are_read_as_docker_reads_them() {
        for (name, source) in [
            ("docker://registry.example/repo", "docker://registry.example/repo"),
            ("registry.example:5000/a/b_c/d-e", "docker://registry.example:5000/a/b_c/d-e"),
            ("localhost/a", "docker://localhost/a"),
            ("[::1]:5000/a", "docker://[::1]:5000/a"),
            ("docker://ubuntu", "docker://docker.io/library/ubuntu"),
            ("ubuntu:24.04", "docker://docker.io/library/ubuntu"),
            ("user/repo:v1", "docker://docker.io/user/repo"),
            ("index.docker.io/user/repo", "docker://docker.io/user/repo"),
            ("Registry.Example/a:Tag", "docker://registry.example/a"),
            ("oci:/srv/images//base/", "oci:/srv/images/base"),
        ] {
            assert_eq!(read(name), source, "{name}");
        }
    }

    #[test]
    fn what_is_no_reference_says_what_to_write() {
        let with_digest = |name: &str| format!("{name}@sha256:{DIGEST}");
        for (text, said) in [
            ("docker://ubuntu:24.04".to_owned(), "names no digest"),
            ("ubuntu@sha512:00".to_owned(), "begin with sha256:"),
            (format!("ubuntu@sha256:{}", DIGEST.to_uppercase()), "64 digits"),
            (with_digest("ubuntu")[..70].to_owned(), "64 digits"),
            (with_digest("https://registry.example/a"), "schemes"),
            (with_digest("docker://"), "repository"),
            (with_digest("docker://registry.example/"), "repository"),
            (with_digest("docker://registry.example/../a"), "repository"),
            (with_digest("docker://registry.example/A"), "repository"),
            (with_digest("docker://registry.example/a..b"), "repository"),
            (with_digest("docker://registry.example/a?b"), "repository"),
            (with_digest("docker://user:pass@registry.example/a"), "registry"),
            (with_digest("registry.example:x/a"), "registry"),
            (with_digest("registry.example:/a"), "registry"),
            (with_digest("oci:relative"), "absolute"),
            (with_digest("oci:/srv/../etc"), "absolute"),
            (with_digest(&format!("a/{}", "b".repeat(300))), "repository"),
            (with_digest(&"a".repeat(2000)), "longer"),
        ] {
            let error = text.parse::<ImageReference>().unwrap_err();
            assert!(error.0.contains(said), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_so_that_it_reads_the_same(
            name in "(docker://)?([a-z0-9.]{1,9}(:[0-9]{1,4})?/)?[a-z0-9/._-]{1,20}(:[a-zA-Z0-9]{1,5})?|oci:[a-z./]{1,20}"
        ) {
            let text = format!("{name}@sha256:{DIGEST}");
            if let Ok(reference) = text.parse::<ImageReference>() {
                let again: ImageReference = reference.to_string().parse().unwrap();
                prop_assert_eq!(again, reference);
            }
        }

        #[test]
        fn no_text_makes_it_panic_or_leave_its_place(text in any::<String>(), at in 0..3usize) {
            let prefix = ["", "oci:/", "docker://"][at];
            let text = format!("{prefix}{text}@sha256:{DIGEST}");
            if let Ok(ImageReference { source: ImageSource::Layout(path), .. }) = text.parse() {
                prop_assert!(path.is_absolute() && !path.components().any(|p| p == Component::ParentDir));
            }
        }
    }
}
