//! Root file systems, prepared once and reused: each a small read-only tmpfs with the real
//! directories bound into it, and a mount namespace that has it as its root. An action gets a copy
//! of that namespace: nothing has to be taken off it any more.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::error::{Context, ZygoteError};
use super::identity::Identity;
use super::layout::{INPUTS, MACHINE, ROOTS, make_dir, place, under};
use super::namespace::MountNamespace;
use super::{devices, etc, hide, mounts, system};
use crate::sandbox::{EXEC_ROOT, RootFs};

/// The directories of the machine that a root made of its own programs shows; missing ones are
/// skipped.
const MACHINE_DIRS: [&str; 9] =
    ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix"];
/// The directories that every root brings itself, whatever an image has there.
const OWN: [&str; 5] = ["dev", "kiln", "proc", "sys", "tmp"];
/// Empty directories that programs expect beside the machine's own.
const EMPTY_DIRS: [&str; 3] = ["home", "run", "var"];
/// The symlinks in /var of such a root, each with its target.
const VAR_LINKS: [(&str, &str); 3] =
    [("lock", "../run/lock"), ("run", "../run"), ("tmp", "../tmp")];
/// Most prepared images of a slot: the oldest makes room.
const MAX_IMAGES: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    root: RootFs,
    network: bool,
}

#[derive(Debug)]
struct Prepared {
    key: Key,
    /// The directory of the root in the zygote's own mount namespace.
    path: PathBuf,
    namespace: MountNamespace,
}

/// The root that is prepared first and always there: the machine's own programs, without network.
const HOST: Key = Key { root: RootFs::Host, network: false };

#[derive(Debug)]
pub(super) struct Roots {
    prepared: Vec<Prepared>,
    next: u64,
    /// The machine's /etc/resolv.conf, for actions with its network; empty where it cannot be read.
    resolv_conf: Vec<u8>,
    identity: Identity,
    /// Paths of the machine that no root may show.
    hidden: Vec<PathBuf>,
}

impl Roots {
    /// Prepares what needs the machine's root while that is still mounted.
    pub(super) fn prepare(identity: Identity, hidden: Vec<PathBuf>) -> Result<Self, ZygoteError> {
        let resolv_conf =
            fs::read(under(MACHINE, Path::new("/etc/resolv.conf"))).unwrap_or_default();
        let mut roots = Self { prepared: Vec::new(), next: 0, resolv_conf, identity, hidden };
        roots.add(HOST)?;
        Ok(roots)
    }

    /// The mount namespace with this root.
    pub(super) fn get(
        &mut self,
        root: &RootFs,
        network: bool,
    ) -> Result<&MountNamespace, ZygoteError> {
        // Inputs become the root only once they are mounted: until then it is one of nothing.
        let root = if *root == RootFs::Inputs { &RootFs::Empty } else { root };
        let known =
            |prepared: &Prepared| prepared.key.root == *root && prepared.key.network == network;
        let index = match self.prepared.iter().position(known) {
            Some(index) => index,
            None => {
                self.make_room()?;
                self.add(Key { root: root.clone(), network })?;
                self.prepared.len() - 1
            }
        };
        Ok(&self.prepared[index].namespace)
    }

    fn make_room(&mut self) -> Result<(), ZygoteError> {
        let image = |prepared: &Prepared| matches!(prepared.key.root, RootFs::Directory(_));
        if self.prepared.iter().filter(|prepared| image(prepared)).count() < MAX_IMAGES {
            return Ok(());
        }
        if let Some(oldest) = self.prepared.iter().position(image) {
            mounts::detach(&self.prepared.remove(oldest).path)?;
        }
        Ok(())
    }

    fn add(&mut self, key: Key) -> Result<(), ZygoteError> {
        let path = Path::new(ROOTS).join(self.next.to_string());
        self.next += 1;
        make_dir(&path)?;
        mounts::tmpfs(&path, "mode=0755")?;
        match self.populate(&path, &key).and_then(|()| MountNamespace::with_root(&path)) {
            Ok(namespace) => {
                self.prepared.push(Prepared { key, path, namespace });
                Ok(())
            }
            Err(error) => {
                // What is half prepared must not stay mounted; the first error is the one to tell.
                let _ = mounts::detach(&path);
                Err(error)
            }
        }
    }

    fn populate(&self, path: &Path, key: &Key) -> Result<(), ZygoteError> {
        for dir in ["proc", "tmp", "dev", EXEC_ROOT.trim_start_matches('/')] {
            make_dir(&path.join(dir))?;
        }
        if *key == HOST {
            devices::populate(&path.join("dev"))?;
            system::populate(&path.join("sys"))?;
        } else {
            mounts::bind(&self.first()?.join("dev"), &path.join("dev"))?;
        }
        match &key.root {
            RootFs::Empty | RootFs::Inputs => {}
            RootFs::Host if key.network => {
                place(&self.first()?.join("sys"), &path.join("sys"))?;
                self.host(&self.first()?, path)?;
                fs::write(path.join("etc/resolv.conf"), &self.resolv_conf)
                    .context("write", "resolv.conf")?;
            }
            RootFs::Host => self.host(Path::new(MACHINE), path)?,
            RootFs::Directory(image) => {
                place(&self.first()?.join("sys"), &path.join("sys"))?;
                contents(&under(INPUTS, image), path)?;
                self.network_files(path, key.network)?;
            }
        }
        mounts::restrict(path, false, false)
    }

    /// Puts the files into the root that say how names of hosts become addresses. These are never
    /// the image's own: `localhost` is known everywhere, and the machine's name servers are where
    /// its network is.
    fn network_files(&self, path: &Path, network: bool) -> Result<(), ZygoteError> {
        cover(&self.first()?.join("etc/hosts"), &path.join("etc/hosts"))?;
        if !network {
            return Ok(());
        }
        let servers = path.join("kiln/resolv.conf");
        fs::write(&servers, &self.resolv_conf).context("write", "resolv.conf")?;
        cover(&servers, &path.join("etc/resolv.conf"))
    }

    /// The machine's own, from which later ones take what is no longer mounted elsewhere.
    fn first(&self) -> Result<PathBuf, ZygoteError> {
        let host = self.prepared.iter().find(|prepared| prepared.key == HOST);
        host.map(|host| host.path.clone())
            .ok_or_else(|| ZygoteError::Refused("no host root is prepared".to_owned()))
    }

    /// The machine's programs, from `source`: the machine itself or a root that has them.
    fn host(&self, source: &Path, path: &Path) -> Result<(), ZygoteError> {
        for name in MACHINE_DIRS {
            place(&source.join(name), &path.join(name))?;
        }
        hide::cover(path, &self.hidden)?;
        for name in EMPTY_DIRS {
            make_dir(&path.join(name))?;
        }
        for (name, target) in VAR_LINKS {
            symlink(target, path.join("var").join(name)).context("symlink", name)?;
        }
        etc::populate(&path.join("etc"), &source.join("etc"), &self.identity)
    }
}

/// Mounts all of an image but what every root brings itself.
fn contents(image: &Path, path: &Path) -> Result<(), ZygoteError> {
    for entry in fs::read_dir(image).context("read directory", image.display())? {
        let name = entry.context("read directory", image.display())?.file_name();
        if !OWN.iter().any(|own| name == *own) {
            place(&image.join(&name), &path.join(&name))?;
        }
    }
    Ok(())
}

/// Makes `from` appear in the place of the file `to`, if that is a file.
fn cover(from: &Path, to: &Path) -> Result<(), ZygoteError> {
    let in_place = to.parent().is_some_and(|directory| !directory.is_symlink());
    let is_file = fs::symlink_metadata(to).is_ok_and(|metadata| metadata.is_file());
    if in_place && is_file {
        mounts::bind(from, to)?;
        mounts::restrict(to, false, false)?;
    }
    Ok(())
}
