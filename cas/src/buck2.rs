//! What an action of Buck2 is called. Its client names no target and no mnemonic, but both can be told
//! from where its outputs and its scratch directory lie.
//!
//! | path | what it says |
//! | --- | --- |
//! | `buck-out/v2/gen/CELL/HASH/PACKAGE/__NAME__/...` | target `CELL//PACKAGE:NAME`, configuration `HASH` |
//! | `buck-out/v2/gen/CELL/PACKAGE/__NAME__/...` | the same where paths follow contents |
//! | `buck-out/v2/tmp/CELL/HASH/CATEGORY/...` | what Bazel calls the mnemonic |
//! | `buck-out/v2/tmp/CELL/HASH/PACKAGE/__NAME__/CATEGORY/...` | the same of older versions |
//! | `buck-out/v2/test/...` | outputs of a test; its target is that of its program |

use kiln_protos::reapi;

const BUCK_OUT: &str = "buck-out/";
const SCRATCH: &str = "BUCK_SCRATCH_PATH";
/// How `=` in the name of a target is written in paths.
const EQUALS: &str = "_eqsb_";
/// What a test is called; it has no category.
const TEST: &str = "test";
/// Arguments that are looked at for the program of a test.
const MAX_ARGUMENTS: usize = 64;

/// [`complete`] for a hit in the action cache. The Command is not read there, so that target and
/// configuration are told from the paths of the outputs in the result.
pub fn complete_hit(metadata: &mut reapi::RequestMetadata, result: &reapi::ActionResult) {
    let named = Named {
        output_paths: result.output_files.iter().map(|output| output.path.clone()).collect(),
        output_directories: result.output_directories.iter().map(|it| it.path.clone()).collect(),
        output_files: result.output_symlinks.iter().map(|output| output.path.clone()).collect(),
        ..Default::default()
    };
    complete(metadata, &named);
}

/// Sets target, configuration and mnemonic from the action's Command, if the client has named neither target
/// nor mnemonic.
pub fn complete(metadata: &mut reapi::RequestMetadata, command: &Named) {
    if !metadata.target_id.is_empty() || !metadata.action_mnemonic.is_empty() {
        return;
    }
    let outputs = || command.outputs();
    let is_test = outputs().any(|path| after_buck_out(path).is_some_and(|(kind, _)| kind == TEST));
    let arguments = command.arguments.iter().take(MAX_ARGUMENTS).map(String::as_str);
    if let Some(owner) = outputs().chain(arguments).find_map(owner) {
        metadata.target_id = owner.target;
        if metadata.configuration_id.is_empty() {
            metadata.configuration_id = owner.configuration;
        }
    }
    let scratch = command.environment_variables.iter().find(|variable| variable.name == SCRATCH);
    metadata.action_mnemonic = match scratch.and_then(|variable| category(&variable.value)) {
        Some(category) => category,
        None if is_test => TEST.to_owned(),
        None => String::new(),
    };
}

/// What of a `Command` names it; the other fields are skipped, not copied.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Named {
    #[prost(string, repeated, tag = "1")]
    pub arguments: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub environment_variables: Vec<reapi::command::EnvironmentVariable>,
    #[prost(string, repeated, tag = "3")]
    pub output_files: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub output_directories: Vec<String>,
    #[prost(message, optional, tag = "5")]
    pub platform: Option<reapi::Platform>,
    #[prost(string, repeated, tag = "7")]
    pub output_paths: Vec<String>,
}

impl Named {
    fn outputs(&self) -> impl Iterator<Item = &str> {
        let all = [&self.output_paths, &self.output_files, &self.output_directories];
        all.into_iter().flatten().map(String::as_str)
    }
}

struct Owner {
    target: String,
    configuration: String,
}

/// The kind of a path (`gen`, `tmp`, `test`, ...), and its parts behind that.
fn after_buck_out(path: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = path.split_once(BUCK_OUT)?;
    let mut parts = rest.split('/');
    let _isolation = parts.next()?;
    Some((parts.next()?, parts.collect()))
}

fn owner(path: &str) -> Option<Owner> {
    let (kind, parts) = after_buck_out(path)?;
    if !matches!(kind, "gen" | "art" | "gen-anon" | "test_discovery") {
        return None;
    }
    let (cell, rest) = parts.split_first()?;
    let (configuration, rest) = match rest.split_first()? {
        (hash, rest) if is_hash(hash) => (*hash, rest),
        _ => ("", rest),
    };
    let (begin, end) = name_in(rest)?;
    let name = rest[begin..=end].join("/");
    let name = name.strip_prefix("__")?.strip_suffix("__")?.replace(EQUALS, "=");
    let package = rest[..begin].join("/");
    Some(Owner {
        target: format!("{cell}//{package}:{name}"),
        configuration: configuration.to_owned(),
    })
}

/// The first and the last part of `__NAME__`; a name may have slashes.
fn name_in(parts: &[&str]) -> Option<(usize, usize)> {
    let begin = parts.iter().position(|part| part.starts_with("__"))?;
    let ends = |part: &&str| part.ends_with("__") && part.len() > 2;
    if parts[begin].len() > 4 && ends(&parts[begin]) {
        return Some((begin, begin));
    }
    let more = parts[begin + 1..].iter().position(ends)?;
    Some((begin, begin + 1 + more))
}

fn category(scratch: &str) -> Option<String> {
    let (kind, parts) = after_buck_out(scratch)?;
    if !kind.starts_with("tmp") {
        return None;
    }
    let rest = parts.get(1..)?;
    let rest = if is_hash(rest.first()?) { &rest[1..] } else { rest };
    // What stands between underscores is the target, and in some versions the action's number.
    let rest = match name_in(rest) {
        Some((_, end)) => &rest[end + 1..],
        None => rest,
    };
    let named = rest.iter().find(|part| !(part.starts_with("__") && part.ends_with("__")))?;
    (!named.is_empty()).then(|| (*named).to_owned())
}

fn is_hash(part: &str) -> bool {
    part.len() == 16 && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(outputs: &[&str], arguments: &[&str], scratch: &str) -> reapi::RequestMetadata {
        let all = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
        let variable = reapi::command::EnvironmentVariable {
            name: SCRATCH.to_owned(),
            value: scratch.to_owned(),
        };
        let command = Named {
            arguments: all(arguments),
            environment_variables: vec![variable],
            output_paths: all(outputs),
            ..Default::default()
        };
        let mut metadata = reapi::RequestMetadata::default();
        complete(&mut metadata, &command);
        metadata
    }

    #[test]
    fn targets_and_categories_are_told_from_paths() {
        let hash = "904931f735703749";
        for (output, scratch, target, configuration, mnemonic) in [
            (
                format!("buck-out/v2/gen/root/{hash}/__app__/src/lib.cc.o"),
                format!("buck-out/v2/tmp/root/{hash}/cxx_compile/src/lib.cc"),
                "root//:app",
                hash,
                "cxx_compile",
            ),
            (
                format!("deep/buck-out/mine/gen/cell/{hash}/a/b/__c-d__/x"),
                format!("buck-out/v2/tmp/cell/{hash}/a/b/__c-d__/link/__1_2__/x"),
                "cell//a/b:c-d",
                hash,
                "link",
            ),
            (
                "buck-out/v2/gen/root/app/__main__/0123/out".to_owned(),
                String::new(),
                "root//app:main",
                "",
                "",
            ),
            (
                format!("buck-out/v2/gen/root/{hash}/p/__one/two_eqsb_3__/out"),
                format!("buck-out/v2/tmp/root/{hash}/genrule"),
                "root//p:one/two=3",
                hash,
                "genrule",
            ),
        ] {
            let metadata = named(&[&output], &[], &scratch);
            assert_eq!(metadata.target_id, target);
            assert_eq!(metadata.configuration_id, configuration);
            assert_eq!(metadata.action_mnemonic, mnemonic);
        }
    }

    #[test]
    fn a_test_is_named_by_its_program() {
        let program = "buck-out/v2/gen/root/904931f735703749/t/__unit__/unit.sh";
        let metadata = named(&["buck-out/v2/test/x/y/out"], &["env", program], "");
        assert_eq!(
            (metadata.target_id.as_str(), metadata.action_mnemonic.as_str()),
            ("root//t:unit", "test")
        );
    }

    #[test]
    fn what_the_client_says_stays_and_other_paths_say_nothing() {
        let mut metadata =
            reapi::RequestMetadata { target_id: "//own:one".to_owned(), ..Default::default() };
        let output_paths = vec!["buck-out/v2/gen/root/904931f735703749/__app__/x".to_owned()];
        complete(&mut metadata, &Named { output_paths, ..Default::default() });
        assert_eq!(
            (metadata.target_id.as_str(), metadata.action_mnemonic.as_str()),
            ("//own:one", "")
        );
        for path in ["bazel-out/bin/x", "buck-out", "buck-out/v2", "buck-out/v2/gen/root/a/b"] {
            assert_eq!(named(&[path], &[], path).target_id, "", "{path}");
        }
    }

    #[test]
    fn a_hit_is_named_by_its_outputs() {
        let output = reapi::OutputDirectory {
            path: "buck-out/v2/gen/root/904931f735703749/a/__b__/tree".to_owned(),
            ..Default::default()
        };
        let result = reapi::ActionResult { output_directories: vec![output], ..Default::default() };
        let mut metadata = reapi::RequestMetadata::default();
        complete_hit(&mut metadata, &result);
        assert_eq!(metadata.target_id, "root//a:b");
    }

    proptest! {
        #[test]
        fn any_path_is_taken(parts in prop::collection::vec("(__[a-z]{0,2}__|__|_|gen|tmp|[a-f0-9]{16}|)", 0..8)) {
            let path = format!("buck-out/{}", parts.join("/"));
            named(&[&path], &[&path], &path);
        }
    }
}
