//! A set of the pieces of a list: one bit for each.

/// As many bits as a list has pieces, the first piece in the lowest bit of the first byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bits {
    words: Vec<u64>,
    len: usize,
    count: usize,
}

/// The word of a bit, and the bit in it.
fn place(index: usize) -> (usize, u64) {
    (index / 64, 1 << (index % 64))
}

impl Bits {
    /// Bits of so many pieces, of which none is set.
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len, count: 0 }
    }

    /// Bits of so many pieces, all of which are set.
    pub fn all(len: usize) -> Self {
        let mut bits = Self::none(len);
        for index in 0..len {
            bits.set(index);
        }
        bits
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// How many bits are set.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn get(&self, index: usize) -> bool {
        let (word, bit) = place(index);
        self.words.get(word).is_some_and(|it| it & bit != 0)
    }

    /// Sets a bit, and answers whether it was not set before. What lies behind the end is left alone.
    pub fn set(&mut self, index: usize) -> bool {
        let (word, bit) = place(index);
        match self.words.get_mut(word) {
            Some(it) if index < self.len && *it & bit == 0 => {
                *it |= bit;
                self.count += 1;
                true
            }
            _ => false,
        }
    }

    /// Clears a bit, and answers whether it was set before.
    pub fn clear(&mut self, index: usize) -> bool {
        let (word, bit) = place(index);
        match self.words.get_mut(word) {
            Some(it) if *it & bit != 0 => {
                *it &= !bit;
                self.count -= 1;
                true
            }
            _ => false,
        }
    }

    /// The 64 bits at this index of words; those behind the end are 0.
    pub fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }

    pub fn words(&self) -> usize {
        self.words.len()
    }

    /// Numbers of the pieces that are set, in order.
    pub fn ones(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| ones_of(at, *word))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|it| it.to_le_bytes());
        bytes.take(self.len.div_ceil(8)).collect()
    }

    /// `None`: not as many bytes as there have to be, or bits behind the end.
    pub fn from_bytes(len: usize, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) {
            return None;
        }
        let mut bits = Self::none(len);
        for (at, byte) in bytes.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                if !bits.set(at * 8 + bit) {
                    return None;
                }
            }
        }
        Some(bits)
    }
}

/// The indices of the bits of a word.
pub fn ones_of(at: usize, mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            at * 64 + bit
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(len in 0_usize..300, set in proptest::collection::vec(0_usize..320, 0..40)) {
            let mut bits = Bits::none(len);
            for index in &set {
                let is_new = *index < len && !bits.get(*index);
                prop_assert_eq!(bits.set(*index), is_new);
            }
            let mut sorted: Vec<_> = set.into_iter().filter(|it| *it < len).collect();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(bits.ones().collect::<Vec<_>>(), sorted.clone());
            prop_assert_eq!(bits.count(), sorted.len());
            prop_assert_eq!(Bits::from_bytes(len, &bits.to_bytes()), Some(bits));
        }

        #[test]
        fn no_bytes_are_too_odd(len in 0_usize..100, bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Some(bits) = Bits::from_bytes(len, &bytes) {
                prop_assert_eq!(bits.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn all_are_as_many_as_there_are() {
        for len in [0, 1, 63, 64, 65, 256] {
            let bits = Bits::all(len);
            assert!(bits.is_full() && bits.count() == len && !bits.get(len));
        }
    }
}
