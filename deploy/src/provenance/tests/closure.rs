//! What is found from an output on, and what is not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::{Closure, ClosureError, Found, Limits, walk};
use super::fake::{Fake, content, root};

/// What was found, in words, sorted.
fn closure(fake: &Fake, path: &str, text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let counted = walk(fake, &[root(path, text)], Limits::default(), &mut |found| {
        let word = match found {
            Found::Action(record) => record.id.clone(),
            Found::Source { path, .. } => format!("source {path}"),
            Found::Missing { path, .. } => format!("missing {path:?}"),
        };
        assert!(words.insert(word.clone()), "{word} was found twice");
        Ok(())
    })
    .unwrap();
    assert_eq!(counted.actions + counted.sources + counted.missing, words.len());
    words
}

fn words(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|it| (*it).to_owned()).collect()
}

fn program() -> Fake {
    let mut fake = Fake::default();
    fake.ran("compile", 0, &[("a.c", "c"), ("lib/a.h", "h")], &[("out/a.o", "o")]);
    fake.ran("compile-b", 0, &[("b.c", "b"), ("lib/a.h", "h")], &[("out/b.o", "p")]);
    fake.ran("link", 20, &[("out/a.o", "o"), ("out/b.o", "p")], &[("out/app", "app")]);
    fake.ran("other", 20, &[("out/a.o", "o")], &[("out/other", "other")]);
    fake
}

#[test]
fn an_output_leads_to_its_sources() {
    let all = ["link", "compile", "compile-b", "source a.c", "source b.c", "source lib/a.h"];
    assert_eq!(closure(&program(), "out/app", "app"), words(&all));
}

#[test]
fn what_nobody_made_is_a_source() {
    assert_eq!(closure(&program(), "out/app", "made elsewhere"), words(&["source out/app"]));
}

#[test]
fn what_a_client_wrote_is_named_and_nothing_is_made_up_behind_it() {
    let mut fake = Fake::default();
    fake.wrote("write", 0, &[("out/a.o", "o")]);
    fake.ran("link", 20, &[("out/a.o", "o"), ("l.ld", "l")], &[("out/app", "app")]);
    assert_eq!(closure(&fake, "out/app", "app"), words(&["link", "write", "source l.ld"]));
}

#[test]
fn bytes_that_were_there_later_made_nothing_earlier() {
    let mut fake = Fake::default();
    // A source of the first holds what the second left afterwards.
    fake.ran("first", 0, &[("version.txt", "1")], &[("out/first", "f")]);
    fake.ran("second", 20, &[("out/first", "f")], &[("out/version", "1")]);
    assert_eq!(closure(&fake, "out/first", "f"), words(&["first", "source version.txt"]));
}

/// A clock was set back between the two, or they are of two frontends.
#[test]
fn clocks_that_jump_hide_no_maker_that_the_invocation_used() {
    let mut fake = Fake::default();
    fake.ran("make", 1_000, &[("in", "i")], &[("out/x", "x")]);
    fake.ran("use", 20, &[("out/x", "x")], &[("out/y", "y")]);
    assert_eq!(closure(&fake, "out/y", "y"), words(&["use", "source out/x"]));
    fake.use_record("make");
    assert_eq!(closure(&fake, "out/y", "y"), words(&["use", "make", "source in"]));
    // What leaves an input as it was has not made it.
    fake.ran("keep", 20, &[("out/z", "z")], &[("out/z", "z"), ("out/w", "w")]);
    fake.use_record("keep");
    assert_eq!(closure(&fake, "out/w", "w"), words(&["keep", "source out/z"]));
}

#[test]
fn an_action_that_copies_is_not_its_own_cause() {
    let mut fake = Fake::default();
    fake.ran("make", 0, &[("in", "i")], &[("out/x", "same")]);
    fake.ran("copy", 20, &[("out/x", "same")], &[("out/y", "same")]);
    let both = words(&["copy", "make", "source in"]);
    assert_eq!(closure(&fake, "out/y", "same"), both);
}

#[test]
fn of_several_makers_the_one_that_was_used_counts() {
    let mut fake = Fake::default();
    for (id, started) in [("old", 0), ("used", 20), ("new", 40)] {
        fake.ran(id, started, &[(id, id)], &[("out/x", "x")]);
    }
    fake.ran("elsewhere", 60, &[("e", "e")], &[("out/y", "x")]);
    // The latest that left it at this path.
    assert_eq!(closure(&fake, "out/x", "x"), words(&["new", "source new"]));
    assert_eq!(closure(&fake, "out/y", "x"), words(&["elsewhere", "source e"]));
    fake.use_record("used");
    assert_eq!(closure(&fake, "out/x", "x"), words(&["used", "source used"]));
    assert_eq!(closure(&fake, "out/y", "x"), words(&["used", "source used"]));
}

#[test]
fn inputs_that_are_gone_are_named() {
    let mut fake = program();
    let lib = fake.tree(&[("a.h", content("h"))]);
    fake.forget_directory(&lib);
    let all = ["link", "compile", "compile-b", "source a.c", "source b.c", r#"missing "lib""#];
    assert_eq!(closure(&fake, "out/app", "app"), words(&all));
}

#[test]
fn limits_end_the_walk() {
    let fake = program();
    let with = |limits| walk(&fake, &[root("out/app", "app")], limits, &mut |_| Ok(()));
    let few = Limits { actions: 2, ..Limits::default() };
    assert!(matches!(with(few), Err(ClosureError::Actions(2))));
    let small = Limits { entries: 3, ..Limits::default() };
    assert!(matches!(with(small), Err(ClosureError::Entries(3))));
    // Three input roots, two directories in them, and six files.
    let one_less = Limits { entries: 10, ..Limits::default() };
    assert!(matches!(with(one_less), Err(ClosureError::Entries(10))));
    assert!(with(Limits { entries: 11, ..Limits::default() }).is_ok());
    let exact = Limits { actions: 3, ..Limits::default() };
    let expected = Closure { actions: 3, written: 0, sources: 3, missing: 0 };
    assert_eq!(with(exact).unwrap(), expected);
}

#[test]
fn an_input_that_no_path_can_name_ends_the_walk() {
    for (length, is_named) in [(4095, true), (4096, false)] {
        let mut fake = Fake::default();
        fake.ran("deep", 0, &[(&"n".repeat(length), "c")], &[("out/app", "app")]);
        let walked = walk(&fake, &[root("out/app", "app")], Limits::default(), &mut |_| Ok(()));
        assert_eq!(walked.is_ok(), is_named, "{length}: {walked:?}");
        assert!(is_named || matches!(walked, Err(ClosureError::Path)));
    }
}

#[test]
fn a_sink_that_fails_ends_the_walk() {
    let failed = walk(&program(), &[root("out/app", "app")], Limits::default(), &mut |_| {
        Err(ClosureError::Sink("full".into()))
    });
    assert!(matches!(failed, Err(ClosureError::Sink(_))));
}

proptest! {
    /// Layers of actions, each with inputs out of the layers before: what is found is what can be reached.
    #[test]
    fn the_closure_is_what_can_be_reached(layers in prop::collection::vec(
        prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..5), 1..6,
    )) {
        let mut fake = Fake::default();
        let mut made: Vec<String> = (0..3).map(|it| format!("s{it}")).collect();
        let mut inputs_of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (depth, layer) in layers.iter().enumerate() {
            let mut next = Vec::new();
            for (at, picks) in layer.iter().enumerate() {
                let id = format!("a{depth}.{at}");
                let inputs: BTreeSet<String> = picks.iter().map(|it| made[it.index(made.len())].clone()).collect();
                let files: Vec<_> = inputs.iter().map(|it| (it.as_str(), it.as_str())).collect();
                fake.ran(&id, depth as i64 * 20, &files, &[(id.as_str(), id.as_str())]);
                inputs_of.insert(id.clone(), inputs);
                next.push(id);
            }
            made.extend(next);
        }
        let last = made.last().unwrap().clone();
        let mut expected = BTreeSet::new();
        let mut open = vec![last.clone()];
        while let Some(name) = open.pop() {
            match inputs_of.get(&name) {
                Some(inputs) => {
                    if expected.insert(name) {
                        open.extend(inputs.iter().cloned());
                    }
                }
                None => drop(expected.insert(format!("source {name}"))),
            }
        }
        prop_assert_eq!(closure(&fake, &last, &last), expected);
    }
}
