use super::super::samples::blob;
use super::*;

struct Sample {
    argv: Vec<String>,
    environment: Vec<(String, String)>,
    declared: Vec<String>,
    outputs: Vec<OutputFile>,
    target: &'static str,
    version: &'static str,
    part: Option<Part>,
    ending: Ending,
}

/// An execution of a test as Bazel makes it.
fn sample() -> Sample {
    let environment = [
        ("TEST_TARGET", "//a:t"),
        ("XML_OUTPUT_FILE", "bazel-out/k8/testlogs/a/t/test.xml"),
        ("TEST_TIMEOUT", "300"),
    ];
    let argv = ["external/bazel_tools/tools/test/test-setup.sh", "a/t", "--verbose"];
    Sample {
        argv: argv.map(str::to_owned).to_vec(),
        environment: environment.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec(),
        declared: Vec::new(),
        outputs: Vec::new(),
        target: "",
        version: "7.7.1",
        part: None,
        ending: Ending::Exited(0),
    }
}

impl Sample {
    fn with(mut self, variables: &[(&str, &str)]) -> Self {
        let more = variables.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        self.environment.extend(more);
        self
    }

    fn output(mut self, name: &str) -> Self {
        let path = format!("bazel-out/k8/testlogs/a/t/{name}");
        self.outputs.push(OutputFile { path, blob: blob("1f") });
        self
    }

    fn sharded(self) -> Self {
        let status = "bazel-out/k8/testlogs/a/t/shard_2_of_4/test.shard";
        self.with(&[
            ("TEST_SHARD_INDEX", "1"),
            ("TEST_TOTAL_SHARDS", "4"),
            ("TEST_SHARD_STATUS_FILE", status),
        ])
    }

    fn derive(&self) -> Result<Attempt, NotATest> {
        derive(&Execution {
            instance: "main",
            id: "operations/1",
            is_merged: false,
            part: self.part,
            invocation: "build",
            target: self.target,
            mnemonic: "TestRunner",
            configuration: "cfg",
            tool: "bazel",
            tool_version: self.version,
            worker: "w1",
            action: blob("ac"),
            argv: &self.argv,
            environment: &self.environment,
            working_directory: "",
            input_root: "aa/1",
            platform: &[],
            declared: &self.declared,
            outputs: &self.outputs,
            stdout: Some(blob("50")),
            ending: self.ending,
            leased: Time(1000),
            run_start: Time(1250),
            run: Some(Duration::from_millis(700)),
        })
    }

    fn outcome(&self) -> Outcome {
        self.derive().unwrap().outcome
    }
}

#[test]
fn a_test_of_bazel_is_an_attempt() {
    let it = sample().derive().unwrap();
    assert_eq!((it.test.label.as_str(), it.outcome), ("//a:t", Outcome::Passed));
    assert_eq!(it.slot, Slot { run: 1, shard: 1, attempt: 0 });
    assert_eq!((it.shards, it.known), (1, Known::EXECUTED));
    assert_eq!(it.set_up, Some(Duration::from_millis(250)));
    assert_eq!((it.log, it.seed), (None, None));
    assert!(it.execution > 0 && it.identity.is_some());
}

#[test]
fn shards_and_runs_are_counted_as_build_events_count_them() {
    let it = sample().sharded().output("test.shard");
    let it = it.with(&[("TEST_RUN_NUMBER", "3"), ("TEST_RANDOM_SEED", "3")]).derive().unwrap();
    assert_eq!((it.slot, it.shards), (Slot { run: 3, shard: 2, attempt: 0 }, 4));
    assert_eq!(it.seed.as_deref(), Some("3"));
    // Bazel before 5 says the run in paths alone.
    let mut it = sample().with(&[("TEST_RANDOM_SEED", "2")]);
    it.environment[1].1 = "bazel-out/k8/testlogs/a/t/run_2_of_50/test.xml".to_owned();
    assert_eq!(it.derive().unwrap().slot.run, 2);
    // One shard is none.
    let one = sample().with(&[("TEST_TOTAL_SHARDS", "1"), ("TEST_SHARD_INDEX", "0")]);
    assert_eq!(one.derive().unwrap().slot.shard, 1);
}

#[test]
fn runs_of_one_test_have_one_identity_and_other_inputs_another() {
    let of = |it: &Sample| it.derive().unwrap().identity;
    let first = sample().with(&[("TEST_RUN_NUMBER", "1"), ("TEST_RANDOM_SEED", "1")]);
    let second = sample().with(&[("TEST_RUN_NUMBER", "2"), ("TEST_RANDOM_SEED", "2")]);
    assert_eq!(of(&first), of(&second));
    let older = |run: u32| {
        let (seed, directory) = (run.to_string(), format!("_tmp/{run}f"));
        let mut it =
            sample().with(&[("TEST_RANDOM_SEED", seed.as_str()), ("TEST_TMPDIR", &directory)]);
        it.environment[1].1 = format!("bazel-out/k8/testlogs/a/t/run_{run}_of_50/test.xml");
        it
    };
    assert_eq!(of(&older(1)), of(&older(2)));
    assert_ne!(of(&first), of(&sample().with(&[("X", "1")])));
}

#[test]
fn one_of_the_parts_that_the_server_makes_of_a_test_is_an_attempt_that_does_not_count() {
    let part =
        |it: Sample| Sample { part: Some(Part { number: 2, count: 4 }), ..it }.derive().unwrap();
    // It is told its cases by a filter, or is a shard; of that its runner may know nothing, which is no failure.
    for it in [part(sample()), part(sample().sharded())] {
        assert_eq!((it.slot.shard, it.shards, it.outcome), (2, 4, Outcome::Passed));
        assert!(it.is_part() && it.known.has(Known::EXECUTED) && !it.known.counts());
    }
    // What a test sets by itself makes it no part.
    let own = sample().with(&[("KILN_SHARD", "2/4")]).derive().unwrap();
    assert!(!own.is_part() && own.known.counts());
}

#[test]
fn exit_code_0_can_be_a_failure() {
    let early = sample().output("test.exited_prematurely").derive().unwrap();
    assert_eq!(early.outcome, Outcome::Failed);
    assert!(early.failure.is_some());
    assert_eq!(sample().sharded().outcome(), Outcome::Failed);
    assert_eq!(sample().sharded().output("test.shard").outcome(), Outcome::Passed);
    let older = Sample { version: "6.5.0", ..sample().sharded() };
    assert_eq!(older.outcome(), Outcome::Passed);
}

#[test]
fn faults_of_the_machine_are_none_of_the_test() {
    let ended = |ending| Sample { ending, ..sample() };
    assert_eq!(ended(Ending::Infrastructure).outcome(), Outcome::Infrastructure);
    assert_eq!(ended(Ending::TimedOut).outcome(), Outcome::TimedOut);
    assert_eq!(ended(Ending::Cancelled).derive(), Err(NotATest::Cancelled));
    let failed = ended(Ending::Exited(1));
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert_eq!(failed.derive().unwrap().log, Some(blob("50")));
    let told = failed.output("test.infrastructure_failure").output("test.log");
    assert_eq!(told.outcome(), Outcome::Infrastructure);
    assert_eq!(told.derive().unwrap().log, None);
}

#[test]
fn what_looks_like_a_test_and_is_none_is_left_out() {
    let argv = |argv: &[&str]| argv.iter().map(|&it| it.to_owned()).collect();
    for tool in ["external/bazel_tools/tools/test/generate-xml.sh", "tools/renamed"] {
        let xml = argv(&[tool, "a/test.log", "a/test.xml", "1", "0"]);
        let it = Sample { argv: xml, ..sample() };
        assert_eq!(it.derive(), Err(NotATest::WritesXml), "{tool}");
    }
    let coverage = sample().with(&[("IS_COVERAGE_SPAWN", "1")]);
    assert_eq!(coverage.derive(), Err(NotATest::Coverage));
    assert!(sample().with(&[("IS_COVERAGE_SPAWN", "0")]).derive().is_ok());
    let compile = Sample { environment: Vec::new(), ..sample() };
    assert_eq!(compile.derive(), Err(NotATest::Other));
    let numbers = argv(&["test-setup.sh", "a/t", "in.log", "out.txt", "1", "0"]);
    assert!(Sample { argv: numbers, ..sample() }.derive().is_ok());
}

#[test]
fn tests_of_buck2_are_known_by_their_outputs() {
    let of = |path: &str| {
        let declared = vec![path.to_owned()];
        Sample { environment: Vec::new(), declared, target: "root//t:unit", ..sample() }.derive()
    };
    let run = of("buck-out/v2/test/execution/root/1f2e/out").unwrap();
    assert_eq!((run.test.label.as_str(), run.slot.shard), ("root//t:unit", 1));
    assert_eq!(of("buck-out/v2/test/discovery/root/1f2e/out"), Err(NotATest::Listing));
    assert_eq!(of("buck-out/v2/gen/root/1f2e/__t__/out"), Err(NotATest::Other));
}

#[test]
fn a_long_label_stays_distinct() {
    let labels = ["x", "y"].map(|last| format!("//a:{}{last}", "n".repeat(100_000)));
    let names = labels.map(|label| {
        let mut it = sample();
        it.environment[0].1 = label;
        it.derive().unwrap().test.label
    });
    assert!(names[0] != names[1] && names[0].len() <= super::super::MAX_NAME);
    let label = "l".repeat(10_000);
    assert_eq!(name(&label), label);
}
