//! gRPC messages as bytes: frames out without copying blobs, frames in without decoding them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Bytes before each message: a compression flag, and the length in four bytes.
pub const PREFIX: usize = 5;
/// The number of `resource_name` in `google.bytestream.WriteRequest`; the next constants number its
/// other fields.
const RESOURCE_NAME: u32 = 1;
const WRITE_OFFSET: u32 = 2;
const FINISH_WRITE: u32 = 3;
const DATA: u32 = 10;
/// Bytes reserved for a message's fields before its data, without the resource name.
const FIELDS: usize = 32;
/// Tag of `ReadResponse.data` (field 10, length-delimited).
const READ_DATA_TAG: u8 = 10 << 3 | 2;
/// Most bytes before the data of a `ReadResponse`: prefix, tag, length.
const MAX_READ_HEADER: usize = PREFIX + 1 + 10;

/// A gRPC message as it is sent: prefix and fields, then data that is shared.
pub type Framed = bytes::buf::Chain<Bytes, Bytes>;

/// A message with its prefix.
pub fn frame(message: &impl Message) -> Framed {
    let size = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + size);
    put_prefix(&mut framed, size);
    message.encode_raw(&mut framed);
    framed.freeze().chain(Bytes::new())
}

/// A `WriteRequest`. `resource_name` is empty but in the first message of a write.
pub fn frame_write(resource_name: &str, offset: u64, data: Bytes, finish: bool) -> Framed {
    let mut fields = BytesMut::with_capacity(FIELDS + resource_name.len());
    if !resource_name.is_empty() {
        encode_key(RESOURCE_NAME, WireType::LengthDelimited, &mut fields);
        encode_varint(resource_name.len() as u64, &mut fields);
        fields.put_slice(resource_name.as_bytes());
    }
    if offset > 0 {
        encode_key(WRITE_OFFSET, WireType::Varint, &mut fields);
        encode_varint(offset, &mut fields);
    }
    if finish {
        encode_key(FINISH_WRITE, WireType::Varint, &mut fields);
        encode_varint(1, &mut fields);
    }
    encode_key(DATA, WireType::LengthDelimited, &mut fields);
    encode_varint(data.len() as u64, &mut fields);
    let mut head = BytesMut::with_capacity(PREFIX + fields.len());
    put_prefix(&mut head, fields.len() + data.len());
    head.put_slice(&fields);
    head.freeze().chain(data)
}

fn put_prefix(buffer: &mut BytesMut, size: usize) {
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
}

/// Takes one whole message off the front of `body`.
pub fn next_message(body: &mut Bytes) -> Result<Option<Bytes>, WireError> {
    if body.is_empty() {
        return Ok(None);
    }
    if body.len() < PREFIX {
        return Err(WireError::Truncated);
    }
    let size = message_size(body)?;
    if body.len() - PREFIX < size {
        return Err(WireError::Truncated);
    }
    body.advance(PREFIX);
    Ok(Some(body.split_to(size)))
}

fn message_size(prefix: &[u8]) -> Result<usize, WireError> {
    match *prefix {
        [0, a, b, c, d, ..] => Ok(u32::from_be_bytes([a, b, c, d]) as usize),
        [1, _, _, _, _, ..] => Err(WireError::Compressed),
        _ => Err(WireError::Truncated),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("the answer ends in the middle of a message")]
    Truncated,
    #[error("a message is compressed although compression was not offered")]
    Compressed,
    #[error("a ReadResponse holds something else than data")]
    NotData,
}

/// Finds the data in a stream of `ReadResponse` messages without putting them together.
#[derive(Default)]
pub struct DataScanner {
    header: [u8; MAX_READ_HEADER],
    filled: usize,
    /// Bytes of data left in the current message.
    left: usize,
}

impl DataScanner {
    /// Hands the data in `chunk` to `sink`, piece by piece.
    pub fn scan(&mut self, mut chunk: &[u8], mut sink: impl FnMut(&[u8])) -> Result<(), WireError> {
        loop {
            let here = self.left.min(chunk.len());
            if here > 0 {
                sink(&chunk[..here]);
                self.left -= here;
                chunk = &chunk[here..];
            }
            let Some((byte, rest)) = chunk.split_first() else { return Ok(()) };
            chunk = rest;
            self.header_byte(*byte)?;
        }
    }

    /// Called when the stream has ended.
    pub fn finish(&self) -> Result<(), WireError> {
        if self.filled == 0 && self.left == 0 { Ok(()) } else { Err(WireError::Truncated) }
    }

    fn header_byte(&mut self, byte: u8) -> Result<(), WireError> {
        let place = self.header.get_mut(self.filled).ok_or(WireError::NotData)?;
        *place = byte;
        self.filled += 1;
        if self.filled < PREFIX {
            return Ok(());
        }
        let size = message_size(&self.header)?;
        let fields = &self.header[PREFIX..self.filled];
        if fields.is_empty() {
            if size == 0 {
                self.filled = 0;
            }
            return Ok(());
        }
        if fields[0] != READ_DATA_TAG {
            return Err(WireError::NotData);
        }
        if fields.len() > 1 && byte < 0x80 {
            let length = fields[1..].iter().rev().fold(0, |n, b| n << 7 | usize::from(b & 0x7f));
            if 1 + (fields.len() - 1) + length != size {
                return Err(WireError::NotData);
            }
            self.left = length;
            self.filled = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kiln_protos::bytestream::{ReadResponse, WriteRequest};

    use super::*;

    #[test]
    fn a_framed_write_decodes_with_the_generated_type() {
        for (name, offset, finish) in [("a/b", 0, true), ("", 70_000, false), ("", 5, true)] {
            let data = Bytes::from(vec![7; 300]);
            let mut framed = frame_write(name, offset, data.clone(), finish);
            let mut body = framed.copy_to_bytes(framed.remaining());
            let message = next_message(&mut body).unwrap().unwrap();
            let expected = WriteRequest {
                resource_name: name.to_owned(),
                write_offset: offset as i64,
                finish_write: finish,
                data: data.to_vec(),
            };
            assert_eq!(WriteRequest::decode(message).unwrap(), expected);
            assert!(body.is_empty());
        }
    }

    fn stream_of(sizes: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let (mut stream, mut all) = (Vec::new(), Vec::new());
        for (n, size) in sizes.iter().enumerate() {
            let data = vec![n as u8 + 1; *size];
            all.extend_from_slice(&data);
            let mut framed = frame(&ReadResponse { data });
            stream.extend_from_slice(&framed.copy_to_bytes(framed.remaining()));
        }
        (stream, all)
    }

    #[test]
    fn the_scanner_finds_all_data_whatever_the_cuts() {
        let (stream, all) = stream_of(&[1, 0, 127, 128, 20_000]);
        for cut in [1, 2, 3, 7, 100, 16_384, 50_000] {
            let mut scanner = DataScanner::default();
            let mut found = Vec::new();
            for chunk in stream.chunks(cut) {
                scanner.scan(chunk, |data| found.extend_from_slice(data)).unwrap();
            }
            scanner.finish().unwrap();
            assert_eq!(found, all, "cut every {cut} bytes");
        }
    }

    #[test]
    fn the_scanner_refuses_what_is_no_read_response() {
        let (stream, _) = stream_of(&[100]);
        let mut cut_off = DataScanner::default();
        cut_off.scan(&stream[..50], |_| ()).unwrap();
        assert_eq!(cut_off.finish(), Err(WireError::Truncated));
        let mut other = stream.clone();
        other[PREFIX] = 1 << 3 | 2;
        assert_eq!(DataScanner::default().scan(&other, |_| ()), Err(WireError::NotData));
        let mut compressed = stream;
        compressed[0] = 1;
        assert_eq!(DataScanner::default().scan(&compressed, |_| ()), Err(WireError::Compressed));
    }
}
