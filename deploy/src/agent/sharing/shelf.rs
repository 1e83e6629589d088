//! The content of versions as it came: for other agents, and for what the next version has in common with it. It takes no more
//! room than it may, and goes when an order needs the room.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::assembly::Assembly;
use crate::agent::disk::{read_if_there, remove_if_there, sync_parent, write_whole};
use crate::agent::source::{GoesOn, SourceError};
use crate::oci::ContentDigest;
use crate::swarm::pieces::{MAX_LIST, PieceList};

/// Versions whose content is kept.
const MAX_KEPT: usize = 2;
/// The file in the directory of a version with its list of pieces, and which version it is.
const LIST: &str = "pieces";
const VERSION: &str = "version";

pub struct Shelf {
    root: PathBuf,
    /// How many bytes may be kept.
    room: u64,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// Whole, the newest first.
    kept: Vec<Arc<Assembly>>,
    /// The one that is being fetched.
    coming: Option<Arc<Assembly>>,
}

impl Shelf {
    /// Keeps below `root`, which is made when it is needed, no more than so many bytes. What an earlier agent kept is there
    /// again; what cannot be used is removed.
    pub fn open(root: PathBuf, room: u64) -> Self {
        let mut kept = Vec::new();
        for path in fs::read_dir(&root).into_iter().flatten().flatten().map(|it| it.path()) {
            match read(&path) {
                Some(assembly) => {
                    let written = fs::metadata(path.join(LIST)).and_then(|it| it.modified()).ok();
                    kept.push((written, Arc::new(assembly)));
                }
                None => {
                    let _ = remove_if_there(&path);
                }
            }
        }
        kept.sort_by_key(|(written, _)| std::cmp::Reverse(*written));
        let kept = kept.into_iter().map(|(_, it)| it).collect();
        let shelf = Self { root, room, held: Mutex::new(Held { kept, coming: None }) };
        shelf.make_room(0);
        shelf
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has this list of pieces, or some of it.
    pub fn find(&self, list: &ContentDigest) -> Option<Arc<Assembly>> {
        let held = self.lock();
        held.kept.iter().chain(&held.coming).find(|it| it.digest == *list).cloned()
    }

    /// Versions that are here as a whole.
    pub fn kept(&self) -> Vec<Arc<Assembly>> {
        self.lock().kept.clone()
    }

    /// A version is being fetched, instead of the one before.
    pub fn comes(&self, assembly: Option<&Arc<Assembly>>) {
        self.lock().coming = assembly.cloned();
    }

    /// Keeps what has been fetched, if there is room for it. It lies where it came to, and is moved.
    pub fn keep(&self, assembly: &Arc<Assembly>) -> Result<(), SourceError> {
        self.comes(None);
        let (bytes, from) = (assembly.bytes(), assembly.place());
        if bytes > self.room {
            return Ok(());
        }
        self.remove(&assembly.version)?;
        self.make_room(bytes);
        write_whole(&from.join(VERSION), assembly.version.to_string().as_bytes())?;
        write_whole(&from.join(LIST), &assembly.list.write())?;
        let to = self.root.join(assembly.version.hex());
        fs::create_dir_all(&self.root)?;
        remove_if_there(&to)?;
        fs::rename(&from, &to)?;
        sync_parent(&to)?;
        assembly.moved(&to);
        self.lock().kept.insert(0, assembly.clone());
        Ok(())
    }

    /// Forgets the oldest until there is room for so many bytes, and for one more version.
    fn make_room(&self, bytes: u64) {
        loop {
            let oldest = {
                let held = self.lock();
                let sum = held.kept.iter().map(|it| it.bytes()).fold(bytes, u64::saturating_add);
                let count = held.kept.len() + usize::from(bytes > 0);
                let is_full = sum > self.room || count > MAX_KEPT;
                held.kept.last().filter(|_| is_full).map(|it| it.version.clone())
            };
            match oldest {
                Some(oldest) if self.remove(&oldest).is_ok() => {}
                _ => return,
            }
        }
    }

    /// A version is not kept any more.
    fn remove(&self, version: &ContentDigest) -> Result<(), SourceError> {
        let gone: Vec<_> = {
            let mut held = self.lock();
            let (gone, kept) = held.kept.drain(..).partition(|it| it.version == *version);
            held.kept = kept;
            gone
        };
        for assembly in gone {
            remove_if_there(&assembly.place())?;
        }
        Ok(())
    }

    /// The room is needed. Whether there was anything.
    pub fn clear(&self) -> Result<bool, SourceError> {
        let kept = self.kept();
        for assembly in &kept {
            self.remove(&assembly.version)?;
        }
        Ok(!kept.is_empty())
    }

    /// Takes over what other versions have in common with this one. Bytes that did not have to come.
    pub fn reuse(&self, assembly: &Assembly, goes_on: GoesOn<'_>) -> Result<u64, SourceError> {
        let kept = self.kept();
        let mut known = HashMap::new();
        for other in &kept {
            for (index, place) in other.list.places().iter().enumerate() {
                known.entry(place.piece.sha256).or_insert((other, index));
            }
        }
        let (have, mut bytes) = (assembly.have(), 0);
        for (index, place) in assembly.list.places().iter().enumerate() {
            if !goes_on() {
                return Err(SourceError::Stopped);
            }
            let there = known.get(&place.piece.sha256).filter(|_| !have.get(index));
            let Some((other, at)) = there else { continue };
            // What cannot be read is fetched instead.
            if let Ok(Some(data)) = other.read(*at)
                && assembly.put(index, &data)?
            {
                bytes += u64::from(place.piece.size);
            }
        }
        Ok(bytes)
    }
}

/// What an earlier agent kept; `None`: it is not all there.
fn read(path: &Path) -> Option<Assembly> {
    let version = read_if_there(&path.join(VERSION), 256).ok()??;
    let version: ContentDigest = std::str::from_utf8(&version).ok()?.parse().ok()?;
    let list = read_if_there(&path.join(LIST), MAX_LIST).ok()??;
    let list = PieceList::read(&list).ok()?;
    Some(Assembly::whole(&version, Arc::new(list), path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::pieces::{BlobPieces, Piece};

    fn fetched(root: &Path, parts: &[&[u8]]) -> Arc<Assembly> {
        let whole = parts.concat();
        let pieces = parts.iter().map(|it| Piece::of(it)).collect();
        let digest = ContentDigest::of(&whole);
        let blobs = vec![BlobPieces { digest: digest.clone(), size: whole.len() as u64, pieces }];
        let list = Arc::new(PieceList::new(blobs).unwrap());
        let place = root.join("incoming").join(digest.hex());
        Arc::new(Assembly::open(&digest, list, &place, &|| true).unwrap())
    }

    fn filled(root: &Path, parts: &[&[u8]]) -> Arc<Assembly> {
        let assembly = fetched(root, parts);
        for (index, part) in parts.iter().enumerate() {
            assert!(assembly.put(index, part).unwrap());
        }
        assembly
    }

    #[test]
    fn what_versions_have_in_common_does_not_come_again_and_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("content");
        let shelf = Shelf::open(root.clone(), 100);
        shelf.keep(&filled(directory.path(), &[b"one", b"two", b"three"])).unwrap();
        let shelf = Shelf::open(root, 100);
        let next = fetched(directory.path(), &[b"two", b"new", b"three"]);
        assert_eq!(shelf.reuse(&next, &|| true).unwrap(), 8);
        assert_eq!(next.have().ones().collect::<Vec<_>>(), [0, 2]);
        assert!(shelf.find(&next.digest).is_none());
        shelf.comes(Some(&next));
        assert!(shelf.find(&next.digest).is_some(), "others may have what is here");
    }

    #[test]
    fn it_takes_no_more_room_than_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("content");
        let shelf = Shelf::open(root.clone(), 10);
        let digests = |shelf: &Shelf| -> Vec<_> {
            shelf.kept().iter().map(|it| it.version.clone()).collect()
        };
        let one = filled(directory.path(), &[b"aaaa"]);
        let two = filled(directory.path(), &[b"bbbb"]);
        let three = filled(directory.path(), &[b"cccc"]);
        shelf.keep(&one).unwrap();
        shelf.keep(&two).unwrap();
        assert_eq!(digests(&shelf), [two.version.clone(), one.version.clone()]);
        shelf.keep(&three).unwrap();
        assert_eq!(digests(&shelf), [three.version.clone(), two.version.clone()]);
        assert!(!root.join(one.version.hex()).exists());
        let large = filled(directory.path(), &[b"elevenbytes"]);
        shelf.keep(&large).unwrap();
        assert!(!digests(&shelf).contains(&large.version) && large.place().exists());
        assert_eq!(Shelf::open(root.clone(), 4).kept().len(), 1, "less room than before");
        assert!(shelf.clear().unwrap() && !shelf.clear().unwrap());
        assert!(fs::read_dir(root).unwrap().next().is_none());
    }
}
