use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const LATE: Duration = Duration::from_secs(60);

struct Bench {
    course: Course,
    now: u64,
    request: u64,
}

impl Bench {
    fn new(pieces: usize, again_after: Option<Duration>) -> Self {
        Self { course: Course::new(pieces, again_after).expect("it is small"), now: 0, request: 0 }
    }

    fn ask(&mut self, runner: &str, attempt: &str) -> Result<NextPiece, Refused> {
        self.request += 1;
        self.now += 1_000;
        let (request, now) = (self.request, Time(self.now));
        self.course.next(Turn { runner, attempt, request, now })
    }

    fn piece(&mut self, runner: &str, attempt: &str) -> u32 {
        match self.ask(runner, attempt) {
            Ok(NextPiece::Piece(given)) => given.piece,
            other => unreachable!("{other:?}"),
        }
    }
}

#[test]
fn each_piece_is_given_once_and_done_when_its_runner_asks_again() {
    let mut it = Bench::new(3, None);
    assert_eq!([it.piece("a", ""), it.piece("b", ""), it.piece("a", "")], [0, 1, 2]);
    assert_eq!(it.course.progress(), Progress { open: 0, taken: 2, done: 1 });
    assert_eq!(it.ask("a", ""), Ok(NextPiece::Nothing));
    assert_eq!(it.ask("b", ""), Ok(NextPiece::Nothing));
    assert_eq!(it.course.progress(), Progress { open: 0, taken: 0, done: 3 });
}

#[test]
fn a_retried_runner_gets_exactly_what_it_had_whoever_finished_since() {
    let mut it = Bench::new(4, None);
    let had = [it.piece("a", "1"), it.piece("a", "1")];
    it.piece("b", "1");
    it.piece("b", "1");
    assert_eq!(it.ask("b", "1"), Ok(NextPiece::Nothing));
    assert_eq!([it.piece("a", "2"), it.piece("a", "2")], had);
    assert_eq!(it.ask("a", "2"), Ok(NextPiece::Nothing));
    // A third time, though the second did not come to its end.
    let mut it = Bench::new(9, None);
    let had = [it.piece("a", "1"), it.piece("a", "1"), it.piece("a", "1")];
    it.piece("a", "2");
    let again: Vec<_> = (0..3).map(|_| it.piece("a", "3")).collect();
    assert_eq!(again, had);
    // What nobody had is not lost with the runners that died.
    assert_eq!(it.piece("a", "3"), 3);
    assert_eq!(it.ask("a", "2"), Err(Refused::Superseded("a".to_owned())));
}

#[test]
fn the_same_request_gets_the_same_answer() {
    let mut it = Bench::new(2, None);
    let turn = Turn { runner: "a", attempt: "", request: 7, now: Time(1) };
    let first = it.course.next(turn);
    let before = it.course.clone();
    assert_eq!(it.course.next(Turn { now: Time(9), ..turn }), first);
    assert_eq!(it.course, before);
}

#[test]
fn what_a_lost_runner_had_is_given_out_again_if_that_is_wished() {
    let mut it = Bench::new(2, Some(LATE));
    it.piece("a", "");
    it.piece("b", "");
    assert_eq!(it.ask("b", ""), Ok(NextPiece::Wait));
    it.now += 60_000;
    let Ok(NextPiece::Piece(given)) = it.ask("b", "") else { unreachable!() };
    assert_eq!((given.piece, given.instead_of.as_deref()), (0, Some("a")));
    // The one that was taken for lost comes back: it takes nothing from whoever has its piece now.
    assert_eq!(it.ask("a", ""), Ok(NextPiece::Wait));
    assert_eq!(it.course.progress(), Progress { open: 0, taken: 1, done: 1 });
    assert_eq!(it.ask("b", ""), Ok(NextPiece::Nothing));
    let mut kept = Bench::new(1, None);
    kept.piece("a", "");
    kept.now += 10 * 60_000;
    assert_eq!(kept.ask("b", ""), Ok(NextPiece::Nothing));
}

#[test]
fn a_piece_that_ends_every_runner_is_not_given_out_for_ever() {
    let mut it = Bench::new(1, Some(LATE));
    let mut given = 0;
    for runner in 0..20 {
        it.now += 60_000;
        given += usize::from(matches!(it.ask(&runner.to_string(), ""), Ok(NextPiece::Piece(_))));
    }
    assert_eq!(given, 1 + usize::from(MAX_AGAIN));
}

#[test]
fn names_and_numbers_have_limits() {
    assert_eq!(Course::new(0, None), Err(Refused::Pieces(0)));
    assert!(Course::new(MAX_PIECES + 1, None).is_err());
    let mut it = Bench::new(1, None);
    let long = "x".repeat(MAX_NAME + 1);
    for (runner, attempt) in [("", ""), ("a\nb", ""), (&*long, ""), ("a", &*long)] {
        assert_eq!(it.ask(runner, attempt), Err(Refused::Name));
    }
    for runner in 0..MAX_RUNS {
        it.ask(&runner.to_string(), "").expect("there is room");
    }
    assert_eq!(it.ask("one more", ""), Err(Refused::TooMany));
}

proptest! {
    /// However runners come, die and come again: what an attempt is given begins with what the one before it
    /// was given, nothing is given to two runners that live, and in the end each piece was given to somebody.
    #[test]
    fn nothing_is_lost_and_nothing_given_twice(
        pieces in 1_usize..30, steps in prop::collection::vec((0_u8..4, 0_u8..8), 0..120)
    ) {
        let mut it = Bench::new(pieces, None);
        let mut attempts = [0_u32; 4];
        let mut given: BTreeMap<(u8, u32), Vec<u32>> = BTreeMap::new();
        let ends = (0..4_u8).flat_map(|runner| std::iter::repeat_n((runner, 7), 60));
        for (runner, luck) in steps.into_iter().chain(ends) {
            if luck == 0 {
                attempts[runner as usize] += 1;
            }
            let attempt = attempts[runner as usize];
            if let Ok(NextPiece::Piece(piece)) = it.ask(&runner.to_string(), &attempt.to_string()) {
                given.entry((runner, attempt)).or_default().push(piece.piece);
            }
        }
        let mut owner: BTreeMap<u32, u8> = BTreeMap::new();
        for ((runner, attempt), own) in &given {
            for piece in own {
                prop_assert_eq!(*owner.entry(*piece).or_insert(*runner), *runner);
            }
            let before = given.range((*runner, 0)..(*runner, *attempt)).next_back();
            if let Some((_, before)) = before {
                let both = before.len().min(own.len());
                prop_assert_eq!(&before[..both], &own[..both]);
            }
        }
        let all: BTreeSet<u32> = owner.into_keys().collect();
        prop_assert_eq!(all.len(), pieces);
        prop_assert_eq!(it.course.progress().done, pieces);
    }
}
