//! What a walk has met: content, each at its path.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, DefaultHasher, Hasher as _, RandomState};

use kiln_cas::Digest;

/// Files and directories that were met. Of each nothing is kept but 16 bytes: a hash of path and digest.
///
/// Two that have the same hash would be taken for one, and one of them, with all that made it, would be missing from
/// the closure. Nobody can bring that about: the hash is SipHash under a key that is drawn at random for each walk and
/// never leaves it, so that whoever chooses paths and content cannot compute a single hash. By chance it happens to one
/// closure of 20,000,000 inputs in 2^80.
#[derive(Default)]
pub struct Met {
    key: RandomState,
    hashes: HashSet<u128>,
}

/// The hash of a path that may go on: two hashes of 64 bits, told apart by what they begin with.
#[derive(Clone)]
pub struct PathHash {
    halves: [DefaultHasher; 2],
    is_empty: bool,
}

impl Met {
    /// The path of an input root, which is empty.
    pub fn root(&self) -> PathHash {
        let half = |number| {
            let mut hasher = self.key.build_hasher();
            hasher.write_u64(number);
            hasher
        };
        PathHash { halves: [half(0), half(1)], is_empty: true }
    }

    /// Notes content at a path. Answers whether it was not met there before.
    pub fn add(&mut self, path: &PathHash, digest: &Digest) -> bool {
        self.hashes.insert(path.with(digest))
    }

    pub fn has(&self, path: &PathHash, digest: &Digest) -> bool {
        self.hashes.contains(&path.with(digest))
    }

    pub fn count(&self) -> usize {
        self.hashes.len()
    }
}

impl PathHash {
    /// The path of what is called `name` in there. A hasher sees one row of bytes, so that `a/b` is the same path
    /// in one step as in two.
    pub fn child(&self, name: &str) -> Self {
        let mut child = self.clone();
        for half in &mut child.halves {
            if !self.is_empty {
                half.write(b"/");
            }
            half.write(name.as_bytes());
        }
        child.is_empty &= name.is_empty();
        child
    }

    /// What comes behind the path always has the same length: no path and digest are hashed as others are.
    fn with(&self, digest: &Digest) -> u128 {
        let half = |path: &DefaultHasher| {
            let mut hasher = path.clone();
            hasher.write(&digest.hash);
            hasher.write_u64(digest.size);
            hasher.write_u8(digest.function as u8);
            u128::from(hasher.finish())
        };
        let [one, two] = &self.halves;
        (half(one) << 64) | half(two)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kiln_cas::DigestFunction;

    use super::*;

    #[test]
    fn content_is_met_once_at_each_path_however_the_path_is_reached() {
        let (mut met, function) = (Met::default(), DigestFunction::Sha256);
        let (one, two) = (function.digest(b"1"), function.digest(b"2"));
        let root = met.root();
        let steps = root.child("out").child("lib").child("a.h");
        assert!(met.add(&steps, &one));
        assert!(met.has(&root.child("out/lib/a.h"), &one));
        assert!(!met.add(&root.child("out/lib").child("a.h"), &one));
        assert!(met.add(&steps, &two));
        for path in ["", "/", "out/liba.h", "out/lib/a.", "/out/lib/a.h"] {
            assert!(met.add(&root.child(path), &one), "{path:?}");
        }
        // An empty name leaves the root where it is.
        assert!(met.has(&root, &one) && met.has(&root.child("").child(""), &one));
        assert_eq!(met.count(), 7);
    }

    #[test]
    fn size_and_function_count_and_each_walk_has_a_key_of_its_own() {
        let digest = DigestFunction::Sha256.digest(b"1");
        let others =
            [Digest { size: 2, ..digest }, Digest { function: DigestFunction::Blake3, ..digest }];
        let mut met = Met::default();
        let path = met.root().child("a");
        assert!(met.add(&path, &digest) && others.iter().all(|it| met.add(&path, it)));
        let hashes = (0..8).map(|_| Met::default().root().child("a").with(&digest));
        assert_eq!(hashes.collect::<BTreeSet<_>>().len(), 8);
    }
}
