//! Finds the declared outputs beneath the root of a finished action, and names them.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::{mem, vec};

use bytes::Bytes;
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::reapi;
use nix::dir::Dir;

use super::beneath::{self, Found, Inode, Kind};
use super::hash::{Stopped, check_size, hash};
use super::tree::TreeBuilder;
use super::{
    Collected, Content, Expected, MAX_OUTPUT_DEPTH, MAX_OUTPUT_PATH, OutputError, OutputKind,
    OutputLimits, OutputSpec, Patience,
};
use crate::paths;

/// Files of up to this size are read once and kept until they are stored, within the budget.
const KEPT_FILE_BYTES: u64 = 256 << 10;
const KEPT_BUDGET: u64 = 32 << 20;

/// Missing outputs are left out; symlinks are reported, never followed. The same files give the
/// same result, byte by byte. Blocks. Fails where this machine does, or `patience` ends; what the action
/// has done is in [`Collected::fault`].
pub fn collect(
    root: Arc<OwnedFd>,
    spec: &OutputSpec,
    function: DigestFunction,
    limits: &OutputLimits,
    patience: &Patience,
) -> Result<Collected, OutputError> {
    let mut collector = Collector {
        root: root.as_fd(),
        spec,
        function,
        limits,
        patience,
        result: reapi::ActionResult::default(),
        blobs: Vec::new(),
        named: HashSet::new(),
        linked: HashMap::new(),
        kept: 0,
        entries: 0,
        bytes: 0,
        hole_bytes: 0,
    };
    let mut fault = None;
    for output in &spec.expected {
        match collector.output(output) {
            Ok(()) => {}
            Err(error @ OutputError::Unusable { .. }) => {
                fault.get_or_insert(error);
            }
            Err(error @ (OutputError::TooMuch(_) | OutputError::TooLarge { .. })) => {
                let (result, blobs) = Default::default();
                return Ok(Collected { result, blobs, root, fault: Some(error) });
            }
            Err(error) => return Err(error),
        }
    }
    let Collector { result, blobs, .. } = collector;
    Ok(Collected { result, blobs, root, fault })
}

/// A directory that is being read.
struct Level {
    /// Its name in its parent.
    name: String,
    /// Its path from the input root.
    path: String,
    listing: Dir,
    /// The names in it that were not looked at yet.
    names: vec::IntoIter<String>,
    /// The Directory message with the entries that were found so far.
    message: reapi::Directory,
}

struct Collector<'a> {
    root: BorrowedFd<'a>,
    spec: &'a OutputSpec,
    function: DigestFunction,
    limits: &'a OutputLimits,
    patience: &'a Patience,
    result: reapi::ActionResult,
    blobs: Vec<(Digest, Content)>,
    named: HashSet<Digest>,
    /// Files that have several names: each is counted and hashed once.
    linked: HashMap<Inode, Digest>,
    /// Bytes of files that are held in memory until they are stored.
    kept: u64,
    entries: usize,
    bytes: u64,
    hole_bytes: u64,
}

impl Collector<'_> {
    fn output(&mut self, output: &Expected) -> Result<(), OutputError> {
        let path = &output.path;
        let (parent, name) = paths::split(path);
        let parent = match beneath::find_directory(self.root, parent)
            .map_err(OutputError::met("open the parent of", path))?
        {
            Found::Parent(parent) => parent,
            Found::Nothing => return Ok(()),
            Found::Outside => {
                let fault = "lies behind a symlink that leads out of the input root";
                return Err(OutputError::unusable(path, fault));
            }
        };
        let name = if name.is_empty() { "." } else { name };
        self.entries += 1;
        let Some(kind) = self.kind(parent.as_fd(), name, path)? else { return Ok(()) };
        self.check_kind(output, kind)?;
        match kind {
            Kind::File { size, executable, inode, .. } => {
                let digest = self.file(parent.as_fd(), name, path, size, inode)?;
                self.result.output_files.push(reapi::OutputFile {
                    path: output.declared.clone(),
                    digest: Some(digest.to_wire()),
                    is_executable: executable,
                    ..Default::default()
                });
            }
            Kind::Directory => self.directory_output(parent.as_fd(), name, output)?,
            Kind::Symlink => self.symlink_output(parent.as_fd(), name, output)?,
            Kind::Special(what) => return Err(special(path, what)),
        }
        Ok(())
    }

    /// Fails where ActionResult.output_files and output_directories demand it.
    fn check_kind(&self, output: &Expected, kind: Kind) -> Result<(), OutputError> {
        let fault = match (output.kind, kind) {
            (OutputKind::File, Kind::Directory) => "is a directory; output_files declares a file",
            (OutputKind::Directory, Kind::File { .. }) => {
                "is a file; output_directories declares a directory"
            }
            _ => return Ok(()),
        };
        Err(OutputError::unusable(&output.path, fault))
    }

    fn directory_output(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &str,
        output: &Expected,
    ) -> Result<(), OutputError> {
        let mut builder = TreeBuilder::new(self.function);
        let root = self.directory(parent, name, &output.path, &mut builder)?;
        let encoded = builder.finish(root);
        let tree = self.function.digest(&encoded.tree);
        self.keep(tree, Content::Memory(encoded.tree));
        if self.spec.directories_apart {
            for (digest, data) in encoded.directories {
                self.keep(digest, Content::Memory(data));
            }
        }
        self.result.output_directories.push(reapi::OutputDirectory {
            path: output.declared.clone(),
            tree_digest: Some(tree.to_wire()),
            is_topologically_sorted: true,
            root_directory_digest: self.spec.directories_apart.then(|| root.to_wire()),
        });
        Ok(())
    }

    /// Reports a symlink in the fields of REAPI 2.1 and of 2.0: clients read only one of them.
    #[allow(deprecated, reason = "clients before REAPI 2.1 read only these fields")]
    fn symlink_output(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &str,
        output: &Expected,
    ) -> Result<(), OutputError> {
        let target = symlink_target(parent, name, &output.path)?;
        let symlink =
            reapi::OutputSymlink { path: output.declared.clone(), target, ..Default::default() };
        let directory = match output.kind {
            OutputKind::Directory => true,
            OutputKind::File => false,
            OutputKind::Any => beneath::leads_to_directory(self.root, &output.path)
                .map_err(OutputError::met("follow", &output.path))?,
        };
        if directory {
            self.result.output_directory_symlinks.push(symlink.clone());
        } else {
            self.result.output_file_symlinks.push(symlink.clone());
        }
        self.result.output_symlinks.push(symlink);
        Ok(())
    }

    /// Reads a directory with all that is below it. What an action nests is kept in a list and not on the stack
    /// of this thread, which it could end.
    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &str,
        path: &str,
        builder: &mut TreeBuilder,
    ) -> Result<Digest, OutputError> {
        let mut above: Vec<Level> = Vec::new();
        let mut level = self.level(parent, name, path)?;
        loop {
            let Some(name) = level.names.next() else {
                let digest = builder.add(mem::take(&mut level.message));
                let Some(mut next) = above.pop() else { return Ok(digest) };
                let digest = Some(digest.to_wire());
                next.message.directories.push(reapi::DirectoryNode { name: level.name, digest });
                level = next;
                continue;
            };
            let path = paths::join(&level.path, &name);
            if path.len() > MAX_OUTPUT_PATH {
                let fault = format!("has a path longer than {MAX_OUTPUT_PATH} bytes");
                return Err(OutputError::unusable(&paths::shorten(&path), fault));
            }
            let Some(kind) = self.kind(level.listing.as_fd(), &name, &path)? else { continue };
            match kind {
                Kind::File { size, executable, inode, .. } => {
                    let digest = self.file(level.listing.as_fd(), &name, &path, size, inode)?;
                    level.message.files.push(reapi::FileNode {
                        name,
                        digest: Some(digest.to_wire()),
                        is_executable: executable,
                        ..Default::default()
                    });
                }
                Kind::Directory => {
                    if above.len() >= MAX_OUTPUT_DEPTH {
                        let fault = format!("is more than {MAX_OUTPUT_DEPTH} directories deep");
                        return Err(OutputError::unusable(&path, fault));
                    }
                    let below = self.level(level.listing.as_fd(), &name, &path)?;
                    above.push(mem::replace(&mut level, below));
                }
                Kind::Symlink => {
                    let target = symlink_target(level.listing.as_fd(), &name, &path)?;
                    level.message.symlinks.push(reapi::SymlinkNode {
                        name,
                        target,
                        ..Default::default()
                    });
                }
                Kind::Special(what) => return Err(special(&path, what)),
            }
        }
    }

    fn level(&mut self, at: BorrowedFd<'_>, name: &str, path: &str) -> Result<Level, OutputError> {
        let opened = beneath::open_listing(at, name).map_err(OutputError::met("open", path))?;
        let mut listing = Dir::from_fd(opened)
            .map_err(|error| OutputError::io(format!("list {path}"))(error.into()))?;
        let names = self.names(&mut listing, path)?.into_iter();
        let (name, path) = (name.to_owned(), path.to_owned());
        Ok(Level { name, path, listing, names, message: reapi::Directory::default() })
    }

    /// The names in a directory, sorted. They count from now on: those of all levels are held at the same time.
    fn names(&mut self, listing: &mut Dir, path: &str) -> Result<Vec<String>, OutputError> {
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry =
                entry.map_err(|error| OutputError::io(format!("list {path}"))(error.into()))?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let name = name.to_str().map_err(|_| {
                let fault = format!("holds {name:?}, a name that is not UTF-8");
                OutputError::unusable(path, fault)
            })?;
            names.push(name.to_owned());
            self.check_entries(self.entries + names.len())?;
        }
        names.sort_unstable();
        self.entries += names.len();
        Ok(names)
    }

    fn check_entries(&self, entries: usize) -> Result<(), OutputError> {
        let limit = self.limits.entries;
        if entries <= limit {
            return Ok(());
        }
        Err(OutputError::TooMuch(format!(
            "have more than {limit} entries, the limit of this worker; leave fewer, or an archive of them"
        )))
    }

    /// Looks at an entry, and counts its bytes.
    fn kind(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &str,
        path: &str,
    ) -> Result<Option<Kind>, OutputError> {
        self.patience.check()?;
        let kind = beneath::kind(directory, name).map_err(OutputError::met("look at", path))?;
        if let Some(Kind::File { size, allocated, inode, .. }) = kind
            && inode.is_none_or(|inode| !self.linked.contains_key(&inode))
        {
            if size > self.limits.blob {
                return Err(OutputError::TooLarge { size, limit: self.limits.blob });
            }
            let there = allocated.min(size);
            self.bytes = self.bytes.saturating_add(there);
            self.hole_bytes = self.hole_bytes.saturating_add(size - there);
        }
        self.check_entries(self.entries)?;
        if self.bytes > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(OutputError::TooMuch(format!(
                "have more than {limit} bytes with {path:?}, the limit of this worker; leave fewer or smaller ones"
            )));
        }
        if self.hole_bytes > self.limits.hole_bytes {
            let limit = self.limits.hole_bytes;
            return Err(OutputError::TooMuch(format!(
                "have more than {limit} bytes of holes, which were never written, with {path:?}; that is the \
                 limit of this worker; leave files without holes, or compressed ones"
            )));
        }
        Ok(kind)
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &str,
        path: &str,
        size: u64,
        inode: Option<Inode>,
    ) -> Result<Digest, OutputError> {
        if let Some(known) = inode.and_then(|inode| self.linked.get(&inode)) {
            return Ok(*known);
        }
        let digest = self.read(directory, name, path, size)?;
        self.linked.extend(inode.map(|inode| (inode, digest)));
        Ok(digest)
    }

    fn read(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &str,
        path: &str,
        size: u64,
    ) -> Result<Digest, OutputError> {
        let read = |error| OutputError::met("read", path)(error);
        let mut file = beneath::open_entry(directory, name).map_err(read)?;
        if size <= KEPT_FILE_BYTES && self.kept + size <= KEPT_BUDGET {
            let mut data = Vec::with_capacity(size as usize + 1);
            file.by_ref().take(size + 1).read_to_end(&mut data).map_err(read)?;
            check_size(data.len() as u64, size).map_err(read)?;
            self.kept += data.len() as u64;
            let digest = self.function.digest(&data);
            self.keep(digest, Content::Memory(Bytes::from(data)));
            return Ok(digest);
        }
        let digest =
            hash(&file, size, self.function, self.patience).map_err(|stopped| match stopped {
                Stopped::Io(error) => read(error),
                Stopped::By(error) => error,
            })?;
        self.keep(digest, Content::Beneath(path.to_owned()));
        Ok(digest)
    }

    fn keep(&mut self, digest: Digest, content: Content) {
        if !digest.is_empty_blob() && self.named.insert(digest) {
            self.blobs.push((digest, content));
        }
    }
}

fn special(path: &str, what: &str) -> OutputError {
    let fault = format!("is {what}; only files, directories and symlinks can be outputs");
    OutputError::unusable(path, fault)
}

fn symlink_target(
    directory: BorrowedFd<'_>,
    name: &str,
    path: &str,
) -> Result<String, OutputError> {
    beneath::target(directory, name)
        .map_err(OutputError::io(format!("read the symlink {path}")))?
        .ok_or_else(|| OutputError::unusable(path, "is a symlink whose target is not UTF-8"))
}
