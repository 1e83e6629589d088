//! The files of an input root by name, for tools that are told them.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_cas::Digest;

use super::directory::Directory;
use super::error::InputError;
use super::roots::InputRoots;
use crate::paths;

/// One file of an input root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    pub path: String,
    pub digest: Digest,
    pub executable: bool,
    /// Whether the client has marked the file as one of the tool's own.
    pub tool: bool,
}

/// One symlink of an input root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSymlink {
    pub path: String,
    pub target: Box<str>,
}

/// What is in an input root.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sorted by path from the input root.
    pub files: Vec<InputFile>,
    /// Sorted by path from the input root.
    pub symlinks: Vec<InputSymlink>,
    /// Names of all entries of the uppermost directory.
    pub uppermost: Vec<Box<str>>,
}

impl InputRoots {
    /// Lists a root that has been [prepared](Self::prepare): its directories are in the store, no more than
    /// the limits allow.
    pub async fn list(&self, root: Digest) -> Result<Listing, InputError> {
        if root.is_empty_blob() {
            return Ok(Listing::default());
        }
        let limits = &self.shared.limits;
        let loaded = self.shared.loader.load(root, limits).await?;
        if !loaded.missing.is_empty() {
            return Err(InputError::Missing(loaded.missing));
        }
        let all = listing(root, &loaded.directories, limits.entries)?;
        Ok(Listing { uppermost: uppermost(loaded.directories.get(&root)), ..all })
    }
}

/// Lists all but the names of the uppermost entries.
fn listing(
    root: Digest,
    known: &HashMap<Digest, Arc<Directory>>,
    limit: usize,
) -> Result<Listing, InputError> {
    let Listing { mut files, mut symlinks, uppermost } = Listing::default();
    let mut entries = 0;
    let mut pending = vec![(String::new(), root)];
    while let Some((path, digest)) = pending.pop() {
        let Some(directory) = known.get(&digest) else { continue };
        entries += directory.entries();
        if entries > limit {
            return Err(InputError::TooManyEntries { limit });
        }
        files.extend(directory.files.iter().map(|file| InputFile {
            path: paths::join(&path, &file.name),
            digest: file.digest,
            executable: file.executable,
            tool: file.tool,
        }));
        symlinks.extend(directory.symlinks.iter().map(|symlink| InputSymlink {
            path: paths::join(&path, &symlink.name),
            target: symlink.target.clone(),
        }));
        let children = directory.directories.iter();
        pending.extend(children.map(|child| (paths::join(&path, &child.name), child.digest)));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    symlinks.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Listing { files, symlinks, uppermost })
}

fn uppermost(root: Option<&Arc<Directory>>) -> Vec<Box<str>> {
    let Some(root) = root else { return Vec::new() };
    let files = root.files.iter().map(|file| &file.name);
    let directories = root.directories.iter().map(|directory| &directory.name);
    let symlinks = root.symlinks.iter().map(|symlink| &symlink.name);
    files.chain(directories).chain(symlinks).cloned().collect()
}
