//! A release that is put together out of pieces, on disk. What is there when an agent begins again is verified again, piece by
//! piece; a blob gets its name when all of it is what its digest says.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::agent::part::{PART, PIECES, is_whole};
use crate::agent::source::{GoesOn, SourceError};
use crate::oci::ContentDigest;
use crate::releases::blob_path;
use crate::swarm::Bits;
use crate::swarm::pieces::{PieceList, Place};

pub struct Assembly {
    pub version: ContentDigest,
    pub list: Arc<PieceList>,
    /// The digest that names the list.
    pub digest: ContentDigest,
    /// Blobs lie below it, as in an export.
    place: RwLock<PathBuf>,
    known: Mutex<Known>,
}

struct Known {
    have: Bits,
    /// How many pieces are missing of each blob.
    missing: Vec<usize>,
}

impl Assembly {
    /// What lies below `place` is looked at, and every byte of it read.
    pub fn open(
        version: &ContentDigest,
        list: Arc<PieceList>,
        place: &Path,
        goes_on: GoesOn<'_>,
    ) -> Result<Self, SourceError> {
        let known = Known {
            have: Bits::none(list.len()),
            missing: list.blobs().iter().map(|it| it.pieces.len()).collect(),
        };
        let assembly = Self {
            version: version.clone(),
            digest: list.digest(),
            list,
            place: RwLock::new(place.to_owned()),
            known: Mutex::new(known),
        };
        assembly.look(goes_on)?;
        Ok(assembly)
    }

    /// A version all of which was put there before. Each piece is verified when it is read.
    pub fn whole(version: &ContentDigest, list: Arc<PieceList>, place: &Path) -> Self {
        let known = Known { have: Bits::all(list.len()), missing: vec![0; list.blobs().len()] };
        Self {
            version: version.clone(),
            digest: list.digest(),
            list,
            place: RwLock::new(place.to_owned()),
            known: Mutex::new(known),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn place(&self) -> PathBuf {
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that the version lies in another directory from now on.
    pub fn moved(&self, to: &Path) {
        *self.place.write().unwrap_or_else(PoisonError::into_inner) = to.to_owned();
    }

    pub fn have(&self) -> Bits {
        self.lock().have.clone()
    }

    /// Bytes of all blobs.
    pub fn bytes(&self) -> u64 {
        self.list.blobs().iter().map(|it| it.size).fold(0, u64::saturating_add)
    }

    /// The path of a blob when it is whole, and its path until then; `None`: the list has no such blob.
    fn paths(&self, blob: usize) -> Option<(PathBuf, PathBuf)> {
        let digest = &self.list.blobs().get(blob)?.digest;
        let whole = self.place().join(blob_path(digest));
        let unfinished = whole.with_extension(PIECES);
        Some((whole, unfinished))
    }

    fn look(&self, goes_on: GoesOn<'_>) -> Result<(), SourceError> {
        let mut first = 0;
        for (index, blob) in self.list.blobs().iter().enumerate() {
            let pieces = first..first + blob.pieces.len();
            first = pieces.end;
            let Some((whole, unfinished)) = self.paths(index) else { continue };
            if is_whole(&whole, &blob.digest, blob.size, goes_on)? {
                for piece in pieces {
                    self.note(piece);
                }
                continue;
            }
            // What came without pieces before is as good.
            let part = whole.with_extension(PART);
            if part.exists() && !unfinished.exists() {
                fs::rename(part, &unfinished)?;
            }
            if unfinished.exists() {
                for piece in pieces {
                    if !goes_on() {
                        return Err(SourceError::Stopped);
                    }
                    if self.read_from(&unfinished, piece)?.is_some() {
                        self.note(piece);
                    }
                }
            }
            if self.lock().missing.get(index) == Some(&0) {
                self.finish(index, goes_on)?;
            }
        }
        Ok(())
    }

    /// Says whether its blob is whole now.
    fn note(&self, piece: usize) -> bool {
        let Some(place) = self.list.place(piece) else { return false };
        let mut known = self.lock();
        if !known.have.set(piece) {
            return false;
        }
        let missing = known.missing.get_mut(place.blob);
        missing.is_some_and(|it| {
            *it = it.saturating_sub(1);
            *it == 0
        })
    }

    fn read_from(&self, path: &Path, piece: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(Place { offset, piece, .. }) = self.list.place(piece) else { return Ok(None) };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut data = vec![0; piece.size as usize];
        match file.read_exact_at(&mut data, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(piece.fits(&data).then_some(data)),
        }
    }

    /// A piece as it lies on disk, if it is here, and what it should be.
    pub fn read(&self, piece: usize) -> io::Result<Option<Vec<u8>>> {
        if !self.lock().have.get(piece) {
            return Ok(None);
        }
        let blob = self.list.place(piece).map(|it| it.blob);
        let Some((whole, unfinished)) = blob.and_then(|it| self.paths(it)) else {
            return Ok(None);
        };
        // It may get its name in between.
        for path in [&unfinished, &whole] {
            if let Some(data) = self.read_from(path, piece)? {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Takes a piece in; `false`: these bytes are not it. With the last one of a blob all of the blob is verified. Errors:
    /// `Tampered`, when its pieces are what the list says and the blob is not what its digest says.
    pub fn put(&self, piece: usize, data: &[u8]) -> Result<bool, SourceError> {
        let Some(place) = self.list.place(piece).filter(|it| it.piece.fits(data)) else {
            return Ok(false);
        };
        if self.lock().have.get(piece) {
            return Ok(true);
        }
        let Some((_, unfinished)) = self.paths(place.blob) else { return Ok(false) };
        fs::create_dir_all(unfinished.parent().unwrap_or(&unfinished))?;
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(&unfinished)?;
        file.write_all_at(data, place.offset)?;
        drop(file);
        if self.note(piece) {
            // Nobody else would do it.
            self.finish(place.blob, &|| true)?;
        }
        Ok(true)
    }

    /// Whether all blobs are there, and what their digests say.
    pub fn check(&self) -> Result<(), SourceError> {
        for (index, blob) in self.list.blobs().iter().enumerate() {
            if !self.paths(index).is_some_and(|(whole, _)| whole.exists()) {
                return Err(SourceError::Tampered(blob.digest.clone()));
            }
        }
        Ok(())
    }

    /// Gives a blob its name, if it is what its digest says. Other bytes do not stay.
    fn finish(&self, index: usize, goes_on: GoesOn<'_>) -> Result<(), SourceError> {
        let Some((whole, unfinished)) = self.paths(index) else { return Ok(()) };
        let Some(blob) = self.list.blobs().get(index) else { return Ok(()) };
        fs::create_dir_all(whole.parent().unwrap_or(&whole))?;
        // An empty blob has no piece.
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(false).open(&unfinished)?;
        // An older try may have left more.
        file.set_len(blob.size)?;
        drop(file);
        if !is_whole(&unfinished, &blob.digest, blob.size, goes_on)? {
            fs::remove_file(&unfinished)?;
            return Err(SourceError::Tampered(blob.digest.clone()));
        }
        Ok(fs::rename(&unfinished, &whole)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::pieces::{BlobPieces, Piece};

    fn blob(parts: &[&[u8]], whole: &[u8]) -> BlobPieces {
        let pieces = parts.iter().map(|it| Piece::of(it)).collect();
        BlobPieces { digest: ContentDigest::of(whole), size: whole.len() as u64, pieces }
    }

    fn open(blobs: &[BlobPieces], place: &Path) -> Result<Assembly, SourceError> {
        let list = Arc::new(PieceList::new(blobs.to_vec()).unwrap());
        Assembly::open(&ContentDigest::of(b"version"), list, place, &|| true)
    }

    #[test]
    fn pieces_come_in_any_order_and_what_was_there_is_verified_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("a place");
        let blobs = [blob(&[b"one", b"two"], b"onetwo"), blob(&[], b""), blob(&[b"x"], b"x")];
        let assembly = open(&blobs, &place).unwrap();
        assert!(!assembly.put(1, b"twx").unwrap() && !assembly.put(9, b"two").unwrap());
        assert!(assembly.put(1, b"two").unwrap() && assembly.put(2, b"x").unwrap());
        assert_eq!(assembly.read(1).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(assembly.read(0).unwrap(), None);
        let again = open(&blobs, &place).unwrap();
        assert_eq!(again.have().ones().collect::<Vec<_>>(), [1, 2]);
        // A byte on the disk turns.
        let unfinished = place.join(blob_path(&blobs[0].digest)).with_extension(PIECES);
        fs::write(&unfinished, b"\0\0\0twx and more").unwrap();
        assert_eq!(again.read(1).unwrap(), None, "what is given is what it should be");
        let again = open(&blobs, &place).unwrap();
        assert_eq!(again.have().ones().collect::<Vec<_>>(), [2]);
        assert!(again.put(0, b"one").unwrap() && again.put(1, b"two").unwrap());
        assert!(again.have().is_full() && again.check().is_ok() && assembly.check().is_ok());
        for (blob, content) in blobs.iter().zip([&b"onetwo"[..], b"", b"x"]) {
            assert_eq!(fs::read(place.join(blob_path(&blob.digest))).unwrap(), content);
        }
        assert_eq!(again.read(0).unwrap().as_deref(), Some(&b"one"[..]));
    }

    #[test]
    fn a_list_that_lies_is_found_out_by_the_blob_and_what_it_brought_does_not_stay() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = [blob(&[b"one", b"two"], b"onetwx")];
        let assembly = open(&blobs, directory.path()).unwrap();
        assert!(assembly.put(0, b"one").unwrap());
        let error = assembly.put(1, b"two").unwrap_err();
        assert!(assembly.check().is_err());
        assert!(matches!(&error, SourceError::Tampered(it) if *it == blobs[0].digest), "{error:?}");
        let path = directory.path().join(blob_path(&blobs[0].digest));
        assert!(!path.exists() && !path.with_extension(PIECES).exists());
    }

    #[test]
    fn what_came_without_pieces_before_is_gone_on_with() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = [blob(&[b"one", b"two"], b"onetwo")];
        let path = directory.path().join(blob_path(&blobs[0].digest));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.with_extension(PART), b"onetw").unwrap();
        let assembly = open(&blobs, directory.path()).unwrap();
        assert_eq!(assembly.have().ones().collect::<Vec<_>>(), [0]);
    }
}
