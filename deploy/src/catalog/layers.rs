//! Layers that were packed a short while ago: the same files are the same layer, and none of them is read again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_cas::{Digest, DigestFunction, Hasher};

use crate::oci::{Descriptor, LayerEntry, LayerNode};

/// Layers that are remembered.
const MAX_LAYERS: usize = 64;

/// Names of what was packed, and the layers that it became; the latest come last. Clones share them.
#[derive(Clone, Default)]
pub struct KnownLayers(Arc<Mutex<VecDeque<(Digest, Descriptor)>>>);

impl KnownLayers {
    /// The layer that these entries became. Whether it is still in the store has to be asked there.
    pub fn find(&self, packed: &Digest) -> Option<Descriptor> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|it| it.0 == *packed).map(|it| it.1.clone())
    }

    pub fn add(&self, packed: Digest, layer: Descriptor) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|it| it.0 != packed);
        if known.len() >= MAX_LAYERS {
            known.pop_front();
        }
        known.push_back((packed, layer));
    }
}

/// A name for entries, by everything that the bytes of their layer depend on.
pub fn name_of(entries: &[LayerEntry<Digest>]) -> Digest {
    let mut hasher = DigestFunction::Sha256.hasher();
    for entry in entries {
        text(&mut hasher, &entry.path);
        match &entry.node {
            LayerNode::File { content, size, is_executable } => {
                text(&mut hasher, if *is_executable { "program" } else { "file" });
                text(&mut hasher, &content.to_string());
                hasher.update(&size.to_be_bytes());
            }
            LayerNode::Directory => text(&mut hasher, "directory"),
            LayerNode::Symlink { target } => {
                text(&mut hasher, "link");
                text(&mut hasher, target);
            }
        }
    }
    hasher.finish()
}

/// With its length, so that no two lists of words are one text.
fn text(hasher: &mut Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_be_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::oci::ContentDigest;

    fn file(path: &str, content: &str, is_executable: bool) -> LayerEntry<Digest> {
        let content = DigestFunction::Sha256.digest(content.as_bytes());
        let node = LayerNode::File { content, size: content.size, is_executable };
        LayerEntry { path: path.to_owned(), node }
    }

    fn other(path: &str, node: LayerNode<Digest>) -> LayerEntry<Digest> {
        LayerEntry { path: path.to_owned(), node }
    }

    #[test]
    fn whatever_changes_the_layer_changes_its_name() {
        let link = |target: &str| LayerNode::Symlink { target: target.to_owned() };
        let all = [
            vec![],
            vec![file("a", "1", false)],
            vec![file("a", "1", true)],
            vec![file("a", "2", false)],
            vec![file("b", "1", false)],
            vec![file("a", "1", false), file("b", "1", false)],
            vec![other("a", LayerNode::Directory)],
            vec![other("a", link("b"))],
            vec![other("a", link("c"))],
            vec![other("al", link("inkb"))],
        ];
        let names: HashSet<_> = all.iter().map(|it| name_of(it)).collect();
        assert_eq!(names.len(), all.len());
        assert_eq!(name_of(&all[1]), name_of(&[file("a", "1", false)]));
    }

    #[test]
    fn the_latest_are_remembered() {
        let known = KnownLayers::default();
        let name = |number: usize| DigestFunction::Sha256.digest(number.to_string().as_bytes());
        let layer = |number: usize| {
            Descriptor::new("layer", ContentDigest::sha256(name(number).hash), number as u64)
        };
        for number in 0..=MAX_LAYERS {
            known.add(name(number), layer(number));
        }
        assert_eq!(known.find(&name(0)), None, "it was the oldest");
        assert_eq!(known.find(&name(1)), Some(layer(1)));
        assert_eq!(known.find(&name(MAX_LAYERS)), Some(layer(MAX_LAYERS)));
    }
}
