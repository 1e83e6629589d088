use std::collections::{BTreeMap, BTreeSet, HashMap};

use kiln_protos::query::{
    GeneratedFile, QueryResult, Rule, SourceFile as SourceTarget, Target as QueryTarget,
    target::Discriminator,
};
use proptest::prelude::*;
use prost::Message;

use super::*;

fn attribute(name: &str, value: &str) -> Vec<u8> {
    let value = vec![value.to_owned()];
    kiln_protos::query::Attribute { name: name.to_owned(), string_list_value: value }
        .encode_to_vec()
}

fn rule(name: &str, class: &str, attributes: &[(&str, &str)], inputs: &[&str]) -> QueryTarget {
    let rule = Rule {
        name: name.to_owned(),
        rule_class: class.to_owned(),
        attribute: attributes.iter().map(|(name, value)| attribute(name, value).into()).collect(),
        rule_input: inputs.iter().map(|input| (*input).to_owned()).collect(),
        ..Rule::default()
    };
    QueryTarget { r#type: Discriminator::Rule.into(), rule: Some(rule), ..QueryTarget::default() }
}

fn file(name: &str, location: &str) -> QueryTarget {
    let file = SourceTarget { name: name.to_owned(), location: location.to_owned() };
    QueryTarget {
        r#type: Discriminator::SourceFile.into(),
        source_file: Some(file),
        ..QueryTarget::default()
    }
}

fn generated(name: &str, by: &str) -> QueryTarget {
    let file = GeneratedFile { name: name.to_owned(), generating_rule: by.to_owned() };
    QueryTarget {
        r#type: Discriminator::GeneratedFile.into(),
        generated_file: Some(file),
        ..QueryTarget::default()
    }
}

fn library() -> Vec<QueryTarget> {
    vec![
        file("//lib:a.cc", "/ws/lib/BUILD:1:11"),
        rule("//lib:a", "cc_library", &[("copts", "-O2")], &["//lib:a.cc"]),
        rule("//lib:gen", "genrule", &[], &["//lib:a"]),
        generated("//lib:gen.h", "//lib:gen"),
        rule("//app:b", "cc_binary", &[], &["//lib:gen.h"]),
        rule("//app:b_test", "cc_test", &[], &["//app:b"]),
        rule("//app:alone_test", "sh_test", &[("tags", "external")], &[]),
    ]
}

fn graph(targets: Vec<QueryTarget>) -> Graph {
    let answer = QueryResult { target: targets }.encode_to_vec();
    Graph::from_query(&answer, Framing::Whole).unwrap()
}

fn known(text: &str) -> Content {
    Content::Known(Hasher::new("file").text(text).finish())
}

fn snapshot(targets: Vec<QueryTarget>, content: Content) -> Snapshot {
    let graph = graph(targets);
    let files: HashMap<_, _> = graph.sources().map(|(label, _)| (label, content)).collect();
    Snapshot::new(&graph, BTreeMap::new(), &files)
}

fn labels(impact: &Impact) -> Vec<(&str, Option<u32>)> {
    let affected = impact.affected.iter();
    affected.map(|affected| (affected.label.as_str(), affected.distance)).collect()
}

#[test]
fn a_change_spreads_to_what_is_made_from_it_step_by_step() {
    let base = snapshot(library(), known("one"));
    let head = snapshot(library(), known("two"));
    let impact = compare(Ok(&base), &head, &[]);
    let expected = [
        ("//lib:a.cc", Some(0)),
        ("//lib:a", Some(1)),
        ("//lib:gen", Some(2)),
        ("//lib:gen.h", Some(3)),
        ("//app:b", Some(4)),
        ("//app:b_test", Some(5)),
    ];
    assert_eq!(labels(&impact), expected);
    assert_eq!(impact.affected[0].cause, Cause::Changed);
    assert_eq!(impact.affected[1].cause, Cause::Dependency("//lib:a.cc".to_owned()));
    assert!(head.targets["//app:b_test"].is_test() && !head.targets["//app:b"].is_test());
}

#[test]
fn nothing_changed_affects_nothing_not_even_what_is_always_affected() {
    let base = snapshot(library(), known("one"));
    let impact = compare(Ok(&base), &base, &["external".to_owned()]);
    assert_eq!(impact, Impact { everything: None, affected: vec![], removed: vec![] });
}

#[test]
fn an_empty_file_is_not_the_same_as_none() {
    let base = snapshot(library(), known(""));
    let head = snapshot(library(), Content::Absent);
    assert_eq!(compare(Ok(&base), &head, &[]).affected.len(), 6);
}

#[test]
fn where_a_rule_is_written_changes_nothing_and_an_attribute_does() {
    let at = |line: &str, copts: &str| {
        let attributes = [("generator_location", line), ("copts", copts)];
        snapshot(vec![rule("//a:a", "cc_library", &attributes, &[])], Content::Absent)
    };
    assert!(compare(Ok(&at("BUILD:1", "-O2")), &at("BUILD:9", "-O2"), &[]).affected.is_empty());
    assert_eq!(compare(Ok(&at("BUILD:1", "-O2")), &at("BUILD:1", "-O3"), &[]).affected.len(), 1);
}

#[test]
fn new_and_removed_targets_are_named() {
    let base = snapshot(library(), known("one"));
    let mut targets = library();
    targets.remove(6);
    targets.push(rule("//new:new_test", "sh_test", &[], &["//lib:a"]));
    let head = snapshot(targets, known("one"));
    let impact = compare(Ok(&base), &head, &[]);
    assert_eq!(labels(&impact), [("//new:new_test", Some(0))]);
    assert_eq!(impact.affected[0].cause, Cause::New);
    assert_eq!(impact.removed, ["//app:alone_test"]);
}

#[test]
fn a_tag_forces_a_target_in_when_anything_changed() {
    let base = snapshot(library(), known("one"));
    let head = snapshot(library(), known("two"));
    let impact = compare(Ok(&base), &head, &["external".to_owned()]);
    let last = impact.affected.last().unwrap();
    assert_eq!((last.label.as_str(), last.distance), ("//app:alone_test", None));
    assert_eq!(last.cause, Cause::Tag("external".to_owned()));
}

#[test]
fn a_file_that_concerns_all_and_a_missing_base_affect_everything_and_say_why() {
    let graph = graph(library());
    let common = |text: &str| {
        let Content::Known(hash) = known(text) else { unreachable!() };
        BTreeMap::from([(".bazelrc".to_owned(), hash)])
    };
    let base = Snapshot::new(&graph, common("one"), &HashMap::new());
    let head = Snapshot::new(&graph, common("two"), &HashMap::new());
    let impact = compare(Ok(&base), &head, &[]);
    assert_eq!(impact.everything, Some(Everything::Common(vec![".bazelrc".to_owned()])));
    assert_eq!(impact.affected.len(), 7);
    let impact = compare(Err("no such commit".to_owned()), &head, &[]);
    assert_eq!(impact.everything, Some(Everything::NoBase("no such commit".to_owned())));
    assert_eq!(impact.affected.len(), 7);
}

#[test]
fn both_framings_are_read_and_a_cut_answer_is_refused() {
    let answer = QueryResult { target: library() }.encode_to_vec();
    let mut streamed = Vec::new();
    for target in library() {
        target.encode_length_delimited(&mut streamed).unwrap();
    }
    let whole = Graph::from_query(&answer, Framing::Whole).unwrap();
    let stream = Graph::from_query(&streamed, Framing::Streamed).unwrap();
    assert_eq!(format!("{whole:?}"), format!("{stream:?}"));
    let cut = Graph::from_query(&streamed[..streamed.len() - 1], Framing::Streamed);
    assert!(matches!(cut, Err(GraphError::Cut(6))), "{cut:?}");
    assert!(Graph::from_query(&answer[..answer.len() - 1], Framing::Whole).is_err());
}

#[test]
fn a_target_in_several_configurations_is_one_that_any_of_them_changes() {
    // Bazel's message: each target within one of its own, the configuration beside it.
    let configured = |copts: &[&str]| {
        let mut answer = Vec::new();
        for (number, copts) in copts.iter().enumerate() {
            let target = rule("//a:a", "cc_library", &[("copts", copts)], &["//a:b"]);
            let mut result = Vec::new();
            prost::encoding::message::encode(1, &target, &mut result);
            prost::encoding::uint32::encode(3, &(number as u32), &mut result);
            prost::encoding::bytes::encode(1, &result, &mut answer);
        }
        let graph = Graph::from_query(&answer, Framing::Configured).unwrap();
        assert_eq!(graph.nodes.len(), 1);
        Snapshot::new(&graph, BTreeMap::new(), &HashMap::new())
    };
    let (one, two) = (configured(&["-O0", "-O2"]), configured(&["-O2", "-O0"]));
    assert!(compare(Ok(&one), &two, &[]).affected.is_empty(), "their order says nothing");
    let other = configured(&["-O0", "-O3"]);
    assert_eq!(labels(&compare(Ok(&one), &other, &[])), [("//a:a", Some(0))]);
}

#[test]
fn source_files_are_where_their_package_is() {
    let at = |label: &str, location: &str| {
        let graph = graph(vec![file(label, location)]);
        let (_, file) = graph.sources().next().unwrap();
        (file.path.clone(), file.directory.clone())
    };
    let found = at("@x//a:b/c.txt", "/out/external/x/a/BUILD.bazel:3:1");
    assert_eq!(found, ("b/c.txt".to_owned(), Some("/out/external/x/a".to_owned())));
    assert_eq!(at("//:d", "").1, None);
}

#[test]
fn a_deep_graph_and_circles_are_walked() {
    let many = 20_000;
    let chain = |text: &str| {
        let mut targets = vec![rule("//c:0", "r", &[("a", text)], &["//c:0"])];
        for place in 1..many {
            let (name, dep) = (format!("//c:{place}"), format!("//c:{}", place - 1));
            targets.push(rule(&name, "r", &[], &[&dep]));
        }
        snapshot(targets, Content::Absent)
    };
    let impact = compare(Ok(&chain("one")), &chain("two"), &[]);
    assert_eq!(impact.affected.len(), many);
}

#[test]
fn a_snapshot_survives_being_written_and_another_version_is_not_read() {
    let one = snapshot(library(), known("one"));
    let json = serde_json::to_vec(&one).unwrap();
    assert_eq!(Snapshot::from_json(&json), Some(one));
    let other = String::from_utf8(json).unwrap().replacen("\"format\":2", "\"format\":1", 1);
    assert_eq!(Snapshot::from_json(other.as_bytes()), None);
    assert_eq!(Snapshot::from_json(b"{}"), None);
}

/// Targets 0..n, each with the targets that it depends on, circles included, and a version of its own.
fn any_graph() -> impl Strategy<Value = Vec<(Vec<usize>, u8)>> {
    (1usize..12).prop_flat_map(|count| {
        let target = (prop::collection::vec(0..count, 0..4), 0u8..3);
        prop::collection::vec(target, count)
    })
}

fn made(targets: &[(Vec<usize>, u8)]) -> Snapshot {
    let named = targets.iter().enumerate().map(|(place, (deps, version))| {
        let deps: Vec<_> = deps.iter().map(|dep| format!("//p:{dep}")).collect();
        let deps: Vec<_> = deps.iter().map(String::as_str).collect();
        rule(&format!("//p:{place}"), "r", &[("v", &version.to_string())], &deps)
    });
    snapshot(named.collect(), Content::Absent)
}

/// All that can be reached from a target.
fn closure(targets: &[(Vec<usize>, u8)], from: usize) -> BTreeSet<usize> {
    let (mut seen, mut open) = (BTreeSet::from([from]), vec![from]);
    while let Some(place) = open.pop() {
        open.extend(targets[place].0.iter().filter(|dep| seen.insert(**dep)));
    }
    seen
}

proptest! {
    #[test]
    fn what_reaches_a_change_is_affected_and_nothing_else(
        targets in any_graph(),
        changed in 0usize..12,
    ) {
        let changed = changed % targets.len();
        let mut other = targets.clone();
        other[changed].1 += 1;
        let impact = compare(Ok(&made(&targets)), &made(&other), &[]);
        let affected: BTreeSet<_> =
            impact.affected.iter().map(|affected| affected.label.clone()).collect();
        let expected: BTreeSet<_> = (0..targets.len())
            .filter(|place| closure(&targets, *place).contains(&changed))
            .map(|place| format!("//p:{place}"))
            .collect();
        prop_assert_eq!(affected, expected);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Graph::from_query(&bytes, Framing::Streamed);
        let _ = Graph::from_query(&bytes, Framing::Whole);
        let _ = Graph::from_buck2(&String::from_utf8_lossy(&bytes), &Cells::new());
    }
}
