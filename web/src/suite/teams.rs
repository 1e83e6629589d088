//! What tests cost whom: figures by owner.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use kiln_ci::history::{Day, Tested};
use kiln_ci::verdicts::Owners;
use maud::{Markup, html};

use super::list::millis;
use crate::design::rows::{self, Column, Line};
use crate::design::text::visible;
use crate::format::{count, duration, percent};

/// Owners that are listed, those with the most flaky first attempts and failures first.
const MAX_TEAMS: usize = 100;

/// The tests of one owner in sum.
#[derive(Debug, PartialEq, Eq)]
pub struct Team {
    /// `None`: what nobody looks after.
    pub owner: Option<String>,
    pub tests: u64,
    /// Tests with a flaky first attempt.
    pub flaky_tests: u64,
    pub sum: Day,
}

/// Looks owners up by package: all tests of one have the same.
pub fn teams(tests: &[Tested], owners: &dyn Owners) -> Vec<Team> {
    let mut known: HashMap<&str, Option<String>> = HashMap::new();
    let mut teams: BTreeMap<Option<String>, Team> = BTreeMap::new();
    for tested in tests {
        let label = tested.test.label.as_str();
        let package = label.rsplit_once(':').map_or(label, |(package, _)| package);
        let owner = known.entry(package).or_insert_with(|| owners.owner(label)).clone();
        let new = || Team { owner: owner.clone(), tests: 0, flaky_tests: 0, sum: Day::default() };
        let team = teams.entry(owner.clone()).or_insert_with(new);
        team.tests += 1;
        team.flaky_tests += u64::from(tested.days.values().any(|it| it.flaky > 0));
        tested.days.values().for_each(|day| team.sum.add(day));
    }
    let mut teams: Vec<_> = teams.into_values().collect();
    teams.sort_by_key(|it| Reverse((it.sum.flaky, it.sum.failed + it.sum.timed_out, it.tests)));
    teams.truncate(MAX_TEAMS);
    teams
}

const COLUMNS: [Column; 7] = [
    Column("Owner", "wide"),
    Column("Tests", "num"),
    Column("Flaky tests", "num"),
    Column("Flake rate", "num"),
    Column("Failed", "num"),
    Column("Attempts", "num"),
    Column("Test time", "num"),
];

/// Nothing where no test has an owner.
pub fn section(teams: &[Team]) -> Markup {
    html! {
        @if teams.iter().any(|it| it.owner.is_some()) {
            section.panel {
                header { h2 { "By owner" } span.dim { "from " code { "tests.codeowners" } } }
                (rows::table("Figures by owner", &COLUMNS, teams.iter().map(row)))
                @if teams.len() == MAX_TEAMS { p.note { "The first " (MAX_TEAMS) " are listed." } }
            }
        }
    }
}

fn row(it: &Team) -> Line {
    let sum = &it.sum;
    let failed = sum.failed + sum.timed_out;
    let cells = vec![
        html! { @match &it.owner { Some(owner) => bdi { (visible(owner, 80)) }, None => span.dim { "nobody" } } },
        html! { (count(it.tests)) },
        html! { @if it.flaky_tests > 0 { span.flaky-ink { (count(it.flaky_tests)) } } @else { span.dim { "0" } } },
        html! { @match sum.flake_rate() { Some(rate) => (percent(rate)), None => span.dim { "–" } } },
        html! { @if failed > 0 { span.bad { (count(failed)) } } @else { span.dim { "0" } } },
        html! { (count(sum.attempts())) },
        html! { (duration(millis(sum.took.into()))) },
    ];
    cells.into()
}

#[cfg(test)]
mod tests {
    use kiln_ci::model::TestKey;

    use super::*;

    struct Packages;

    impl Owners for Packages {
        fn owner(&self, label: &str) -> Option<String> {
            label.starts_with("//app").then(|| "@app".to_owned())
        }
    }

    #[test]
    fn tests_are_summed_by_owner_the_flakiest_first() {
        let tested = |label: &str, flaky, failed| {
            let day = Day { passed: 8, first: 10, flaky, failed, ..Day::default() };
            let test = TestKey {
                instance: String::new(),
                label: label.to_owned(),
                configuration: String::new(),
            };
            Tested { test, days: BTreeMap::from([(1, day), (2, day)]) }
        };
        let all = [tested("//lib:a", 0, 5), tested("//app/x:b", 1, 1), tested("//app:c", 0, 0)];
        let teams = teams(&all, &Packages);
        let told: Vec<_> = teams
            .iter()
            .map(|it| (it.owner.as_deref(), it.tests, it.flaky_tests, it.sum.flaky, it.sum.failed))
            .collect();
        assert_eq!(told, [(Some("@app"), 2, 1, 2, 2), (None, 1, 0, 0, 10)]);
    }
}
