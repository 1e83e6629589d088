//! What is done ahead and at the same time changes nothing of what is found, and ends with the walk.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_cas::Digest;
use proptest::prelude::*;

use super::super::closure::BATCH;
use super::super::{
    ActionRecord, Archive, ClosureError, Found, Limits, ListError, Listing, ProvenanceError, Root,
    SignedBy, provenance, walk,
};
use super::documents::request;
use super::fake::{Fake, content, record, root, run};
use super::plain::plain_walk;

fn found(fake: &Fake, roots: &[Root]) -> Vec<Found> {
    let mut found = Vec::new();
    walk(fake, roots, Limits::default(), &mut |it| {
        found.push(it);
        Ok(())
    })
    .unwrap();
    found
}

/// A program out of so many objects, each of a source and a directory of its own; of some the directory is gone.
fn large_build(objects: usize) -> Fake {
    let mut fake = Fake::default();
    let names: Vec<_> = (0..objects).map(|it| (format!("out/{it}.o"), format!("o{it}"))).collect();
    for (number, (path, text)) in names.iter().enumerate() {
        let (source, file) = (format!("s{number}"), format!("src/{number}/a.c"));
        let inputs = [(file.as_str(), source.as_str()), ("lib/a.h", "h"), ("lib/b/b.h", "b")];
        fake.ran(text, 0, &inputs, &[(path, text)]);
        if number % 7 == 3 {
            let gone = fake.tree(&[("a.c", content(&source))]);
            fake.forget_directory(&gone);
        }
    }
    let objects: Vec<_> = names.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    fake.ran("link", 20, &objects, &[("out/app", "app")]);
    fake
}

#[test]
fn a_large_closure_has_its_order_and_each_directory_is_read_once_and_with_others() {
    let fake = large_build(2 * BATCH);
    let found = found(&fake, &[root("out/app", "app")]);
    let asked = std::mem::take(&mut *fake.asked.lock().unwrap());
    assert_eq!(found, plain_walk(&fake, &[root("out/app", "app")]));
    assert!(found.iter().any(|it| matches!(it, Found::Missing { .. })));
    let directories = asked.concat();
    // Each object has an input root and two directories of its own, the program has two, and all of them
    // share two more.
    assert_eq!(directories.len(), 2 * BATCH * 3 + 4);
    assert_eq!(directories.iter().collect::<BTreeSet<_>>().len(), directories.len());
    assert!(asked.len() < 100, "{} calls", asked.len());
}

/// The walk reports missing inputs while it goes on, and does not gather them in memory until there is
/// something to look up.
#[test]
fn inputs_that_are_all_gone_are_told_batch_by_batch_to_the_last() {
    let mut fake = Fake::default();
    let names: Vec<_> =
        (0..4 * BATCH).map(|it| (format!("out/{it}.o"), format!("o{it}"))).collect();
    for (number, (path, text)) in names.iter().enumerate() {
        let (source, file) = (format!("s{number}"), format!("src/{number}/a.c"));
        fake.ran(text, 0, &[(file.as_str(), source.as_str())], &[(path, text)]);
        let gone = fake.tree(&[("a.c", content(&source))]);
        fake.forget_directory(&gone);
    }
    let objects: Vec<_> = names.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    fake.ran("link", 20, &objects, &[("out/app", "app")]);
    let roots = [root("out/app", "app")];
    let (mut found, mut asked) = (Vec::new(), None);
    let walked = walk(&fake, &roots, Limits::default(), &mut |it| {
        if matches!(it, Found::Missing { .. }) {
            asked.get_or_insert_with(|| fake.asked.lock().unwrap().concat().len());
        }
        found.push(it);
        Ok(())
    });
    assert_eq!(walked.unwrap().missing, 4 * BATCH);
    assert_eq!(found, plain_walk(&fake, &roots));
    // Each object has three directories of its own, so this is less than two batches of objects.
    assert!(asked.is_some_and(|it| it < 2 * 3 * BATCH), "{asked:?} were read before one was told");
}

proptest! {
    /// Actions at any time with any inputs, of which some are gone, some were used, and many left the same.
    #[test]
    fn what_is_found_is_what_a_plain_walk_finds_in_the_same_order(
        actions in prop::collection::vec(
            (prop::collection::vec((0..4_usize, 0..12_u8), 0..6), 0..12_u8, 0..60_i64, 0..8_u8), 1..30,
        ),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        is_heavy in any::<bool>(),
    ) {
        let mut fake = Fake::new(is_heavy);
        for (number, (inputs, output, started, kind)) in actions.iter().enumerate() {
            let id = format!("a{number}");
            let name = |(folder, it): &(usize, u8)| {
                (format!("{}f{it}", ["", "lib/", "lib/deep/", "other/"][*folder]), format!("c{it}"))
            };
            let inputs: Vec<_> = inputs.iter().map(name).collect();
            let inputs: Vec<_> = inputs.iter().map(|it| (it.0.as_str(), it.1.as_str())).collect();
            let (path, text) = (format!("lib/f{output}"), format!("c{output}"));
            match kind {
                0 => fake.wrote(&id, *started, &[(&path, &text)]),
                1 => fake.ran(&id, *started, &inputs, &[("out", &text), ("out/2", &text)]),
                _ => fake.ran(&id, *started, &inputs, &[(&path, &text)]),
            }
            if kind % 3 == 0 {
                fake.use_record(&id);
            }
        }
        let known = fake.known_directories();
        for it in gone.iter().filter(|_| !known.is_empty()) {
            fake.forget_directory(it.get(&known));
        }
        let roots: Vec<_> = (0..12).map(|it| root(&format!("out/{it}"), &format!("c{it}"))).collect();
        prop_assert_eq!(found(&fake, &roots), plain_walk(&fake, &roots));
    }
}

/// Whatever is asked for was made of two other things.
#[derive(Default)]
struct Endless {
    looked_up: AtomicUsize,
}

impl Archive for Endless {
    type Error = Infallible;

    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, Infallible> {
        self.looked_up.fetch_add(contents.len(), Ordering::Relaxed);
        let maker = |it: &Digest| {
            let id = it.hex();
            let record = record(&id, 0, run(&id, content(&id)), &[]);
            vec![Arc::new(ActionRecord { finished: 0, ..record })]
        };
        Ok(contents.iter().map(maker).collect())
    }

    fn is_used(&self, _: &ActionRecord) -> bool {
        true
    }

    fn directories(&self, directories: &[Digest]) -> Result<Vec<Option<Listing>>, Infallible> {
        let file =
            |of: &Digest, name: &str| (name.to_owned(), content(&format!("{name} {}", of.hex())));
        let listing = |it: &Digest| {
            Some(Listing { files: vec![file(it, "1"), file(it, "2")], directories: Vec::new() })
        };
        Ok(directories.iter().map(listing).collect())
    }
}

/// The thread of the walk borrows the archive, so it has ended when the error is returned.
#[test]
fn an_error_of_the_sink_ends_a_walk_that_has_no_end() {
    let endless = Endless::default();
    let mut sink = |_: &str, _: Vec<u8>| Err(ListError::Sink("full".into()));
    let (roots, request) = ([root("out/app", "app")], request(SignedBy::Server));
    let made = provenance(&endless, &roots, &request, Limits::default(), &mut sink);
    assert!(matches!(made, Err(ProvenanceError::Closure(ClosureError::Sink(_)))), "{made:?}");
    let looked_up = endless.looked_up.load(Ordering::Relaxed);
    assert!(looked_up < 50_000, "{looked_up} were looked up");
}

#[test]
fn limits_end_a_walk_that_has_no_end_while_its_list_is_written() {
    let sink = &mut |_: &str, _: Vec<u8>| Ok(());
    let (roots, request) = ([root("out/app", "app")], request(SignedBy::Server));
    let few = Limits { actions: 5_000, ..Limits::default() };
    let made = provenance(&Endless::default(), &roots, &request, few, sink);
    let actions = matches!(made, Err(ProvenanceError::Closure(ClosureError::Actions(5_000))));
    assert!(actions, "{made:?}");
    let small = Limits { entries: 5_000, ..Limits::default() };
    let made = provenance(&Endless::default(), &roots, &request, small, sink);
    let entries = matches!(made, Err(ProvenanceError::Closure(ClosureError::Entries(5_000))));
    assert!(entries, "{made:?}");
}

/// Records without the directories of their inputs.
struct Unreadable(Fake);

impl Archive for Unreadable {
    type Error = io::Error;

    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, io::Error> {
        self.0.producers(contents).map_err(|never| match never {})
    }

    fn is_used(&self, record: &ActionRecord) -> bool {
        self.0.is_used(record)
    }

    fn directories(&self, _: &[Digest]) -> Result<Vec<Option<Listing>>, io::Error> {
        Err(io::Error::other("as the test has it"))
    }
}

#[test]
fn a_directory_that_cannot_be_read_ends_the_walk() {
    let archive = Unreadable(large_build(1));
    let mut found = Vec::new();
    let walked = walk(&archive, &[root("out/app", "app")], Limits::default(), &mut |it| {
        found.push(it);
        Ok(())
    });
    assert!(matches!(walked, Err(ClosureError::Archive(_))), "{walked:?}");
    // The walk has reported what it found before the error.
    assert!(matches!(&found[..], [Found::Action(link)] if link.id == "link"), "{found:?}");
}
