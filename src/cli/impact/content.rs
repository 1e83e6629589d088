//! Reads the content of source files.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kiln_ci::impact::{Content, Graph, Hash, Hasher, SourceFile};

/// Most files in directories that are inputs as a whole.
const MOST: usize = 1_000_000;

/// The content of each source file by its label; `workspace` is where the targets were asked for.
pub fn of_sources<'a>(graph: &'a Graph, workspace: &Path) -> io::Result<HashMap<&'a str, Content>> {
    let mut left = MOST;
    graph
        .sources()
        .map(|(label, file)| {
            let content = match hash(&path(label, file, workspace), &mut left) {
                Ok(hash) => Content::Known(hash),
                Err(error) if absent(&error) => Content::Absent,
                Err(error) => {
                    return Err(io::Error::new(error.kind(), format!("{label}: {error}")));
                }
            };
            Ok((label, content))
        })
        .collect()
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// A file of the main repository is in the workspace; one of another repository is where the tool says.
fn path(label: &str, file: &SourceFile, workspace: &Path) -> std::path::PathBuf {
    let main = label.strip_prefix("@@").unwrap_or(label).strip_prefix("//");
    match (main.and_then(|rest| rest.split_once(':')), &file.directory) {
        (Some((package, name)), _) => workspace.join(package).join(name),
        (None, Some(directory)) => Path::new(directory).join(&file.path),
        (None, None) => workspace.join(&file.path),
    }
}

/// Type, executable bit and content, through symbolic links as builds read them.
fn hash(path: &Path, left: &mut usize) -> io::Result<Hash> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return directory(path, left);
    }
    if !about.is_file() {
        return Ok(Hasher::new("special").finish());
    }
    let executable = about.permissions().mode() & 0o111 != 0;
    let content = fs::read(path)?;
    Ok(Hasher::new("file").count(executable.into()).rest(&content).finish())
}

fn directory(path: &Path, left: &mut usize) -> io::Result<Hash> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        *left = left.checked_sub(1).ok_or_else(|| {
            io::Error::new(
                ErrorKind::FileTooLarge,
                format!("more than {MOST} files in directories"),
            )
        })?;
        let entry = entry?;
        // Not through links: they may lead round in circles.
        let hash = match entry.file_type()?.is_symlink() {
            true => Hasher::new("link")
                .bytes(fs::read_link(entry.path())?.as_os_str().as_encoded_bytes())
                .finish(),
            false => hash(&entry.path(), left)?,
        };
        entries.insert(entry.file_name(), hash);
    }
    let mut hasher = Hasher::new("directory");
    hasher.count(entries.len());
    for (name, hash) in entries {
        hasher.bytes(name.as_encoded_bytes()).hash(hash);
    }
    Ok(hasher.finish())
}

/// Hashes of files that every target depends on, by path; of those that are not there nothing.
pub fn of_common(workspace: &Path, paths: &[String]) -> io::Result<BTreeMap<String, Hash>> {
    let mut found = BTreeMap::new();
    for path in paths {
        match hash(&workspace.join(path), &mut 1000) {
            Ok(hash) => drop(found.insert(path.clone(), hash)),
            Err(error) if absent(&error) => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &Path) -> Hash {
        hash(path, &mut 100).unwrap()
    }

    #[test]
    fn mode_content_and_names_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/b");
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(&file, "one").unwrap();
        let (before, tree) = (of(&file), of(&dir.path().join("a")));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(of(&file), before);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!((of(&file), of(&dir.path().join("a"))), (before, tree));
        fs::rename(&file, dir.path().join("a/c")).unwrap();
        assert_ne!(of(&dir.path().join("a")), tree);
        std::os::unix::fs::symlink("a", dir.path().join("a/circle")).unwrap();
        of(&dir.path().join("a"));
    }

    #[test]
    fn files_of_other_repositories_are_where_the_tool_says() {
        let file = |directory: Option<&str>| SourceFile {
            path: "b/c".to_owned(),
            directory: directory.map(str::to_owned),
        };
        let at = |label, directory| path(label, &file(directory), Path::new("/ws"));
        assert_eq!(at("//a:b/c", Some("/elsewhere")), Path::new("/ws/a/b/c"));
        assert_eq!(at("@@//a:b/c", None), Path::new("/ws/a/b/c"));
        assert_eq!(at("@x//a:b/c", Some("/out/external/x/a")), Path::new("/out/external/x/a/b/c"));
    }
}
