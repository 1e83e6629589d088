//! Blobs that others name without saying of which digest function their hash is.

use std::collections::{HashMap, HashSet};

use kiln_cas::{Digest, DigestFunction};
use kiln_ci::attempts::BlobName;
use maud::{Markup, html};

use crate::error::WebError;
use crate::format::{encode, path_of, short};
use crate::state::WebState;

/// Blobs that are still there, under the digest function that the store knows them by.
#[derive(Default)]
pub struct Present(HashMap<BlobName, Digest>);

impl Present {
    /// Build events and reports do not say of which function a hash is.
    pub async fn of(state: &WebState, names: HashSet<BlobName>) -> Result<Self, WebError> {
        let all: Vec<Digest> = names.iter().flat_map(digests).collect();
        let absent: HashSet<Digest> = state.blobs.absent(&all).await?.into_iter().collect();
        let present = names.into_iter().filter_map(|name| {
            let there = digests(&name).into_iter().find(|digest| !absent.contains(digest))?;
            Some((name, there))
        });
        Ok(Self(present.collect()))
    }

    pub fn digest(&self, name: &BlobName) -> Option<&Digest> {
        self.0.get(name)
    }

    /// A link to the blob; the words alone where it is gone.
    pub fn link(&self, name: &BlobName, words: &str, file: &str) -> Markup {
        html! {
            @match self.0.get(name) {
                Some(digest) => a href={ "/blobs/" (path_of(digest)) "?name=" (encode(&short(file, 100), false)) } { (words) },
                None => span.dim title="It was removed from the store." { (words) },
            }
        }
    }
}

/// Digests that the name may stand for, the likeliest first.
fn digests(name: &BlobName) -> Vec<Digest> {
    let of = |function| Digest::from_hex(name.hash.as_bytes(), name.size, function).ok();
    DigestFunction::ALL.into_iter().filter_map(of).collect()
}
