use std::collections::{BTreeMap, HashMap};

use super::*;

const RULES: &str = "{\"buck.file\":\"root//r/rules.bzl\",\"buck.imports\":[\"root//r/impl.bzl\"]}\n\
    {\"buck.file\":\"root//r/impl.bzl\",\"buck.imports\":[]}\n";
/// What a build file imports are macros: what they make is in the attributes of its targets.
const BUILD_FILE: &str = "{\"buck.package\":\"root//a\",\"buck.file\":\"root//a/BUCK\",\
    \"buck.imports\":[\"nowhere//macros.bzl\"]}\n";

fn line(name: &str, rule: &str, hash: &str, deps: &[&str]) -> String {
    let deps = serde_json::to_string(deps).unwrap();
    format!(
        "{{\"name\":\"{name}\",\"buck.type\":\"{rule}\",\"buck.package\":\"root//a\",\
         \"buck.inputs\":[\"root//a/x.cc\"],\"buck.target_hash\":\"{hash}\",\"buck.deps\":{deps}}}\n"
    )
}

fn graph(lines: &str) -> Result<Graph, BuckError> {
    let cell = |name: &str| (name.to_owned(), format!("/ws/{name}"));
    Graph::from_buck2(lines, &[cell("root"), cell("prelude")].into())
}

/// `code`: what every file of Starlark holds.
fn snapshot(lines: &str, code: &str) -> Snapshot {
    let graph = graph(lines).unwrap();
    let content = Content::Known(Hasher::new("file").text(code).finish());
    let content: HashMap<_, _> = graph.sources().map(|(label, _)| (label, content)).collect();
    Snapshot::new(&graph, BTreeMap::new(), &content)
}

fn affected(base: &Snapshot, head: &Snapshot) -> Vec<(String, Option<u32>)> {
    let impact = compare(Ok(base), head, &[]);
    assert_eq!(impact.everything, None);
    impact.affected.into_iter().map(|it| (it.label, it.distance)).collect()
}

fn at(label: &str, distance: u32) -> (String, Option<u32>) {
    (label.to_owned(), Some(distance))
}

#[test]
fn a_target_whose_hash_differs_is_affected_and_what_depends_on_it_is_further_away() {
    let lines = |hash: &str| {
        line("x", "root//r/rules.bzl:cxx_library", hash, &[])
            + RULES
            + BUILD_FILE
            + &line("x_test", "root//r/rules.bzl:cxx_test", hash, &["root//a:x"])
            + &line("y_test", "sh_test", "same", &[])
    };
    let (base, head) = (snapshot(&lines("1"), "code"), snapshot(&lines("2"), "code"));
    assert_eq!(affected(&base, &head), [at("root//a:x", 0), at("root//a:x_test", 1)]);
    assert_eq!(affected(&base, &base), []);
    let is_test = |label: &str| head.targets[label].is_test();
    assert_eq!(["root//a:x", "root//a:x_test", "root//a:y_test"].map(is_test), [false, true, true]);
}

#[test]
fn the_code_of_a_rule_concerns_its_targets_though_their_hashes_stay() {
    let lines = line("x", "root//r/rules.bzl:cxx_library", "1", &[])
        + &line("y", "root//r/other.bzl:other", "1", &["toolchains//:cxx"])
        + RULES;
    let graph = graph(&lines).unwrap();
    let places: BTreeMap<_, _> = graph.sources().collect();
    let place = |label: &str| (places[label].directory.as_deref(), places[label].path.as_str());
    assert_eq!(place("root//r/impl.bzl"), (Some("/ws/root"), "r/impl.bzl"));
    // Nothing is said of what it imports, and it is looked up all the same.
    assert_eq!(place("root//r/other.bzl"), (Some("/ws/root"), "r/other.bzl"));
    let content = |changed: &str| -> HashMap<_, _> {
        let hash = |label: &str| {
            let text = if label == changed { "new" } else { "old" };
            Content::Known(Hasher::new("file").text(text).finish())
        };
        graph.sources().map(|(label, _)| (label, hash(label))).collect()
    };
    let snapshot = |changed| Snapshot::new(&graph, BTreeMap::new(), &content(changed));
    let changed = affected(&snapshot(""), &snapshot("root//r/impl.bzl"));
    let expected = [at("root//r/impl.bzl", 0), at("root//r/rules.bzl", 1), at("root//a:x", 2)];
    assert_eq!(changed, expected);
}

#[test]
fn labels_may_depend_on_the_configuration() {
    let labels = "{\"__type\":\"concat\",\"items\":[[\"slow\"],{\"__type\":\"selector\",\"entries\":\
        {\"DEFAULT\":[],\"config//os:linux\":[\"external\"]}}]}";
    let line = line("x_test", "sh_test", "1", &[]);
    let line = line.replacen('{', &format!("{{\"labels\":{labels},"), 1);
    assert_eq!(graph(&line).unwrap().nodes[0].tags, ["slow", "external"]);
}

#[test]
fn what_cannot_be_understood_is_refused_with_its_line() {
    let error = graph("{\"buck.package\":\"root//b\",\"buck.error\":\"oh\"}");
    assert!(matches!(error, Err(BuckError::Package { line: 1, .. })));
    assert!(matches!(graph("{\"name\":\"x\"}"), Err(BuckError::NoHash { line: 1 })));
    assert!(matches!(graph("\n}"), Err(BuckError::Line { line: 2, .. })));
    let elsewhere = line("x", "nowhere//rules.bzl:r", "1", &[]);
    let refused = graph(&elsewhere);
    assert!(matches!(refused, Err(BuckError::Cell { file }) if file == "nowhere//rules.bzl"));
}
