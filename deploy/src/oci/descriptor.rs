//! Descriptors: what a document says of other content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::ContentDigest;
use crate::encoding::Base64;

/// Content with its type, digest and size. Members that are not listed here are allowed and not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: ContentDigest,
    /// The size of the content in bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// What an image of an index runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: ContentDigest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            artifact_type: None,
            platform: None,
        }
    }

    /// Describes these bytes, named by their SHA-256.
    pub fn of(media_type: &str, data: &[u8]) -> Self {
        Self::new(media_type, ContentDigest::of(data), data.len() as u64)
    }

    #[must_use]
    pub fn with(mut self, annotation: &str, value: &str) -> Self {
        self.annotations.insert(annotation.to_owned(), value.to_owned());
        self
    }

    /// Whether these bytes are what is described.
    pub fn fits(&self, data: &[u8]) -> bool {
        data.len() as u64 == self.size && self.digest.algorithm().digest(data) == self.digest
    }

    /// The bytes that stand in the descriptor itself, if they are what it describes.
    pub fn inline(&self) -> Option<&[u8]> {
        self.data.as_ref().map(|it| it.0.as_slice()).filter(|it| self.fits(it))
    }

    /// Whether bytes stand in it that are something else.
    pub(super) fn contradicts_itself(&self) -> bool {
        self.data.is_some() && self.inline().is_none()
    }

    /// Whether a registry may lack it: its bytes are somewhere else, by licence.
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty()
            || self.media_type.contains(".nondistributable.")
            || self.media_type.contains(".foreign.")
    }
}
