//! Numbers and texts as bytes, column by column: equal and rising ones become nearly nothing when they are
//! compressed.

use std::collections::HashMap;

use crate::storage::Damage;

/// Most bytes of one text.
const MAX_TEXT: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Out(pub Vec<u8>);

impl Out {
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A difference, small in either direction.
    pub fn signed(&mut self, number: i64) {
        self.number(((number << 1) ^ (number >> 63)) as u64);
    }

    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    pub fn column(&mut self, numbers: impl IntoIterator<Item = u64>) {
        numbers.into_iter().for_each(|it| self.number(it));
    }

    /// Writes numbers, each as the difference to the one before.
    pub fn deltas(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let mut before = 0_u64;
        for number in numbers {
            self.signed(number.wrapping_sub(before) as i64);
            before = number;
        }
    }
}

/// Reads what [`Out`] wrote; whatever else it is given, it ends with an error and sets aside no more than there are
/// bytes.
#[derive(Debug)]
pub struct In<'a>(pub &'a [u8]);

impl<'a> In<'a> {
    pub fn number(&mut self) -> Result<u64, Damage> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Damage::Short)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damage::Form("number"))
    }

    pub fn signed(&mut self) -> Result<i64, Damage> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub fn small(&mut self) -> Result<u32, Damage> {
        u32::try_from(self.number()?).map_err(|_| Damage::Form("number"))
    }

    /// How many entries follow, each of which has at least one byte.
    pub fn count(&mut self) -> Result<usize, Damage> {
        let count = self.number()?;
        if count > self.0.len() as u64 {
            return Err(Damage::Length(count));
        }
        Ok(count as usize)
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Damage::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub fn text(&mut self) -> Result<String, Damage> {
        let length = self.count()?;
        if length > MAX_TEXT {
            return Err(Damage::Length(length as u64));
        }
        let text = std::str::from_utf8(self.bytes(length)?);
        Ok(text.map_err(|_| Damage::Form("text"))?.to_owned())
    }

    pub fn skip_text(&mut self) -> Result<(), Damage> {
        let length = self.count()?;
        self.bytes(length).map(|_| ())
    }

    pub fn skip_column(&mut self, count: usize) -> Result<(), Damage> {
        (0..count).try_for_each(|_| self.number().map(|_| ()))
    }

    /// Reads a column of as many numbers as are asked for, each of which takes at least a byte.
    pub fn column(&mut self, count: usize) -> Result<Vec<u64>, Damage> {
        if count > self.0.len() {
            return Err(Damage::Length(count as u64));
        }
        (0..count).map(|_| self.number()).collect()
    }

    pub fn deltas(&mut self, count: usize) -> Result<Vec<u64>, Damage> {
        if count > self.0.len() {
            return Err(Damage::Length(count as u64));
        }
        let mut before = 0_u64;
        let step = |_| -> Result<u64, Damage> {
            before = before.wrapping_add(self.signed()? as u64);
            Ok(before)
        };
        (0..count).map(step).collect()
    }

    pub fn end(&self) -> Result<(), Damage> {
        if self.0.is_empty() { Ok(()) } else { Err(Damage::Form("end")) }
    }
}

/// Things that occur often, by number; 0 stands for none.
#[derive(Debug)]
pub struct Words<T> {
    numbers: HashMap<T, u64>,
    pub list: Vec<T>,
}

impl<T> Default for Words<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), list: Vec::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Words<T> {
    pub fn number(&mut self, word: Option<&T>) -> u64 {
        let Some(word) = word else { return 0 };
        if let Some(number) = self.numbers.get(word) {
            return *number;
        }
        self.list.push(word.clone());
        self.numbers.insert(word.clone(), self.list.len() as u64);
        self.list.len() as u64
    }
}

/// The word with this number.
pub fn word<T: Clone>(list: &[T], number: u64) -> Result<Option<T>, Damage> {
    let Some(at) = number.checked_sub(1) else { return Ok(None) };
    let at = usize::try_from(at).map_err(|_| Damage::Form("word"))?;
    list.get(at).cloned().map(Some).ok_or(Damage::Form("word"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(numbers in proptest::collection::vec(any::<u64>(), 0..20), text in ".{0,20}") {
            let mut out = Out::default();
            out.column(numbers.iter().copied());
            out.deltas(numbers.iter().copied());
            out.text(&text);
            let mut read = In(&out.0);
            prop_assert_eq!(&read.column(numbers.len()).unwrap(), &numbers);
            prop_assert_eq!(&read.deltas(numbers.len()).unwrap(), &numbers);
            prop_assert_eq!(read.text().unwrap(), text);
            prop_assert!(read.end().is_ok());
        }

        #[test]
        fn anything_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), count in 0_usize..100) {
            let mut read = In(&bytes);
            let _ = (read.column(count), read.text(), read.deltas(count), read.array::<4>());
        }
    }
}
