//! Logs that somebody tampered with, by this code and by a script that shares nothing with it.

use std::process::Command;
use std::sync::Arc;

use kiln_cas::records::{Expect, Records, Write};
use kiln_cas::stores::MemoryRecords;
use kiln_cas::stores::audit::{AuditBreak, AuditEvent, AuditLog};

use super::{Checkpoints, Kept, Line, Report, Verifier};
use crate::signing::{KeyRing, Scheme, Signer, SigningKey};
use crate::timestamp::Timestamp;

const NOW: i64 = 1_700_010_000;

fn now() -> Timestamp {
    Timestamp::from_unix(NOW)
}

fn event(number: u64) -> AuditEvent {
    AuditEvent {
        time: 1_700_000_000 + number,
        actor: "ana \u{1F600} \"x\"\n".to_owned(),
        action: "release.promote".to_owned(),
        subject: format!("team/app:{number}"),
        details: format!("{{\"reason\":\"ü {number}\"}}"),
    }
}

/// Six entries, with checkpoints for the third and the last.
async fn log(records: &Arc<MemoryRecords>, key: &Arc<SigningKey>) -> Checkpoints {
    let log = AuditLog::new(records.clone());
    let signer: Arc<dyn Signer> = key.clone();
    let checkpoints = Checkpoints::new(records.clone(), "https://kiln.example", Some(signer));
    for number in 1..=6 {
        log.append(event(number)).await.unwrap();
        if number % 3 == 0 {
            assert_eq!(checkpoints.keep(now()).await.unwrap(), Kept::Signed);
            assert_eq!(checkpoints.keep(now()).await.unwrap(), Kept::Nothing, "there is one");
        }
    }
    checkpoints
}

async fn exported(checkpoints: &Checkpoints, page: usize) -> Vec<String> {
    let (mut lines, mut after) = (Vec::new(), Some(0));
    while let Some(from) = after {
        let (page, next) = checkpoints.export(from, page).await.unwrap();
        lines.extend(page.iter().map(|it| String::from_utf8(it.write().unwrap()).unwrap()));
        after = next;
    }
    lines
}

fn verified(lines: &[String], keys: Option<&KeyRing>) -> Result<Report, String> {
    let mut verifier = Verifier::new(keys, None, now());
    let words = |it: super::Broken| kiln_net::causes::chain(&it);
    for line in lines {
        verifier.line(line.as_bytes()).map_err(words)?;
    }
    verifier.finish().map_err(words)
}

#[tokio::test]
async fn pages_of_any_size_give_the_same_export() {
    for scheme in [Scheme::Ed25519, Scheme::EcdsaP256] {
        let key = Arc::new(SigningKey::generate(scheme).unwrap().0);
        let records = Arc::new(MemoryRecords::default());
        let checkpoints = log(&records, &key).await;
        let whole = exported(&checkpoints, 100).await;
        assert_eq!(whole.len(), 8);
        for page in 1..=7 {
            assert_eq!(exported(&checkpoints, page).await, whole, "{page}");
        }
        let keys = KeyRing::single("audit", key.public_key().clone());
        let report = verified(&whole, Some(&keys)).unwrap();
        assert_eq!((report.first, report.last, report.checkpoints), (1, 6, 2));
        assert_eq!(report.signed, Some(6));
    }
}

/// Returns every way in which an export is tampered with, and the words with which the verifier has to refuse
/// it.
fn tampered(lines: &[String]) -> Vec<(Vec<String>, &'static str)> {
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = lines.to_vec();
        change(&mut lines);
        lines
    };
    vec![
        (with(&|it| it[1] = it[1].replace("team/app:2", "team/app:9")), "entry 2 was changed"),
        (with(&|it| it[1] = it[1].replace("ü 2", "u 2")), "entry 2 was changed"),
        (with(&|it| drop(it.remove(1))), "entry 2 is missing"),
        (with(&|it| it.swap(1, 2)), "entry 2 is missing"),
        (with(&|it| it.insert(2, it[0].clone())), "entry 1 stands where entry 3 belongs"),
        (with(&|it| it.truncate(2)), "no checkpoint by a trusted key"),
        (with(&|it| drop(it.drain(5..7))), "entries 5 to 6 are missing"),
        (with(&|it| drop(it.drain(..7))), "entries 1 to 6 are missing"),
        (with(&|it| it.swap(3, 4)), "entry 3 does not stand behind it"),
        (with(&|it| it[3] = it[7].clone()), "entries 4 to 6 are missing"),
        (with(&|it| it.clear()), "no entry"),
        (with(&|it| it[0] = "{}".to_owned()), "no line of an audit log"),
    ]
}

#[tokio::test]
async fn whatever_was_done_to_an_export_is_named() {
    let key = Arc::new(SigningKey::generate(Scheme::Ed25519).unwrap().0);
    let records = Arc::new(MemoryRecords::default());
    let whole = exported(&log(&records, &key).await, 100).await;
    let keys = KeyRing::single("audit", key.public_key().clone());
    for (lines, said) in tampered(&whole) {
        let error = verified(&lines, Some(&keys)).unwrap_err();
        assert!(error.contains(said), "{said}: {error}");
    }
    let other = SigningKey::generate(Scheme::Ed25519).unwrap().0;
    let others = KeyRing::single("other", other.public_key().clone());
    assert!(verified(&whole, Some(&others)).is_err());
    // A cut behind the last checkpoint shows only to a verifier who knows the head of the log.
    let known = Some((6, [0; 32]));
    let mut verifier = Verifier::new(None, known, now());
    whole[..3].iter().for_each(|it| verifier.line(it.as_bytes()).unwrap());
    let error = kiln_net::causes::chain(&verifier.finish().unwrap_err());
    assert!(error.contains("entries 4 to 6 are missing"), "{error}");
}

/// Somebody with all records and without the key writes another history.
async fn forged(records: &MemoryRecords, entries: u64) -> Arc<MemoryRecords> {
    let forged = Arc::new(MemoryRecords::default());
    let chain = AuditLog::new(forged.clone());
    for number in 1..=entries {
        let actor = if number == 2 { "nobody" } else { "ana" }.to_owned();
        chain.append(AuditEvent { actor, ..event(number) }).await.unwrap();
    }
    for record in records.list("audit/checkpoint/", None, false, 10).await.unwrap() {
        let value = Some(record.value);
        let write = Write { key: record.key, expect: Expect::Absent, value };
        forged.write(vec![write]).await.unwrap();
    }
    forged
}

#[tokio::test]
async fn a_new_chain_is_not_the_one_that_was_signed() {
    let key = Arc::new(SigningKey::generate(Scheme::Ed25519).unwrap().0);
    let records = Arc::new(MemoryRecords::default());
    log(&records, &key).await;
    let forged = forged(&records, 6).await;
    let chain = AuditLog::new(forged.clone());
    let signer: Arc<dyn Signer> = key.clone();
    let checkpoints = Checkpoints::new(forged.clone(), "https://kiln.example", Some(signer));
    let keys = KeyRing::single("audit", key.public_key().clone());
    let error = verified(&exported(&checkpoints, 100).await, Some(&keys)).unwrap_err();
    assert!(error.contains("entry 3 is not the one that was signed"), "{error}");
    assert_eq!(chain.verify(1, 9).await.unwrap(), None, "the chain alone does not show it");
}

#[tokio::test]
async fn a_log_that_was_changed_is_not_confirmed() {
    let key = Arc::new(SigningKey::generate(Scheme::Ed25519).unwrap().0);
    let records = Arc::new(MemoryRecords::default());
    let checkpoints = log(&records, &key).await;
    let chain = AuditLog::new(records.clone());
    for number in 7..=9 {
        chain.append(event(number)).await.unwrap();
    }
    let write =
        Write { key: format!("audit/entry/{:020}", 8), expect: Expect::Anything, value: None };
    records.write(vec![write]).await.unwrap();
    let broken = Kept::Broken(AuditBreak::Missing(8));
    assert_eq!(checkpoints.keep(now()).await.unwrap(), broken);
}

#[tokio::test]
async fn a_log_that_was_written_anew_or_cut_is_not_confirmed() {
    let key = Arc::new(SigningKey::generate(Scheme::Ed25519).unwrap().0);
    let records = Arc::new(MemoryRecords::default());
    log(&records, &key).await;
    let missing = Kept::Broken(AuditBreak::Missing(5));
    for (entries, kept) in [(7, Kept::Rewritten(6)), (4, missing)] {
        let signer: Arc<dyn Signer> = key.clone();
        let forged = forged(&records, entries).await;
        let checkpoints = Checkpoints::new(forged, "https://kiln.example", Some(signer));
        assert_eq!(checkpoints.keep(now()).await.unwrap(), kept);
    }
}

/// The script beside the manual reads the same export with Python's library and OpenSSL alone.
#[tokio::test]
async fn a_script_that_shares_nothing_with_this_says_the_same() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/verify-audit.py");
    for scheme in [Scheme::Ed25519, Scheme::EcdsaP256] {
        let key = Arc::new(SigningKey::generate(scheme).unwrap().0);
        let records = Arc::new(MemoryRecords::default());
        let whole = exported(&log(&records, &key).await, 100).await;
        let directory = tempfile::tempdir().unwrap();
        let (file, public) = (directory.path().join("log.jsonl"), directory.path().join("key.pub"));
        std::fs::write(&public, key.public_key().to_pem().unwrap()).unwrap();
        let run = |lines: &[String]| {
            std::fs::write(&file, lines.join("\n") + "\n").unwrap();
            let arguments =
                [script.as_ref(), file.as_os_str(), "--key".as_ref(), public.as_os_str()];
            let output = Command::new("python3").args(arguments).output().expect("python3 runs");
            let said = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(said).unwrap())
        };
        let (code, said) = run(&whole);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("entries 1 to 6") && said.contains("signed up to 6"), "{said}");
        // Each export needs a process of its own. So all of them are tried with one kind of key, and only the
        // first with the other.
        let some = if scheme == Scheme::Ed25519 { usize::MAX } else { 1 };
        for (lines, _) in tampered(&whole).into_iter().take(some) {
            let (code, said) = run(&lines);
            assert_eq!(code, Some(1), "{said}");
        }
    }
}

#[test]
fn what_is_no_line_is_refused() {
    for line in ["", "[]", "{\"entry\":{}}", "{\"other\":1}", "{\"entry\":1,\"entry\":1}"] {
        assert!(Line::read(line.as_bytes()).is_err(), "{line}");
    }
}
