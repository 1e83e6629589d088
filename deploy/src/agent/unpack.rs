//! The layers of a release that was verified, as files in a directory. Nothing is written outside of it, nor through a
//! link: each directory on the way is looked at first.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::disk::remove_if_there;
use super::source::{GoesOn, SourceError};
use crate::oci::{Descriptor, Document, Layout, MAX_DOCUMENT_BYTES, Manifest};
use crate::releases::Compression;

/// How names in a layer begin that take away the file whose name follows; the name `.wh..wh..opq` takes away all that
/// its directory had.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Bytes that are copied at once.
const CHUNK: usize = 256 << 10;
/// Modes, whatever the layer and the umask say: nothing is set-user-ID, and whoever runs it can read it.
const DIRECTORY: u32 = 0o755;
const EXECUTABLE: u32 = 0o755;
const FILE: u32 = 0o644;

fn refused(text: String) -> SourceError {
    SourceError::refused(text)
}

/// The manifest that a release is.
pub fn manifest(layout: &dyn Layout, subject: &Descriptor) -> Result<Manifest, SourceError> {
    let mut data = Vec::new();
    let blob = layout.blob(&subject.digest)?;
    blob.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut data)?;
    match Document::read(&subject.media_type, &data) {
        Ok(Document::Manifest(manifest)) => Ok(*manifest),
        Ok(Document::Index(_)) => {
            Err(refused("it is an index of images; an agent runs one image".to_owned()))
        }
        Err(error) => Err(SourceError::refused(error)),
    }
}

/// Writes all layers of a manifest, one over the other.
pub fn unpack(
    layout: &dyn Layout,
    manifest: &Manifest,
    into: &Path,
    goes_on: GoesOn<'_>,
) -> Result<(), SourceError> {
    fs::set_permissions(into, Permissions::from_mode(DIRECTORY))?;
    for layer in &manifest.layers {
        unpack_layer(layout, layer, into, goes_on)?;
    }
    Ok(())
}

fn unpack_layer(
    layout: &dyn Layout,
    layer: &Descriptor,
    into: &Path,
    goes_on: GoesOn<'_>,
) -> Result<(), SourceError> {
    let Some(compression) = Compression::of(&layer.media_type) else {
        return Err(refused(format!("{} has a type that holds no files", layer.digest)));
    };
    let mut archive = Archive::new(compression.reader(layout.blob(&layer.digest)?)?);
    for entry in archive.entries()? {
        if !goes_on() {
            return Err(SourceError::Stopped);
        }
        write(entry?, into, goes_on)?;
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, SourceError> {
    std::str::from_utf8(bytes).map_err(SourceError::refused)
}

fn write<R: Read>(
    mut entry: Entry<'_, R>,
    into: &Path,
    goes_on: GoesOn<'_>,
) -> Result<(), SourceError> {
    let name = entry.path_bytes().into_owned();
    let parts = parts(text(&name)?)?;
    let Some((last, above)) = parts.split_last() else { return Ok(()) };
    let parent = directories(into, above)?;
    if *last == OPAQUE {
        return empty(&parent);
    }
    if let Some(gone) = last.strip_prefix(WHITEOUT) {
        if matches!(gone, "" | "." | "..") {
            return Err(refused(format!("{last:?} names no file")));
        }
        return Ok(remove_if_there(&parent.join(gone))?);
    }
    let path = parent.join(last);
    match entry.header().entry_type() {
        EntryType::Directory => directories(into, &parts).map(drop),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let is_executable = entry.header().mode()? & 0o111 != 0;
            remove_if_there(&path)?;
            file(&mut entry, &path, is_executable, goes_on)
        }
        EntryType::Symlink => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            remove_if_there(&path)?;
            Ok(std::os::unix::fs::symlink(text(&target)?, &path)?)
        }
        EntryType::Link => {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            link(into, text(&target)?, &path)
        }
        EntryType::XGlobalHeader => Ok(()),
        other => Err(refused(format!("{} is a {other:?}", path.display()))),
    }
}

/// The names in a path, which leads nowhere up.
fn parts(name: &str) -> Result<Vec<&str>, SourceError> {
    let parts: Vec<_> = name.split('/').filter(|it| !it.is_empty() && *it != ".").collect();
    if name.starts_with('/') || parts.contains(&"..") {
        return Err(refused(format!("{name:?} leads out of the layer")));
    }
    Ok(parts)
}

/// The directory of these names below `into`, made where it is not there.
fn directories(into: &Path, names: &[&str]) -> Result<PathBuf, SourceError> {
    let mut path = into.to_owned();
    for name in names {
        path.push(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => continue,
            Ok(found) if found.is_symlink() => {
                return Err(refused(format!("{} is a link, and files lie below", path.display())));
            }
            Ok(_) => fs::remove_file(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        fs::create_dir(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(DIRECTORY))?;
    }
    Ok(path)
}

fn empty(directory: &Path) -> Result<(), SourceError> {
    for entry in fs::read_dir(directory)? {
        remove_if_there(&entry?.path())?;
    }
    Ok(())
}

fn file(
    from: &mut dyn Read,
    path: &Path,
    is_executable: bool,
    goes_on: GoesOn<'_>,
) -> Result<(), SourceError> {
    let mut file = File::create_new(path)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        if !goes_on() {
            return Err(SourceError::Stopped);
        }
        file.write_all(chunk.get(..length).unwrap_or_default())?;
    }
    let mode = if is_executable { EXECUTABLE } else { FILE };
    Ok(file.set_permissions(Permissions::from_mode(mode))?)
}

/// Makes a hard link: another name for a file of this version.
fn link(into: &Path, target: &str, path: &Path) -> Result<(), SourceError> {
    let names = parts(target)?;
    let Some((last, above)) = names.split_last() else {
        return Err(refused(format!("{} links to nothing", path.display())));
    };
    let existing = directories(into, above)?.join(last);
    if !fs::symlink_metadata(&existing)?.is_file() {
        return Err(refused(format!("{} links to what is no file", path.display())));
    }
    if existing != path {
        remove_if_there(path)?;
        fs::hard_link(existing, path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whiteout_removes_nothing_but_what_it_names() {
        let directory = tempfile::tempdir().unwrap();
        let into = directory.path().join("new");
        fs::create_dir(&into).unwrap();
        let kept = [directory.path().join("another"), into.join("app")];
        for path in &kept {
            fs::write(path, "").unwrap();
        }
        for name in [".wh.", ".wh..", ".wh..."] {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            let mut layer = tar::Builder::new(Vec::new());
            layer.append_data(&mut header, name, io::empty()).unwrap();
            let layer = layer.into_inner().unwrap();
            let mut layer = Archive::new(layer.as_slice());
            let entry = layer.entries().unwrap().next().unwrap().unwrap();
            let written = write(entry, &into, &|| true);
            assert!(matches!(written, Err(SourceError::Refused(_))), "{name}: {written:?}");
        }
        assert!(kept.iter().all(|path| path.exists()));
    }
}
