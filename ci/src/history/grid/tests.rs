use super::*;
use crate::attempts::Known;
use crate::attempts::samples::{executed, reported};
use crate::history::Policy;
use crate::storage::memory::Memory;

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

#[test]
fn a_glance_sees_what_an_attempt_says() {
    let written = segment::write(some()).unwrap();
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
