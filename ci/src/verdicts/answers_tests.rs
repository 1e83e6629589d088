use async_trait::async_trait;

use super::super::inbox::Inbox;
use super::super::ledger::{Ledger, Note};
use super::super::samples::{attempt, heard};
use super::super::store::put;
use super::*;
use crate::flakes::Signature;
use crate::gate::{Finding, GateAnswer};
use crate::history::Tap;
use crate::model::Outcome as Ended;
use crate::quarantine::{Policy, Request};
use crate::storage::memory::Memory;
use crate::storage::{StorageError, Write};

struct Unnoted(Memory);

#[async_trait]
impl Ledger for Unnoted {
    async fn write(&self, _: Vec<Note>, writes: Vec<Write>) -> Result<(), StorageError> {
        self.0.write(writes).await
    }
}

struct Rig {
    memory: Memory,
    book: Book,
}

impl Rig {
    fn new() -> Self {
        let memory = Memory::default();
        let ledger = Arc::new(Unnoted(memory.clone()));
        let book = Book::new(Arc::new(memory.clone()), ledger, Policy::default(), false);
        Self { memory, book }
    }

    /// A failure with so many failures and passes since, of which nobody runs anything again.
    async fn fail(&self, label: &str, tries: Tries, known: bool) {
        let it = heard(label, 1, Ended::Failed);
        let mut build = BuildRecord::new("", "build");
        let kept = read(&self.memory, &keys::build("", "build")).await.unwrap();
        build = kept.unwrap_or(build);
        build.runs.insert((label.to_owned(), 1, 1));
        build.failures.push(Failed {
            subject: Subject { test: it.test.clone(), case: None },
            identity: it.identity,
            at: it.at,
            outcome: it.outcome,
            signature: Signature::of("boom"),
            known,
            tries,
        });
        let write = put(keys::build("", "build"), &build).unwrap();
        self.memory.write(vec![write]).await.unwrap();
    }

    async fn ask(&self, failed: Option<&[&str]>, edited: &[&str]) -> Answered {
        let run = |label: &&str| FailedRun { label: (*label).to_owned(), run: 1, shard: 1 };
        let ended = |failed: &[&str]| {
            let failed = failed.iter().map(run).collect();
            Told::Ended(Arc::new(Account { incomplete: None, failed }))
        };
        let question = Question {
            instance: String::new(),
            invocation: "build".to_owned(),
            edited: edited.iter().map(|it| (*it).to_owned()).collect(),
            told: failed.map_or(Told::Nothing, ended),
        };
        let answers = Answers::new(Arc::new(self.memory.clone()), self.book.clone(), true);
        answers.gate(&question, Time(10)).await.unwrap()
    }
}

fn findings(it: &Answered) -> Vec<Finding> {
    it.outcome.items.iter().map(|it| it.finding).collect()
}

const PASSED: Tries = Tries { straight: 0, passes: 1 };
const FAILED: Tries = Tries { straight: 1, passes: 0 };

#[tokio::test]
async fn nothing_is_green_that_nobody_told_of() {
    let rig = Rig::new();
    let it = rig.ask(None, &[]).await;
    assert_eq!((it.outcome.answer, it.pending, it.known), (GateAnswer::Red, true, false));
    let it = rig.ask(Some(&[]), &[]).await;
    assert_eq!((it.outcome.answer, it.pending, it.known), (GateAnswer::Green, false, true));
    // Its build events are on their way.
    let question =
        Question { invocation: "build".into(), told: Told::GoesOn, ..Question::default() };
    let answers = Answers::new(Arc::new(rig.memory.clone()), rig.book.clone(), true);
    let it = answers.gate(&question, Time(10)).await.unwrap();
    assert_eq!((it.outcome.answer, it.pending, it.known), (GateAnswer::Red, true, true));
    // It failed, and no attempt has come here.
    let it = rig.ask(Some(&["//a:t"]), &[]).await;
    assert_eq!((it.outcome.answer, it.pending), (GateAnswer::Undecided, true));
    assert_eq!(findings(&it), [Finding::Spent]);
}

#[tokio::test]
async fn a_pass_masks_unless_the_change_edits_the_test_or_it_is_new_in_quarantine() {
    let rig = Rig::new();
    rig.fail("//a:t", PASSED, false).await;
    let it = rig.ask(Some(&["@//a:t"]), &[]).await;
    assert_eq!((it.outcome.answer, it.pending), (GateAnswer::Green, false));
    let it = rig.ask(Some(&["//a:t"]), &["@@//a:t"]).await;
    assert_eq!(findings(&it), [Finding::Edited]);
    let request = Request { who: "a".into(), reason: "known".into(), owner: None, stay: None };
    let subject = it.outcome.items[0].subject.clone();
    rig.book.enter(&subject, &request, Time(1)).await.unwrap();
    let it = rig.ask(Some(&["//a:t"]), &[]).await;
    assert_eq!(findings(&it), [Finding::NewSignature]);
}

#[tokio::test]
async fn one_shard_of_which_nothing_is_known_is_not_masked_by_another() {
    let rig = Rig::new();
    rig.fail("//a:t", PASSED, true).await;
    let both = [("//a:t", 1), ("//a:t", 2)];
    let run = |(label, shard): (&str, u32)| FailedRun { label: label.into(), run: 1, shard };
    let account = Account { incomplete: None, failed: both.map(run).to_vec() };
    let question = Question {
        invocation: "build".into(),
        told: Told::Ended(account.into()),
        ..Question::default()
    };
    let answers = Answers::new(Arc::new(rig.memory.clone()), rig.book.clone(), true);
    let it = answers.gate(&question, Time(10)).await.unwrap();
    assert_eq!((it.outcome.answer, it.pending), (GateAnswer::Undecided, true));
    assert_eq!(findings(&it), [Finding::Proven, Finding::Spent]);
}

#[tokio::test]
async fn attempts_on_their_way_are_waited_for() {
    let rig = Rig::new();
    rig.fail("//a:t", FAILED, false).await;
    let it = rig.ask(Some(&["//a:t"]), &[]).await;
    assert_eq!((findings(&it), it.pending), (vec![Finding::Spent], false));
    let writes = Inbox::default().writes(Time(1), &[attempt("//b:t", 7, Ended::Failed)]);
    rig.memory.write(writes).await.unwrap();
    let it = rig.ask(Some(&["//a:t"]), &[]).await;
    assert!(it.pending);
    // Of what nobody has looked at nothing is said yet.
    let it = rig.ask(Some(&["//b:t"]), &[]).await;
    assert!(findings(&it).contains(&Finding::Open), "{it:?}");
}

#[tokio::test]
async fn no_instance_takes_the_room_of_others_in_quarantine() {
    let rig = Rig::new();
    let request = Request { who: "a".into(), reason: "r".repeat(900), owner: None, stay: None };
    let subject = |instance: &str, label: String| {
        let test = crate::model::TestKey {
            instance: instance.to_owned(),
            label,
            configuration: String::new(),
        };
        Subject { test, case: None }
    };
    let enter =
        async |instance, label| rig.book.enter(&subject(instance, label), &request, Time(1)).await;
    let long = enter("a", "l".repeat(2_000)).await;
    assert!(matches!(long, Err(VerdictError::Invalid(_))), "{long:?}");
    let mut count = 0;
    while enter("a", format!("//a:{count}-{}", "n".repeat(1_000))).await.is_ok() {
        count += 1;
        assert!(count < 1_000, "they take more and more");
    }
    assert!(count > 100, "{count}");
    enter("b", "//b:t".to_owned()).await.unwrap();
    // What is there may be given more time.
    enter("a", format!("//a:0-{}", "n".repeat(1_000))).await.unwrap();
}

#[tokio::test]
async fn what_did_not_complete_is_red_whatever_passed_since() {
    let rig = Rig::new();
    rig.fail("//a:t", PASSED, true).await;
    let account = Account { incomplete: Some("it was cancelled".into()), failed: Vec::new() };
    let question = Question {
        invocation: "build".into(),
        told: Told::Ended(account.into()),
        ..Question::default()
    };
    let answers = Answers::new(Arc::new(rig.memory.clone()), rig.book.clone(), true);
    let it = answers.gate(&question, Time(10)).await.unwrap();
    assert_eq!((it.outcome.answer, it.pending), (GateAnswer::Red, false), "it stays so");
    assert_eq!(it.outcome.incomplete.as_deref(), Some("it was cancelled"));
    let reason = Request { who: "a".into(), reason: "x\ny".into(), owner: None, stay: None };
    let subject = it.outcome.items[0].subject.clone();
    let refused = rig.book.enter(&subject, &reason, Time(1)).await;
    assert!(matches!(refused, Err(VerdictError::Invalid(_))));
}

#[tokio::test]
async fn a_report_that_was_brought_in_is_gated_by_what_it_says() {
    let rig = Rig::new();
    let answers = Answers::new(Arc::new(rig.memory.clone()), rig.book.clone(), true);
    for (outcome, is_green) in [(Ended::Passed, true), (Ended::Failed, false)] {
        let attempt = crate::attempts::Attempt {
            invocation: "import-1".into(),
            ..attempt("//a:t", 1, outcome)
        };
        answers.note_import(&attempt, Time(1)).await.unwrap();
        let account = answers.imported("", "import-1").await.unwrap().unwrap();
        let told = Told::Ended(account.into());
        let question = Question { invocation: "import-1".into(), told, ..Question::default() };
        let it = answers.gate(&question, Time(10)).await.unwrap();
        assert_eq!(it.outcome.answer == GateAnswer::Green, is_green, "{it:?}");
    }
    assert_eq!(answers.imported("elsewhere", "import-1").await.unwrap(), None);
}
