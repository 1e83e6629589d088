//! Cuts the bytes of a request body into gRPC messages.

use bytes::{Buf, Bytes, BytesMut};

use super::PREFIX;

/// Most memory reserved ahead for a message on the word of its prefix alone.
const MAX_RESERVE: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error(
        "a message of {size} bytes is over the limit of {limit}; send large blobs by ByteStream, and lists in parts"
    )]
    TooLarge { size: usize, limit: usize },
    #[error("the message is compressed by gRPC (grpc-encoding), which is not supported here")]
    Compressed,
    #[error("the request ends in the middle of a message")]
    Truncated,
}

/// A state machine without I/O: chunks in, messages out. A message that lies whole in one
/// chunk is a slice of it; others are put together with one copy.
pub struct Assembler {
    limit: usize,
    input: Bytes,
    partial: BytesMut,
}

impl Assembler {
    /// `limit`: largest message in bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, input: Bytes::new(), partial: BytesMut::new() }
    }

    /// Adds a chunk. Call it only after `next_message` returned `None`.
    pub fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.input.is_empty(), "a chunk came before the last one was used up");
        self.input = chunk;
    }

    /// `None`: more input is needed.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.partial.is_empty() && self.input.len() >= PREFIX {
            let size = self.size_in(&self.input)?;
            if self.input.len() - PREFIX >= size {
                self.input.advance(PREFIX);
                return Ok(Some(self.input.split_to(size)));
            }
        }
        self.continue_partial()
    }

    /// Bytes of a message that is not whole yet.
    pub fn held(&self) -> usize {
        self.partial.len()
    }

    /// Called at the end of the body.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.partial.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }

    fn continue_partial(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.partial.len() < PREFIX {
            self.move_input(PREFIX - self.partial.len());
            if self.partial.len() < PREFIX {
                return Ok(None);
            }
        }
        let missing = PREFIX + self.size_in(&self.partial)? - self.partial.len();
        self.partial.reserve(missing.min(MAX_RESERVE));
        self.move_input(missing);
        if self.partial.len() < PREFIX + self.size_in(&self.partial)? {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.partial).freeze();
        message.advance(PREFIX);
        Ok(Some(message))
    }

    fn move_input(&mut self, most: usize) {
        let chunk = self.input.split_to(most.min(self.input.len()));
        self.partial.extend_from_slice(&chunk);
    }

    fn size_in(&self, frame: &[u8]) -> Result<usize, FrameError> {
        if frame[0] != 0 {
            return Err(FrameError::Compressed);
        }
        let size = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize;
        if size > self.limit {
            return Err(FrameError::TooLarge { size, limit: self.limit });
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(message: &[u8]) -> Vec<u8> {
        let mut frame = vec![0];
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(message);
        frame
    }

    fn feed(chunks: &[Vec<u8>], limit: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut assembler = Assembler::new(limit);
        let mut messages = Vec::new();
        for chunk in chunks {
            assembler.push(chunk.clone().into());
            while let Some(message) = assembler.next_message()? {
                messages.push(message);
            }
        }
        assembler.finish()?;
        Ok(messages)
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert_eq!(feed(&[frame(&[0; 11])], 10), Err(FrameError::TooLarge { size: 11, limit: 10 }));
        assert_eq!(feed(&[vec![1, 0, 0, 0, 0]], 10), Err(FrameError::Compressed));
        assert_eq!(feed(&[frame(b"abc")[..7].to_vec()], 10), Err(FrameError::Truncated));
        assert_eq!(feed(&[vec![0, 0]], 10), Err(FrameError::Truncated));
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1_usize..20,
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
            let chunks: Vec<_> = wire.chunks(cut).map(<[u8]>::to_vec).collect();
            let out = feed(&chunks, 64).expect("the frames are well formed");
            prop_assert_eq!(out, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..16), 0..8),
        ) {
            let _ = feed(&chunks, 1000);
        }
    }
}
