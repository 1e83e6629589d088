//! What tells tests apart that are called alike: instance and configuration, where there are several.

use std::collections::{BTreeSet, HashMap};

use kiln_ci::model::TestKey;
use maud::{Markup, html};

use super::id::link;
use crate::design::parts::MAX_CELL;
use crate::design::text::{label, visible};

/// Names of the tests that are shown, with what tells them apart where labels alone do not.
pub struct Names<'a> {
    several_instances: bool,
    /// The configurations that a label has in its instance; the key is instance and label.
    configurations: HashMap<(&'a str, &'a str), BTreeSet<&'a str>>,
}

impl<'a> Names<'a> {
    pub fn of(tests: impl IntoIterator<Item = &'a TestKey>) -> Self {
        let mut first: Option<&str> = None;
        let mut several_instances = false;
        let mut configurations: HashMap<_, BTreeSet<&str>> = HashMap::new();
        for test in tests {
            several_instances |= *first.get_or_insert(&test.instance) != test.instance;
            let of = configurations.entry((&*test.instance, &*test.label)).or_default();
            of.insert(&test.configuration);
        }
        Self { several_instances, configurations }
    }

    /// Instance and configuration, as far as they tell it from others.
    pub fn tags(&self, test: &TestKey) -> Markup {
        let known = self.configurations.get(&(&*test.instance, &*test.label));
        let several = known.is_some_and(|it| it.len() > 1);
        html! {
            @if self.several_instances {
                @let name = if test.instance.is_empty() { "(none)".to_owned() } else { visible(&test.instance, 40) };
                " " span.tag title="instance" { bdi { (name) } }
            }
            @if several {
                @let name = if test.configuration.is_empty() { "(none)".to_owned() } else { visible(&test.configuration, 8) };
                " " span.tag title="configuration" { bdi { (name) } }
            }
        }
    }

    /// The label as a link to the test's page, with its tags.
    pub fn link(&self, test: &TestKey) -> Markup {
        html! {
            a.target href=(link(test)) { bdi { (label(&visible(&test.label, MAX_CELL))) } }
            (self.tags(test))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(instance: &str, label: &str, configuration: &str) -> TestKey {
        let own = str::to_owned;
        TestKey { instance: own(instance), label: own(label), configuration: own(configuration) }
    }

    #[test]
    fn what_all_have_in_common_is_not_said() {
        let [one, two, other] = [key("i", "//a", "k8"), key("i", "//b", "k8"), key("i", "//b", "")];
        let shown = |names: &Names<'_>, test| names.tags(test).into_string();
        let names = Names::of([&one, &two, &two]);
        assert_eq!(shown(&names, &one), "");
        let names = Names::of([&one, &two, &other]);
        assert_eq!(shown(&names, &one), "");
        assert!(shown(&names, &two).contains(">k8<") && shown(&names, &other).contains("(none)"));
        let elsewhere = key("", "//a", "k8");
        let names = Names::of([&one, &elsewhere]);
        assert!(
            shown(&names, &one).contains(">i<") && shown(&names, &elsewhere).contains("(none)")
        );
    }
}
