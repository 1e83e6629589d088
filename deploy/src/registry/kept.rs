//! What of a repository is kept for as long as its tags: what they name, what that needs, and what is said about it.

use std::collections::{HashMap, HashSet};

use crate::oci::ContentDigest;

/// A manifest among the others of its repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Manifests that this one lists.
    pub manifests: Vec<ContentDigest>,
    /// The manifest that this one says something about.
    pub subject: Option<ContentDigest>,
}

/// The manifests that are kept: those that tags name, what these list and are about, and what is about any of them,
/// as a signature is.
pub fn kept(
    tagged: impl IntoIterator<Item = ContentDigest>,
    nodes: &HashMap<ContentDigest, Node>,
) -> HashSet<ContentDigest> {
    let mut about: HashMap<&ContentDigest, Vec<&ContentDigest>> = HashMap::new();
    for (digest, node) in nodes {
        if let Some(subject) = &node.subject {
            about.entry(subject).or_default().push(digest);
        }
    }
    let mut open: Vec<ContentDigest> = tagged.into_iter().collect();
    let mut kept = HashSet::new();
    while let Some(digest) = open.pop() {
        let Some(node) = nodes.get(&digest) else { continue };
        if kept.contains(&digest) {
            continue;
        }
        let referrers = about.get(&digest).into_iter().flatten().copied();
        open.extend(node.manifests.iter().chain(&node.subject).chain(referrers).cloned());
        kept.insert(digest);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: u8) -> ContentDigest {
        ContentDigest::of(&[name])
    }

    fn node(manifests: &[u8], subject: Option<u8>) -> Node {
        Node {
            manifests: manifests.iter().map(|it| digest(*it)).collect(),
            subject: subject.map(digest),
        }
    }

    #[test]
    fn tags_keep_what_they_need_and_what_is_said_about_it() {
        let nodes = HashMap::from([
            (digest(1), node(&[2, 3], None)),
            (digest(2), node(&[], None)),
            // A signature of one image of the index, and one of the signature.
            (digest(4), node(&[], Some(2))),
            (digest(5), node(&[], Some(4))),
            (digest(6), node(&[], None)),
            (digest(7), node(&[], Some(6))),
            (digest(8), node(&[], Some(9))),
        ]);
        let of = |tags: &[u8]| {
            let kept = kept(tags.iter().map(|it| digest(*it)), &nodes);
            let mut kept: Vec<u8> = (1..=9).filter(|it| kept.contains(&digest(*it))).collect();
            kept.sort_unstable();
            kept
        };
        assert_eq!(of(&[1]), [1, 2, 4, 5]);
        // A tag of what is said keeps what it is about.
        assert_eq!(of(&[7]), [6, 7]);
        assert_eq!(of(&[8]), [8]);
        assert!(of(&[]).is_empty() && of(&[9]).is_empty());
    }
}
