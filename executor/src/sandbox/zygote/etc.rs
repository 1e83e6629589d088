//! The minimal /etc of a root made of the machine's own programs.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use super::error::{Context, ZygoteError};
use super::identity::Identity;
use super::layout;

/// The files and directories in /etc that toolchains need to find their parts. None of them names
/// the machine, its users or its time zone.
const COPIED: [&str; 24] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "crypto-policies",
    "debian_version",
    "fonts",
    "gcrypt",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "lsb-release",
    "magic",
    "magic.mime",
    "mime.types",
    "nsswitch.conf.d",
    "os-release",
    "perl",
    "pki",
    "protocols",
    "python3",
    "redhat-release",
    "services",
    "ssl",
    "ucf.conf",
];
/// Debian keeps each Java's configuration in a directory of its own: `java-17-openjdk`.
const COPIED_PREFIX: &str = "java";
/// Bounds of the copy, which lies in memory for as long as the slot lives.
const MAX_BYTES: u64 = 32 << 20;
const MAX_DEPTH: usize = 8;
/// Anyone may read it: the copy must not show an action what the server's user alone may see.
const READABLE_BY_ALL: u32 = 0o004;

pub(super) fn populate(etc: &Path, machine: &Path, identity: &Identity) -> Result<(), ZygoteError> {
    layout::make_dir(etc)?;
    let (uid, gid) = (identity.uid, identity.gid);
    let files = [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/:/bin/sh\nkiln:x:{uid}:{gid}:kiln:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
            ),
        ),
        ("group", format!("root:x:0:\nkiln:x:{gid}:\nnogroup:x:65534:\n")),
        ("hosts", "127.0.0.1 localhost kiln\n::1 localhost kiln\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
        ("host.conf", "multi on\n".to_owned()),
    ];
    for (name, text) in files {
        fs::write(etc.join(name), text).context("write", name)?;
    }
    let mut room = MAX_BYTES;
    for entry in fs::read_dir(machine).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let wanted = name
            .to_str()
            .is_some_and(|name| COPIED.contains(&name) || name.starts_with(COPIED_PREFIX));
        if wanted {
            copy(&entry.path(), &etc.join(&name), MAX_DEPTH, &mut room)?;
        }
    }
    Ok(())
}

/// Copies what anyone may read and what fits; the rest is left out.
fn copy(from: &Path, to: &Path, depth: usize, room: &mut u64) -> Result<(), ZygoteError> {
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    if metadata.is_symlink() {
        let target = fs::read_link(from).context("readlink", from.display())?;
        return symlink(target, to).context("symlink", to.display());
    }
    if metadata.mode() & READABLE_BY_ALL == 0 || depth == 0 {
        return Ok(());
    }
    if metadata.is_dir() {
        layout::make_dir(to)?;
        for entry in fs::read_dir(from).into_iter().flatten().flatten() {
            copy(&entry.path(), &to.join(entry.file_name()), depth - 1, room)?;
        }
    } else if metadata.is_file() && metadata.len() <= *room {
        *room -= metadata.len();
        // A file that vanished or cannot be read is left out like one that is not public.
        let _ = fs::copy(from, to);
    }
    Ok(())
}
