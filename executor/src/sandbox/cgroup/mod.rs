//! Limits for memory, processes and cpu, on version 1 and version 2.
//!
//! The server makes one cgroup per controller and slot ([`CgroupSet`]); the zygote opens their
//! files before it enters its user namespace ([`Cgroups`]) and reuses them for every action.

mod discover;
mod files;

use std::path::PathBuf;

pub(super) use files::Cgroups;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Memory = 0,
    Pids = 1,
    Cpu = 2,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    /// The controller's name in both versions.
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// A directory in which one controller's files are. Version 2 has them all in the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Controller {
    pub kind: Kind,
    pub version: Version,
    pub dir: PathBuf,
}

/// The cgroups of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CgroupSet {
    pub controllers: Vec<Controller>,
}

impl CgroupSet {
    /// Makes what this machine allows; with it come sentences about what it does not.
    pub(super) fn create(name: &str) -> (Self, Vec<String>) {
        let found = discover::parents();
        let leaf = format!("{PREFIX}{}-{name}", std::process::id());
        let mut missing = found.missing;
        let mut controllers = Vec::new();
        for parent in found.parents {
            remove_stale(&parent.dir);
            let dir = parent.dir.join(&leaf);
            match make(&dir, &parent) {
                Ok(()) => controllers.push(Controller { dir, ..parent }),
                Err(error) => {
                    missing.push((parent.kind, format!("cannot create {}: {error}", dir.display())))
                }
            }
        }
        missing.sort_by_key(|(kind, _)| *kind as u8);
        (
            Self { controllers },
            missing.into_iter().map(|(kind, why)| sentence(kind, &why)).collect(),
        )
    }

    /// Removes the cgroups. Those in which processes still die stay, and the next start removes them.
    pub(super) fn remove(&self) {
        for controller in &self.controllers {
            // Version 2 names one directory several times: only the first removal can succeed.
            let _ = std::fs::remove_dir(&controller.dir);
        }
    }
}

/// `kiln-PID-NAME` is a slot's cgroup of the server with that process id.
const PREFIX: &str = "kiln-";

fn make(dir: &std::path::Path, parent: &Controller) -> std::io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let limit_file = files::limit_file(parent.kind, parent.version);
    std::fs::OpenOptions::new().write(true).open(dir.join(limit_file)).map(drop).inspect_err(|_| {
        let _ = std::fs::remove_dir(dir);
    })
}

fn remove_stale(parent: &std::path::Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let server = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next());
        let gone = |pid: u32| !std::path::Path::new("/proc").join(pid.to_string()).exists();
        if server.and_then(|pid| pid.parse().ok()).is_some_and(gone) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

fn sentence(kind: Kind, why: &str) -> String {
    let (limit, instead) = match kind {
        Kind::Memory => ("memory limit", "only each process's data is limited"),
        Kind::Pids => ("process limit", "RLIMIT_NPROC stands in for it"),
        Kind::Cpu => ("cpu limit", "nothing stands in for it"),
    };
    format!("{limit}: {why}; {instead}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_server_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let live = format!("kiln-{}-slot-0", std::process::id());
        // No process can have this id (PID_MAX_LIMIT is 2^22).
        for name in ["kiln-4194305-slot-0", &live, "kiln-server", "kiln-x-1", "other"] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        remove_stale(parent.path());
        let left = std::fs::read_dir(parent.path()).unwrap();
        let mut left: Vec<_> =
            left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort_unstable();
        assert_eq!(left, [live.as_str(), "kiln-server", "kiln-x-1", "other"]);
    }
}
