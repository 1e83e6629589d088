//! Whether an action is a test that can be run in parts, and where it writes what. No I/O.

use std::collections::HashMap;

use kiln_cas::bazel;
use kiln_protos::reapi;

/// Marks the parts that this server makes, for whoever reads their commands later.
pub const MARK: &str = "KILN_SHARD";

/// Variables that only tests have whose coverage is measured: Bazel merges the coverage of whole
/// runs.
const OF_COVERAGE: [&str; 3] = ["COVERAGE_MANIFEST", "COVERAGE_DIR", "COVERAGE_OUTPUT_FILE"];
/// The platform property of actions that persistent workers may answer.
const PERSISTENT: &str = "persistentWorkerKey";
/// Where the shard status file lies unless the client says so: beside the report.
const STATUS_FILE: &str = "test.shard";

/// Why an action is not run in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    NotATest,
    /// The client has sharded it already.
    Sharded,
    Coverage,
    PersistentWorker,
    /// The action does not run a test: it makes the report of one that has run.
    WritesReport,
    /// The client wants directories as messages of their own.
    DirectoriesApart,
}

/// A test that can be run in parts. Paths are as the command declares its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The test's label, as the action's environment names it.
    pub label: String,
    /// The path of the report that the runner writes, in JUnit's XML.
    pub report: String,
    /// The path of the shard status file, which a runner that knows of shards touches.
    pub status: String,
    /// The client wants the shard status file as an output as well.
    pub status_is_declared: bool,
    /// Texts with a line for each thing: those of all parts are put in a row.
    pub lists: Vec<String>,
    /// The client has named the cases to run.
    pub is_filtered: bool,
}

impl Subject {
    /// `properties`: the action's, `mnemonic`: as the client calls it.
    pub fn of(
        command: &reapi::Command,
        mnemonic: &str,
        properties: &[(String, String)],
    ) -> Result<Self, Unfit> {
        let variables = command.environment_variables.iter();
        let environment: HashMap<&str, &str> =
            variables.map(|it| (it.name.as_str(), it.value.as_str())).collect();
        let set = |name: &str| environment.get(name).copied().filter(|value| !value.is_empty());
        let (Some(label), Some(report)) = (set("TEST_TARGET"), set("XML_OUTPUT_FILE")) else {
            return Err(Unfit::NotATest);
        };
        // Older clients say no mnemonic.
        let may_be_a_test = mnemonic.is_empty() || bazel::is_test(mnemonic);
        if !may_be_a_test || !declares(command, report) {
            return Err(Unfit::NotATest);
        }
        if bazel::writes_report(command) {
            return Err(Unfit::WritesReport);
        }
        if OF_COVERAGE.iter().any(|name| set(name).is_some())
            || set("IS_COVERAGE_SPAWN") == Some("1")
        {
            return Err(Unfit::Coverage);
        }
        let is_sharded = |shards: &str| shards.parse().map_or(true, |shards: u32| shards > 1);
        if set("TEST_TOTAL_SHARDS").is_some_and(is_sharded) || set(MARK).is_some() {
            return Err(Unfit::Sharded);
        }
        if properties.iter().any(|(name, value)| name == PERSISTENT && !value.is_empty()) {
            return Err(Unfit::PersistentWorker);
        }
        if command.output_directory_format != 0 {
            return Err(Unfit::DirectoriesApart);
        }
        let beside = match report.rsplit_once('/') {
            Some((directory, _)) => format!("{directory}/{STATUS_FILE}"),
            None => STATUS_FILE.to_owned(),
        };
        let status = set("TEST_SHARD_STATUS_FILE").map_or(beside, str::to_owned);
        let lists = [
            "TEST_UNDECLARED_OUTPUTS_MANIFEST",
            "TEST_UNDECLARED_OUTPUTS_ANNOTATIONS",
            "TEST_WARNINGS_OUTPUT_FILE",
        ];
        Ok(Self {
            label: label.to_owned(),
            report: report.to_owned(),
            status_is_declared: declares(command, &status),
            status,
            lists: lists.iter().filter_map(|name| set(name)).map(str::to_owned).collect(),
            is_filtered: set("TESTBRIDGE_TEST_ONLY").is_some(),
        })
    }
}

/// Whether the path is an output of the command, or lies in one. Clients before REAPI 2.1 name files and
/// directories apart.
fn declares(command: &reapi::Command, path: &str) -> bool {
    #[allow(deprecated, reason = "older clients name files and directories apart")]
    let (files, directories) = (&command.output_files, &command.output_directories);
    let mut all = command.output_paths.iter().chain(files).chain(directories);
    all.any(|declared| {
        path.strip_prefix(declared.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use kiln_protos::reapi::command::EnvironmentVariable;

    use super::*;

    pub const REPORT: &str = "bazel-out/k8/testlogs/a/t/test.xml";

    pub fn test_command(more: &[(&str, &str)]) -> reapi::Command {
        let usual = [("TEST_TARGET", "//a:t"), ("XML_OUTPUT_FILE", REPORT)];
        let variable = |(name, value): &(&str, &str)| EnvironmentVariable {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        reapi::Command {
            arguments: vec!["external/tools/test-setup.sh".to_owned(), "a/t".to_owned()],
            environment_variables: usual.iter().chain(more).map(variable).collect(),
            output_paths: vec![REPORT.to_owned()],
            ..Default::default()
        }
    }

    fn of(more: &[(&str, &str)]) -> Result<Subject, Unfit> {
        Subject::of(&test_command(more), "TestRunner", &[])
    }

    #[test]
    fn a_test_says_where_it_writes_what() {
        let manifest = ("TEST_UNDECLARED_OUTPUTS_MANIFEST", "a/MANIFEST");
        let subject = of(&[manifest, ("TEST_TOTAL_SHARDS", "1")]).unwrap();
        assert_eq!(subject.label, "//a:t");
        assert_eq!(subject.status, "bazel-out/k8/testlogs/a/t/test.shard");
        assert!(!subject.status_is_declared && !subject.is_filtered);
        assert_eq!(subject.lists, ["a/MANIFEST"]);
        let own =
            of(&[("TEST_SHARD_STATUS_FILE", REPORT), ("TESTBRIDGE_TEST_ONLY", "A.b")]).unwrap();
        assert!(own.status_is_declared && own.is_filtered);
    }

    #[test]
    fn what_is_no_whole_test_is_left_alone() {
        assert_eq!(of(&[("COVERAGE_DIR", "c")]), Err(Unfit::Coverage));
        assert_eq!(of(&[("COVERAGE_MANIFEST", "c")]), Err(Unfit::Coverage));
        assert_eq!(of(&[("IS_COVERAGE_SPAWN", "1")]), Err(Unfit::Coverage));
        assert!(of(&[("IS_COVERAGE_SPAWN", "0")]).is_ok());
        assert_eq!(of(&[("TEST_TOTAL_SHARDS", "3")]), Err(Unfit::Sharded));
        assert_eq!(of(&[(MARK, "1/3")]), Err(Unfit::Sharded));
        let command = test_command(&[]);
        assert_eq!(Subject::of(&command, "CppLink", &[]), Err(Unfit::NotATest));
        assert!(Subject::of(&command, "", &[]).is_ok(), "older clients say none");
        let stays = [(PERSISTENT.to_owned(), "key".to_owned())];
        let unfit = Subject::of(&command, "TestRunner", &stays);
        assert_eq!(unfit, Err(Unfit::PersistentWorker));
        let report = reapi::Command {
            arguments: vec!["external/tools/generate-xml.sh".to_owned()],
            ..test_command(&[])
        };
        assert_eq!(Subject::of(&report, "TestRunner", &[]), Err(Unfit::WritesReport));
        let apart = reapi::Command { output_directory_format: 1, ..test_command(&[]) };
        assert_eq!(Subject::of(&apart, "TestRunner", &[]), Err(Unfit::DirectoriesApart));
        let elsewhere = reapi::Command { output_paths: vec!["a".to_owned()], ..command };
        assert_eq!(Subject::of(&elsewhere, "TestRunner", &[]), Err(Unfit::NotATest));
    }
}
