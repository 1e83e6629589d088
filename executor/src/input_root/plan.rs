//! What an input root consists of: every path once, parents before children.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_cas::Digest;

use super::directory::Directory;
use super::{FileKey, InputError, InputLimits};
use crate::paths::{self, MAX_PATH_BYTES};

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub directories: Vec<String>,
    pub files: Vec<(String, FileKey)>,
    pub symlinks: Vec<(String, Box<str>)>,
    /// Of all files, each as often as it occurs.
    bytes: u64,
}

impl Plan {
    /// Directories that `known` lacks are left out: the caller has found them missing.
    pub fn expand(
        root: Digest,
        known: &HashMap<Digest, Arc<Directory>>,
        limits: &InputLimits,
    ) -> Result<Self, InputError> {
        let mut plan = Self::default();
        let mut pending = vec![(String::new(), root)];
        while let Some((path, digest)) = pending.pop() {
            let Some(directory) = known.get(&digest) else { continue };
            plan.add(&path, directory, limits)?;
            for child in &directory.directories {
                let path = checked(paths::join(&path, &child.name))?;
                plan.directories.push(path.clone());
                pending.push((path, child.digest));
            }
        }
        Ok(plan)
    }

    /// Entries of all kinds.
    pub fn entries(&self) -> usize {
        self.directories.len() + self.files.len() + self.symlinks.len()
    }

    fn add(
        &mut self,
        path: &str,
        directory: &Directory,
        limits: &InputLimits,
    ) -> Result<(), InputError> {
        if self.entries() + directory.entries() > limits.entries {
            return Err(InputError::TooManyEntries { limit: limits.entries });
        }
        for file in &directory.files {
            self.bytes = self.bytes.saturating_add(file.digest.size);
            if self.bytes > limits.bytes {
                return Err(InputError::TooManyBytes { limit: limits.bytes });
            }
            let key = FileKey { digest: file.digest, executable: file.executable };
            self.files.push((checked(paths::join(path, &file.name))?, key));
        }
        for symlink in &directory.symlinks {
            let path = checked(paths::join(path, &symlink.name))?;
            self.symlinks.push((path, symlink.target.clone()));
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
    use kiln_cas::DigestFunction;

    use super::*;
    use crate::input_root::directory::Subdirectory;

    fn digest(n: usize) -> Digest {
        DigestFunction::Sha256.digest(n.to_string().as_bytes())
    }

    fn children(names: &[&str], of: usize) -> Arc<Directory> {
        let directories = names
            .iter()
            .map(|name| Subdirectory { name: (*name).into(), digest: digest(of) })
            .collect();
        Arc::new(Directory { directories, ..Default::default() })
    }

    #[test]
    fn a_tree_that_doubles_at_each_level_ends_at_the_entry_limit() {
        let known = (0..64).map(|n| (digest(n), children(&["a", "b"], n + 1))).collect();
        let limits = InputLimits { entries: 1_000, ..Default::default() };
        let error = Plan::expand(digest(0), &known, &limits).unwrap_err();
        assert!(matches!(error, InputError::TooManyEntries { limit: 1_000 }), "{error}");
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_refused() {
        let known = (0..3_000).map(|n| (digest(n), children(&["d"], n + 1))).collect();
        let error = Plan::expand(digest(0), &known, &InputLimits::default()).unwrap_err();
        assert!(matches!(error, InputError::PathTooLong { .. }), "{error}");
    }
}
