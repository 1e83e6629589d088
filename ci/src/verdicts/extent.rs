//! How many tests and invocations wait for a window: one step takes so many.

use std::collections::BTreeSet;

use super::inbox::Item;
use crate::model::TestKey;

/// The tests and invocations of attempts that came.
#[derive(Default)]
pub struct Extent {
    tests: BTreeSet<TestKey>,
    /// Instance and invocation.
    builds: BTreeSet<(String, String)>,
}

impl Extent {
    pub fn add(&mut self, item: &Item) {
        for it in &item.heard {
            // Most are of a test that is known by now, whose names need no copy.
            if !self.tests.contains(&it.test) {
                self.tests.insert(it.test.clone());
            }
            self.builds.insert((it.test.instance.clone(), it.invocation.clone()));
        }
    }

    pub fn tests(&self) -> usize {
        self.tests.len()
    }

    pub fn builds(&self) -> usize {
        self.builds.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::heard::Heard;
    use super::super::samples::heard;
    use super::*;
    use crate::model::Outcome::Passed;

    #[test]
    fn each_test_and_each_invocation_counts_once() {
        let in_build = |build: &str, label: &str, number| Heard {
            invocation: build.to_owned(),
            ..heard(label, number, Passed)
        };
        let item = |heard| Item { key: String::new(), heard };
        let mut extent = Extent::default();
        extent.add(&item(vec![in_build("one", "//a:t", 1), in_build("one", "//a:u", 2)]));
        extent.add(&item(vec![in_build("two", "//a:t", 3)]));
        assert_eq!((extent.tests(), extent.builds()), (2, 2));
    }
}
