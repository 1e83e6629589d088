//! An upload in parts: what it has, what may come next, and how many there may be.
//!
//! Its bytes are pieces, each a blob of its own; what is written here are their hashes. A part counts when its
//! hashes are written, all at once, so that a part that breaks off leaves nothing.

use std::ops::Range;
use std::time::Duration;

use kiln_cas::{Digest, DigestFunction};
use serde::{Deserialize, Serialize};

use super::ranges::Span;

/// Bytes of a piece, but for the last one of a part.
pub const PIECE: usize = 1 << 20;
/// Pieces of one record; the last record of an upload may have fewer.
pub const PIECES_OF_RECORD: u64 = 1024;
/// Records of one upload: they are removed together.
const MAX_RECORDS: u64 = 1000;
const HASH: usize = 32;
const ENTRY: usize = HASH + 4;

/// What all uploads that are under way may have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadLimits {
    pub count: usize,
    /// Bytes that were sent and belong to no blob yet.
    pub bytes: u64,
    /// How long an upload stays after the last part that came.
    pub age: Duration,
}

/// An upload that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// How many bytes of the upload have come.
    pub size: u64,
    pub pieces: u64,
    /// When the upload began, or when its last part came; milliseconds since the Unix epoch.
    pub touched: u64,
}

/// Why a part is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    #[error("the upload has {has} bytes, the next part cannot begin at {first}")]
    Order { has: u64, first: u64 },
    #[error("the part says that it has {said} bytes, and has {sent}")]
    Length { said: u64, sent: u64 },
    #[error("the upload came in too many small parts: begin again, with larger ones")]
    Parts,
}

impl Upload {
    pub fn begun(now: u64) -> Self {
        Self { size: 0, pieces: 0, touched: now }
    }

    /// What the header `Range` says of the upload. An empty one has no way of saying so: the specification has `0-0`
    /// for it.
    pub fn range(&self) -> String {
        format!("0-{}", self.size.saturating_sub(1))
    }

    pub fn is_over(&self, now: u64, age: Duration) -> bool {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        now.saturating_sub(self.touched) > age
    }

    /// Whether a part that says where it goes may come next.
    pub fn admit(&self, span: Option<Span>) -> Result<(), PartError> {
        match span {
            Some(span) if span.first != self.size => {
                Err(PartError::Order { has: self.size, first: span.first })
            }
            _ => Ok(()),
        }
    }

    /// Numbers of the records that hold the upload's pieces.
    pub fn records(&self) -> Range<u64> {
        0..self.pieces.div_ceil(PIECES_OF_RECORD)
    }

    /// The last record, if there is room in it.
    pub fn open_record(&self) -> Option<u64> {
        let is_open = !self.pieces.is_multiple_of(PIECES_OF_RECORD);
        is_open.then_some(self.pieces / PIECES_OF_RECORD)
    }

    /// The upload with a part that consists of these pieces.
    pub fn with(&self, span: Option<Span>, part: &[Digest], now: u64) -> Result<Self, PartError> {
        let sent = part.iter().map(|piece| piece.size).sum();
        if let Some(said) = span.map(Span::length).filter(|said| *said != sent) {
            return Err(PartError::Length { said, sent });
        }
        let grown =
            Self { size: self.size + sent, pieces: self.pieces + part.len() as u64, touched: now };
        match grown.records().end > MAX_RECORDS {
            true => Err(PartError::Parts),
            false => Ok(grown),
        }
    }
}

/// Whether one more may begin next to these. Those that are over count for nothing.
pub fn has_room<'a>(
    others: impl Iterator<Item = &'a Upload>,
    limits: &UploadLimits,
    now: u64,
) -> bool {
    let (mut count, mut bytes) = (0, 0u64);
    for other in others.filter(|it| !it.is_over(now, limits.age)) {
        count += 1;
        bytes = bytes.saturating_add(other.size);
    }
    count < limits.count && bytes < limits.bytes
}

/// Hashes of pieces as a record keeps them.
pub fn encode(pieces: &[Digest]) -> Vec<u8> {
    let mut data = Vec::with_capacity(pieces.len() * ENTRY);
    for piece in pieces {
        data.extend_from_slice(&piece.hash);
        data.extend_from_slice(&u32::try_from(piece.size).unwrap_or(u32::MAX).to_be_bytes());
    }
    data
}

/// `None`: these are none.
pub fn decode(data: &[u8]) -> Option<Vec<Digest>> {
    let (entries, rest) = data.as_chunks::<ENTRY>();
    let piece = |entry: &[u8; ENTRY]| {
        let (hash, size) = entry.split_first_chunk::<HASH>()?;
        let size = u32::from_be_bytes(size.try_into().ok()?);
        Some(Digest { hash: *hash, size: size.into(), function: DigestFunction::Sha256 })
    };
    rest.is_empty().then(|| entries.iter().map(piece).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_secs(10);

    fn span(first: u64, last: u64) -> Option<Span> {
        Some(Span { first, last })
    }

    fn part(size: u64) -> Vec<Digest> {
        vec![Digest { size, ..DigestFunction::Sha256.digest(b"x") }]
    }

    #[test]
    fn parts_follow_each_other_without_gaps() {
        let upload = Upload::begun(0);
        assert_eq!(upload.range(), "0-0");
        assert_eq!(upload.admit(span(5, 9)), Err(PartError::Order { has: 0, first: 5 }));
        let upload = upload.with(span(0, 4), &part(5), 7).unwrap();
        assert_eq!((upload.range().as_str(), upload.touched), ("0-4", 7));
        assert_eq!(upload.admit(span(0, 4)), Err(PartError::Order { has: 5, first: 0 }));
        assert!(upload.admit(span(5, 9)).is_ok() && upload.admit(None).is_ok());
        let short = upload.with(span(5, 9), &part(4), 8);
        assert_eq!(short, Err(PartError::Length { said: 5, sent: 4 }));
    }

    #[test]
    fn pieces_fill_records_one_after_the_other() {
        let of = |pieces| Upload { pieces, ..Upload::begun(0) };
        assert_eq!((of(0).records(), of(0).open_record()), (0..0, None));
        assert_eq!((of(1).records(), of(1).open_record()), (0..1, Some(0)));
        assert_eq!((of(1024).records(), of(1024).open_record()), (0..1, None));
        assert_eq!((of(1025).records(), of(1025).open_record()), (0..2, Some(1)));
        let full = of(MAX_RECORDS * PIECES_OF_RECORD);
        assert_eq!(full.with(None, &part(1), 0), Err(PartError::Parts));
        assert!((MAX_RECORDS as usize) < kiln_cas::records::MAX_BATCH - 2);
    }

    #[test]
    fn uploads_are_bounded_in_number_and_bytes_and_end_by_themselves() {
        let limits = UploadLimits { count: 2, bytes: 100, age: AGE };
        let of = |size| Upload { size, ..Upload::begun(1_000) };
        let room = |others: &[Upload], now| has_room(others.iter(), &limits, now);
        assert!(room(&[of(99)], 1_000));
        assert!(!room(&[of(100)], 1_000));
        assert!(!room(&[of(0), of(0)], 11_000));
        assert!(room(&[of(100), of(0)], 11_001), "those that are over count for nothing");
    }

    #[test]
    fn pieces_are_read_as_they_were_written() {
        let pieces: Vec<_> =
            [&b"a"[..], b"bc"].iter().map(|it| DigestFunction::Sha256.digest(it)).collect();
        let data = encode(&pieces);
        assert_eq!(decode(&data).unwrap(), pieces);
        assert_eq!(decode(&data[1..]), None);
        assert!(PIECES_OF_RECORD as usize * ENTRY < kiln_cas::records::MAX_VALUE);
    }
}
