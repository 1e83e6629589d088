//! At which other paths a directory can be seen: a bind mount shows it, a part of it, or what it lies in.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount, as `/proc/self/mountinfo` has it.
pub(super) struct Mount {
    device: String,
    /// The path within the file system that is mounted.
    root: PathBuf,
    point: PathBuf,
}

/// A path at which `original`, or what is there now, can be seen as well.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub path: PathBuf,
    pub original: PathBuf,
}

/// The mounts in the text of `/proc/self/mountinfo`. A line is `ID PARENT DEVICE ROOT POINT ...`.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        Some(Mount { device, root: unescaped(fields.next()?), point: unescaped(fields.next()?) })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// Other places of `path`, a path without links. They are candidates: a later mount may cover one.
pub(super) fn places(mounts: &[Mount], path: &Path) -> Vec<Place> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    // Of several at one point the last one is seen.
    let Some(own) = around.max_by_key(|mount| mount.point.components().count()) else {
        return Vec::new();
    };
    let inside = own.root.join(path.strip_prefix(&own.point).unwrap_or(Path::new("")));
    let place = |mount: &Mount| {
        if let Ok(rest) = inside.strip_prefix(&mount.root) {
            // What is mounted itself would get a slash at its end.
            let at = mount.point.join(rest).components().collect();
            return Some(Place { path: at, original: path.to_owned() });
        }
        let rest = mount.root.strip_prefix(&inside).ok()?;
        Some(Place { path: mount.point.clone(), original: path.join(rest) })
    };
    let same = mounts.iter().filter(|mount| mount.device == own.device);
    same.filter_map(place).filter(|place| !place.path.starts_with(path)).collect()
}

/// Blanks, line breaks and backslashes are three octal digits behind a backslash.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.split_at_checked(3).filter(|_| *first == b'\\');
        let code = escaped.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 8).ok()?, after))
        });
        let (byte, after) = code.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
23 22 0:20 / /proc rw - proc proc rw
24 22 8:2 / /srv rw - ext4 /dev/sda2 rw
25 22 8:2 /kiln/data /opt/my\\040data rw - ext4 /dev/sda2 rw
26 22 8:2 /kiln /opt/around rw - ext4 /dev/sda2 rw
27 22 8:2 /kiln/data/blobs /usr/local/part rw - ext4 /dev/sda2 rw
28 22 8:2 /other /opt/other rw - ext4 /dev/sda2 rw
29 22 8:1 /kiln/data /opt/namesake rw - ext4 /dev/sda1 rw
";

    #[test]
    fn a_directory_is_found_with_what_it_lies_in_and_what_lies_in_it() {
        let found = |path: &str| {
            let places = places(&mounts(MOUNTS), Path::new(path));
            let shown = |it: &Place| format!("{} of {}", it.path.display(), it.original.display());
            places.iter().map(shown).collect::<Vec<_>>()
        };
        let expected = [
            "/opt/my data of /srv/kiln/data",
            "/opt/around/data of /srv/kiln/data",
            "/usr/local/part of /srv/kiln/data/blobs",
        ];
        assert_eq!(found("/srv/kiln/data"), expected);
        let back = found("/opt/my data");
        assert!(back.contains(&"/srv/kiln/data of /opt/my data".to_owned()), "{back:?}");
        assert_eq!(found("/home"), [] as [&str; 0]);
        assert_eq!(places(&[], Path::new("/x")), []);
    }
}
