//! Where an action writes: its input root over the read-only inputs, /tmp and /dev/shm.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{Statvfs, statvfs};
use nix::unistd::chdir;

use super::error::{Context, ZygoteError};
use super::identity::Identity;
use super::layout::{DISK, INPUTS, SCRATCH, make_dir, under};
use super::{copy, mounts, writable};
use crate::sandbox::{CommandSpec, EXEC_ROOT, Limits, RootFs, UpperDir};

/// What the mount call takes as options is a page; longer lists of lower trees get short names.
const MAX_LOWER_OPTION: usize = 3000;
/// The kernel's own limit of overlay layers.
const MAX_LOWER: usize = 500;
/// One inode for each such part of the disk limit, within bounds: empty files take memory too.
const BYTES_PER_INODE: u64 = 4096;
const INODES: std::ops::RangeInclusive<u64> = 16_384..=4_194_304;
/// Free space below this counts as none.
const FULL: u64 = 64 << 10;
/// What is mounted into inputs that are the root.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "tmp"];

/// One of two places that take turns, so that throwing away what the last action left can wait until
/// nobody waits for it.
#[derive(Debug)]
struct Place {
    base: PathBuf,
    /// Where on disk it lies, with [`UpperDir::Disk`].
    disk: PathBuf,
    mounted: bool,
}

impl Place {
    fn new(name: &str) -> Self {
        Self {
            base: Path::new(SCRATCH).join(name),
            disk: Path::new(DISK).join(name),
            mounted: false,
        }
    }

    /// The action's input root, in the zygote's namespace.
    fn root(&self, spec: &CommandSpec) -> PathBuf {
        if spec.lower.is_empty() || spec.conditions.copies_inputs() {
            self.upper()
        } else {
            self.merged()
        }
    }

    fn tmp(&self) -> PathBuf {
        self.base.join("tmp")
    }

    fn shm(&self) -> PathBuf {
        self.base.join("shm")
    }

    fn upper(&self) -> PathBuf {
        self.base.join("upper")
    }

    fn frame(&self) -> PathBuf {
        self.base.join("frame")
    }

    fn merged(&self) -> PathBuf {
        self.base.join("root")
    }

    fn mount(&mut self, upper: UpperDir, limits: &Limits) -> Result<(), ZygoteError> {
        self.clear(upper)?;
        match upper {
            UpperDir::Tmpfs => mounts::tmpfs(&self.base, &tmpfs_options(limits))?,
            UpperDir::Disk => {
                make_dir(&self.disk)?;
                mounts::bind(&self.disk, &self.base)?;
            }
        }
        self.mounted = true;
        Ok(())
    }

    fn clear(&mut self, upper: UpperDir) -> Result<(), ZygoteError> {
        if self.mounted {
            mounts::detach(&self.base)?;
            self.mounted = false;
        }
        if upper == UpperDir::Disk && self.disk.exists() {
            fs::remove_dir_all(&self.disk).context("remove", "an earlier action's files")?;
        }
        Ok(())
    }
}

/// How full a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    Little,
    /// More than three quarters.
    Nearly,
    Full,
}

impl Fill {
    fn of(space: &Statvfs) -> Self {
        let (free, files_free) = (space.blocks_available(), space.files_free());
        if free * space.fragment_size() < FULL || files_free == 0 {
            Self::Full
        } else if free < space.blocks() / 4 || files_free < space.files() / 4 {
            Self::Nearly
        } else {
            Self::Little
        }
    }
}

/// What an action left beyond this does not wait for the next one's end.
const LARGE: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Scratch {
    upper: UpperDir,
    /// Who the action is.
    identity: Identity,
    places: [Place; 2],
    current: usize,
    /// What a tool keeps from request to request, and the frame of its input root.
    tool: Place,
    /// Bytes of earlier requests that a tool has not let go of.
    held: u64,
}

/// A tool that holds on to more of what it has written before gets no other request.
const MAX_HELD: u64 = 8 << 20;
/// Most entries in the uppermost directory of a tool's input root: each is a mount of its own.
const MAX_SHOWN: usize = 1024;

impl Scratch {
    pub(super) fn new(upper: UpperDir, identity: Identity) -> Result<Self, ZygoteError> {
        let mut places = [Place::new("0"), Place::new("1")];
        let mut tool = Place::new("tool");
        for place in places.iter_mut().chain([&mut tool]) {
            make_dir(&place.base)?;
            // What a killed zygote left.
            place.clear(upper)?;
        }
        Ok(Self { upper, identity, places, current: 0, tool, held: 0 })
    }

    /// Copies of the action's writable places, and where in its root they belong.
    pub(super) fn trees(&self, spec: &CommandSpec) -> Result<[(OwnedFd, PathBuf); 3], ZygoteError> {
        let place = self.place();
        Ok([
            (mounts::open_tree(&place.root(spec))?, PathBuf::from(EXEC_ROOT)),
            (mounts::open_tree(&place.tmp())?, PathBuf::from("/tmp")),
            (mounts::open_tree(&place.shm())?, PathBuf::from("/dev/shm")),
        ])
    }

    /// The same for a tool: an empty frame for its input root, and the rest is kept while it lives.
    pub(super) fn tool_trees(
        &mut self,
        limits: &Limits,
    ) -> Result<[(OwnedFd, PathBuf); 3], ZygoteError> {
        self.tool.mount(self.upper, limits)?;
        let (frame, tmp, shm) = (self.tool.frame(), self.tool.tmp(), self.tool.shm());
        make_dir(&frame)?;
        self.own_dir(&tmp, 0o1777)?;
        self.own_dir(&shm, 0o1777)?;
        Ok([
            (mounts::open_tree(&frame)?, PathBuf::from(EXEC_ROOT)),
            (mounts::open_tree(&tmp)?, PathBuf::from("/tmp")),
            (mounts::open_tree(&shm)?, PathBuf::from("/dev/shm")),
        ])
    }

    /// Puts the prepared input root's uppermost entries into the tool's frame: links as links, and
    /// of the rest copies that are to be mounted where it is said.
    pub(super) fn show(&self, spec: &CommandSpec) -> Result<Vec<(OwnedFd, PathBuf)>, ZygoteError> {
        let (root, frame) = (self.place().root(spec), self.tool.frame());
        let mut trees = Vec::new();
        let entries = fs::read_dir(&root).context("read directory", root.display())?;
        for (count, entry) in entries.enumerate() {
            if count == MAX_SHOWN {
                return Err(ZygoteError::Refused(format!(
                    "the input root of a tool has more than {MAX_SHOWN} entries"
                )));
            }
            let entry = entry.context("read directory", root.display())?;
            let (from, at) = (entry.path(), frame.join(entry.file_name()));
            let kind = entry.file_type().context("stat", from.display())?;
            if kind.is_symlink() {
                let target = fs::read_link(&from).context("readlink", from.display())?;
                symlink(target, &at).context("symlink", at.display())?;
                continue;
            }
            if kind.is_dir() {
                fs::create_dir(&at).context("mkdir", at.display())?;
            } else {
                fs::File::create(&at).context("create", at.display())?;
            }
            trees.push((mounts::open_tree(&from)?, Path::new(EXEC_ROOT).join(entry.file_name())));
        }
        Ok(trees)
    }

    /// Empties the tool's frame, in which nothing is mounted any more.
    pub(super) fn empty_frame(&self) -> Result<(), ZygoteError> {
        let frame = self.tool.frame();
        for entry in fs::read_dir(&frame).context("read directory", frame.display())? {
            let entry = entry.context("read directory", frame.display())?;
            let (path, kind) = (entry.path(), entry.file_type());
            let removed = match kind.context("stat", path.display())?.is_dir() {
                true => fs::remove_dir(&path),
                false => fs::remove_file(&path),
            };
            removed.context("remove", path.display())?;
        }
        Ok(())
    }

    fn place(&self) -> &Place {
        &self.places[self.current]
    }

    /// Makes place for the next action. The descriptor is its input root's, and outlives it. False: what
    /// it may write has no room for the directories that it is to find.
    pub(super) fn prepare(
        &mut self,
        spec: &CommandSpec,
        identity: Identity,
    ) -> Result<(OwnedFd, bool), ZygoteError> {
        self.identity = identity;
        self.forget_large()?;
        self.current = 1 - self.current;
        self.places[self.current].mount(self.upper, &spec.limits)?;
        let place = self.place();
        self.own_dir(&place.upper(), 0o755)?;
        self.own_dir(&place.tmp(), 0o1777)?;
        self.own_dir(&place.shm(), 0o1777)?;
        let lower = lower_paths(&spec.lower, self.identity.inputs)?;
        let copies = spec.conditions.copies_inputs();
        if copies {
            let owner = self.identity.owns_inputs && self.identity.switches_user;
            let owner = owner.then_some((self.identity.uid, self.identity.gid));
            copy::inputs(&lower, &place.upper(), spec.conditions, owner)?;
        }
        let fits = match self.make_directories(spec, &lower) {
            Err(error) if matches!(error.errno(), Some(Errno::ENOSPC | Errno::EDQUOT)) => false,
            made => made.map(|()| true)?,
        };
        if fits && !lower.is_empty() && !copies {
            self.mount_overlay(&lower)?;
        }
        let root = if fits { place.root(spec) } else { place.upper() };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(&root, flags, Mode::empty()).context("open", root.display())?;
        Ok((opened, fits))
    }

    /// Why the inputs are not copied; `None`: they can be.
    pub(super) fn copy_hindrance(&self, spec: &CommandSpec) -> Option<String> {
        match lower_paths(&spec.lower, INPUTS) {
            Ok(lower) => copy::hindrance(&lower, spec.limits.disk_bytes),
            Err(error) => Some(error.to_string()),
        }
    }

    /// False: what the action may write has no room for it.
    pub(super) fn hand_over(
        &self,
        spec: &CommandSpec,
        root: &OwnedFd,
    ) -> Result<bool, ZygoteError> {
        for path in &spec.writable {
            match writable::hand_over(root.as_fd(), path, &self.identity) {
                Ok(()) => {}
                Err(Errno::ENOSPC | Errno::EDQUOT) => return Ok(false),
                Err(error) => return Err(error).context("hand over", path),
            }
        }
        Ok(true)
    }

    /// Throws away what the action before the prepared one left. The kernel may take milliseconds.
    pub(super) fn forget(&mut self) -> Result<(), ZygoteError> {
        self.places[1 - self.current].clear(self.upper)
    }

    /// The same, and what the prepared one left.
    pub(super) fn forget_all(&mut self) -> Result<(), ZygoteError> {
        self.places.iter_mut().try_for_each(|place| place.clear(self.upper))
    }

    /// The same after a request to a tool that has been collected. Its files are removed before: what
    /// is there still the tool holds on to, and no limit of the next request counts it.
    pub(super) fn release(&mut self) -> Result<(), ZygoteError> {
        let place = self.place();
        if self.upper == UpperDir::Tmpfs && place.mounted {
            // What cannot be removed counts.
            let _ = fs::remove_dir_all(place.upper());
            self.held += statvfs(&place.base).map_or(0, |space| used(&space));
        }
        self.forget_all()
    }

    /// Whether the tool may have another request.
    pub(super) fn check_held(&self) -> Result<(), ZygoteError> {
        if self.held <= MAX_HELD {
            return Ok(());
        }
        Err(ZygoteError::Refused(format!(
            "the tool keeps {} bytes open that it wrote for earlier requests; {MAX_HELD} may be",
            self.held
        )))
    }

    /// What takes so much memory that the next action may miss it goes before that begins.
    fn forget_large(&mut self) -> Result<(), ZygoteError> {
        let large = |space: Statvfs| used(&space) > LARGE;
        let last = &mut self.places[self.current];
        let in_memory = last.mounted && self.upper == UpperDir::Tmpfs;
        if in_memory && statvfs(&last.base).is_ok_and(large) {
            last.clear(self.upper)
        } else {
            Ok(())
        }
    }

    /// True when the action has used up what it may write.
    pub(super) fn is_full(&self) -> bool {
        self.fill(self.place()) == Fill::Full
    }

    /// Of what a tool keeps from request to request.
    pub(super) fn own_place(&self) -> Fill {
        self.fill(&self.tool)
    }

    /// A disk has no limit of the action's own.
    fn fill(&self, place: &Place) -> Fill {
        let space = (self.upper == UpperDir::Tmpfs).then(|| statvfs(&place.base).ok()).flatten();
        space.filter(|space| space.blocks() > 0).map_or(Fill::Little, |space| Fill::of(&space))
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
        let declared = spec.directories.iter().chain([&spec.working_directory]);
        for directory in declared.map(String::as_str).chain(mount_points(spec).iter().copied()) {
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
                let target = self.place().upper().join(&path);
                if !target.is_dir() {
                    fs::create_dir(&target).context("mkdir", path.display())?;
                }
                self.give(&target)?;
                made.insert(path.clone());
            }
        }
        Ok(())
    }

    fn mount_overlay(&self, lower: &[PathBuf]) -> Result<(), ZygoteError> {
        let place = self.place();
        let (work, merged) = (place.base.join("work"), place.merged());
        fs::create_dir(&work).context("mkdir", work.display())?;
        fs::create_dir(&merged).context("mkdir", merged.display())?;
        let xattr = if self.identity.user_namespace { ",userxattr" } else { "" };
        let options = format!(
            "lowerdir={},upperdir={},workdir={},volatile{xattr}",
            lower_option(lower, &place.base)?,
            place.upper().display(),
            work.display()
        );
        let mounted = mounts::overlay(&merged, &options);
        // Short names of lower trees are relative; the directory must not stay in use.
        chdir("/").context("chdir", "/")?;
        mounted
    }
}

fn used(space: &Statvfs) -> u64 {
    (space.blocks() - space.blocks_free()) * space.fragment_size()
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

fn mount_points<'a>(spec: &CommandSpec) -> &'a [&'a str] {
    if spec.root == RootFs::Inputs { &MOUNT_POINTS } else { &[] }
}

/// What stands in the way of inputs that are to be the root.
pub(super) fn blocked_mount_point(spec: &CommandSpec) -> Option<&'static str> {
    let blocked = |name: &&str| {
        spec.lower.iter().any(|tree| is_other_than_directory(&under(INPUTS, tree).join(name)))
    };
    mount_points(spec).iter().copied().find(blocked)
}

fn is_other_than_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}

fn lower_paths(lower: &[PathBuf], base: &str) -> Result<Vec<PathBuf>, ZygoteError> {
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
    Ok(lower.iter().map(|path| under(base, path)).collect())
}

/// The trees in the words of the mount option. Colons and commas would end a word, so such paths, and
/// lists that are too long, go through links with short names in the directory it changes to.
fn lower_option(lower: &[PathBuf], base: &Path) -> Result<String, ZygoteError> {
    let plain =
        |path: &PathBuf| path.to_str().is_some_and(|path| !path.contains([':', ',', '\\', '"']));
    let join = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
    };
    let joined = join(lower);
    if joined.len() <= MAX_LOWER_OPTION && lower.iter().all(plain) {
        return Ok(joined);
    }
    let links = base.join("l");
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
