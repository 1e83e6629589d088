use std::sync::Mutex;

use super::*;
use crate::attempts::samples::{executed, reported};
use crate::attempts::{Attempt, Known, Slot};
use crate::history::catalogue::{self, Fresh};
use crate::history::kept::KeptFresh;
use crate::history::{Policy, Tested};
use crate::model::Outcome;
use crate::storage::memory::Memory;
use crate::storage::{Expect, Records, Segments, Write};

fn at(label: &str, commit: &str, invocation: &str, day: u64, outcome: Outcome) -> Attempt {
    Attempt {
        invocation: invocation.into(),
        commit: Some(commit.into()),
        started: Time(day * 86_400_000 + 1),
        ..reported(label, 1, outcome)
    }
}

fn letters(grid: &Grid) -> Vec<String> {
    let letter = |cell: &Option<Cell>| match cell.map(|it| it.state) {
        None => ' ',
        Some(CellState::Passed) => 'p',
        Some(CellState::Failed) => 'F',
        Some(CellState::TimedOut) => 'T',
        Some(CellState::Flaky) => '~',
        Some(CellState::Skipped) => 's',
        Some(CellState::Infrastructure) => '!',
    };
    grid.rows.iter().map(|(_, cells)| cells.iter().map(letter).collect()).collect()
}

fn some() -> Vec<Attempt> {
    let mut retried = at("//a:u", "c2", "i2", 2, Outcome::Passed);
    retried.slot.attempt = 2;
    let mut shard = at("//a:t", "c2", "i2", 2, Outcome::TimedOut);
    shard.slot.shard = 2;
    let mut branch = at("//a:t", "c9", "i9", 9, Outcome::Skipped);
    branch.branch = Some("other".into());
    let mut merged = executed("//a:v", 86_400_000 * 3, 7, Outcome::Failed);
    (merged.known, merged.invocation) = (Known::MERGED, "i3".into());
    vec![
        at("//a:t", "c1", "i1", 1, Outcome::Passed),
        at("//a:t", "c2", "i2", 2, Outcome::Passed),
        shard,
        at("//a:t", "c2", "i3", 3, Outcome::Passed),
        at("//a:u", "c2", "i2", 2, Outcome::Failed),
        retried,
        at("//a:u", "c3", "i4", 4, Outcome::Failed),
        at("//a:v", "c1", "i1", 1, Outcome::Infrastructure),
        merged,
        branch,
    ]
}

#[tokio::test]
async fn a_grid_is_the_same_before_and_after_its_attempts_are_settled() {
    let memory = Memory::default();
    let history = History::new(Arc::new(memory.clone()), Arc::new(memory), Policy::default());
    for it in some() {
        history.commit(Time(1), &[it]).await.unwrap();
    }
    let tests: Vec<TestKey> =
        history.tested(0..=99).await.unwrap().into_iter().map(|it| it.test).collect();
    assert_eq!(tests.len(), 3);
    let query = |across, branch: Option<&str>, columns| GridQuery {
        across,
        instance: Some("main".into()),
        branch: branch.map(str::to_owned),
        columns,
    };
    for time in [0, 86_400_000 * 30] {
        while history.maintain(Time(time)).await.unwrap() {}
        let grid = history.grid(&query(Across::Commits, Some("main"), 9), &tests).await.unwrap();
        let names: Vec<_> = grid.columns.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["c3", "c2", "c1"]);
        assert_eq!(
            (grid.columns[1].began, &*grid.columns[1].invocation),
            (Time(2 * 86_400_000 + 1), "i3")
        );
        assert_eq!(letters(&grid), [" Tp", "F~ ", "  !"]);
        let grid = history.grid(&query(Across::Invocations, None, 2), &tests).await.unwrap();
        let names: Vec<_> = grid.columns.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["i9", "i4"]);
        assert_eq!(letters(&grid), ["s ", " F", "  "]);
        let grid = history.grid(&query(Across::Commits, None, 9), &tests[1..2]).await.unwrap();
        assert_eq!(letters(&grid), [" F~ "]);
        let none = GridQuery { instance: Some("none".into()), ..query(Across::Commits, None, 9) };
        assert!(history.grid(&none, &tests).await.unwrap().columns.is_empty());
    }
}

/// Returns the attempts of [`some`], each told by its execution as well, and all of these accounts twice.
fn told_twice() -> Vec<Attempt> {
    let told = some().into_iter().filter(|it| it.known.has(Known::REPORTED));
    let run = |(number, it): (u64, Attempt)| Attempt {
        invocation: it.invocation,
        slot: Slot { attempt: 0, ..it.slot },
        ..executed(&it.test.label, it.started.0 - 1, number, it.outcome)
    };
    let mut all: Vec<_> = (10..).zip(told).map(run).collect();
    all.extend(some());
    all.extend(all.clone());
    all
}

/// Reads all tests with their days, and the two grids of them.
async fn look(history: &History) -> Result<(Vec<Tested>, [Grid; 2]), HistoryError> {
    let tested = history.tested(0..=99).await?;
    let tests: Vec<_> = tested.iter().map(|it| it.test.clone()).collect();
    let query = |across| GridQuery { across, columns: 9, ..GridQuery::default() };
    let commits = history.grid(&query(Across::Commits), &tests).await?;
    let invocations = history.grid(&query(Across::Invocations), &tests).await?;
    Ok((tested, [commits, invocations]))
}

#[tokio::test]
async fn what_is_fresh_looks_as_it_does_once_it_is_joined() {
    let memory = Memory::default();
    let history = History::new(Arc::new(memory.clone()), Arc::new(memory), Policy::default());
    for part in told_twice().chunks(4) {
        history.commit(Time(1), part).await.unwrap();
    }
    let fresh = look(&history).await.unwrap();
    assert_eq!(letters(&fresh.1[0]), ["s Tp", " F~ ", "   !"]);
    let attempts: Vec<_> =
        fresh.1[0].rows.iter().map(|(_, row)| row[2].map(|it| it.attempts)).collect();
    assert_eq!(attempts, [Some(3), Some(2), None]);
    while history.maintain(Time(86_400_000 * 30)).await.unwrap() {}
    assert_eq!(look(&history).await.unwrap(), fresh);
}

#[tokio::test]
async fn an_execution_of_no_known_configuration_is_joined_though_it_has_no_row() {
    let memory = Memory::default();
    let history = History::new(Arc::new(memory.clone()), Arc::new(memory), Policy::default());
    let told = at("//a:t", "c1", "i1", 1, Outcome::Passed);
    let mut merged = executed("//a:t", told.started.0, 7, Outcome::Passed);
    (merged.known, merged.invocation) = (Known::MERGED, told.invocation.clone());
    merged.test.configuration = String::new();
    let query = GridQuery { columns: 9, ..GridQuery::default() };
    let row = std::slice::from_ref(&told.test);
    history.commit(Time(1), std::slice::from_ref(&told)).await.unwrap();
    assert_eq!(letters(&history.grid(&query, row).await.unwrap()), ["p"]);
    // The merged account says that nothing ran, and no other account has that attempt.
    history.commit(Time(1), &[merged]).await.unwrap();
    assert_eq!(letters(&history.grid(&query, row).await.unwrap()), [" "]);
}

#[tokio::test]
async fn what_no_room_is_left_for_is_read_at_each_look() {
    let (segments, records) = (Memory::default(), Memory::default());
    let open =
        || History::new(Arc::new(segments.clone()), Arc::new(records.clone()), Policy::default());
    let (roomy, mut crowded) = (open(), open());
    crowded.digests = Mutex::new(KeptFresh::new(0));
    for it in some() {
        crowded.commit(Time(1), &[it]).await.unwrap();
    }
    assert_eq!(look(&crowded).await.unwrap(), look(&roomy).await.unwrap());
    let reads = async |history: &History| {
        let before = segments.calls();
        look(history).await.unwrap();
        segments.calls() - before
    };
    // Each look asks three times, and none of the ten segments fits.
    assert_eq!((reads(&roomy).await, reads(&crowded).await), (0, 3 * 10));
    assert!(!crowded.names.lock().unwrap().is_empty());
    while crowded.maintain(Time(86_400_000 * 30)).await.unwrap() {}
    assert!(crowded.names.lock().unwrap().is_empty(), "nobody has these names any more");
}

#[tokio::test]
async fn a_damaged_segment_is_named_and_nothing_is_made_of_it() {
    let (segments, records) = (Memory::default(), Memory::default());
    let parts = (Arc::new(segments.clone()), Arc::new(records.clone()));
    let history = History::new(parts.0, parts.1, Policy::default());
    history.commit(Time(1), &some()).await.unwrap();
    let whole = look(&history).await.unwrap();
    let (fresh, _) = history.snapshot().await.unwrap().fresh.remove(0);
    let bytes = Segments::read(&segments, &fresh.meta.name, 0..u64::MAX).await.unwrap();
    let mut bytes = bytes.to_vec();
    // The checksum of the first block.
    bytes[12] ^= 1;
    let name = Segments::put(&segments, bytes.into()).await.unwrap();
    let meta = SegmentMeta { name: name.clone(), ..fresh.meta };
    let damaged = Fresh { meta, ..fresh };
    let written = async |value| {
        let write = Write { key: damaged.key(), expect: Expect::Anything, value };
        Records::write(&records, vec![write]).await.unwrap();
    };
    written(Some(catalogue::encode(&damaged))).await;
    for _ in 0..2 {
        let found = look(&history).await;
        assert!(matches!(found, Err(HistoryError::Damaged { segment, .. }) if segment == name));
    }
    written(None).await;
    assert_eq!(look(&history).await.unwrap(), whole);
}

#[test]
fn a_glance_sees_what_an_attempt_says() {
    let written = segment::write(&some()).unwrap();
    let all = segment::read_all(&written.bytes).unwrap();
    let bytes = &written.bytes;
    let tail = bytes.len() as u64 - segment::TAIL;
    let range = segment::footer_range(&bytes[tail as usize..], bytes.len() as u64).unwrap();
    let footer = segment::Footer::open(&bytes[range.start as usize..range.end as usize]).unwrap();
    let block = footer.runs[0].runs;
    let range = block.range();
    let sealed = &bytes[range.start as usize..range.end as usize];
    let glances = segment::glances_of(sealed, &block).unwrap();
    assert_eq!(glances.len(), all.len());
    for (glance, it) in glances.iter().zip(&all) {
        assert_eq!(
            (glance.outcome, glance.known, glance.took),
            (it.outcome, it.known, it.duration)
        );
        assert_eq!((glance.run, glance.shard), (it.slot.run, it.slot.shard));
    }
}
