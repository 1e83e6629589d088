//! Where an action writes: its input root over the read-only inputs, /tmp and /dev/shm.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;
use nix::unistd::chdir;

use super::error::{Context, ZygoteError};
use super::identity::Identity;
use super::layout::{DISK, INPUTS, SCRATCH, make_dir, under};
use super::mounts;
use crate::sandbox::{CommandSpec, Limits, UpperDir};

/// What the mount call takes as options is a page; longer lists of lower trees get short names.
const MAX_LOWER_OPTION: usize = 3000;
/// The kernel's own limit of overlay layers.
const MAX_LOWER: usize = 500;
/// One inode for each such part of the disk limit, within bounds: empty files take memory too.
const BYTES_PER_INODE: u64 = 4096;
const INODES: std::ops::RangeInclusive<u64> = 16_384..=4_194_304;
/// Free space below this counts as none.
const FULL: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Scratch {
    upper: UpperDir,
    identity: Identity,
    mounted: bool,
}

impl Scratch {
    pub(super) fn new(upper: UpperDir, identity: Identity) -> Self {
        Self { upper, identity, mounted: false }
    }

    /// Throws away what the last action left and makes place for the next. The descriptor is the
    /// input root's, and outlives the action.
    pub(super) fn prepare(&mut self, spec: &CommandSpec) -> Result<OwnedFd, ZygoteError> {
        self.clear()?;
        let base = Path::new(SCRATCH);
        match self.upper {
            UpperDir::Tmpfs => mounts::tmpfs(base, &tmpfs_options(&spec.limits))?,
            UpperDir::Disk => {
                make_dir(&Path::new(DISK).join("run"))?;
                mounts::bind(&Path::new(DISK).join("run"), base)?;
            }
        }
        self.mounted = true;
        self.own_dir(&upper(), 0o755)?;
        self.own_dir(&tmp(), 0o1777)?;
        self.own_dir(&shm(), 0o1777)?;
        let lower = lower_paths(&spec.lower)?;
        self.make_directories(spec, &lower)?;
        if !lower.is_empty() {
            self.mount_overlay(&lower)?;
        }
        let root = root(spec);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(&root, flags, Mode::empty()).context("open", root.display())
    }

    /// True when the action has used up what it may write.
    pub(super) fn is_full(&self) -> bool {
        if self.upper == UpperDir::Disk {
            return false;
        }
        statvfs(SCRATCH).is_ok_and(|space| {
            space.blocks() > 0
                && (space.blocks_available() * space.fragment_size() < FULL
                    || space.files_free() == 0)
        })
    }

    fn clear(&mut self) -> Result<(), ZygoteError> {
        if self.mounted {
            mounts::detach(Path::new(SCRATCH))?;
            self.mounted = false;
        }
        let run = Path::new(DISK).join("run");
        if self.upper == UpperDir::Disk && run.exists() {
            fs::remove_dir_all(&run).context("remove", "the last action's files")?;
        }
        Ok(())
    }

    fn own_dir(&self, path: &Path, mode: u32) -> Result<(), ZygoteError> {
        fs::create_dir(path).context("mkdir", path.display())?;
        fs::set_permissions(path, PermissionsExt::from_mode(mode))
            .context("chmod", path.display())?;
        self.give(path)
    }

    fn give(&self, path: &Path) -> Result<(), ZygoteError> {
        if !self.identity.switches_user {
            return Ok(());
        }
        chown(path, Some(self.identity.uid), Some(self.identity.gid))
            .context("chown", path.display())
    }

    /// Makes the directories that outputs go to. They are made in the upper layer, where they lie over
    /// those of the inputs with the action as their owner, and nothing has to be copied up.
    fn make_directories(&self, spec: &CommandSpec, lower: &[PathBuf]) -> Result<(), ZygoteError> {
        let mut made = BTreeSet::new();
        for directory in spec.directories.iter().chain([&spec.working_directory]) {
            let mut path = PathBuf::new();
            for part in Path::new(directory).components() {
                let Component::Normal(part) = part else {
                    return Err(ZygoteError::Refused(format!(
                        "the directory {directory:?} is not a plain relative path"
                    )));
                };
                path.push(part);
                if made.contains(&path) {
                    continue;
                }
                // A file or link among the inputs stays what it is: the action will meet it.
                if lower.iter().any(|tree| is_other_than_directory(&tree.join(&path))) {
                    break;
                }
                let target = upper().join(&path);
                fs::create_dir(&target).context("mkdir", path.display())?;
                self.give(&target)?;
                made.insert(path.clone());
            }
        }
        Ok(())
    }

    fn mount_overlay(&self, lower: &[PathBuf]) -> Result<(), ZygoteError> {
        let work = Path::new(SCRATCH).join("work");
        let merged = Path::new(SCRATCH).join("root");
        fs::create_dir(&work).context("mkdir", work.display())?;
        fs::create_dir(&merged).context("mkdir", merged.display())?;
        let xattr = if self.identity.user_namespace { ",userxattr" } else { "" };
        let options = format!(
            "lowerdir={},upperdir={},workdir={},volatile{xattr}",
            lower_option(lower)?,
            upper().display(),
            work.display()
        );
        let mounted = mounts::overlay(&merged, &options);
        // Short names of lower trees are relative; the directory must not stay in use.
        chdir("/").context("chdir", "/")?;
        mounted
    }
}

/// The action's input root, its /tmp and its /dev/shm, in the zygote's namespace.
pub(super) fn root(spec: &CommandSpec) -> PathBuf {
    if spec.lower.is_empty() { upper() } else { Path::new(SCRATCH).join("root") }
}

pub(super) fn tmp() -> PathBuf {
    Path::new(SCRATCH).join("tmp")
}

pub(super) fn shm() -> PathBuf {
    Path::new(SCRATCH).join("shm")
}

fn upper() -> PathBuf {
    Path::new(SCRATCH).join("upper")
}

fn tmpfs_options(limits: &Limits) -> String {
    match limits.disk_bytes {
        None => "mode=0755".to_owned(),
        Some(bytes) => {
            let inodes = (bytes / BYTES_PER_INODE).clamp(*INODES.start(), *INODES.end());
            // A size of zero would mean no limit at all.
            format!("mode=0755,size={},nr_inodes={inodes}", bytes.max(BYTES_PER_INODE))
        }
    }
}

fn is_other_than_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

fn lower_paths(lower: &[PathBuf]) -> Result<Vec<PathBuf>, ZygoteError> {
    if lower.len() > MAX_LOWER {
        return Err(ZygoteError::Refused(format!(
            "{} input trees are more than {MAX_LOWER}",
            lower.len()
        )));
    }
    if let Some(relative) = lower.iter().find(|path| !path.is_absolute()) {
        return Err(ZygoteError::Refused(format!(
            "the input tree {} is not an absolute path",
            relative.display()
        )));
    }
    Ok(lower.iter().map(|path| under(INPUTS, path)).collect())
}

/// The trees in the words of the mount option. Colons and commas would end a word, so such paths, and
/// lists that are too long, go through links with short names in the directory it changes to.
fn lower_option(lower: &[PathBuf]) -> Result<String, ZygoteError> {
    let plain =
        |path: &PathBuf| path.to_str().is_some_and(|path| !path.contains([':', ',', '\\', '"']));
    let join = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
    };
    let joined = join(lower);
    if joined.len() <= MAX_LOWER_OPTION && lower.iter().all(plain) {
        return Ok(joined);
    }
    let links = Path::new(SCRATCH).join("l");
    fs::create_dir(&links).context("mkdir", links.display())?;
    chdir(&links).context("chdir", links.display())?;
    let mut short = Vec::with_capacity(lower.len());
    for (index, path) in lower.iter().enumerate() {
        let link = PathBuf::from(index.to_string());
        symlink(path, &link).context("symlink", link.display())?;
        short.push(link);
    }
    Ok(join(&short))
}
