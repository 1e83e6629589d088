//! What comes next while the parts of a test come back: a state machine without I/O.
//!
//! Parts are put together only where nothing speaks against it: each came to an end, its runner said that it knows
//! of shards, no case ran in two of them, and none is missing that the last full run had. Where a runner ignores
//! shards every part was the whole run, and one of them counts. Where it cannot be told, the whole runs once more.

use std::collections::BTreeSet;

/// A case by a hash of its class and name.
pub type CaseId = u64;

/// How a part ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Exited(i32),
    TimedOut,
    /// There is no result: the request cannot be served, or the machines failed.
    NoAnswer,
}

/// Which cases a part ran and skipped, by its report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported {
    pub ran: BTreeSet<CaseId>,
    /// Cases that the report names as skipped.
    pub skipped: BTreeSet<CaseId>,
}

/// How one part ended, and what it reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    pub ending: Ending,
    /// The runner said that it knows of shards; of lists of cases it need say nothing.
    pub knows_shards: bool,
    /// `None`: there is no report, or none that can be read.
    pub reported: Option<Reported>,
}

/// Why the test runs once more as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A runner that does not know of shards failed: perhaps for no other reason than being told of them.
    FailedWithoutShards,
    /// The runner does not know of shards, and what it ran cannot be compared.
    IgnoresShards,
    /// Some cases ran in two parts.
    Overlap,
    /// Cases of the last full run are in no part.
    Missing,
}

impl Why {
    /// The runner is at fault, whatever the whole run says.
    pub fn is_of_runner(self) -> bool {
        !matches!(self, Self::Missing)
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::FailedWithoutShards => "its runner touched no shard status file and failed",
            Self::IgnoresShards => "its runner touched no shard status file",
            Self::Overlap => "some cases ran in two shards",
            Self::Missing => "cases of the last full run ran in no shard",
        }
    }
}

/// What the caller has to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Wait,
    /// All parts have come back: their results are to be put together.
    PutTogether,
    /// The runner ignores shards: this part was the whole run, and counts once.
    Alone(usize),
    /// The test is to run once more as a whole.
    Whole(Why),
    /// The part of this index ended without a result; its answer is the answer of the whole test.
    NoAnswer(usize),
}

/// The state of a fan-out: which parts have come back, and which cases they ran.
#[derive(Debug)]
pub struct Course {
    returned: Vec<Option<Returned>>,
    /// Cases that the last full run had; empty: not known.
    full: BTreeSet<CaseId>,
    /// Cases that a part has run.
    ran: BTreeSet<CaseId>,
    /// Each part was told its cases: none says by itself that it knows of shards.
    is_told: bool,
}

impl Course {
    pub fn new(parts: usize, full: BTreeSet<CaseId>, is_told: bool) -> Self {
        Self { returned: vec![None; parts], full, ran: BTreeSet::new(), is_told }
    }

    /// A part has come back. A second time is as if it had not.
    pub fn came(&mut self, part: usize, returned: Returned) -> Next {
        if !matches!(self.returned.get(part), Some(None)) {
            return Next::Wait;
        }
        let next = match returned.ending {
            Ending::NoAnswer => Next::NoAnswer(part),
            _ if !returned.knows_shards => self.ignores_shards(part, &returned),
            _ => self.overlaps(&returned),
        };
        if let Some(place) = self.returned.get_mut(part) {
            *place = Some(returned);
        }
        match next {
            Next::Wait if self.returned.iter().all(Option::is_some) => self.all_came(),
            next => next,
        }
    }

    /// A part of a runner that ignores shards is the whole run only if it is seen to be: it ran every case of the
    /// last full run, and more than one. A wrapper that reports one case, whatever it ran, is seen to be nothing.
    fn ignores_shards(&self, part: usize, returned: &Returned) -> Next {
        match returned.ending {
            // It had all the time that the whole has.
            Ending::TimedOut => return Next::Alone(part),
            Ending::Exited(0) => {}
            _ => return Next::Whole(Why::FailedWithoutShards),
        }
        let all_passed = self.returned.iter().flatten().all(|it| it.ending == Ending::Exited(0));
        let ran_all = |it: &Reported| self.full.len() > 1 && it.ran.is_superset(&self.full);
        match returned.reported.as_ref().is_some_and(ran_all) && all_passed {
            true => Next::Alone(part),
            false => Next::Whole(Why::IgnoresShards),
        }
    }

    fn overlaps(&mut self, returned: &Returned) -> Next {
        // One that said nothing of shards came before.
        if self.returned.iter().flatten().any(|other| !other.knows_shards) {
            return Next::Whole(Why::IgnoresShards);
        }
        let Some(reported) = &returned.reported else { return Next::Wait };
        // A runner that says that it knows of shards may report alike of different things: no part is the whole.
        if reported.ran.iter().any(|case| self.ran.contains(case)) {
            return Next::Whole(Why::Overlap);
        }
        self.ran.extend(&reported.ran);
        Next::Wait
    }

    fn all_came(&self) -> Next {
        let all = self.returned.iter().flatten();
        let passed = all.clone().all(|it| it.ending == Ending::Exited(0));
        // What failed may have been cut short: that is a failure, whatever else is missing.
        if !passed {
            return Next::PutTogether;
        }
        let reports: Vec<&Reported> = all.filter_map(|it| it.reported.as_ref()).collect();
        let is_named = |case: &CaseId| {
            self.ran.contains(case) || reports.iter().any(|it| it.skipped.contains(case))
        };
        // Without any report the status file is all that there is to go by, as it is for clients.
        let is_believed = reports.is_empty() && !self.is_told;
        let is_complete = is_believed || self.full.iter().all(is_named);
        if is_complete { Next::PutTogether } else { Next::Whole(Why::Missing) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reported(cases: &[CaseId]) -> Option<Reported> {
        Some(Reported { ran: cases.iter().copied().collect(), ..Default::default() })
    }

    fn passed(cases: &[CaseId]) -> Returned {
        Returned { ending: Ending::Exited(0), knows_shards: true, reported: reported(cases) }
    }

    fn ignorant(cases: &[CaseId]) -> Returned {
        Returned { knows_shards: false, ..passed(cases) }
    }

    fn course(parts: usize, full: &[CaseId]) -> Course {
        Course::new(parts, full.iter().copied().collect(), false)
    }

    #[test]
    fn parts_with_cases_of_their_own_are_put_together_when_all_have_come() {
        let mut course = course(3, &[1, 2, 3, 4]);
        assert_eq!(course.came(2, passed(&[4, 5])), Next::Wait);
        assert_eq!(course.came(2, passed(&[4, 5])), Next::Wait, "it came already");
        assert_eq!(course.came(0, passed(&[1, 2])), Next::Wait);
        assert_eq!(course.came(1, passed(&[3])), Next::PutTogether);
    }

    #[test]
    fn a_case_that_is_skipped_is_not_missing() {
        let mut course = course(2, &[1, 2]);
        let skipped = Reported { ran: BTreeSet::new(), skipped: BTreeSet::from([2]) };
        assert_eq!(course.came(0, passed(&[1])), Next::Wait);
        let last = Returned { reported: Some(skipped), ..passed(&[]) };
        assert_eq!(course.came(1, last), Next::PutTogether);
    }

    #[test]
    fn a_case_of_the_last_full_run_that_no_part_ran_has_the_whole_run() {
        let mut course = course(2, &[1, 2, 3]);
        assert_eq!(course.came(0, passed(&[1])), Next::Wait);
        assert_eq!(course.came(1, passed(&[2])), Next::Whole(Why::Missing));
    }

    #[test]
    fn parts_that_were_told_their_cases_are_not_believed_without_reports() {
        let silent = || Returned { reported: None, ..passed(&[]) };
        let mut told = Course::new(2, BTreeSet::from([1, 2]), true);
        assert_eq!(told.came(0, silent()), Next::Wait);
        assert_eq!(told.came(1, silent()), Next::Whole(Why::Missing));
        let mut sharded = course(2, &[1, 2]);
        assert_eq!(sharded.came(0, silent()), Next::Wait);
        assert_eq!(sharded.came(1, silent()), Next::PutTogether);
    }

    #[test]
    fn a_failure_needs_no_complete_report() {
        let mut course = course(2, &[1, 2, 3]);
        let crashed = Returned { ending: Ending::Exited(139), reported: None, ..passed(&[]) };
        assert_eq!(course.came(0, crashed), Next::Wait);
        assert_eq!(course.came(1, passed(&[2])), Next::PutTogether);
        let mut late = super::tests::course(2, &[1, 2]);
        let late_one = Returned { ending: Ending::TimedOut, reported: None, ..passed(&[]) };
        assert_eq!(late.came(1, passed(&[1])), Next::Wait);
        assert_eq!(late.came(0, late_one), Next::PutTogether);
    }

    #[test]
    fn a_runner_that_ignores_shards_counts_once() {
        let mut known = course(4, &[1, 2]);
        assert_eq!(known.came(3, ignorant(&[1, 2, 3])), Next::Alone(3), "it ran all and more");
        let mut unknown = course(4, &[]);
        assert_eq!(unknown.came(1, ignorant(&[1, 2])), Next::Whole(Why::IgnoresShards));
        let mut lies = course(2, &[]);
        assert_eq!(lies.came(0, passed(&[1, 2])), Next::Wait);
        assert_eq!(
            lies.came(1, passed(&[1, 2])),
            Next::Whole(Why::Overlap),
            "it touches the file all the same"
        );
        let mut slow = course(2, &[1]);
        let late = Returned { ending: Ending::TimedOut, ..ignorant(&[]) };
        assert_eq!(slow.came(0, late), Next::Alone(0));
    }

    #[test]
    fn a_report_of_one_case_whatever_ran_hides_no_failure() {
        let failed = Returned { ending: Ending::Exited(1), ..passed(&[1]) };
        let mut wrapper = course(3, &[1]);
        assert_eq!(wrapper.came(0, failed), Next::Wait);
        assert_eq!(wrapper.came(1, passed(&[1])), Next::Whole(Why::Overlap));
        let mut silent = course(3, &[1]);
        assert_eq!(silent.came(0, ignorant(&[1])), Next::Whole(Why::IgnoresShards));
    }

    #[test]
    fn what_cannot_be_told_has_the_whole_run() {
        let mut silent = course(2, &[1]);
        let no_report = Returned { reported: None, ..ignorant(&[]) };
        assert_eq!(silent.came(0, no_report), Next::Whole(Why::IgnoresShards));
        let mut failed = course(2, &[1]);
        let exited = Returned { ending: Ending::Exited(1), ..ignorant(&[1]) };
        assert_eq!(failed.came(0, exited), Next::Whole(Why::FailedWithoutShards));
        let mut mixed = course(2, &[]);
        assert_eq!(mixed.came(0, passed(&[1])), Next::Wait);
        assert_eq!(mixed.came(1, ignorant(&[2])), Next::Whole(Why::IgnoresShards));
        let mut overlap = course(2, &[]);
        assert_eq!(overlap.came(0, passed(&[1, 2])), Next::Wait);
        assert_eq!(overlap.came(1, passed(&[2, 3])), Next::Whole(Why::Overlap));
    }

    #[test]
    fn an_answer_that_is_no_outcome_is_the_answer() {
        let mut course = course(2, &[]);
        let lost = Returned { ending: Ending::NoAnswer, reported: None, ..ignorant(&[]) };
        assert_eq!(course.came(1, lost), Next::NoAnswer(1));
    }

    proptest! {
        /// Whatever parts come in whatever order, they are put together only if each case of the full run is
        /// in exactly one of them. The decision comes at the latest with the last part.
        #[test]
        fn nothing_is_put_together_that_lacks_a_case_or_has_it_twice(
            parts in prop::collection::vec(
                (prop::collection::btree_set(0..6_u64, 0..4), any::<bool>()), 2..5),
            full in prop::collection::btree_set(0..6_u64, 0..6),
        ) {
            let mut course = Course::new(parts.len(), full.clone(), false);
            let mut last = Next::Wait;
            let mut came = Vec::new();
            for (index, (cases, knows_shards)) in parts.iter().enumerate() {
                let cases: Vec<_> = cases.iter().copied().collect();
                last = course.came(index, Returned { knows_shards: *knows_shards, ..passed(&cases) });
                came.extend(cases);
                if last != Next::Wait {
                    break;
                }
            }
            prop_assert_ne!(last, Next::Wait);
            if last == Next::PutTogether {
                let distinct: BTreeSet<_> = came.iter().copied().collect();
                prop_assert_eq!(distinct.len(), came.len());
                prop_assert!(distinct.is_superset(&full));
                prop_assert!(parts.iter().all(|(_, knows_shards)| *knows_shards));
            }
        }
    }
}
