//! Platform properties: what actions require and what workers offer (REAPI `Platform`).
//!
//! A worker may run an action when it offers every property that the action names, value
//! for value; it may offer several values of one name. An offered value `*` matches every
//! value of its name, and the offer `*=*` matches every property. No name is special:
//! `OSFamily`, `container-image` and the like are compared as all others are. In words for people, what an
//! operator configured comes before what each of Kiln's workers offers by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

/// Values named in an explanation, at most.
const MAX_NAMED: usize = 8;

/// Platform properties that all of Kiln's workers offer, whatever they are configured to.
const OF_EVERY_WORKER: [(&str, &[&str]); 7] = [
    ("container-image", &["", "none", "*"]),
    ("kiln-memory", &["*"]),
    ("kiln-network", &["false", "true"]),
    ("kiln-root", &["*", "inputs", "strict"]),
    ("kiln-tool-inputs", &["*"]),
    ("persistentWorkerKey", &["*"]),
    ("persistentWorkerProtocol", &["*"]),
];

type Pair = (String, String);

/// Whether Kiln's workers offer the property by themselves.
pub fn is_of_every_worker(name: &str, value: &str) -> bool {
    OF_EVERY_WORKER.iter().any(|(own, values)| *own == name && values.contains(&value))
}

fn canonical(pairs: impl IntoIterator<Item = Pair>) -> Arc<[Pair]> {
    let mut pairs: Vec<Pair> = pairs.into_iter().collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs.into()
}

/// The properties that an action names, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement(Arc<[Pair]>);

impl Requirement {
    pub fn new(pairs: impl IntoIterator<Item = Pair>) -> Self {
        Self(canonical(pairs))
    }

    pub fn pairs(&self) -> &[Pair] {
        &self.0
    }
}

impl Default for Requirement {
    fn default() -> Self {
        Self::new([])
    }
}

/// The properties that a worker has, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Offer(Arc<[Pair]>);

impl Offer {
    pub fn new(pairs: impl IntoIterator<Item = Pair>) -> Self {
        Self(canonical(pairs))
    }

    pub fn pairs(&self) -> &[Pair] {
        &self.0
    }

    pub fn satisfies(&self, requirement: &Requirement) -> bool {
        requirement.0.iter().all(|(name, value)| self.has(name, value))
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.lists(name, value) || self.lists(name, "*") || self.lists("*", "*")
    }

    fn lists(&self, name: &str, value: &str) -> bool {
        self.0.binary_search_by(|(n, v)| (n.as_str(), v.as_str()).cmp(&(name, value))).is_ok()
    }
}

/// Says in words why none of `offers` satisfies `requirement`.
pub fn explain(requirement: &Requirement, offers: &[&Offer]) -> String {
    if offers.is_empty() {
        return format!("no worker is connected; the action requires {}", list(requirement));
    }
    let lacking: Vec<_> = (requirement.0.iter())
        .filter(|(name, value)| !offers.iter().any(|offer| offer.has(name, value)))
        .collect();
    if lacking.is_empty() {
        return format!("no single worker offers all of {}", list(requirement));
    }
    let mut text = String::from("no worker offers ");
    for (i, (name, value)) in lacking.iter().enumerate() {
        let separator = if i == 0 { "" } else { "; nor " };
        let _ = write!(text, "{separator}{name}={value} ({})", offered(name, offers));
    }
    text
}

fn list(requirement: &Requirement) -> String {
    if requirement.0.is_empty() {
        return "no property".to_owned();
    }
    let pairs: Vec<_> = requirement.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
    pairs.join(", ")
}

fn offered(name: &str, offers: &[&Offer]) -> String {
    let mut by_name: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (n, v) in offers.iter().flat_map(|offer| offer.0.iter()) {
        by_name.entry(n).or_default().insert(v);
    }
    match by_name.get(name) {
        Some(values) => format!("workers offer {name}: {}", some_of(values.iter())),
        None if by_name.is_empty() => "workers offer no properties at all".to_owned(),
        None => format!("workers offer only the names {}", some_of(by_importance(&by_name).iter())),
    }
}

/// The names that an operator gave values to, then those that all workers know.
fn by_importance<'a>(by_name: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<&'a str> {
    let is_own = |name: &&str| by_name[name].iter().all(|value| is_of_every_worker(name, value));
    let (kilns, own): (Vec<&str>, Vec<&str>) = by_name.keys().partition(|name| is_own(name));
    own.into_iter().chain(kilns).collect()
}

fn some_of<'a>(values: impl ExactSizeIterator<Item = &'a &'a str>) -> String {
    let more = values.len().saturating_sub(MAX_NAMED);
    let named: Vec<&str> = values.take(MAX_NAMED).copied().collect();
    let mut text = named.join(", ");
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<Pair> {
        let pair = |p: &str| p.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
        text.split_whitespace().filter_map(pair).collect()
    }

    #[test]
    fn every_named_property_must_be_offered_and_a_star_offers_all_values() {
        let satisfies = |offer: &str, requirement: &str| {
            Offer::new(pairs(offer)).satisfies(&Requirement::new(pairs(requirement)))
        };
        assert!(satisfies("os=linux", ""));
        assert!(satisfies("os=linux os=any cpu=arm", "cpu=arm os=any"));
        assert!(!satisfies("os=linux", "os=linux cpu=arm"));
        assert!(!satisfies("os=linux", "os=Linux"));
        assert!(satisfies("image=*", "image=docker://x"));
        assert!(!satisfies("image=*", "os=linux"));
        assert!(satisfies("*=*", "os=linux cpu=arm"));
        assert!(!satisfies("", "os=*"), "a star in a requirement is a value like any other");
        assert!(satisfies("os=linux", "os=linux os=linux"));
    }

    #[test]
    fn the_explanation_names_property_and_offers() {
        let (a, b) = (Offer::new(pairs("os=linux cpu=x86")), Offer::new(pairs("os=mac")));
        let explain =
            |text: &str, offers: &[&Offer]| super::explain(&Requirement::new(pairs(text)), offers);
        assert_eq!(
            explain("os=windows", &[&a, &b]),
            "no worker offers os=windows (workers offer os: linux, mac)"
        );
        assert_eq!(
            explain("gpu=1", &[&a]),
            "no worker offers gpu=1 (workers offer only the names cpu, os)"
        );
        assert_eq!(
            explain("os=mac cpu=x86", &[&a, &b]),
            "no single worker offers all of cpu=x86, os=mac"
        );
        let own = Offer::new(pairs("kiln-root=* container-image=none zone=a pool=big"));
        assert_eq!(
            explain("gpu=1", &[&own]),
            "no worker offers gpu=1 (workers offer only the names pool, zone, container-image, kiln-root)"
        );
        assert_eq!(explain("os=mac", &[]), "no worker is connected; the action requires os=mac");
    }
}
