//! Finds where this process may make cgroups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::set::{Controller, Kind, Version};

/// The cgroup into which the server itself moves where version 2 wants its parent empty.
const SERVER_LEAF: &str = "kiln-server";

pub(super) struct Found {
    /// The controllers that are there; the `dir` of each is the directory in which the slots'
    /// cgroups are to be made.
    pub parents: Vec<Controller>,
    pub missing: Vec<(Kind, String)>,
}

pub(super) fn parents() -> Found {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Found { parents: Vec::new(), missing: Vec::new() };
    let unified = unified_dir(&mounts, &own);
    for kind in Kind::ALL {
        if let Some(dir) = v1_dir(kind, &mounts, &own) {
            found.parents.push(Controller { kind, version: Version::V1, dir });
            continue;
        }
        match unified.as_deref().map(|dir| delegate(dir, kind)) {
            None => found.missing.push((kind, format!("no {} cgroup is mounted", kind.name()))),
            Some(Ok(dir)) => found.parents.push(Controller { kind, version: Version::V2, dir }),
            Some(Err(why)) => found.missing.push((kind, why)),
        }
    }
    found
}

/// One line of mountinfo: `ID PARENT DEV ROOT POINT OPTIONS [TAGS..] - TYPE SOURCE SUPER`.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

fn parse_mounts(mounts: &str) -> impl Iterator<Item = Mount<'_>> {
    mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        Some(Mount {
            root: left.next()?,
            point: left.next()?,
            kind: right.next()?,
            options: right.nth(1)?,
        })
    })
}

/// This process's directory below a mount, whose root may itself be a cgroup (in a container).
fn own_dir(mount: &Mount<'_>, own_path: &str) -> PathBuf {
    let inside =
        if mount.root == "/" { own_path } else { own_path.strip_prefix(mount.root).unwrap_or("") };
    Path::new(mount.point).join(inside.trim_start_matches('/'))
}

fn v1_dir(kind: Kind, mounts: &str, own: &str) -> Option<PathBuf> {
    let has = |list: &str| list.split(',').any(|item| item == kind.name());
    let mount = parse_mounts(mounts).find(|mount| mount.kind == "cgroup" && has(mount.options))?;
    // `N:CONTROLLERS:PATH`
    let path = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        has(controllers).then_some(path)
    })?;
    Some(own_dir(&mount, path))
}

fn unified_dir(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = parse_mounts(mounts).find(|mount| mount.kind == "cgroup2")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let dir = own_dir(&mount, path);
    if dir.file_name().is_some_and(|name| name == SERVER_LEAF) {
        dir.parent().map(Path::to_owned)
    } else {
        Some(dir)
    }
}

/// Makes `kind` usable in children of the own cgroup, or, for root, of the topmost one.
fn delegate(own: &Path, kind: Kind) -> Result<PathBuf, String> {
    match enable(own, kind) {
        Ok(()) => return Ok(own.to_owned()),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            if step_aside(own).and_then(|()| enable(own, kind)).is_ok() {
                return Ok(own.to_owned());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => {}
    }
    let top = topmost(own);
    enable(&top, kind).map(|()| top.clone()).map_err(|error| {
        let name = kind.name();
        format!(
            "cgroup v2 gives this process no {name} controller at {}: {error} \
             (run it as root, or under `systemd-run --user --scope -p Delegate=yes`)",
            own.display()
        )
    })
}

fn enable(dir: &Path, kind: Kind) -> io::Result<()> {
    let name = kind.name();
    let listed = |file: &str| {
        fs::read_to_string(dir.join(file))
            .map(|list| list.split_whitespace().any(|item| item == name))
    };
    if !listed("cgroup.controllers")? {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it is not among cgroup.controllers"));
    }
    if !listed("cgroup.subtree_control")? {
        fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"))?;
    }
    Ok(())
}

/// Moves the server into a child: a cgroup with controllers for its children may hold no process.
fn step_aside(own: &Path) -> io::Result<()> {
    let leaf = own.join(SERVER_LEAF);
    match fs::create_dir(&leaf) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(leaf.join("cgroup.procs"), std::process::id().to_string())
}

fn topmost(own: &Path) -> PathBuf {
    let is_cgroup = |dir: &&Path| dir.join("cgroup.controllers").exists();
    own.ancestors().take_while(is_cgroup).last().unwrap_or(own).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
41 31 0:38 /box /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn version_1_directories_follow_the_own_path() {
        let own = "4:memory:/jobs/7\n1:cpu,cpuacct:/\n0::/box/x\n";
        assert_eq!(v1_dir(Kind::Memory, MOUNTS, own), Some("/sys/fs/cgroup/memory/jobs/7".into()));
        assert_eq!(v1_dir(Kind::Cpu, MOUNTS, own), Some("/sys/fs/cgroup/cpu,cpuacct/".into()));
        assert_eq!(v1_dir(Kind::Pids, MOUNTS, own), None);
    }

    #[test]
    fn a_containers_root_is_taken_off_the_path() {
        assert_eq!(unified_dir(MOUNTS, "0::/box/x\n"), Some("/sys/fs/cgroup/unified/x".into()));
        assert_eq!(
            unified_dir(MOUNTS, "0::/box/kiln-server\n"),
            Some("/sys/fs/cgroup/unified/".into())
        );
    }

    #[test]
    fn an_enabled_controller_is_used_and_a_missing_one_is_named() {
        let own = tempfile::tempdir().unwrap();
        fs::write(own.path().join("cgroup.controllers"), "memory hugetlb\n").unwrap();
        fs::write(own.path().join("cgroup.subtree_control"), "\n").unwrap();
        assert_eq!(delegate(own.path(), Kind::Memory), Ok(own.path().to_owned()));
        assert_eq!(
            fs::read_to_string(own.path().join("cgroup.subtree_control")).unwrap(),
            "+memory"
        );
        let refused = delegate(own.path(), Kind::Pids).unwrap_err();
        assert!(refused.contains("no pids controller"), "{refused}");
    }
}
