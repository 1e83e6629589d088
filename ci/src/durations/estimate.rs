//! What a test will take by what it, or its like, took.

use std::collections::HashMap;

use super::names::{function, module};
use super::{Durations, median};

/// Revisions that are looked back at. One spike among three is outvoted; older ones know less.
const REVISIONS: usize = 3;

/// What every test is taken to last while nothing is known of any.
const UNKNOWN_S: f64 = 1.0;

/// Estimates for known and for new tests.
#[derive(Debug, Default)]
pub struct Estimates {
    known: HashMap<String, f64>,
    functions: HashMap<String, f64>,
    modules: HashMap<String, f64>,
    mean: Option<f64>,
}

impl Estimates {
    /// From the durations of some revisions, the newest one last: the median of a test's last three.
    pub fn new(revisions: Vec<Durations>) -> Self {
        let mut values: HashMap<String, Vec<f64>> = HashMap::new();
        // Newest first, so that the first values are the ones to keep.
        for (name, seconds) in revisions.into_iter().rev().flatten() {
            let values = values.entry(name).or_default();
            if values.len() < REVISIONS {
                values.push(seconds);
            }
        }
        let known = values.into_iter();
        let known = known.filter_map(|(name, mut all)| Some((name, median(&mut all)?)));
        Self::of_known(known.collect())
    }

    fn of_known(known: HashMap<String, f64>) -> Self {
        // In the order of names: sums of numbers depend on their order.
        let mut all: Vec<_> = known.iter().map(|(name, &seconds)| (&**name, seconds)).collect();
        all.sort_by(|one, other| one.0.cmp(other.0));
        let sum: f64 = all.iter().map(|(_, seconds)| seconds).sum();
        let mean = (!all.is_empty()).then(|| sum / all.len() as f64);
        let (functions, modules) = (medians(&all, function), medians(&all, module));
        Self { known, functions, modules, mean }
    }

    /// Names that have values of their own, in order.
    pub fn known(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.known.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    pub fn is_known(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// Seconds. A new test lasts as long as the middle one of its variants with other parameters, else of
    /// its module, else as long as the mean of all.
    pub fn seconds(&self, name: &str) -> f64 {
        let like = || self.functions.get(function(name)).or_else(|| self.modules.get(module(name)));
        let found = self.known.get(name).or_else(like).copied();
        found.or(self.mean).unwrap_or(UNKNOWN_S)
    }
}

fn medians(all: &[(&str, f64)], part: impl Fn(&str) -> &str) -> HashMap<String, f64> {
    let mut groups: HashMap<&str, Vec<f64>> = HashMap::new();
    for &(name, seconds) in all {
        groups.entry(part(name)).or_default().push(seconds);
    }
    // The empty part is what names have in common that have nothing in common.
    groups.remove("");
    let middle =
        |(part, mut values): (&str, Vec<f64>)| Some((part.to_owned(), median(&mut values)?));
    groups.into_iter().filter_map(middle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(pairs: &[(&str, f64)]) -> Durations {
        pairs.iter().map(|&(name, seconds)| (name.to_owned(), seconds)).collect()
    }

    #[test]
    fn a_known_test_lasts_as_long_as_the_middle_one_of_its_last_three() {
        let values = [9.0, 1.0, 50.0, 2.0];
        let estimates = Estimates::new(values.map(|value| revision(&[("t", value)])).into());
        assert!((estimates.seconds("t") - 2.0).abs() < 1e-9);
        let estimates = Estimates::new(vec![revision(&[("t", 1.0)]), revision(&[("t", 3.0)])]);
        assert!((estimates.seconds("t") - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_new_test_lasts_as_long_as_its_like() {
        let estimates = Estimates::new(vec![revision(&[
            ("a.py::t[1]", 4.0),
            ("a.py::u", 1.0),
            ("a.py::v", 2.0),
            ("b.py::w", 13.0),
        ])]);
        for (name, seconds) in
            [("a.py::t[2]", 4.0), ("a.py::x", 2.0), ("c.py::y", 5.0), ("z", 5.0), ("b.py::w", 13.0)]
        {
            assert!((estimates.seconds(name) - seconds).abs() < 1e-9, "{name}");
        }
        assert!((Estimates::default().seconds("t") - UNKNOWN_S).abs() < 1e-9);
        assert_eq!(estimates.known(), ["a.py::t[1]", "a.py::u", "a.py::v", "b.py::w"]);
    }
}
