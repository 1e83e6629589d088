//! Cuts bytes where their content says so (FastCDC 2020): what is changed in one place changes the pieces around it alone.

use fastcdc::v2020::{FastCDC, Normalization};

use super::list::Piece;

/// Bytes of an average piece of a small blob, and of a large one: a list has to be small beside what it is of, since each
/// host fetches it.
const AVERAGE: usize = 512 << 10;
const LARGE_AVERAGE: usize = 2 << 20;
/// Bytes from which on a blob is large.
const LARGE: u64 = 256 << 20;

/// Cuts one blob into pieces.
pub struct Cutter {
    average: usize,
    buffer: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Cutter {
    /// `size`: bytes of the blob.
    pub fn new(size: u64) -> Self {
        let average = if size < LARGE { AVERAGE } else { LARGE_AVERAGE };
        Self { average, buffer: Vec::new(), pieces: Vec::new() }
    }

    /// Bytes that a piece has at least, if it is not the last one.
    fn least(&self) -> usize {
        self.average / 4
    }

    fn most(&self) -> usize {
        self.average * 4
    }

    /// Takes bytes in. Whether enough of them wait for [`Self::cut`] to be worth while.
    pub fn push(&mut self, data: &[u8]) -> bool {
        self.buffer.extend_from_slice(data);
        self.buffer.len() >= 2 * self.most()
    }

    /// Cuts what is certain; the rest waits for what follows.
    pub fn cut(&mut self) {
        self.cut_down_to(self.most());
    }

    /// All pieces of the blob, when nothing follows.
    pub fn finish(mut self) -> Vec<Piece> {
        self.cut_down_to(1);
        self.pieces
    }

    fn cut_down_to(&mut self, rest: usize) {
        let mut start = 0;
        while let Some(data) = self.buffer.get(start..).filter(|it| it.len() >= rest) {
            let level = Normalization::Level2;
            let cutter = FastCDC::with_level(data, self.least(), self.average, self.most(), level);
            let (_, length) = cutter.cut(0, data.len());
            let piece = data.get(..length).filter(|it| !it.is_empty()).unwrap_or(data);
            self.pieces.push(Piece::of(piece));
            start += piece.len();
        }
        self.buffer.drain(..start);
    }
}

/// The pieces of a blob that is in memory.
pub fn pieces_of(data: &[u8]) -> Vec<Piece> {
    let mut cutter = Cutter::new(data.len() as u64);
    cutter.push(data);
    cutter.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::list::MAX_PIECE;
    use super::*;

    fn random(len: usize, seed: u64) -> Vec<u8> {
        let mut data = vec![0; len];
        fastrand::Rng::with_seed(seed).fill(&mut data);
        data
    }

    #[test]
    fn a_blob_is_cut_alike_however_its_bytes_come() {
        let data = random(12 << 20, 1);
        let whole = pieces_of(&data);
        let mut cutter = Cutter::new(data.len() as u64);
        for part in data.chunks(100_001) {
            if cutter.push(part) {
                cutter.cut();
            }
        }
        assert_eq!(cutter.finish(), whole);
        assert_eq!(whole.iter().map(|it| it.size as usize).sum::<usize>(), data.len());
        assert!(whole.len() > 8 && whole.iter().all(|it| it.size <= MAX_PIECE));
        assert!(pieces_of(&[]).is_empty());
        assert_eq!(pieces_of(b"x"), [Piece::of(b"x")]);
    }

    #[test]
    fn what_is_changed_in_one_place_leaves_the_other_pieces_as_they_were() {
        let before = random(16 << 20, 2);
        let mut after = before.clone();
        after.splice(5_000_000..5_000_000, random(1_000, 3));
        let known: HashSet<_> = pieces_of(&before).into_iter().collect();
        let new = pieces_of(&after);
        let changed = new.iter().filter(|it| !known.contains(it)).map(|it| it.size);
        let changed: u32 = changed.sum();
        assert!(changed > 0 && changed < 6 << 20, "{changed} bytes of {} are new", after.len());
    }
}
