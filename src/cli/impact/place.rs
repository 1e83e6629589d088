//! Finds the place for checked-out commits: never below the workspace, of which `//...` is
//! everything, also what git keeps.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_ci::impact::Hasher;

use super::git::Git;
use super::kept::Kept;
use crate::cli::error::CliError;
use crate::cli::say::say;

const HINT: &str = "name a directory outside the workspace with --cache-dir";

/// The user's directory for what can be made again.
pub fn cache_home() -> Option<PathBuf> {
    let of = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))
}

/// `named`: as the user says. `cache`: where users keep such things.
pub fn directory(
    git: &Git,
    named: Option<&Path>,
    cache: Option<PathBuf>,
) -> Result<PathBuf, CliError> {
    let workspace = real(&git.workspace);
    let outside = |path: PathBuf| match real(&path).starts_with(&workspace) {
        false => Ok(path),
        true => {
            let text = format!("{} is in the workspace: what is there are targets", path.display());
            Err(CliError::usage(text).hint(HINT))
        }
    };
    if let Some(named) = named {
        return outside(std::path::absolute(named).unwrap_or_else(|_| named.to_owned()));
    }
    let common = real(&git.common);
    let own = common.join("kiln/impact");
    if !own.starts_with(&workspace) {
        return Ok(own);
    }
    if own.is_dir()
        && let Err(error) = forget(&own)
    {
        let text = "is in the workspace, so that what is in it counts as targets: remove it";
        say(&format!("warning: {} {text} ({error})", own.display()));
    }
    let cache = cache.ok_or_else(|| {
        let text = "neither XDG_CACHE_HOME nor HOME says where checked-out commits may be kept";
        CliError::usage(text).hint(HINT)
    })?;
    let mut repository = Hasher::new("repository");
    repository.bytes(common.as_os_str().as_encoded_bytes());
    outside(cache.join("kiln/impact").join(repository.finish().to_string()))
}

/// Removes the directory in which a former version kept checked-out commits, once no command uses
/// it. Blocks.
fn forget(own: &Path) -> io::Result<()> {
    let _turn = Kept::open(own)?.turn()?;
    match fs::remove_dir_all(own) {
        // Another one of these commands was quicker.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A path without symbolic links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let Ok(found) = above.canonicalize() {
            let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() { found } else { found.join(rest) };
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_checked_out_below_the_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let (inner, cache) = (top.join("repository/sub"), top.join("cache"));
        fs::create_dir_all(&inner).unwrap();
        let old = top.join("repository/.git/kiln/impact/tree");
        fs::create_dir_all(&old).unwrap();
        let git = |workspace: &Path| Git {
            workspace: workspace.to_owned(),
            prefix: PathBuf::new(),
            common: top.join("repository/.git"),
        };
        let of = |workspace: &Path, named: Option<&Path>, cache: Option<&Path>| {
            directory(&git(workspace), named, cache.map(Path::to_owned)).ok()
        };
        // A workspace below the repository's top has git's directory outside of it.
        assert_eq!(of(&inner, None, None), Some(top.join("repository/.git/kiln/impact")));
        assert!(old.exists());
        let whole = top.join("repository");
        let found = of(&whole, None, Some(&cache)).unwrap();
        assert!(found.starts_with(cache.join("kiln/impact")), "{}", found.display());
        assert!(!old.exists(), "what was checked out there were targets");
        assert_eq!(of(&whole, None, None), None);
        assert_eq!(of(&whole, None, Some(&whole.join("home"))), None);
        assert_eq!(of(&whole, Some(&whole.join("x/y")), Some(&cache)), None);
        assert_eq!(of(&whole, Some(&top.join("x")), None), Some(top.join("x")));
    }
}
