//! The cgroups of slots whose server was killed before it could remove them.
//!
//! A server holds a lock (flock) on the directory of each cgroup that it made. However it ends, the
//! kernel lifts the lock, so what is not locked belongs to nobody. The number of a process would not
//! say that: it may be another's by now, or be counted in another container.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::sandbox::pidfd;

const PREFIX: &str = "kiln-slot-";
/// How often a cgroup is made anew that another server took for stale before it was locked.
const CREATIONS: usize = 8;
/// How often the processes in a stale cgroup are killed: new ones may have been born meanwhile.
const KILLS: usize = 8;
/// How long the processes of one cgroup may take to die.
const PATIENCE: Duration = Duration::from_secs(1);

/// The cgroup of a slot of this server; different from those of others that run.
pub(super) fn name(slot: &str) -> String {
    format!("{PREFIX}{}-{slot}", std::process::id())
}

/// Makes the cgroup and takes it for this server, until the file is closed.
pub(super) fn create(dir: &Path) -> io::Result<File> {
    for _ in 0..CREATIONS {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        match lock(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Err(io::Error::other("other servers keep removing it"))
}

/// Fails where a server has it, and with `NotFound` where it was removed in the meantime.
fn lock(dir: &Path) -> io::Result<File> {
    let file = File::open(dir)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            io::Error::new(io::ErrorKind::WouldBlock, "another slot of this name has it")
        }
        TryLockError::Error(error) => error,
    })?;
    let (locked, there) = (file.metadata()?, fs::metadata(dir)?);
    if (locked.dev(), locked.ino()) == (there.dev(), there.ino()) {
        Ok(file)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Removes the cgroups in `parent` that no server has, and ends the processes in them.
pub(super) fn remove_from(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let dir = entry.path();
        let Ok(_lock) = lock(&dir) else { continue };
        if let Err(error) = remove(&dir) {
            let cgroup = dir.display();
            tracing::warn!(%cgroup, %error, "a killed server's cgroup stays: the next start tries again");
        }
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..KILLS {
        match fs::remove_dir(dir) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => kill_all(dir, deadline)?,
            other => return other,
        }
    }
    fs::remove_dir(dir)
}

/// Returns when those processes have ended that are in the cgroup now.
fn kill_all(dir: &Path, deadline: Instant) -> io::Result<()> {
    let mut dying = Vec::new();
    for pid in processes(dir)? {
        let Ok(process) = pidfd::open(pid) else { continue };
        // The number may have changed hands since it was read; what is open can not.
        if processes(dir)?.contains(&pid) {
            pidfd::kill(process.as_fd())?;
            dying.push(process);
        }
    }
    dying.iter().try_for_each(|process| wait(process, deadline))
}

/// The processes in the cgroup `dir`, without those of another container, which show as 0.
fn processes(dir: &Path) -> io::Result<Vec<Pid>> {
    let list = fs::read_to_string(dir.join("cgroup.procs"))?;
    let numbers = list.lines().filter_map(|line| line.parse().ok()).filter(|number| *number > 0);
    Ok(numbers.map(Pid::from_raw).collect())
}

fn wait(process: &OwnedFd, deadline: Instant) -> io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(0) => return Err(io::Error::other("a process in it does not die")),
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::path::PathBuf;
    use std::process::{Child, Command};

    use super::*;

    fn names(parent: &Path) -> Vec<String> {
        let entries = fs::read_dir(parent).unwrap().flatten();
        let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
        let mut names: Vec<_> =
            directories.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_nobody_has_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let (live, own) = ("kiln-slot-4194305-0", name("0"));
        let _lock = create(&parent.path().join(live)).unwrap();
        // Whose number is in the name does not matter: this process is alive.
        for name in [own.as_str(), "kiln-slot-1-a", "kiln-server", "other"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        remove_from(parent.path());
        assert_eq!(names(parent.path()), ["kiln-server", live, "other"]);
    }

    #[test]
    fn what_one_server_has_no_other_takes() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("kiln-slot-1-0");
        let first = create(&dir).unwrap();
        assert_eq!(create(&dir).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(first);
        create(&dir).unwrap();
    }

    #[test]
    fn a_lock_on_what_was_removed_counts_for_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("kiln-slot-1-0");
        let lost = create(&dir).unwrap();
        fs::remove_dir(&dir).unwrap();
        let _found = create(&dir).unwrap();
        drop(lost);
        remove_from(parent.path());
        assert_eq!(names(parent.path()), ["kiln-slot-1-0"]);
    }

    /// A cgroup of this test alone on a hierarchy of this machine.
    struct Hierarchy(PathBuf);

    impl Hierarchy {
        fn of(kind: &str) -> Option<Self> {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            let mut points = mounts.lines().filter_map(|line| {
                let mut fields = line.split(' ').skip(1);
                let point = fields.next()?;
                let fits = fields.next()? == kind && !fields.next()?.contains("cpuset");
                fits.then(|| Path::new(point).join(format!("kiln-test-{}", std::process::id())))
            });
            let dir = points.find(|dir| fs::create_dir(dir).is_ok());
            if dir.is_none() {
                eprintln!("SKIPPED: this process may make no {kind} on this machine");
            }
            dir.map(Self)
        }

        /// A cgroup with a process in it.
        fn inhabited(&self, name: &str) -> (PathBuf, Child) {
            let dir = self.0.join(name);
            fs::create_dir(&dir).unwrap();
            let child = Command::new("sleep").arg("1000").spawn().unwrap();
            fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
            (dir, child)
        }
    }

    impl Drop for Hierarchy {
        fn drop(&mut self) {
            remove_from(&self.0);
            let _ = fs::remove_dir(&self.0);
        }
    }

    fn only_processes_of_the_dead_are_killed(kind: &str) {
        let Some(hierarchy) = Hierarchy::of(kind) else { return };
        let (_, mut orphan) = hierarchy.inhabited("kiln-slot-1-dead");
        let (living, mut child) = hierarchy.inhabited("kiln-slot-1-alive");
        let owner = lock(&living).unwrap();
        remove_from(&hierarchy.0);
        assert_eq!(names(&hierarchy.0), ["kiln-slot-1-alive"]);
        assert_eq!(orphan.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(child.try_wait().unwrap(), None);
        drop(owner);
        remove_from(&hierarchy.0);
        assert_eq!(names(&hierarchy.0), [""; 0]);
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn on_version_1_only_processes_of_the_dead_are_killed() {
        only_processes_of_the_dead_are_killed("cgroup");
    }

    #[test]
    fn on_version_2_only_processes_of_the_dead_are_killed() {
        only_processes_of_the_dead_are_killed("cgroup2");
    }
}
