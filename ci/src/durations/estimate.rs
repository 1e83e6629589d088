//! What a test will take by what it, or its like, took.

use std::cell::OnceCell;
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
    /// Names with seconds, in the order of names.
    known: Durations,
    /// Worked out when the first new test is asked for.
    like: OnceCell<Like>,
}

/// What tests that have something in common take.
#[derive(Debug, Default)]
struct Like {
    functions: HashMap<String, f64>,
    modules: HashMap<String, f64>,
    mean: Option<f64>,
}

impl Estimates {
    /// Estimates from the durations of some revisions, the newest one last: the median of a test's last three.
    pub fn new(revisions: Vec<Durations>) -> Self {
        // Newest first, which the sort keeps within a name.
        let mut all: Durations = revisions.into_iter().rev().flatten().collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        let middle = |same: &mut [(String, f64)]| {
            let last = same.iter().take(REVISIONS).map(|(_, seconds)| *seconds);
            let seconds = median(&mut last.collect::<Vec<_>>())?;
            Some((std::mem::take(&mut same.first_mut()?.0), seconds))
        };
        let known = all.chunk_by_mut(|one, other| one.0 == other.0).filter_map(middle).collect();
        Self { known, like: OnceCell::new() }
    }

    /// Names that have values of their own, in order.
    pub fn known(&self) -> impl ExactSizeIterator<Item = &str> {
        self.known.iter().map(|(name, _)| name.as_str())
    }

    pub fn is_known(&self, name: &str) -> bool {
        self.own(name).is_some()
    }

    /// Seconds. A new test lasts as long as the middle one of its variants with other parameters, else of
    /// its module, else as long as the mean of all.
    pub fn seconds(&self, name: &str) -> f64 {
        self.own(name)
            .unwrap_or_else(|| self.like.get_or_init(|| Like::new(&self.known)).seconds(name))
    }

    fn own(&self, name: &str) -> Option<f64> {
        let place = self.known.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?;
        Some(self.known[place].1)
    }
}

impl Like {
    fn new(known: &Durations) -> Self {
        let sum: f64 = known.iter().map(|(_, seconds)| seconds).sum();
        let mean = (!known.is_empty()).then(|| sum / known.len() as f64);
        Self { functions: medians(known, function), modules: medians(known, module), mean }
    }

    fn seconds(&self, name: &str) -> f64 {
        let of_module = || self.modules.get(module(name));
        let found = self.functions.get(function(name)).or_else(of_module).copied();
        found.or(self.mean).unwrap_or(UNKNOWN_S)
    }
}

fn medians(all: &[(String, f64)], part: impl Fn(&str) -> &str) -> HashMap<String, f64> {
    let mut groups: HashMap<&str, Vec<f64>> = HashMap::new();
    for (name, seconds) in all {
        groups.entry(part(name)).or_default().push(*seconds);
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
        let known: Vec<_> = estimates.known().collect();
        assert_eq!(known, ["a.py::t[1]", "a.py::u", "a.py::v", "b.py::w"]);
    }
}
