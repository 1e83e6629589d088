//! Manifests and indexes of images, as documents in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::descriptor::Descriptor;
use crate::json::{self, JsonError};

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The type of a configuration that says nothing, and its bytes.
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
pub const EMPTY_CONFIG: &[u8] = b"{}";
/// The name of the file that a layer is.
pub const TITLE_ANNOTATION: &str = "org.opencontainers.image.title";
/// The specification wants four MiB to be taken.
pub const MAX_DOCUMENT_BYTES: usize = 4 << 20;
/// Layers of a manifest, or manifests of an index.
const MAX_DESCRIPTORS: usize = 20_000;

/// An image, or any other artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    pub manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is pushed and pulled as a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Manifest(Box<Manifest>),
    Index(Box<Index>),
}

/// The kind of document that a media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentKind {
    Manifest,
    Index,
}

/// Why bytes are no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("the manifest cannot be read")]
    Json(#[from] JsonError),
    #[error("{0:?} is no type of a manifest that is known here")]
    MediaType(String),
    #[error("the manifest says that it is {inside:?}, and came as {outside:?}")]
    OtherType { outside: String, inside: String },
    #[error("the manifest has schema version {0}, not 2")]
    Version(u32),
    #[error("the manifest has members of a manifest and of an index: it could be taken for either")]
    Ambiguous,
    #[error(
        "the manifest names {0} others, more than {MAX_DESCRIPTORS}; make several manifests of it"
    )]
    TooMany(usize),
    #[error("bytes that stand in the manifest are not the ones that it says they are: {0}")]
    Inline(String),
}

/// Members that tell the one kind from the other.
#[derive(Deserialize)]
struct Members {
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
}

impl DocumentKind {
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            MANIFEST_TYPE | DOCKER_MANIFEST_TYPE => Some(Self::Manifest),
            INDEX_TYPE | DOCKER_INDEX_TYPE => Some(Self::Index),
            _ => None,
        }
    }
}

impl Manifest {
    /// An artifact of the given type: layers alone.
    pub fn artifact(artifact_type: &str, layers: Vec<Descriptor>) -> Self {
        Self {
            artifact_type: Some(artifact_type.to_owned()),
            ..Self::image(Descriptor::of(EMPTY_TYPE, EMPTY_CONFIG), layers)
        }
    }

    pub fn image(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST_TYPE.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The manifest's bytes in JSON: the same content has the same.
    pub fn write(&self) -> Result<Vec<u8>, JsonError> {
        json::write(self)
    }
}

impl Index {
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(INDEX_TYPE.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The index's bytes in JSON: the same content has the same.
    pub fn write(&self) -> Result<Vec<u8>, JsonError> {
        json::write(self)
    }
}

impl Document {
    /// Reads a document that came as `media_type`, at most [`MAX_DOCUMENT_BYTES`] bytes.
    pub fn read(media_type: &str, data: &[u8]) -> Result<Self, DocumentError> {
        let kind = DocumentKind::of(media_type);
        let kind = kind.ok_or_else(|| DocumentError::MediaType(media_type.to_owned()))?;
        let members: Members = json::read(data, MAX_DOCUMENT_BYTES)?;
        let is_index = members.manifests.is_some();
        let is_manifest = members.layers.is_some() || members.config.is_some();
        if is_index && is_manifest {
            return Err(DocumentError::Ambiguous);
        }
        // Members that stand twice were refused above.
        let malformed = |it| DocumentError::Json(JsonError::Malformed(it));
        let document = match kind {
            DocumentKind::Manifest => {
                Self::Manifest(Box::new(serde_json::from_slice(data).map_err(malformed)?))
            }
            DocumentKind::Index => {
                Self::Index(Box::new(serde_json::from_slice(data).map_err(malformed)?))
            }
        };
        document.check(media_type)?;
        Ok(document)
    }

    fn check(&self, outside: &str) -> Result<(), DocumentError> {
        let (version, inside) = match self {
            Self::Manifest(it) => (it.schema_version, &it.media_type),
            Self::Index(it) => (it.schema_version, &it.media_type),
        };
        if version != 2 {
            return Err(DocumentError::Version(version));
        }
        if let Some(inside) = inside.as_ref().filter(|it| *it != outside) {
            let (outside, inside) = (outside.to_owned(), inside.clone());
            return Err(DocumentError::OtherType { outside, inside });
        }
        let count = self.names().count();
        if count > MAX_DESCRIPTORS {
            return Err(DocumentError::TooMany(count));
        }
        let wrong = self.names().chain(self.subject()).find(|it| it.contradicts_itself());
        wrong.map_or(Ok(()), |it| Err(DocumentError::Inline(it.digest.to_string())))
    }

    /// What has to be there with it: configuration and layers, or manifests.
    pub fn names(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, list) = match self {
            Self::Manifest(it) => (Some(&it.config), &it.layers),
            Self::Index(it) => (None, &it.manifests),
        };
        config.into_iter().chain(list)
    }

    /// What the document says something about; it need not be there.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(it) => it.subject.as_ref(),
            Self::Index(it) => it.subject.as_ref(),
        }
    }

    pub fn annotations(&self) -> &BTreeMap<String, String> {
        match self {
            Self::Manifest(it) => &it.annotations,
            Self::Index(it) => &it.annotations,
        }
    }

    /// What kind of artifact it is: of a manifest that does not say so, the type of its configuration.
    pub fn artifact_type(&self) -> Option<&str> {
        match self {
            Self::Manifest(it) => {
                Some(it.artifact_type.as_deref().unwrap_or(it.config.media_type.as_str()))
            }
            Self::Index(it) => it.artifact_type.as_deref(),
        }
    }
}
