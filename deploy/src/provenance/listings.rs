//! Directories that a walk has read: those that it may meet again, and those that it comes to next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use kiln_cas::Digest;

use super::archive::{Archive, Listing};
use super::beside::beside;
use super::met::{Met, PathHash};

/// Names that are kept; what is read beyond is read again when it is met again.
const MAX_KEPT_NAMES: usize = 1_000_000;
/// Input roots that are read together.
const AHEAD: usize = 256;
/// Bytes of directories that are read ahead; what is beyond is read when the walk comes to it.
const MAX_AHEAD: u64 = 8 << 20;
/// So many directories are read by two threads: to decode them takes as long as to read them.
const MANY: usize = 32;

/// Directories in memory.
#[derive(Default)]
pub struct Listings {
    /// Directories that may be met at other paths: most are inputs of many actions.
    kept: HashMap<Digest, Arc<Listing>>,
    /// Names in all directories that are kept.
    names: usize,
    /// Directories that were read ahead; `None`: one is not there any more.
    ahead: HashMap<Digest, Option<Arc<Listing>>>,
}

/// Directories that are to be read together, each with the first path at which it lies.
type Unread = HashMap<Digest, PathHash>;

impl Listings {
    /// A directory; `None`: it is not there any more.
    pub fn read<A: Archive>(
        &self,
        archive: &A,
        directory: &Digest,
    ) -> Result<Option<Arc<Listing>>, A::Error> {
        if let Some(kept) = self.kept.get(directory) {
            return Ok(Some(kept.clone()));
        }
        if let Some(read) = self.ahead.get(directory) {
            return Ok(read.clone());
        }
        let read = archive.directories(std::slice::from_ref(directory))?;
        Ok(read.into_iter().next().flatten().map(Arc::new))
    }

    /// Keeps a directory as long as there is room.
    pub fn keep(&mut self, directory: Digest, listing: &Arc<Listing>) {
        let names = self.names + listing.files.len() + listing.directories.len();
        if names <= MAX_KEPT_NAMES
            && let Entry::Vacant(place) = self.kept.entry(directory)
        {
            place.insert(listing.clone());
            self.names = names;
        }
    }

    /// Reads the first of `roots` with all that is below them, each level of all of them together, but for what is in
    /// memory or was met. Returns for how many roots that was done. It is 1 as well where the first has no room: that one is
    /// read when the walk comes to it.
    pub fn read_ahead<A: Archive>(
        &mut self,
        archive: &A,
        met: &Met,
        roots: impl Iterator<Item = Digest>,
    ) -> Result<usize, A::Error> {
        self.ahead.clear();
        let (mut room, path) = (MAX_AHEAD, met.root());
        let roots: Vec<_> = roots.take(AHEAD).take_while(|it| fits(it, &mut room)).collect();
        let unmet = roots.iter().filter(|it| !self.kept.contains_key(*it) && !met.has(&path, it));
        let mut level: Unread = unmet.map(|it| (*it, path.clone())).collect();
        while !level.is_empty() {
            let directories: Vec<_> = level.keys().copied().collect();
            let read = read_each(archive, &directories)?;
            let read = read.into_iter().map(|it| it.map(Arc::new));
            self.ahead.extend(directories.into_iter().zip(read));
            level = self.below(&level, met, &mut room);
        }
        Ok(roots.len().max(1))
    }

    /// What is below directories that were read ahead and is to be read as well.
    fn below(&self, level: &Unread, met: &Met, room: &mut u64) -> Unread {
        let mut below = Unread::new();
        for (directory, path) in level {
            let Some(Some(listing)) = self.ahead.get(directory) else { continue };
            for (name, digest) in &listing.directories {
                if self.kept.contains_key(digest) || self.ahead.contains_key(digest) {
                    continue;
                }
                let path = path.child(name);
                if let Entry::Vacant(place) = below.entry(*digest)
                    && !met.has(&path, digest)
                    && fits(digest, room)
                {
                    place.insert(path);
                }
            }
        }
        below
    }
}

/// Whether there is room for a directory, which it then takes up.
fn fits(directory: &Digest, room: &mut u64) -> bool {
    let left = room.checked_sub(directory.size);
    *room = left.unwrap_or(*room);
    left.is_some()
}

fn read_each<A: Archive>(
    archive: &A,
    directories: &[Digest],
) -> Result<Vec<Option<Listing>>, A::Error> {
    if directories.len() < MANY {
        return archive.directories(directories);
    }
    let (one, two) = directories.split_at(directories.len() / 2);
    let (one, two) = beside(|| archive.directories(one), || archive.directories(two));
    let mut all = one?;
    all.extend(two?);
    Ok(all)
}
