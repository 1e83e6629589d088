//! Bodies of gzip members, one after the other (RFC 1952, section 2.2), decoded as they come.

use std::io::{self, Write};

use flate2::write::GzDecoder;

/// The two bytes that a member begins with.
const ID1: u8 = 0x1f;
const ID2: u8 = 0x8b;

pub struct Gzip(Stage);

enum Stage {
    /// Nothing has come: what is empty has been coded by nobody.
    Nothing,
    Member(Box<GzDecoder<Vec<u8>>>),
    /// A member has ended. Whether the first byte of another one has come.
    Between(bool),
    /// What follows the last member and begins none. Servers pad with zeros, and whatever it is, browsers and Bazel
    /// leave it out.
    Rest,
}

impl Gzip {
    pub fn new() -> Self {
        Self(Stage::Nothing)
    }

    /// What the next bytes of the body add to the content.
    pub fn decode(&mut self, mut data: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        while let Some((&first, rest)) = data.split_first() {
            match &mut self.0 {
                Stage::Nothing => self.0 = Stage::Member(member()),
                Stage::Member(decoder) => {
                    let taken = decoder.write(data)?;
                    content.append(decoder.get_mut());
                    data = data.get(taken..).unwrap_or_default();
                    // It takes nothing once the member has ended.
                    if taken == 0 {
                        content.append(&mut end(decoder)?);
                        self.0 = Stage::Between(false);
                    }
                }
                Stage::Between(begun) => {
                    self.0 = match (*begun, first) {
                        (false, ID1) => Stage::Between(true),
                        (true, ID2) => {
                            let mut next = member();
                            next.write_all(&[ID1, ID2])?;
                            Stage::Member(next)
                        }
                        _ => Stage::Rest,
                    };
                    data = rest;
                }
                Stage::Rest => break,
            }
        }
        Ok(content)
    }

    /// The body has ended; what was kept back of the content. Errors: a member is not whole.
    pub fn finish(&mut self) -> io::Result<Vec<u8>> {
        match &mut self.0 {
            Stage::Member(decoder) => end(decoder),
            _ => Ok(Vec::new()),
        }
    }
}

fn member() -> Box<GzDecoder<Vec<u8>>> {
    Box::new(GzDecoder::new(Vec::new()))
}

fn end(decoder: &mut GzDecoder<Vec<u8>>) -> io::Result<Vec<u8>> {
    decoder.try_finish()?;
    Ok(std::mem::take(decoder.get_mut()))
}
