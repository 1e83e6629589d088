//! What others say of the commit and the branch.

use super::super::{Revision, RevisionError, SaidBy, Source, ToldRevision};

const COMMIT: &str = "1234567890123456789012345678901234567890";

fn told(repository: &str, commit: &str, branch: &str) -> ToldRevision {
    let some = |it: &str| Some(it.to_owned()).filter(|it| !it.is_empty());
    ToldRevision { repository: some(repository), commit: some(commit), branch: some(branch) }
}

#[test]
fn a_secret_is_no_part_of_a_source() {
    let parse = |it: &str| Source::parse(&format!("{it}@{COMMIT}"));
    for good in [
        "git+https://git.example/app",
        "git+https://git.example:8443/team/app.git",
        "git+ssh://git@git.example/app",
        "git+file:///srv/app",
    ] {
        assert!(parse(good).is_some(), "{good}");
    }
    for bad in [
        "git+https://u:pw@git.example/x",
        "git+https://TOKEN@git.example/x",
        "git+HTTPS://TOKEN@git.example/x",
        "git+https://@git.example/x",
        "git+ssh://git:pw@git.example/x",
        "git+ssh://a-long-token-of-somebody-who-is-not-git@git.example/x",
        "git+https://git.example/x?token=TOKEN",
        "git+https://git.example/x#TOKEN",
        "git+https:///x",
        "git+https://git.example/a b",
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn what_is_asked_for_counts_and_what_is_told_fills_in() {
    let source = format!("git+https://git.example/app@{COMMIT}");
    let with = format!("{source}?ref=refs/heads/release/1.x");
    let asked = Revision::of(Some(&with), None, &ToldRevision::default()).unwrap();
    assert_eq!(asked.source_text(), Some(source.clone()));
    assert_eq!(asked.branch_text(), Some("release/1.x"));
    assert_eq!(asked.branch.unwrap().by, SaidBy::Release);

    // As CI has it, with a token in it.
    let ci = told("https://u:TOKEN@git.example/app", COMMIT, "main");
    let known = Revision::of(None, None, &ci).unwrap();
    assert_eq!((known.source_text(), known.branch_text()), (Some(source.clone()), Some("main")));
    assert_eq!(known.source.unwrap().by, SaidBy::Build);
    let short = told("git@git.example:app", &COMMIT[..9], "main");
    let both = Revision::of(Some(&source), Some("main"), &short).unwrap();
    assert_eq!(both.branch.unwrap().by, SaidBy::Release);
    let ssh = Revision::of(None, None, &told("git@git.example:app", COMMIT, "")).unwrap();
    assert_eq!(ssh.source_text(), Some(format!("git+ssh://git@git.example/app@{COMMIT}")));
    let secret = Revision::of(None, None, &told("u:TOKEN@git.example/app", COMMIT, "")).unwrap();
    assert_eq!(secret.source, None);
    // A commit that was cut short names none.
    assert_eq!(Revision::of(None, None, &short).unwrap().source, None);
}

#[test]
fn two_who_say_something_else_are_not_both_believed() {
    let source = format!("git+https://git.example/app@{COMMIT}");
    for (branch, told) in [
        (None, told("", "99999999", "")),
        (None, told("", "9999999999999999999999999999999999999999", "main")),
        (Some("main"), told("", COMMIT, "feature")),
    ] {
        let refused = Revision::of(Some(&source), branch, &told);
        assert!(matches!(refused, Err(RevisionError::Differs { .. })), "{refused:?}");
    }
    let twice = format!("{source}?ref=refs/heads/one");
    let none = ToldRevision::default();
    assert_eq!(Revision::of(Some(&twice), Some("two"), &none), Err(RevisionError::Branches));
}

#[test]
fn a_branch_is_what_git_takes_for_one() {
    let of = |name: &str| Revision::of(None, Some(name), &ToldRevision::default());
    assert!(of("feature/quic@2").is_ok());
    for odd in ["", "refs/heads/main", "-x", "a..b", "a b", "a//b", "HEAD", "a.lock", "x\n", "a/"] {
        assert_eq!(of(odd), Err(RevisionError::Branch), "{odd:?}");
        let told = Revision::of(None, None, &told("", "", odd)).unwrap();
        assert_eq!(told.branch, None, "{odd:?}");
    }
    let tag = format!("git+https://git.example/app@{COMMIT}?ref=refs/tags/v1");
    let tag = Revision::of(Some(&tag), None, &ToldRevision::default());
    assert_eq!(tag, Err(RevisionError::Branch));
}
