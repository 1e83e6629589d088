//! Archives put together without unpacking: the entries of all, as they are compressed. No I/O.

use std::collections::BTreeSet;

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
/// Bytes of each header without the names and texts behind it.
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
/// Bytes of the comment that may follow the end record, at most.
const MAX_COMMENT: usize = 65_535;
/// Values that say that the true one is elsewhere, as in archives of over 4 GiB or 65,534 entries.
const ELSEWHERE_16: usize = 0xffff;
const ELSEWHERE_32: usize = 0xffff_ffff;

/// Why archives cannot be put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    #[error("it is no zip archive")]
    NoArchive,
    #[error(
        "it is larger than plain zip archives can be, or than is put together: leave fewer or smaller files"
    )]
    TooLarge,
    #[error("two of its entries have one name or one place")]
    Twice,
}

struct ZipEntry<'a> {
    /// The entry's header in the central directory.
    header: &'a [u8],
    name: &'a [u8],
    /// The extra fields and the comment of the header.
    rest: &'a [u8],
    /// The local header, the name and extra fields behind it, the data and what describes it.
    local: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let two = bytes.get(at..at.checked_add(2)?)?.first_chunk()?;
    Some(usize::from(u16::from_le_bytes(*two)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*four)).ok()
}

fn starts(bytes: &[u8], at: usize, signature: [u8; 4]) -> bool {
    at.checked_add(4).and_then(|end| bytes.get(at..end)) == Some(&signature)
}

/// The offset of the record that ends the archive's central directory.
fn end_of(archive: &[u8]) -> Option<usize> {
    let last = archive.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(MAX_COMMENT);
    (first..=last).rev().find(|at| starts(archive, *at, END))
}

fn entries<'a>(archive: &'a [u8]) -> Result<Vec<ZipEntry<'a>>, ZipError> {
    let end = end_of(archive).ok_or(ZipError::NoArchive)?;
    let at = |offset| u32_at(archive, end + offset).ok_or(ZipError::NoArchive);
    let count = u16_at(archive, end + 10).ok_or(ZipError::NoArchive)?;
    let directory = at(16)?;
    if count == ELSEWHERE_16 || directory == ELSEWHERE_32 {
        return Err(ZipError::TooLarge);
    }
    let headers = headers(archive, directory, count).ok_or(ZipError::NoArchive)?;
    // What describes the data may come behind it: an entry goes to where the next begins.
    let starts: BTreeSet<usize> = headers.iter().map(|(_, start)| *start).collect();
    let names: BTreeSet<&[u8]> = headers.iter().map(|(entry, _)| entry.name).collect();
    if starts.len() < headers.len() || names.len() < headers.len() {
        return Err(ZipError::Twice);
    }
    let entry = |(entry, start): (ZipEntry<'a>, usize)| {
        let next = starts.range(start.saturating_add(1)..).next().copied();
        let local = local(archive, start, next.unwrap_or(directory));
        Ok(ZipEntry { local: local.ok_or(ZipError::NoArchive)?, ..entry })
    };
    headers.into_iter().map(entry).collect()
}

fn headers(archive: &[u8], directory: usize, count: usize) -> Option<Vec<(ZipEntry<'_>, usize)>> {
    let mut at = directory;
    let mut found = Vec::new();
    for _ in 0..count {
        if !starts(archive, at, CENTRAL) {
            return None;
        }
        let header = archive.get(at..at.checked_add(CENTRAL_BYTES)?)?;
        let (name, extra, comment) =
            (u16_at(header, 28)?, u16_at(header, 30)?, u16_at(header, 32)?);
        let name_at = at + CENTRAL_BYTES;
        let rest_at = name_at.checked_add(name)?;
        let next = rest_at.checked_add(extra)?.checked_add(comment)?;
        let entry = ZipEntry {
            header,
            name: archive.get(name_at..rest_at)?,
            rest: archive.get(rest_at..next)?,
            local: &[],
        };
        found.push((entry, u32_at(header, 42)?));
        at = next;
    }
    Some(found)
}

fn local(archive: &[u8], start: usize, end: usize) -> Option<&[u8]> {
    let local = archive.get(start..end)?;
    (starts(local, 0, LOCAL) && local.len() >= LOCAL_BYTES).then_some(local)
}

/// Makes one archive, of at most `limit` bytes, with the entries of all. Where entries have one
/// name, the first one keeps it, and those of later archives get it below `shard-N/`. Errors: the
/// number of the archive that cannot be taken in, and why.
pub fn put_together(archives: &[(u32, &[u8])], limit: u64) -> Result<Vec<u8>, (u32, ZipError)> {
    let mut seen: BTreeSet<Vec<u8>> = BTreeSet::new();
    let (mut out, mut directory, mut count) = (Vec::new(), Vec::new(), 0_usize);
    for (number, archive) in archives {
        let failed = |error| (*number, error);
        for entry in entries(archive).map_err(failed)? {
            let is_directory = entry.name.ends_with(b"/");
            if is_directory && seen.contains(entry.name) {
                continue;
            }
            let mut name = entry.name.to_vec();
            let mut place = format!("shard-{number}/");
            while !seen.insert(name.clone()) {
                name = [place.as_bytes(), entry.name].concat();
                place.insert(0, '_');
            }
            add(&mut out, &mut directory, &entry, &name).ok_or(failed(ZipError::TooLarge))?;
            count += 1;
            if (out.len() + directory.len()) as u64 > limit {
                return Err(failed(ZipError::TooLarge));
            }
        }
    }
    let last = archives.last().map_or(0, |(number, _)| *number);
    finish(out, &directory, count).ok_or((last, ZipError::TooLarge))
}

fn add(
    out: &mut Vec<u8>,
    directory: &mut Vec<u8>,
    entry: &ZipEntry<'_>,
    name: &[u8],
) -> Option<()> {
    let offset = u32::try_from(out.len()).ok().filter(|offset| *offset < u32::MAX)?;
    let length = u16::try_from(name.len()).ok()?.to_le_bytes();
    let old = u16_at(entry.local, 26)?;
    out.extend_from_slice(entry.local.get(..26)?);
    out.extend_from_slice(&length);
    out.extend_from_slice(entry.local.get(28..LOCAL_BYTES)?);
    out.extend_from_slice(name);
    out.extend_from_slice(entry.local.get(LOCAL_BYTES.checked_add(old)?..)?);
    directory.extend_from_slice(entry.header.get(..28)?);
    directory.extend_from_slice(&length);
    directory.extend_from_slice(entry.header.get(30..42)?);
    directory.extend_from_slice(&offset.to_le_bytes());
    directory.extend_from_slice(name);
    directory.extend_from_slice(entry.rest);
    Some(())
}

fn finish(mut out: Vec<u8>, directory: &[u8], count: usize) -> Option<Vec<u8>> {
    let small = |value: usize| u32::try_from(value).ok().filter(|value| *value < u32::MAX);
    let start = small(out.len())?.to_le_bytes();
    let size = small(directory.len())?.to_le_bytes();
    let count = u16::try_from(count).ok().filter(|count| *count < u16::MAX)?.to_le_bytes();
    out.extend_from_slice(directory);
    out.extend_from_slice(&END);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&count);
    out.extend_from_slice(&count);
    out.extend_from_slice(&size);
    out.extend_from_slice(&start);
    out.extend_from_slice(&[0; 2]);
    Some(out)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 1 << 20;

    fn put_together(archives: &[(u32, &[u8])]) -> Result<Vec<u8>, (u32, ZipError)> {
        super::put_together(archives, LIMIT)
    }

    /// An archive with stored entries.
    pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in files {
            let mut local = [LOCAL.as_slice(), &[0; LOCAL_BYTES - 4]].concat();
            local[18..22].copy_from_slice(&(data.len() as u32).to_le_bytes());
            local[26..28].copy_from_slice(&(name.len() as u16).to_le_bytes());
            local.extend_from_slice(name.as_bytes());
            local.extend_from_slice(data);
            let mut header = [CENTRAL.as_slice(), &[0; CENTRAL_BYTES - 4]].concat();
            header[20..24].copy_from_slice(&(data.len() as u32).to_le_bytes());
            header[28..30].copy_from_slice(&(name.len() as u16).to_le_bytes());
            let entry =
                ZipEntry { header: &header, name: name.as_bytes(), rest: &[], local: &local };
            add(&mut out, &mut directory, &entry, name.as_bytes()).unwrap();
        }
        finish(out, &directory, files.len()).unwrap()
    }

    /// Names with what is stored under them.
    pub fn contents(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let read = |entry: &ZipEntry<'_>| {
            let name = String::from_utf8(entry.name.to_vec()).unwrap();
            let data = entry.local[LOCAL_BYTES + entry.name.len()..].to_vec();
            (name, data)
        };
        entries(archive).unwrap().iter().map(read).collect()
    }

    #[test]
    fn all_entries_are_there_and_names_stay_distinct() {
        let one = archive(&[("a/", b""), ("a/x", b"1"), ("log", b"one")]);
        let two = archive(&[("a/", b""), ("log", b"two"), ("b", b"")]);
        let both = put_together(&[(1, &one), (3, &two)]).unwrap();
        let file = |name: &str, data: &[u8]| (name.to_owned(), data.to_vec());
        let expected = [
            file("a/", b""),
            file("a/x", b"1"),
            file("log", b"one"),
            file("shard-3/log", b"two"),
            file("b", b""),
        ];
        assert_eq!(contents(&both), expected);
        assert_eq!(contents(&put_together(&[]).unwrap()), []);
    }

    #[test]
    fn what_is_no_archive_is_named() {
        let good = archive(&[("x", b"1")]);
        assert_eq!(put_together(&[(1, &good), (2, b"no")]), Err((2, ZipError::NoArchive)));
        let mut cut = good.clone();
        cut.drain(..10);
        assert_eq!(put_together(&[(5, &cut)]), Err((5, ZipError::NoArchive)));
    }

    #[test]
    fn what_would_grow_is_refused() {
        let twice = archive(&[("x", b"1"), ("x", b"2")]);
        assert_eq!(put_together(&[(1, &twice)]), Err((1, ZipError::Twice)));
        // Both entries of the directory lead to the first one's data.
        let mut overlapping = archive(&[("x", b"1"), ("y", b"2")]);
        let second = overlapping.len() - END_BYTES - CENTRAL_BYTES - 1;
        overlapping[second + 42..second + 46].fill(0);
        assert_eq!(put_together(&[(1, &overlapping)]), Err((1, ZipError::Twice)));
        let large = archive(&[("x", &vec![0; 1 << 20])]);
        assert_eq!(put_together(&[(1, &large)]), Err((1, ZipError::TooLarge)));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..60usize) {
            let _ = put_together(&[(1, &bytes)]);
            let good = archive(&[("x", b"1"), ("y", b"22")]);
            if let Some(byte) = bytes.first() {
                let mut bad = good;
                let len = bad.len();
                bad[at % len] = *byte;
                let _ = put_together(&[(1, &bad)]);
                bytes.splice(0..0, bad);
                let _ = put_together(&[(1, &bytes)]);
            }
        }
    }
}
