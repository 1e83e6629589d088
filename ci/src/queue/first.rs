//! What a run tests first where it looks for the culprit of a failure: what failed there. A prefix that fails in it need
//! not be tested any further; what passes goes on with the whole check, so that no less is tested of what lands.

use std::collections::BTreeSet;

use super::change::ChangeId;
use super::event::Member;
use super::evidence::{Failure, MAX_NAME};
use super::lane::Lane;

/// Most names that one run tests first.
const MAX_FIRST: usize = 20;

impl Lane {
    /// Names of what failed where one of these was suspected, of the latest failures. A check named them, so code of
    /// branches may have: each is a plain name. Empty: nothing of the kind is known.
    pub fn tested_first(&self, members: &[Member]) -> BTreeSet<String> {
        let ids: BTreeSet<ChangeId> = members.iter().map(|it| it.id).collect();
        let own = |it: &&Failure| it.suspects.iter().any(|id| ids.contains(id));
        let named = self.failures.iter().rev().filter(own).flat_map(|it| &it.targets);
        named.filter(|it| is_plain(it)).take(MAX_FIRST).cloned().collect()
    }
}

/// Whether a name is no option, leads out of no directory or repository, and has nothing that a shell would take apart. One
/// of the greatest length may have been cut, and would be another one's.
fn is_plain(name: &str) -> bool {
    let fine = |it: char| it.is_ascii_alphanumeric() || "/:._+=,-".contains(it);
    let length = name.chars().count();
    (1..MAX_NAME).contains(&length)
        && name.chars().all(fine)
        && !name.starts_with('-')
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Time;
    use crate::queue::{Add, Branch, Commit, Effect, Event, Options, Outcome};

    fn commit(digit: &str) -> Commit {
        Commit::new(&digit.repeat(40)).expect("a commit")
    }

    /// A lane of three changes, whose batch failed in `targets`, and the members of the run that follows.
    fn failed(targets: &[&str]) -> (Lane, Vec<Member>) {
        let mut lane = Lane::new(Branch::new("main").expect("a name"), Options::default());
        for (name, head) in [("one", "b"), ("two", "c"), ("three", "d")] {
            let (branch, head) = (Branch::new(name).expect("a name"), commit(head));
            let add = Event::Add(Add { branch, head, priority: 5, impact: None });
            lane.apply(add, Time(0)).expect("it is taken");
        }
        lane.apply(Event::Target(commit("a")), Time(0)).expect("it is taken");
        let run = *lane.runs.keys().next().expect("they are tested");
        assert!(lane.tested_first(&lane.runs[&run].members).is_empty(), "nothing has failed yet");
        let targets = targets.iter().map(|it| (*it).to_owned()).collect();
        let outcome = Outcome::Failed { targets, proven: true, affecting: None };
        let effects = lane.apply(Event::Finished { run, outcome }, Time(1)).expect("it is taken");
        let next = effects.into_iter().find_map(|it| match it {
            Effect::Check { members, .. } => Some(members),
            _ => None,
        });
        (lane, next.expect("it is looked for the culprit"))
    }

    #[test]
    fn a_run_that_looks_for_a_culprit_tests_first_what_failed() {
        let (lane, members) = failed(&["//a:one", "//b:two"]);
        let first = ["//a:one", "//b:two"].map(str::to_owned).into();
        assert_eq!(lane.tested_first(&members), first);
        assert!(lane.tested_first(&[]).is_empty(), "the base is under no suspicion");
        let other = Member { id: ChangeId(99), head: commit("e") };
        assert!(lane.tested_first(&[other]).is_empty(), "nor is what was not in the batch");
        // Another process reads the lane back, be it after a crash or on another machine.
        let kept = serde_json::to_vec(&lane).expect("it is written");
        let read: Lane = serde_json::from_slice(&kept).expect("it is read");
        assert_eq!(read.tested_first(&members), first);
    }

    #[test]
    fn once_all_have_passed_nothing_is_tested_first() {
        let (mut lane, members) = failed(&["//a:one"]);
        for member in &members {
            lane.acquit(member.id);
        }
        assert!(lane.tested_first(&members).is_empty());
    }

    #[test]
    fn names_by_another_check_are_forgotten() {
        let (mut lane, members) = failed(&["//a:one"]);
        lane.measure_by("one");
        assert!(!lane.tested_first(&members).is_empty(), "the first one is no other one");
        lane.measure_by("another");
        assert!(lane.tested_first(&members).is_empty());
    }

    #[test]
    fn names_are_what_code_of_branches_chose_and_count_as_little_as_that() {
        let long = format!("//{}", "a".repeat(MAX_NAME));
        let odd = [
            "--test_output=all",
            "-//a",
            "//...",
            "../../etc/passwd",
            "//a:$(reboot)",
            "//a;reboot",
            "//a\n--flag",
            "//a:b c",
            "//a:*",
            "@other//a:b",
            "//\u{e9}",
            "",
            &long,
        ];
        let (lane, members) = failed(&[&odd[..], &["//a:b-c_d.e"]].concat());
        assert_eq!(lane.tested_first(&members), ["//a:b-c_d.e".to_owned()].into());
        let many: Vec<String> = (0..500).map(|it| format!("//a:{it}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (lane, members) = failed(&many);
        assert_eq!(lane.tested_first(&members).len(), MAX_FIRST);
    }
}
