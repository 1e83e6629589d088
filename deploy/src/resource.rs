//! Content, as in-toto describes it: by its digests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::encoding::is_hex;

/// Name of a hash function -> lowercase hexadecimal digits.
pub type DigestSet = BTreeMap<String, String>;

/// A piece of content, as in-toto describes it: a subject, a dependency, a by-product.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceDescriptor {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uri: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: DigestSet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub download_location: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub annotations: Map<String, Value>,
}

/// Why content is not named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotADigest {
    #[error("there is no digest")]
    None,
    #[error("{value:?} is no digest by {function}")]
    Malformed { function: String, value: String },
}

impl ResourceDescriptor {
    /// Content with a name and one digest.
    pub fn new(name: &str, function: &str, hex: &str) -> Self {
        let digest = DigestSet::from([(function.to_owned(), hex.to_owned())]);
        Self { name: name.to_owned(), digest, ..Self::default() }
    }

    /// Whether the descriptor names this content: by one digest at least, and by none that is another.
    pub fn names(&self, content: &DigestSet) -> bool {
        let common =
            || self.digest.iter().filter_map(|(name, hex)| Some((hex, content.get(name)?)));
        common().count() > 0 && common().all(|(named, actual)| named == actual)
    }

    /// Whether there is a digest, and each is one.
    pub fn check(&self) -> Result<(), NotADigest> {
        if self.digest.is_empty() {
            return Err(NotADigest::None);
        }
        let wrong = self.digest.iter().find(|(function, hex)| !is_digest(function, hex));
        wrong.map_or(Ok(()), |(function, value)| {
            Err(NotADigest::Malformed { function: function.clone(), value: value.clone() })
        })
    }
}

/// Hash functions that are not known here may be named beside others, as long as they look like one.
fn is_digest(function: &str, hex: &str) -> bool {
    match function {
        "sha256" | "blake3" | "sha512_256" => is_hex(hex, 64),
        "sha512" => is_hex(hex, 128),
        "sha384" => is_hex(hex, 96),
        "sha1" => is_hex(hex, 40),
        "gitCommit" | "gitTree" | "gitBlob" | "gitTag" => is_hex(hex, 40) || is_hex(hex, 64),
        _ => {
            !function.is_empty()
                && !hex.is_empty()
                && hex.len().is_multiple_of(2)
                && is_hex(hex, hex.len())
        }
    }
}
