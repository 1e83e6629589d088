//! Keeps the end of what a tool prints on its stderr.

use std::fmt::Write as _;

/// The last bytes of a tool's stderr.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    const KEPT_BYTES: usize = 8 << 10;

    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(Self::KEPT_BYTES);
        self.0.drain(..surplus);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The tail in words that follow another sentence; empty where the tool printed nothing.
    pub fn sentence(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let mut sentence = String::new();
        if !text.trim().is_empty() {
            let _ = write!(sentence, "; its stderr ends with {:?}", text.trim_end());
        }
        sentence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_stderr_is_short() {
        let mut tail = Tail::default();
        assert_eq!(tail.sentence(), "");
        tail.push(&vec![b'a'; Tail::KEPT_BYTES]);
        tail.push(b"\nlast\n");
        assert!(tail.sentence().ends_with("\\nlast\""), "{}", tail.sentence());
        assert!(tail.sentence().len() < Tail::KEPT_BYTES + 100);
    }
}
