//! What differs between two closures.

use super::super::{ChangeKind, ClosureEntry, Difference, Limits, Side, walk};
use super::fake::{Fake, root};

fn side(fake: &Fake) -> Side {
    let mut side = Side::default();
    walk(fake, &[root("out/app", "app")], Limits::default(), &mut |found| {
        side.add(ClosureEntry::of(&found));
        Ok(())
    })
    .unwrap();
    side
}

fn fake(source: &str, more: &[(&str, &str)]) -> Fake {
    let mut fake = Fake::default();
    let inputs = [&[("a.c", source)], more].concat();
    fake.ran("compile", 0, &inputs, &[("out/a.o", "o")]);
    fake.ran("link", 20, &[("out/a.o", "o")], &[("out/app", "app")]);
    fake
}

#[test]
fn a_closure_does_not_differ_from_itself() {
    let one = side(&fake("c", &[("a.h", "h")]));
    assert!(Difference::between(&one, &one).is_empty());
}

#[test]
fn sources_come_go_and_change_and_actions_say_what_of_them_did() {
    let old = side(&fake("c", &[("old.h", "h")]));
    let new = side(&fake("d", &[("new.h", "h")]));
    let difference = Difference::between(&old, &new);
    let sources: Vec<_> =
        difference.sources.first.iter().map(|it| (it.kind, it.name.as_str())).collect();
    let expected = [
        (ChangeKind::Changed, "a.c"),
        (ChangeKind::Added, "new.h"),
        (ChangeKind::Removed, "old.h"),
    ];
    assert_eq!(sources, expected);
    assert_eq!(difference.actions.changed, 1);
    let action = &difference.actions.first[0];
    assert_eq!(
        (action.name.as_str(), action.what.as_slice()),
        ("//:t Genrule out/a.o", &["inputs"][..])
    );
    assert!(difference.images.is_empty() && difference.packages.is_empty());
}

#[test]
fn packages_come_go_and_change_their_version_or_their_content() {
    let of = |files: &[&str]| {
        let files: Vec<_> = files.iter().map(|it| (*it, *it)).collect();
        side(&fake("c", &files))
    };
    let old = of(&["external/gone/a.h", "external/rules_cc+0.0.9/a.h", "external/same+1/a.h"]);
    let new = of(&["external/come+2/a.h", "external/rules_cc+0.1.0/a.h", "external/same+1/b.h"]);
    let packages = Difference::between(&old, &new).packages;
    let told: Vec<_> =
        packages.first.iter().map(|it| (it.kind, it.name.as_str(), it.what.as_slice())).collect();
    let expected: [(ChangeKind, &str, &[&str]); 4] = [
        (ChangeKind::Added, "come 2", &[]),
        (ChangeKind::Removed, "gone", &[]),
        (ChangeKind::Changed, "rules_cc 0.0.9 -> 0.1.0", &["version"]),
        (ChangeKind::Changed, "same 1", &["content"]),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_result_that_a_client_wrote_is_another_origin() {
    let old = side(&fake("c", &[]));
    let mut other = fake("c", &[]);
    other.wrote("write", 5, &[("out/a.o", "o")]);
    other.use_record("write");
    let difference = Difference::between(&old, &side(&other));
    assert_eq!((difference.actions.added, difference.actions.removed), (1, 1));
    assert_eq!(difference.sources.removed, 1);
}

#[test]
fn many_changes_are_counted_and_the_first_are_told() {
    let files: Vec<_> = (0..2000).map(|it| (format!("{it}.h"), it.to_string())).collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let difference = Difference::between(&side(&fake("c", &[])), &side(&fake("c", &files)));
    assert_eq!((difference.sources.added, difference.sources.first.len()), (2000, 1000));
}
