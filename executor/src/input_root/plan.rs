//! What an input root consists of: layers of entries, each path in one of them.
//!
//! A directory that holds many entries becomes a layer of its own, so that another input
//! root with the same directory at the same path shares it, however the rest differs.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_cas::{Digest, DigestFunction};

use super::directory::Directory;
use super::error::InputError;
use super::key::FileKey;
use super::limits::InputLimits;
use crate::paths::{self, MAX_PATH_BYTES};

/// Most layers of an input root, since each makes every look-up a little slower. A directory that
/// would be one more stays with its parent.
pub(super) const MAX_LAYERS: usize = 24;

/// The entries of one layer, with paths from the input root; parents come before children.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub directories: Vec<String>,
    pub files: Vec<(String, FileKey)>,
    pub symlinks: Vec<(String, Box<str>)>,
}

impl Layer {
    /// How many entries the layer has.
    pub fn entries(&self) -> usize {
        self.directories.len() + self.files.len() + self.symlinks.len()
    }

    /// A hash of all that is in the layer: equal layers have equal keys.
    pub fn key(&self) -> Digest {
        let mut hasher = DigestFunction::Blake3.hasher();
        let mut field = |kind: &[u8], text: &str| {
            hasher.update(kind);
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for path in &self.directories {
            field(b"d", path);
        }
        for (path, target) in &self.symlinks {
            field(b"l", path);
            field(b"t", target);
        }
        for (path, FileKey { digest, executable }) in &self.files {
            field(if *executable { b"x" } else { b"f" }, path);
            field(&[digest.function as u8], &digest.hex());
        }
        hasher.finish()
    }
}

/// The layers of an input root, that of the root directory first. Directories that `known`
/// lacks are left out: the caller has found them missing. `layer_entries`: from how many
/// entries on a directory becomes a layer.
pub(super) fn layers(
    root: Digest,
    known: &HashMap<Digest, Arc<Directory>>,
    limits: &InputLimits,
    layer_entries: usize,
) -> Result<Vec<Layer>, InputError> {
    let mut weights = Weights { known, least: layer_entries, own: HashMap::new() };
    weights.weigh(root);
    let layers = vec![Layer::default()];
    let mut plan = Expansion { limits, layers, entries: 0, bytes: 0, text: 0 };
    let mut pending = vec![(String::new(), root, 0)];
    while let Some((path, digest, layer)) = pending.pop() {
        let Some(directory) = known.get(&digest) else { continue };
        plan.add(&path, directory, layer)?;
        for child in &directory.directories {
            let path = checked(paths::join(&path, &child.name))?;
            plan.count_text(path.len())?;
            let apart = weights.is_layer(&child.digest) && plan.layers.len() < MAX_LAYERS;
            let layer = if apart { plan.begin_layer(&path) } else { layer };
            plan.layers[layer].directories.push(path.clone());
            pending.push((path, child.digest, layer));
        }
    }
    let mut layers = plan.layers;
    if layers.len() > 1 && layers[0].entries() == 0 {
        layers.remove(0);
    }
    Ok(layers)
}

/// How many entries each directory has that belong to no layer beneath it.
struct Weights<'a> {
    known: &'a HashMap<Digest, Arc<Directory>>,
    least: usize,
    own: HashMap<Digest, usize>,
}

impl Weights<'_> {
    /// Weighs `root` and all below it, children before their parents. What is nested is kept in a list and not on
    /// the stack of this thread, which it could end.
    fn weigh(&mut self, root: Digest) {
        let mut pending = vec![(root, false)];
        while let Some((digest, children_done)) = pending.pop() {
            let Some(directory) = self.known.get(&digest) else { continue };
            if self.own.contains_key(&digest) {
                continue;
            }
            if children_done {
                let own = self.weight(directory);
                self.own.insert(digest, own);
            } else {
                pending.push((digest, true));
                pending.extend(directory.directories.iter().map(|child| (child.digest, false)));
            }
        }
    }

    /// How many entries `directory` has, with those of children that are no layers of their own.
    /// These must have been weighed; a child that is missing weighs nothing.
    fn weight(&self, directory: &Directory) -> usize {
        let children = directory.directories.iter();
        let weights = children.filter_map(|child| self.own.get(&child.digest).copied());
        let small = weights.filter(|weight| *weight < self.least);
        small.fold(directory.entries(), usize::saturating_add)
    }

    fn is_layer(&self, digest: &Digest) -> bool {
        self.own.get(digest).is_some_and(|own| *own >= self.least)
    }
}

struct Expansion<'a> {
    limits: &'a InputLimits,
    layers: Vec<Layer>,
    /// How many entries all layers have together, so far.
    entries: usize,
    /// Bytes of all files so far, each counted as often as it occurs.
    bytes: u64,
    /// Bytes of all paths and of the targets of all links, so far.
    text: u64,
}

impl Expansion<'_> {
    fn count_text(&mut self, bytes: usize) -> Result<(), InputError> {
        self.text = self.text.saturating_add(bytes as u64);
        if self.text > self.limits.text {
            return Err(InputError::TooMuchText { limit: self.limits.text });
        }
        Ok(())
    }

    /// Begins a layer that holds the parents of `path`.
    fn begin_layer(&mut self, path: &str) -> usize {
        let parents = path.match_indices('/').map(|(end, _)| path[..end].to_owned()).collect();
        self.layers.push(Layer { directories: parents, ..Default::default() });
        self.layers.len() - 1
    }

    fn add(&mut self, path: &str, directory: &Directory, layer: usize) -> Result<(), InputError> {
        self.entries += directory.entries();
        if self.entries > self.limits.entries {
            return Err(InputError::TooManyEntries { limit: self.limits.entries });
        }
        for file in &directory.files {
            self.bytes = self.bytes.saturating_add(file.digest.size);
            if self.bytes > self.limits.bytes {
                return Err(InputError::TooManyBytes { limit: self.limits.bytes });
            }
            let key = FileKey { digest: file.digest, executable: file.executable };
            let path = checked(paths::join(path, &file.name))?;
            self.count_text(path.len())?;
            self.layers[layer].files.push((path, key));
        }
        for symlink in &directory.symlinks {
            let path = checked(paths::join(path, &symlink.name))?;
            self.count_text(path.len() + symlink.target.len())?;
            self.layers[layer].symlinks.push((path, symlink.target.clone()));
        }
        Ok(())
    }
}

fn checked(path: String) -> Result<String, InputError> {
    if path.len() > MAX_PATH_BYTES {
        return Err(InputError::PathTooLong { path: paths::shorten(&path), limit: MAX_PATH_BYTES });
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input_root::directory::{File, Subdirectory, Symlink};

    fn digest(name: &str) -> Digest {
        DigestFunction::Sha256.digest(name.as_bytes())
    }

    fn directory(files: usize, children: &[(&str, &str)]) -> Arc<Directory> {
        let file = |n: usize| File {
            name: format!("f{n:03}").into(),
            digest: digest("content"),
            executable: false,
            tool: false,
        };
        let child =
            |(name, of): &(&str, &str)| Subdirectory { name: (*name).into(), digest: digest(of) };
        Arc::new(Directory {
            files: (0..files).map(file).collect(),
            directories: children.iter().map(child).collect(),
            symlinks: Vec::new(),
        })
    }

    fn known<const N: usize>(
        directories: [(&str, Arc<Directory>); N],
    ) -> HashMap<Digest, Arc<Directory>> {
        directories.map(|(name, directory)| (digest(name), directory)).into()
    }

    fn planned(known: &HashMap<Digest, Arc<Directory>>) -> Vec<Layer> {
        layers(digest("root"), known, &InputLimits::default(), 10).unwrap()
    }

    #[test]
    fn large_directories_are_layers_that_other_roots_share() {
        let large = directory(10, &[("small", "small")]);
        let small = directory(2, &[]);
        let one = known([
            ("root", directory(1, &[("a", "a")])),
            ("a", directory(1, &[("large", "large")])),
            ("large", large.clone()),
            ("small", small.clone()),
        ]);
        let one = planned(&one);
        assert_eq!(one.len(), 2);
        assert_eq!((one[0].files.len(), one[1].files.len()), (2, 12));
        assert_eq!(one[1].directories, ["a", "a/large", "a/large/small"]);

        let two = known([
            ("root", directory(0, &[("a", "a")])),
            ("a", directory(5, &[("large", "large")])),
            ("large", large),
            ("small", small),
        ]);
        let two = planned(&two);
        assert_ne!(one[0].key(), two[0].key());
        assert_eq!(one[1].key(), two[1].key());
    }

    #[test]
    fn a_root_that_is_all_layers_has_none_of_its_own() {
        let known =
            known([("root", directory(0, &[("a", "a"), ("b", "a")])), ("a", directory(20, &[]))]);
        let planned = planned(&known);
        let paths: Vec<_> = planned.iter().map(|layer| layer.directories.clone()).collect();
        assert_eq!(paths, [["a"], ["b"]]);
        assert_ne!(planned[0].key(), planned[1].key());
    }

    #[test]
    fn there_are_never_more_layers_than_the_limit() {
        let names: Vec<String> = (0..100).map(|n| format!("d{n:02}")).collect();
        let children: Vec<_> = names.iter().map(|name| (name.as_str(), "a")).collect();
        let known = known([("root", directory(0, &children)), ("a", directory(20, &[]))]);
        let planned = planned(&known);
        assert_eq!(planned.len(), MAX_LAYERS);
        let files: usize = planned.iter().map(|layer| layer.files.len()).sum();
        assert_eq!(files, 2_000);
    }

    #[test]
    fn a_tree_that_doubles_at_each_level_ends_at_the_entry_limit() {
        let names: Vec<String> = (0..65).map(|n| n.to_string()).collect();
        let mut known: HashMap<_, _> = names
            .windows(2)
            .map(|pair| (digest(&pair[0]), directory(0, &[("a", &pair[1]), ("b", &pair[1])])))
            .collect();
        known.insert(digest("64"), directory(1, &[]));
        let limits = InputLimits { entries: 1_000, ..Default::default() };
        let error = layers(digest("0"), &known, &limits, 10).unwrap_err();
        assert!(matches!(error, InputError::TooManyEntries { limit: 1_000 }), "{error}");
    }

    #[test]
    fn long_paths_and_targets_that_occur_often_end_at_their_limit() {
        let link = Symlink { name: "l".into(), target: "x".repeat(4_000).into() };
        let links = Arc::new(Directory { symlinks: vec![link], ..Default::default() });
        let tree = |children: &[(&str, &str)]| {
            known([("root", directory(0, children)), ("links", links.clone())])
        };
        let limits = InputLimits { text: 10_000, ..Default::default() };
        let plan = |children: &[(&str, &str)]| layers(digest("root"), &tree(children), &limits, 10);
        assert!(plan(&[("a", "links"), ("b", "links")]).is_ok());
        let error = plan(&[("a", "links"), ("b", "links"), ("c", "links")]).unwrap_err();
        assert!(matches!(error, InputError::TooMuchText { limit: 10_000 }), "{error}");
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_refused() {
        let names: Vec<String> = (0..1_901).map(|n| n.to_string()).collect();
        let known: HashMap<_, _> = names
            .windows(2)
            .map(|pair| (digest(&pair[0]), directory(0, &[("dd", &pair[1])])))
            .collect();
        let root = digest("0");
        let plan = move || layers(root, &known, &InputLimits::default(), 10);
        // The stack is too small for a recursive call per level.
        let thread = std::thread::Builder::new().stack_size(96 << 10).spawn(plan).unwrap();
        let error = thread.join().unwrap().unwrap_err();
        assert!(matches!(error, InputError::PathTooLong { .. }), "{error}");
    }
}
