//! The bytes of a report: counted, bounded, and skipped where they are what tests printed.

use std::io::{self, BufRead, Read};

use super::{Limits, Reason};

/// Bytes that are read at once.
const BUFFER: usize = 16 << 10;

/// What is buffered at least unless the source ends: the longest mark that is looked for.
const AHEAD: usize = 9;

const CDATA: &[u8] = b"<![CDATA[";
const COMMENT: &[u8] = b"<!--";

/// A source that knows its line and its limits.
pub struct Input<R> {
    source: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    at_end: bool,
    /// Bytes that were taken from the input so far.
    taken: u64,
    tag_start: u64,
    line: u64,
    report: u64,
    tag: u64,
    fault: Option<Reason>,
}

/// Text between two tags.
pub struct Text {
    /// The beginning of it, up to what was asked for, without markup.
    pub head: Vec<u8>,
    /// Whether there is nothing but white space.
    pub is_blank: bool,
}

impl<R: Read> Input<R> {
    pub fn new(source: R, limits: &Limits) -> Self {
        Self {
            source,
            buffer: vec![0; BUFFER].into(),
            start: 0,
            end: 0,
            at_end: false,
            taken: 0,
            tag_start: 0,
            line: 1,
            report: limits.report,
            tag: limits.tag,
            fault: None,
        }
    }

    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether everything was read.
    pub fn is_at_end(&self) -> bool {
        self.at_end && self.start == self.end
    }

    /// What made the last read fail.
    pub fn fault(&mut self) -> Option<Reason> {
        self.fault.take()
    }

    /// The next bytes are a tag, and are counted as one.
    pub fn start_tag(&mut self) {
        self.tag_start = self.taken;
    }

    /// Takes everything up to the next tag, comments left out: at most `keep` bytes of it are kept.
    pub fn text(&mut self, keep: usize) -> Result<Text, Reason> {
        let mut text = Text { head: Vec::new(), is_blank: true };
        loop {
            let ahead = self.ahead()?;
            if ahead.is_empty() {
                return Ok(text);
            }
            if ahead.starts_with(CDATA) {
                self.consume(CDATA.len());
                self.until(b"]]>", |piece| add_escaped(&mut text, piece, keep))?;
            } else if ahead.starts_with(COMMENT) {
                self.consume(COMMENT.len());
                self.until(b"-->", |_| {})?;
            } else if ahead.starts_with(b"<!") {
                let is_cut = CDATA.starts_with(ahead) || COMMENT.starts_with(ahead);
                match ahead.get(2) {
                    Some(b'D' | b'd') => return Err(Reason::DocumentType),
                    _ if !is_cut => return Err(Reason::Declaration),
                    _ => {}
                }
                self.consume(self.end - self.start);
            } else if ahead.first() == Some(&b'<') {
                return Ok(text);
            } else {
                let length = ahead.iter().position(|&byte| byte == b'<').unwrap_or(ahead.len());
                text.add(&ahead[..length], keep);
                self.consume(length);
            }
        }
    }

    /// Hands out what stands before `mark`, and takes the mark too.
    fn until(&mut self, mark: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Reason> {
        loop {
            let ahead = self.ahead()?;
            if ahead.is_empty() {
                return Ok(());
            }
            if let Some(at) = find(ahead, mark) {
                each(&ahead[..at]);
                self.consume(at + mark.len());
                return Ok(());
            }
            // The mark may have begun. Near the end of the source there is no more to wait for.
            let length = match ahead.len() > AHEAD {
                true => ahead.len() - (mark.len() - 1),
                false => 1,
            };
            each(&ahead[..length]);
            self.consume(length);
        }
    }

    /// The next [`AHEAD`] bytes at least, or all that are left.
    fn ahead(&mut self) -> Result<&[u8], Reason> {
        self.fill().map_err(|error| self.fault.take().unwrap_or(Reason::Io(error)))?;
        Ok(&self.buffer[self.start..self.end])
    }

    fn fill(&mut self) -> io::Result<()> {
        while self.end - self.start < AHEAD && !self.at_end {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(length) => self.end += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.taken + (self.end - self.start) as u64 > self.report {
            self.fault = Some(Reason::LongReport(self.report));
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(())
    }
}

impl Text {
    fn add(&mut self, piece: &[u8], keep: usize) {
        self.is_blank = self.is_blank && piece.iter().all(u8::is_ascii_whitespace);
        let left = keep.saturating_sub(self.head.len());
        self.head.extend_from_slice(&piece[..piece.len().min(left)]);
    }
}

/// Text of a CDATA section means what it says, as escaped text does when its escapes are undone.
fn add_escaped(text: &mut Text, piece: &[u8], keep: usize) {
    for part in piece.split_inclusive(|&byte| byte == b'&') {
        match text.head.len() < keep || text.is_blank {
            true => text.add(part, keep),
            false => return,
        }
        if part.ends_with(b"&") {
            text.add(b"amp;", keep);
        }
    }
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == mark[0]) {
        if bytes[from + at..].starts_with(mark) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(into)?;
        self.consume(length);
        Ok(length)
    }
}

/// For the XML reader, which is only ever given tags.
impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill()?;
        let left = self.tag.saturating_sub(self.taken - self.tag_start);
        if left == 0 {
            self.fault = Some(Reason::LongTag(self.tag));
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let buffered = &self.buffer[self.start..self.end];
        Ok(&buffered[..buffered.len().min(left)])
    }

    fn consume(&mut self, length: usize) {
        let taken = &self.buffer[self.start..self.start + length];
        self.line += taken.iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.start += length;
        self.taken += length as u64;
    }
}
