//! Digests and properties, as every answer writes them.

use kiln_protos::{events, reapi};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Digest {
    pub hash: String,
    pub size_bytes: i64,
}

impl From<&events::Digest> for Digest {
    fn from(digest: &events::Digest) -> Self {
        Self { hash: digest.hash.clone(), size_bytes: digest.size_bytes }
    }
}

impl From<&reapi::Digest> for Digest {
    fn from(digest: &reapi::Digest) -> Self {
        Self { hash: digest.hash.clone(), size_bytes: digest.size_bytes }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Property {
    pub name: String,
    pub value: String,
}

impl From<&events::Property> for Property {
    fn from(property: &events::Property) -> Self {
        Self { name: property.name.clone(), value: property.value.clone() }
    }
}

impl From<&reapi::platform::Property> for Property {
    fn from(property: &reapi::platform::Property) -> Self {
        Self { name: property.name.clone(), value: property.value.clone() }
    }
}

impl From<&kiln_cas::Digest> for Digest {
    fn from(digest: &kiln_cas::Digest) -> Self {
        Self::from(&digest.to_wire())
    }
}
