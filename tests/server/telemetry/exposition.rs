//! A strict reader of Prometheus's text format, version 0.0.4.

#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

/// The samples of one scrape.
pub struct Scrape {
    samples: Vec<Sample>,
}

struct Family {
    name: String,
    kind: String,
    samples: Vec<Sample>,
}

impl Scrape {
    /// Reads the text of a scrape. Panics where a strict parser would refuse it.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line is whole");
        let families = families(text);
        let names: BTreeSet<&str> = families.iter().map(|family| family.name.as_str()).collect();
        assert_eq!(names.len(), families.len(), "a family stands twice");
        families.iter().for_each(Family::check);
        Self { samples: families.into_iter().flat_map(|family| family.samples).collect() }
    }

    /// Returns the sum of all samples of this name that carry these labels, or 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Returns the value of the only sample of this name with these labels. Panics if there are none or several.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found: Vec<_> = self.matching(name, labels).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].value
    }

    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| {
                    sample.labels.get(*label).is_some_and(|actual| actual == value)
                })
        })
    }
}

/// Reads the families of a text, each of which consists of HELP, TYPE and samples, in this order.
fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect("HELP has a text");
            assert!(is_name(name) && !text.is_empty() && help.is_none(), "{line}");
            help = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("TYPE has a type");
            assert_eq!(help.take(), Some(name), "HELP comes before TYPE: {line}");
            let (name, kind) = (name.to_owned(), kind.to_owned());
            families.push(Family { name, kind, samples: Vec::new() });
        } else {
            assert!(help.is_none(), "TYPE comes before samples: {line}");
            families.last_mut().expect("samples have a family").samples.push(sample(line));
        }
    }
    families
}

impl Family {
    fn check(&self) {
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            assert!(seen.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
            assert!(sample.value.is_finite(), "{sample:?}");
        }
        match self.kind.as_str() {
            "gauge" => {
                assert!(self.samples.iter().all(|sample| sample.name == self.name));
                assert!(!self.name.ends_with("_total"), "{} is no counter", self.name);
            }
            "counter" => {
                assert!(self.name.ends_with("_total"), "{} is a counter", self.name);
                let fine = |sample: &Sample| sample.name == self.name && sample.value >= 0.0;
                assert!(self.samples.iter().all(fine), "{}", self.name);
            }
            "histogram" => self.check_histogram(),
            kind => panic!("{} is a {kind}", self.name),
        }
    }

    /// Asserts that the bounds of the buckets rise, that their counts never fall, and that the last bucket holds all
    /// observations.
    fn check_histogram(&self) {
        let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        let (mut counts, mut sums) = (BTreeMap::new(), BTreeMap::new());
        for sample in &self.samples {
            let mut labels = sample.labels.clone();
            match sample.name.strip_prefix(&self.name) {
                Some("_bucket") => {
                    let bound = labels.remove("le").expect("a bucket has a bound");
                    let bound = number(&bound);
                    buckets.entry(labels).or_default().push((bound, sample.value));
                }
                Some("_count") => drop(counts.insert(labels, sample.value)),
                Some("_sum") => drop(sums.insert(labels, sample.value)),
                _ => panic!("{} in {}", sample.name, self.name),
            }
        }
        assert!(buckets.keys().eq(counts.keys()) && counts.keys().eq(sums.keys()));
        for (labels, buckets) in buckets {
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
            let (bound, all) = *buckets.last().expect("there are buckets");
            assert_eq!((bound, all), (f64::INFINITY, counts[&labels]));
        }
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("a value in {line:?}"));
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest),
        None => (Labels::new(), rest),
    };
    let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("a space in {line:?}"));
    Sample { name: name.to_owned(), labels, value: number(value) }
}

/// Reads labels. Returns them, and the text behind the brace that closes them.
fn labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label has a value in quotes");
        assert!(is_name(name) && !name.contains(':'), "label {name:?}");
        let (value, after) = quoted(after);
        assert!(labels.insert(name.to_owned(), value).is_none(), "label {name} twice");
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return (labels, after.strip_prefix('}').expect("a closing brace")),
        }
    }
}

/// Reads a value up to its closing quote. Returns the value, and the text behind the quote.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &text[index + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => panic!("escape {other:?}"),
            },
            character => value.push(character),
        }
    }
    panic!("no closing quote in {text:?}")
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}")),
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_' || first == ':')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}
