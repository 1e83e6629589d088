//! A list of pieces, and how it is written.

use sha2::{Digest as _, Sha256};

use crate::oci::ContentDigest;

/// Bytes of a piece.
pub const MAX_PIECE: u32 = 8 << 20;
/// Pieces of a release, and blobs.
const MAX_PIECES: usize = 400_000;
const MAX_BLOBS: usize = 100_000;
/// Bytes of a list as it is written.
pub const MAX_LIST: usize = 64 << 20;
/// What a list begins with.
const MAGIC: &[u8] = b"kiln pieces 1\n";
/// Bytes of a digest as text.
const MAX_DIGEST: usize = 160;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Piece {
    pub sha256: [u8; 32],
    /// The size of the piece in bytes.
    pub size: u32,
}

impl Piece {
    pub fn of(data: &[u8]) -> Self {
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        Self { sha256: Sha256::digest(data).into(), size }
    }

    /// Whether these bytes are the piece.
    pub fn fits(&self, data: &[u8]) -> bool {
        data.len() as u64 == u64::from(self.size) && Self::of(data) == *self
    }
}

/// A blob with its pieces in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobPieces {
    pub digest: ContentDigest,
    /// The size of the blob in bytes.
    pub size: u64,
    pub pieces: Vec<Piece>,
}

/// The place of a piece in the list's blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The index of the blob in the list.
    pub blob: usize,
    /// Bytes of the blob before the piece.
    pub offset: u64,
    pub piece: Piece,
}

/// Everything that a release is made of. Pieces are numbered through all blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PieceList {
    blobs: Vec<BlobPieces>,
    places: Vec<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListProblem {
    #[error("it is no list of pieces, or not all of one")]
    Malformed,
    #[error("a piece has {0} bytes; 1 to {MAX_PIECE} are taken")]
    Piece(u32),
    #[error("the pieces of {0} do not have as many bytes as the blob")]
    Sum(ContentDigest),
    #[error("it has more than {MAX_PIECES} pieces or {MAX_BLOBS} blobs")]
    TooMany,
    #[error("it is not of the blobs that the release is made of")]
    OtherBlobs,
}

impl PieceList {
    pub fn new(blobs: Vec<BlobPieces>) -> Result<Self, ListProblem> {
        if blobs.len() > MAX_BLOBS
            || blobs.iter().map(|it| it.pieces.len()).sum::<usize>() > MAX_PIECES
        {
            return Err(ListProblem::TooMany);
        }
        let mut places = Vec::new();
        for (index, blob) in blobs.iter().enumerate() {
            let mut offset = 0_u64;
            for piece in &blob.pieces {
                if piece.size == 0 || piece.size > MAX_PIECE {
                    return Err(ListProblem::Piece(piece.size));
                }
                places.push(Place { blob: index, offset, piece: *piece });
                offset += u64::from(piece.size);
            }
            if offset != blob.size {
                return Err(ListProblem::Sum(blob.digest.clone()));
            }
        }
        Ok(Self { blobs, places })
    }

    pub fn blobs(&self) -> &[BlobPieces] {
        &self.blobs
    }

    /// How many pieces there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub fn place(&self, piece: usize) -> Option<Place> {
        self.places.get(piece).copied()
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Checks that the list is of exactly these blobs.
    pub fn check_blobs(&self, blobs: &[(ContentDigest, u64)]) -> Result<(), ListProblem> {
        let own = self.blobs.iter().map(|it| (&it.digest, it.size));
        match own.eq(blobs.iter().map(|(digest, size)| (digest, *size))) {
            true => Ok(()),
            false => Err(ListProblem::OtherBlobs),
        }
    }

    /// The one form of a list: for each blob its digest with a length, its size, and its pieces as 32 bytes of SHA-256 and
    /// four of size; numbers come with the lowest byte first.
    pub fn write(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put(&mut out, self.blobs.len());
        for blob in &self.blobs {
            let digest = blob.digest.to_string();
            put(&mut out, digest.len());
            out.extend_from_slice(digest.as_bytes());
            out.extend_from_slice(&blob.size.to_le_bytes());
            put(&mut out, blob.pieces.len());
            for piece in &blob.pieces {
                out.extend_from_slice(&piece.sha256);
                out.extend_from_slice(&piece.size.to_le_bytes());
            }
        }
        out
    }

    /// Errors: anything that is not written by [`Self::write`].
    pub fn read(data: &[u8]) -> Result<Self, ListProblem> {
        let mut rest = data.strip_prefix(MAGIC).ok_or(ListProblem::Malformed)?;
        let count = number(&mut rest)?;
        if count > MAX_BLOBS {
            return Err(ListProblem::TooMany);
        }
        let mut blobs = Vec::new();
        for _ in 0..count {
            let length = number(&mut rest)?;
            let text = take(&mut rest, length.min(MAX_DIGEST))?;
            let text = std::str::from_utf8(text).map_err(|_| ListProblem::Malformed)?;
            let digest = text.parse::<ContentDigest>().map_err(|_| ListProblem::Malformed)?;
            let size = u64::from_le_bytes(fixed(&mut rest)?);
            let count = number(&mut rest)?;
            // Nothing is set aside for pieces that are not there.
            let pieces = (0..count).map(|_| piece(&mut rest));
            let pieces = pieces.collect::<Result<_, ListProblem>>()?;
            blobs.push(BlobPieces { digest, size, pieces });
        }
        if !rest.is_empty() {
            return Err(ListProblem::Malformed);
        }
        Self::new(blobs)
    }

    /// The digest that names the list: those who have the same list share pieces.
    pub fn digest(&self) -> ContentDigest {
        ContentDigest::of(&self.write())
    }
}

fn put(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], ListProblem> {
    let (taken, left) = rest.split_at_checked(length).ok_or(ListProblem::Malformed)?;
    *rest = left;
    Ok(taken)
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], ListProblem> {
    take(rest, N)?.try_into().map_err(|_| ListProblem::Malformed)
}

fn piece(rest: &mut &[u8]) -> Result<Piece, ListProblem> {
    let sha256 = fixed(rest)?;
    Ok(Piece { sha256, size: u32::from_le_bytes(fixed(rest)?) })
}

fn number(rest: &mut &[u8]) -> Result<usize, ListProblem> {
    let number = u32::from_le_bytes(fixed(rest)?);
    usize::try_from(number).map_err(|_| ListProblem::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(blobs: &[Vec<Vec<u8>>]) -> PieceList {
        let blob = |parts: &Vec<Vec<u8>>| {
            let pieces: Vec<_> = parts.iter().map(|it| Piece::of(it)).collect();
            let whole = parts.concat();
            BlobPieces { digest: ContentDigest::of(&whole), size: whole.len() as u64, pieces }
        };
        PieceList::new(blobs.iter().map(blob).collect()).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            blobs in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 0..5), 0..4)
        ) {
            let list = list(&blobs);
            let written = list.write();
            prop_assert_eq!(&PieceList::read(&written).unwrap(), &list);
            for cut in 0..written.len() {
                prop_assert!(PieceList::read(&written[..cut]).is_err());
            }
            prop_assert!(PieceList::read(&[written, vec![0]].concat()).is_err());
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = PieceList::read(&[MAGIC, &bytes].concat());
        }
    }

    #[test]
    fn a_list_that_does_not_add_up_is_refused() {
        let digest = ContentDigest::of(b"ab");
        let of = |size, pieces| {
            PieceList::new(vec![BlobPieces { digest: digest.clone(), size, pieces }])
        };
        let piece = Piece::of(b"ab");
        assert_eq!(of(3, vec![piece]), Err(ListProblem::Sum(digest.clone())));
        assert_eq!(of(0, vec![Piece { size: 0, ..piece }]), Err(ListProblem::Piece(0)));
        let good = of(2, vec![piece]).unwrap();
        assert_eq!(good.place(0), Some(Place { blob: 0, offset: 0, piece }));
        assert_eq!(good.check_blobs(&[(digest.clone(), 2)]), Ok(()));
        assert_eq!(good.check_blobs(&[(digest, 3)]), Err(ListProblem::OtherBlobs));
        assert_eq!(good.check_blobs(&[]), Err(ListProblem::OtherBlobs));
    }
}
