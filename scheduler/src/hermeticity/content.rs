//! Where two contents part, and what that place tells about the cause. No I/O.

/// Bytes before and after a difference that are looked at.
pub const BEFORE: u64 = 1024;
pub const AFTER: u64 = 512;
/// Bytes before and after a difference that people see.
const SHOWN_BEFORE: usize = 24;
const SHOWN_AFTER: usize = 40;

/// Working directories of actions, as sandboxes name them: the usual one, and that of the
/// hermeticity check.
const DIRECTORIES: [&str; 2] = ["/kiln/root", "/kiln/hermeticity/check/elsewhere"];
const OTHER_HOST_NAME: &str = "kiln-hermeticity-check";
const OTHER_USER: &str = "2345";
const OTHER_PROCESS_IDS: &str = "234";

/// Takes two contents in pieces of equal length, up to the first difference.
#[derive(Debug, Default)]
pub struct Finder {
    offset: u64,
    lines: u64,
}

/// The place of the first difference; `offset` is in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub offset: u64,
    /// The line, counted from 1, as if the content were text.
    pub line: u64,
}

impl Finder {
    /// Compares the next two pieces, which are of equal length unless they are the last. Returns
    /// the first difference.
    pub fn feed(&mut self, first: &[u8], again: &[u8]) -> Option<Place> {
        let equal = first.iter().zip(again).take_while(|(a, b)| a == b).count();
        self.offset += equal as u64;
        self.lines += first[..equal].iter().filter(|byte| **byte == b'\n').count() as u64;
        let parted = equal < first.len() || equal < again.len();
        parted.then_some(Place { offset: self.offset, line: self.lines + 1 })
    }
}

/// A part of a content around the difference.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    pub bytes: &'a [u8],
    /// Index in `bytes` of the difference; their length where the content ends there.
    pub at: usize,
    /// Offset of `bytes` in the whole content.
    pub start: u64,
}

impl Window<'_> {
    pub fn is_text(&self) -> bool {
        !self.bytes.contains(&0)
    }

    /// The bytes around the difference, escaped for people to read.
    pub fn excerpt(&self) -> String {
        let at = self.at.min(self.bytes.len());
        let from = at.saturating_sub(SHOWN_BEFORE);
        let to = (at + SHOWN_AFTER).min(self.bytes.len());
        self.bytes[from..to].escape_ascii().to_string()
    }

    fn has(&self, text: &str) -> bool {
        let from = self.at.saturating_sub(text.len() + SHOWN_BEFORE);
        let to = (self.at + text.len() + SHOWN_AFTER).min(self.bytes.len());
        let near = &self.bytes[from.min(to)..to];
        near.windows(text.len()).any(|part| part == text.as_bytes())
    }

    /// The `count` bytes that begin `offset` bytes before the difference; `None`: the window has
    /// not all of them.
    fn back(&self, offset: usize, count: usize) -> Option<&[u8]> {
        let from = self.at.checked_sub(offset)?;
        self.bytes.get(from..from + count)
    }
}

/// Likely causes of the difference, in words, the most telling first.
pub fn hints(first: Window<'_>, again: Window<'_>) -> Vec<String> {
    let mut hints: Vec<&str> = Vec::new();
    hints.extend(container(first));
    if DIRECTORIES.iter().any(|path| first.has(path) || again.has(path)) {
        hints.push("contains the working directory: map it away, e.g. -ffile-prefix-map");
    }
    if again.has(OTHER_HOST_NAME) {
        hints.push("contains the host name");
    }
    if again.is_text() && again.has(OTHER_USER) && !first.has(OTHER_USER) {
        hints.push("may contain the user or a process number");
    } else if again.is_text() && again.has(OTHER_PROCESS_IDS) && !first.has(OTHER_PROCESS_IDS) {
        hints.push("may contain a process number");
    }
    if has_time(first) || has_time(again) {
        hints.push("looks like a date or a time: honour SOURCE_DATE_EPOCH");
    }
    hints.into_iter().map(str::to_owned).collect()
}

/// The likely cause of the difference, by the format of the file around it.
fn container(window: Window<'_>) -> Option<&'static str> {
    let offset = window.start + window.at as u64;
    if window.start == 0 && window.bytes.starts_with(&[0x1f, 0x8b]) && (4..8).contains(&offset) {
        return Some("the time in a gzip header: use gzip -n");
    }
    zip(window).or_else(|| ar(window)).or_else(|| tar(window, offset)).or_else(|| elf(window))
}

/// Times lie 10 bytes into a local header, and 12 into one of the directory at the end.
fn zip(window: Window<'_>) -> Option<&'static str> {
    let within = |signature: &[u8], at: std::ops::Range<usize>| {
        at.into_iter().any(|back| window.back(back, 4) == Some(signature))
    };
    let is_time = within(b"PK\x03\x04", 10..14) || within(b"PK\x01\x02", 12..16);
    is_time.then_some("the time of an entry of a zip or jar: set a fixed one")
}

/// Headers have 60 bytes, with the time at 16, user and group at 28, and end in "`\n".
fn ar(window: Window<'_>) -> Option<&'static str> {
    let header = |at: &usize| {
        let end = (window.at + 58).checked_sub(*at);
        end.and_then(|end| window.bytes.get(end..end + 2)) == Some(b"`\n")
    };
    if (16..28).any(|at| header(&at)) {
        return Some("the time of a member of an ar archive: use ar -D");
    }
    let owner = (28..40).any(|at| header(&at));
    owner.then_some("the owner of a member of an ar archive: use ar -D")
}

/// Headers are blocks of 512 bytes with "ustar" at 257.
fn tar(window: Window<'_>, offset: u64) -> Option<&'static str> {
    let within = usize::try_from(offset % 512).ok()?;
    let magic = (window.at + 257).checked_sub(within)?;
    if window.bytes.get(magic..magic + 5) != Some(b"ustar") {
        return None;
    }
    match within {
        108..124 => Some("the owner of an entry of a tar archive: use --owner=0 --group=0"),
        136..148 => Some("the time of an entry of a tar archive: use --mtime"),
        0..100 => Some("the order of entries of a tar archive: use --sort=name"),
        _ => None,
    }
}

/// The note of the build id has its name right before it.
fn elf(window: Window<'_>) -> Option<&'static str> {
    let note = (4..24).any(|back| window.back(back, 4) == Some(b"GNU\0"));
    note.then_some("the build id of a program: it follows from another difference further on")
}

/// Whether there is a time or date like `12:34:56` or `2025-01-31` near the difference.
fn has_time(window: Window<'_>) -> bool {
    let from = window.at.saturating_sub(10).min(window.bytes.len());
    let near = &window.bytes[from..(window.at + 10).min(window.bytes.len())];
    let shaped = |shape: &str| {
        near.windows(shape.len()).any(|part| {
            part.iter().zip(shape.bytes()).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                other => *byte == other,
            })
        })
    };
    shaped("00:00:00") || shaped("0000-00-00")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn find(first: &[u8], again: &[u8], piece: usize) -> Option<Place> {
        let mut finder = Finder::default();
        let mut from = 0;
        while from < first.len().max(again.len()) {
            let part =
                |all: &'_ [u8]| all[from.min(all.len())..(from + piece).min(all.len())].to_vec();
            if let Some(place) = finder.feed(&part(first), &part(again)) {
                return Some(place);
            }
            from += piece;
        }
        None
    }

    proptest! {
        #[test]
        fn the_first_difference_is_found_in_pieces_of_any_size(
            common in "[ab\n]{0,40}", first in "[ab\n]{0,9}", again in "[ab\n]{0,9}", piece in 1..20usize
        ) {
            let (a, b) = (format!("{common}{first}"), format!("{common}{again}"));
            let expected = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
            let found = find(a.as_bytes(), b.as_bytes(), piece);
            prop_assert_eq!(found.is_none(), a == b);
            if let Some(place) = found {
                prop_assert_eq!(place.offset, expected as u64);
                prop_assert_eq!(place.line as usize, a[..expected].matches('\n').count() + 1);
            }
        }

        #[test]
        fn no_window_is_too_odd(bytes: Vec<u8>, other: Vec<u8>, at in 0..2000usize, start: u32) {
            let window = |bytes| Window { bytes, at, start: u64::from(start) };
            hints(window(&bytes), window(&other));
            window(&bytes).excerpt();
        }
    }

    fn hint(first: &[u8], again: &[u8]) -> String {
        let place = find(first, again, 4096).expect("they differ");
        let at = place.offset as usize;
        let window = |bytes| Window { bytes, at, start: 0 };
        hints(window(first), window(again)).join("; ")
    }

    #[test]
    fn formats_and_texts_tell_their_cause() {
        let ar = |time: &str| {
            format!("!<arch>\n{:16}{time:12}{:6}{:6}{:8}{:10}`\n", "a.o/", 0, 0, 644, 4)
        };
        assert!(hint(ar("1600000000").as_bytes(), ar("1700000000").as_bytes()).contains("ar -D"));
        let zip = |time: u8| [b"PK\x03\x04\x14\0\0\0\0\0", &[time, 1, 2, 3][..], &[0; 20]].concat();
        assert!(hint(&zip(1), &zip(2)).contains("zip"));
        let tar = |time: u8| {
            let mut block = vec![0; 512];
            block[140] = time;
            block[257..262].copy_from_slice(b"ustar");
            block
        };
        assert!(hint(&tar(1), &tar(2)).contains("tar archive: use --mtime"));
        assert!(hint(b"\x1f\x8b\x08\0abcd", b"\x1f\x8b\x08\0abce").contains("gzip -n"));
        assert!(hint(b"\x7fELF..GNU\0abc", b"\x7fELF..GNU\0abd").contains("build id"));
        assert!(
            hint(b"in /kiln/root/a.c", b"in /kiln/hermeticity/check/elsewhere/a.c")
                .contains("directory")
        );
        assert!(hint(b"on kiln", b"on kiln-hermeticity-check").contains("host name"));
        assert!(hint(b"at 2024-05-06", b"at 2024-05-07").contains("date"));
        assert_eq!(hint(b"plain", b"plein"), "");
    }
}
