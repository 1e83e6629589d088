//! The list of a closure: complete, bounded, and every change of it is found.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::list::{ClosureEntry, ListError, ListWriter, Part, read_index, read_part};
use super::super::{Closure, ClosureIndex};

fn source(number: usize) -> ClosureEntry {
    let path = format!("{number}/{}", "long".repeat(100));
    ClosureEntry::Source { path, digest: format!("sha256:{number:064}") }
}

/// The index and the parts of a list of sources.
fn list(count: usize) -> (ClosureIndex, BTreeMap<String, Vec<u8>>) {
    let mut parts = BTreeMap::new();
    let mut sink = |digest: &str, data: Vec<u8>| {
        parts.insert(digest.to_owned(), data);
        Ok(())
    };
    let mut writer = ListWriter::new(&mut sink);
    for number in 0..count {
        writer.add(&source(number)).unwrap();
    }
    let closure = Closure { sources: count, ..Closure::default() };
    let (index, _) = writer.finish(&closure).unwrap();
    (read_index(&index).unwrap(), parts)
}

#[test]
fn all_entries_are_there_in_their_order_over_several_parts() {
    let (index, parts) = list(3000);
    assert!(index.parts.len() > 1 && index.parts.iter().all(|it| it.size < 600 << 10));
    let (mut entries, mut counted) = (Vec::new(), Closure::default());
    for part in &index.parts {
        read_part(&parts[&part.digest], part, &mut |entry| {
            counted.count(&entry);
            entries.push(entry);
        })
        .unwrap();
    }
    assert_eq!(entries, (0..3000).map(source).collect::<Vec<_>>());
    assert!(index.check_counts(&counted).is_ok());
    counted.sources -= 1;
    assert!(matches!(index.check_counts(&counted), Err(ListError::Counts)));
}

#[test]
fn an_empty_closure_has_an_index_without_parts() {
    let (index, parts) = list(0);
    assert!(index.parts.is_empty() && parts.is_empty());
}

#[test]
fn a_part_that_was_changed_or_shortened_is_found() {
    let (index, parts) = list(3);
    let part = &index.parts[0];
    let data = &parts[&part.digest];
    let read = |data: &[u8], part: &Part| read_part(data, part, &mut |_| ());
    assert!(read(data, part).is_ok());
    let mut changed = data.clone();
    changed[12] ^= 1;
    assert!(matches!(read(&changed, part), Err(ListError::Changed { .. })));
    let short = &data[..data.len() - 1];
    assert!(matches!(read(short, part), Err(ListError::Changed { .. })));
    let more = Part { entries: 4, ..part.clone() };
    assert!(matches!(read(data, &more), Err(ListError::Entries { expected: 4, found: 3, .. })));
}

proptest! {
    #[test]
    fn whatever_an_index_holds_it_is_read_or_refused(data in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read_index(&data);
    }
}
