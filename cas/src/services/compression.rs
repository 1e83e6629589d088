//! zstd in both directions, in pieces of bounded size.

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use zstd::stream::raw::{DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::blob::{Blob, BlobStream};
use crate::error::StoreError;

/// Speed matters more than the last per cent between machines of one data centre.
const LEVEL: i32 = 1;
/// Most bytes that one step of decompression produces.
const PIECE: usize = 256 << 10;
/// Largest window a frame may ask for, as a power of two (16 MiB): more than zstd's levels up
/// to 19 use. It bounds the memory of one upload.
const MAX_WINDOW_LOG: u32 = 24;
/// The same in bytes.
pub const MAX_WINDOW: u64 = 1 << MAX_WINDOW_LOG;
/// Window of the levels that clients use (up to 3), in bytes: no frame has to say beforehand that
/// it needs as much.
pub const USUAL_WINDOW: u64 = 2 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZstdError {
    #[error("the data is not valid zstd: {0}")]
    Invalid(String),
    #[error("the zstd data ends in the middle of a frame")]
    Truncated,
    #[error("the zstd data decompresses to more than the {limit} bytes of its digest")]
    TooLarge { limit: u64 },
}

/// The window that the frame at the front of `data` asks for, in bytes (RFC 8878, section 3.1.1.1):
/// what decompressing it holds. `None`: too little is there, or it is something else.
pub fn window_of(data: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let header = data.strip_prefix(&MAGIC)?;
    let (&descriptor, rest) = header.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The window is the content, whose size comes after the id of a dictionary.
    let size = rest.get([0, 1, 2, 4][usize::from(descriptor & 3)]..)?;
    let little_endian =
        |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    match descriptor >> 6 {
        0 => size.get(..1).map(little_endian),
        1 => size.get(..2).map(|bytes| little_endian(bytes) + 256),
        2 => size.get(..4).map(little_endian),
        _ => size.get(..8).map(little_endian),
    }
}

/// Decompresses a sequence of zstd frames that arrives in pieces.
pub struct Decompressor {
    decoder: Decoder<'static>,
    in_frame: bool,
    produced: u64,
    limit: u64,
}

impl Decompressor {
    /// `limit`: most bytes that may come out. Going over it is an error before they are kept.
    pub fn new(limit: u64) -> Result<Self, ZstdError> {
        Self::with_window(limit, MAX_WINDOW)
    }

    /// The same, for frames with windows of at most `window` bytes, or of [`USUAL_WINDOW`].
    pub fn with_window(limit: u64, window: u64) -> Result<Self, ZstdError> {
        let log = window.clamp(USUAL_WINDOW, MAX_WINDOW).next_power_of_two().ilog2();
        let mut decoder = Decoder::new().map_err(invalid)?;
        decoder.set_parameter(DParameter::WindowLogMax(log)).map_err(invalid)?;
        Ok(Self { decoder, in_frame: false, produced: 0, limit })
    }

    /// Takes from `input` and returns the next piece. `None`: all of the input is used.
    pub fn step(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, ZstdError> {
        let mut output = Vec::with_capacity(PIECE);
        loop {
            let mut from = InBuffer::around(input);
            let mut to = OutBuffer::around(&mut output);
            let hint = self.decoder.run(&mut from, &mut to).map_err(invalid)?;
            let (used, made) = (from.pos(), to.pos());
            if used > 0 || made > 0 {
                self.in_frame = hint != 0;
            }
            input.advance(used);
            if made > 0 {
                self.produced += made as u64;
                if self.produced > self.limit {
                    return Err(ZstdError::TooLarge { limit: self.limit });
                }
                return Ok(Some(output.into()));
            }
            if used == 0 || input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Call it when no more input comes.
    pub fn finish(&self) -> Result<(), ZstdError> {
        if self.in_frame { Err(ZstdError::Truncated) } else { Ok(()) }
    }
}

/// Decompresses `data`, which is said to come to `size` bytes.
pub fn decompress(mut data: Bytes, size: u64) -> Result<Bytes, ZstdError> {
    let mut decompressor = Decompressor::new(size)?;
    let mut output = Vec::new();
    while let Some(piece) = decompressor.step(&mut data)? {
        if output.is_empty() && piece.len() as u64 == size {
            // The usual case of a small blob: no second copy.
            output = piece.into();
            continue;
        }
        output.extend_from_slice(&piece);
    }
    decompressor.finish()?;
    Ok(output.into())
}

pub fn compress(data: &[u8]) -> Result<Bytes, StoreError> {
    zstd::bulk::compress(data, LEVEL).map(Bytes::from).map_err(|e| StoreError::io("compress", e))
}

/// The blob's bytes as one zstd frame.
pub fn compressed_stream(blob: Blob) -> Result<BlobStream, StoreError> {
    let encoder = Encoder::new(LEVEL).map_err(|e| StoreError::io("compress", e))?;
    let state = Compressing { source: blob.into_stream(), encoder: Some(encoder) };
    Ok(Box::pin(futures_util::stream::try_unfold(state, |mut state| async move {
        Ok(state.next().await?.map(|piece| (piece, state)))
    })))
}

struct Compressing {
    source: BlobStream,
    /// `None` once the frame has ended.
    encoder: Option<Encoder<'static>>,
}

impl Compressing {
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(None) };
        let mut output = Vec::new();
        while let Some(chunk) = self.source.next().await {
            encode(&mut encoder, &chunk?, &mut output)?;
            if !output.is_empty() {
                self.encoder = Some(encoder);
                return Ok(Some(output.into()));
            }
        }
        finish_frame(&mut encoder, &mut output)?;
        Ok(Some(output.into()))
    }
}

fn encode(encoder: &mut Encoder<'_>, chunk: &[u8], output: &mut Vec<u8>) -> Result<(), StoreError> {
    let mut input = InBuffer::around(chunk);
    while input.pos() < chunk.len() {
        with_room(output, |to| encoder.run(&mut input, to))?;
    }
    Ok(())
}

fn finish_frame(encoder: &mut Encoder<'_>, output: &mut Vec<u8>) -> Result<(), StoreError> {
    while with_room(output, |to| encoder.finish(to, false))? > 0 {}
    Ok(())
}

fn with_room(
    output: &mut Vec<u8>,
    mut run: impl FnMut(&mut OutBuffer<'_, Vec<u8>>) -> std::io::Result<usize>,
) -> Result<usize, StoreError> {
    let filled = output.len();
    output.reserve(64 << 10);
    run(&mut OutBuffer::around_pos(output, filled)).map_err(|e| StoreError::io("compress", e))
}

fn invalid(error: std::io::Error) -> ZstdError {
    ZstdError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decompress_in(pieces: usize, data: &[u8], limit: u64) -> Result<Vec<u8>, ZstdError> {
        let mut decompressor = Decompressor::new(limit)?;
        let mut output = Vec::new();
        for piece in data.chunks(pieces) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(out) = decompressor.step(&mut piece)? {
                output.extend(out);
            }
        }
        decompressor.finish()?;
        Ok(output)
    }

    #[test]
    fn a_window_is_known_before_it_is_needed() {
        let noise: Vec<u8> = (0..9_u32 << 20).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let packed = |size: usize, level| zstd::bulk::compress(&noise[..size], level).unwrap();
        for (size, level, window) in [
            (0, 1, 0),
            (200, 3, 200),
            (300, 3, 300),
            (70_000, 3, 70_000),
            (9 << 20, 3, 2 << 20),
            (9 << 20, 19, 8 << 20),
        ] {
            assert_eq!(
                window_of(&packed(size, level)),
                Some(window),
                "{size} bytes, level {level}"
            );
        }
        assert_eq!(window_of(&packed(200, 3)[..4]), None);
        assert_eq!(window_of(b"not zstd"), None);
        // The decompressor refuses data that need a larger window than their header asked for.
        let mut data = Bytes::from(packed(9 << 20, 19));
        let mut small = Decompressor::with_window(9 << 20, USUAL_WINDOW).unwrap();
        assert!(small.step(&mut data.clone()).is_err());
        let mut large = Decompressor::with_window(9 << 20, 8 << 20).unwrap();
        assert!(large.step(&mut data).is_ok());
    }

    #[test]
    fn a_bomb_is_stopped_early() {
        let bomb = compress(&vec![0; 64 << 20]).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(decompress(bomb.clone(), 1000), Err(ZstdError::TooLarge { limit: 1000 }));
        assert_eq!(decompress_in(7, &bomb, 1000), Err(ZstdError::TooLarge { limit: 1000 }));
    }

    #[test]
    fn truncated_and_invalid_data_are_told_apart() {
        let data = compress(b"some bytes, some bytes").unwrap();
        assert_eq!(decompress(data.slice(..data.len() - 1), 22), Err(ZstdError::Truncated));
        assert!(matches!(
            decompress(Bytes::from_static(b"not zstd"), 22),
            Err(ZstdError::Invalid(_))
        ));
    }

    #[test]
    fn several_frames_are_one_blob() {
        let mut data = compress(b"one ").unwrap().to_vec();
        data.extend(compress(b"two").unwrap());
        assert_eq!(decompress(data.clone().into(), 7).unwrap(), "one two");
        assert_eq!(decompress_in(1, &data, 7).unwrap(), b"one two");
    }

    #[tokio::test]
    async fn a_stream_becomes_one_frame() {
        let chunks: Vec<Bytes> =
            (0..40_u8).map(|i| Bytes::from(vec![i; 50_000 + usize::from(i)])).collect();
        let whole: Vec<u8> = chunks.concat();
        let source = futures_util::stream::iter(chunks.into_iter().map(Ok));
        let stream = compressed_stream(Blob::Stream(Box::pin(source))).unwrap();
        let pieces: Vec<_> = stream.map(|piece| piece.unwrap()).collect().await;
        let compressed = pieces.concat();
        assert_eq!(decompress(compressed.into(), whole.len() as u64).unwrap(), whole);
    }

    proptest! {
        #[test]
        fn any_bytes_survive_any_cut(data: Vec<u8>, pieces in 1_usize..50) {
            let compressed = compress(&data).unwrap();
            prop_assert_eq!(decompress_in(pieces, &compressed, data.len() as u64), Ok(data));
        }

        #[test]
        fn arbitrary_bytes_never_panic(data: Vec<u8>) {
            window_of(&data);
            window_of(&[&[0x28, 0xb5, 0x2f, 0xfd], &data[..]].concat());
            let _ = decompress(data.into(), 1000);
        }
    }
}
