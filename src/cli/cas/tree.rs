//! `kiln cas tree`.

use std::collections::HashMap;

use clap::Args;
use futures_util::StreamExt;
use kiln_cas::tree::validate_directory;
use kiln_cas::{BlobStore, Digest, DigestFunction, StoreError};
use kiln_protos::reapi;
use kiln_protos::reapi::Directory;
use prost::Message;
use serde::Serialize;

use super::remote::Remote;
use crate::cli::digest::DigestArgument;
use crate::cli::error::{CliError, Exit};
use crate::cli::text;
use kiln_web::format::{bytes, count, counted};

/// Directories read at a time.
const AT_A_TIME: usize = 64;
/// Most directories that are read.
const MAX_DIRECTORIES: usize = 1_000_000;
/// Most entries that are listed: one directory can be at many places.
const MAX_ENTRIES: usize = 5_000_000;
/// Deepest directory that is listed.
const MAX_DEPTH: usize = 1000;
/// Largest message that is decoded, in bytes.
const MAX_MESSAGE: u64 = 256 << 20;

/// List what is below a Directory, such as an action's input root
#[derive(Debug, Args)]
pub struct Tree {
    #[arg(value_name = "DIGEST")]
    digest: DigestArgument,
    /// The digest names the Tree of an output directory, not a Directory
    #[arg(long)]
    of_output: bool,
    /// Levels to list
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TreeEntry {
    path: String,
    /// The kind of the entry: `file`, `directory` or `symlink`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<i64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_executable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl Tree {
    pub async fn run(self, remote: &Remote<'_>) -> Result<Exit, CliError> {
        let DigestArgument(root) = self.digest;
        let depth = self.depth.unwrap_or(MAX_DEPTH).min(MAX_DEPTH);
        let failed = |error| remote.error(error);
        let (root, known) = if self.of_output {
            let tree: reapi::Tree = message(remote, root).await.map_err(|error| match error {
                StoreError::Invalid(why) => is_no(&root, "Tree", &why.to_string()),
                error => failed(error),
            })?;
            of_output(tree, root.function)
        } else {
            let known = directories(remote, root, depth).await.map_err(|error| match error {
                StoreError::Invalid(why) => is_no(&root, "Directory", &why.to_string()),
                error => failed(error),
            })?;
            (root, known)
        };
        let mut listing = Listing { known: &known, depth, entries: Vec::new(), is_cut: false };
        listing.directory(&root, "", 0).map_err(failed)?;
        let Listing { entries, is_cut, .. } = listing;
        let text = if self.json {
            let whole = serde_json::json!({ "entries": entries, "is_cut": is_cut });
            format!("{whole:#}\n")
        } else {
            lines(&entries, is_cut)
        };
        text::print(&text)?;
        Ok(Exit::Done)
    }
}

fn is_no(root: &Digest, message: &str, why: &str) -> CliError {
    let why = why.strip_prefix(&format!("blob {root}: ")).unwrap_or(why);
    CliError::answered(format!("{root} is no {message}: {why}")).hint(
        "name an input root (`kiln action show` says it), or with --of-output the Tree of an output \
         directory; `kiln cas get` fetches a file",
    )
}

/// Other bytes may happen to be readable as a message that nobody wrote.
async fn directory(remote: &Remote<'_>, digest: Digest) -> Result<Directory, StoreError> {
    let directory: Directory = message(remote, digest).await?;
    let is_other = directory == Directory::default() && !digest.is_empty_blob();
    let unsound = validate_directory(&directory).err().map(|error| error.to_string());
    match unsound.or_else(|| is_other.then(|| "it has no entries".to_owned())) {
        None => Ok(directory),
        Some(why) => Err(StoreError::invalid(format!("blob {digest}: {why}"))),
    }
}

async fn message<M: Message + Default>(
    remote: &Remote<'_>,
    digest: Digest,
) -> Result<M, StoreError> {
    let data = remote.store.read(&digest, 0, None).await?.collect(MAX_MESSAGE).await?;
    M::decode(data).map_err(|error| StoreError::invalid(format!("blob {digest}: {error}")))
}

fn of_output(tree: reapi::Tree, function: DigestFunction) -> (Digest, HashMap<Digest, Directory>) {
    let named = |directory: Directory| (function.digest(&directory.encode_to_vec()), directory);
    let (root, directory) = named(tree.root.unwrap_or_default());
    let mut known: HashMap<_, _> = tree.children.into_iter().map(named).collect();
    known.insert(root, directory);
    (root, known)
}

/// Reads level by level, each directory once.
async fn directories(
    remote: &Remote<'_>,
    root: Digest,
    depth: usize,
) -> Result<HashMap<Digest, Directory>, StoreError> {
    let mut known = HashMap::new();
    let mut level = vec![root];
    for _ in 0..=depth {
        if level.is_empty() || known.len() + level.len() > MAX_DIRECTORIES {
            break;
        }
        let read = std::mem::take(&mut level).into_iter().map(|digest| async move {
            Ok::<_, StoreError>((digest, directory(remote, digest).await?))
        });
        let mut read = futures_util::stream::iter(read).buffer_unordered(AT_A_TIME);
        let mut next = Vec::new();
        while let Some(found) = read.next().await {
            let (digest, directory) = found?;
            for child in &directory.directories {
                next.push(child_digest(child, digest.function)?);
            }
            known.insert(digest, directory);
        }
        next.sort_unstable();
        next.dedup();
        next.retain(|digest| !known.contains_key(digest));
        level = next;
    }
    Ok(known)
}

fn child_digest(
    child: &reapi::DirectoryNode,
    function: DigestFunction,
) -> Result<Digest, StoreError> {
    let wire = child.digest.clone().unwrap_or_default();
    Digest::from_wire(&wire, function)
        .map_err(|error| StoreError::invalid(format!("directory {:?}: {error}", child.name)))
}

struct Listing<'a> {
    known: &'a HashMap<Digest, Directory>,
    depth: usize,
    entries: Vec<TreeEntry>,
    is_cut: bool,
}

impl Listing<'_> {
    /// Lists a directory: files and links first, then each directory with what is in it.
    fn directory(&mut self, digest: &Digest, path: &str, level: usize) -> Result<(), StoreError> {
        let Some(directory) = self.known.get(digest) else {
            self.is_cut = true;
            return Ok(());
        };
        if self.entries.len() >= MAX_ENTRIES {
            self.is_cut = true;
            return Ok(());
        }
        self.entries.extend(directory.files.iter().map(|file| file_entry(path, file)));
        self.entries.extend(directory.symlinks.iter().map(|link| link_entry(path, link)));
        for child in &directory.directories {
            let digest = child_digest(child, digest.function)?;
            let path = format!("{path}{}/", child.name);
            self.entries.push(TreeEntry {
                path: path.clone(),
                kind: "directory",
                hash: Some(digest.hex()),
                size_bytes: Some(digest.size as i64),
                is_executable: false,
                target: None,
            });
            if level < self.depth {
                self.directory(&digest, &path, level + 1)?;
            } else {
                self.is_cut |= level == MAX_DEPTH;
            }
        }
        Ok(())
    }
}

fn file_entry(path: &str, file: &reapi::FileNode) -> TreeEntry {
    let digest = file.digest.clone().unwrap_or_default();
    TreeEntry {
        path: format!("{path}{}", file.name),
        kind: "file",
        hash: Some(digest.hash),
        size_bytes: Some(digest.size_bytes),
        is_executable: file.is_executable,
        target: None,
    }
}

fn link_entry(path: &str, link: &reapi::SymlinkNode) -> TreeEntry {
    TreeEntry {
        path: format!("{path}{}", link.name),
        kind: "symlink",
        hash: None,
        size_bytes: None,
        is_executable: false,
        target: Some(link.target.clone()),
    }
}

fn lines(entries: &[TreeEntry], is_cut: bool) -> String {
    let (mut files, mut directories, mut total) = (0, 0, 0);
    let mut text = String::new();
    for entry in entries {
        let size = u64::try_from(entry.size_bytes.unwrap_or(0)).unwrap_or(0);
        let line = match entry.kind {
            "file" => {
                files += 1;
                total += size;
                let hash = entry.hash.as_deref().unwrap_or_default();
                let executable = if entry.is_executable { "x" } else { " " };
                format!("{:>9} {executable} {}  {hash}/{size}", bytes(size), entry.path)
            }
            "directory" => {
                directories += 1;
                format!("{:>9}   {}", "-", entry.path)
            }
            _ => {
                let target = entry.target.as_deref().unwrap_or_default();
                format!("{:>9}   {} -> {target}", "link", entry.path)
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    let cut = if is_cut { "; there is more than is listed" } else { "" };
    let files = counted(files, "file");
    let directories = match directories {
        1 => "1 directory".to_owned(),
        several => format!("{} directories", count(several)),
    };
    text + &format!("{files} in {directories}, {}{cut}\n", bytes(total))
}
