//! Declarations and the plans that follow.

use super::{Plan, plan, read};

fn planned(text: &str) -> Plan {
    plan(&read(text).unwrap_or_else(|error| panic!("{text}: {error}")))
}

fn counts(plan: &Plan) -> Vec<(usize, usize, usize)> {
    plan.steps.iter().map(|step| (step.targets, step.added, step.compared)).collect()
}

#[test]
fn a_canary_grows_from_one_percent_to_all() {
    let plan = planned("targets = 1000");
    assert_eq!(counts(&plan), [(10, 10, 10), (100, 90, 100), (500, 400, 500), (1000, 500, 0)]);
    let begins: Vec<_> = plan.steps.iter().map(|step| step.begins_s).collect();
    assert_eq!(begins, [0, 600, 1200, 1800]);
    assert_eq!((plan.least_s, plan.deadline_s), (6_000, 86_400));
    assert!(plan.steps.iter().all(|step| step.note.is_none()) && plan.warnings.is_empty());
}

#[test]
fn what_is_rounded_is_said() {
    let plan = planned("targets = 3");
    assert_eq!(counts(&plan), [(1, 1, 1), (2, 1, 1), (3, 1, 0)]);
    let note = plan.steps[0].note.as_deref().unwrap();
    assert_eq!(note, "1 % of 3 targets are 0.03: 1, which are 33.33 %");
    assert_eq!(
        plan.warnings,
        ["the step of 10 % has the targets of the step before it, and is left out"]
    );
    let down = planned("targets = 3\nrounding = \"down\"");
    assert_eq!(counts(&down), [(1, 1, 1), (3, 2, 0)]);
    assert!(down.warnings[0].contains("the step of 1 % has no target"), "{:?}", down.warnings);
    // No binary fraction makes one more of it.
    let exact = planned("targets = 1000\nsteps = [0.1, 0.7, 29, 100]");
    assert_eq!(exact.steps.iter().map(|step| step.targets).collect::<Vec<_>>(), [1, 7, 290, 1000]);
}

#[test]
fn every_share_of_any_fleet_grows_and_ends_with_all() {
    for count in (1..200).chain([999, 1_001, 99_999]) {
        for rounding in ["up", "down"] {
            let plan = planned(&format!("targets = {count}\nrounding = \"{rounding}\""));
            assert!(plan.steps.windows(2).all(|pair| pair[0].targets < pair[1].targets), "{count}");
            assert_eq!(plan.steps.last().unwrap().targets, count, "{count}");
        }
    }
}

#[test]
fn names_traffic_gates_and_times() {
    let text = "name = \"api\"\nby = \"both\"\ntargets = [\"a\", \"b\", \"c\"]\nsoak = \"2h\"\n\
                [[step]]\npercent = 30\nbake = \"1h\"\n[[step]]\npercent = 100\ngate = true\n";
    let plan = planned(text);
    assert_eq!(plan.steps[0].names, ["a"]);
    assert_eq!(plan.steps[1].names, ["b", "c"]);
    assert_eq!(plan.steps[0].traffic, Some(30.0));
    assert!(plan.steps[1].gate && plan.steps[0].bake_s == 3_600);
    assert_eq!(plan.least_s, 3_600 + 600 + 7_200);
    let traffic = planned("by = \"traffic\"\ntargets = 4");
    assert_eq!(traffic.steps[0].added, 4);
    assert_eq!(traffic.steps[1].traffic, Some(10.0));
}

#[test]
fn a_step_is_cut_into_waves_and_baselines_are_started_anew() {
    let text = "targets = 10\nsteps = [20, 60, 100]\nunavailable = \"20%\"\nstay_up = 7\n";
    let plan = planned(text);
    assert_eq!(plan.unavailable, Some(2));
    assert_eq!(plan.steps.iter().map(|step| step.waves).collect::<Vec<_>>(), [1, 2, 2]);
    let fresh = planned(&format!("{text}[judge]\nbaseline = \"fresh\"\n"));
    let anew: Vec<_> = fresh.steps.iter().map(|it| (it.compared, it.fresh, it.anew(10))).collect();
    assert_eq!(anew, [(2, 2, 8..10), (4, 2, 6..8), (0, 0, 10..10)]);
    assert_eq!(fresh.steps.iter().map(|step| step.waves).collect::<Vec<_>>(), [2, 3, 2]);
    let none = planned("targets = 2\nstay_up = 2");
    assert!(none.warnings.iter().any(|it| it.contains("leaves none")), "{:?}", none.warnings);
}

#[test]
fn whoever_is_started_anew_gets_the_release_later() {
    for count in 1..60 {
        let text =
            format!("targets = {count}\nsteps = [5, 30, 70, 100]\n[judge]\nbaseline = \"fresh\"");
        let plan = planned(&text);
        let mut anew: Vec<usize> = Vec::new();
        for step in &plan.steps {
            for at in step.anew(count) {
                assert!(at >= step.targets && !anew.contains(&at), "{count}: {step:?}");
                anew.push(at);
            }
            let left = anew.iter().filter(|at| **at >= step.targets).count();
            assert!(left >= step.compared, "{count}: {step:?}");
        }
    }
}

#[test]
fn blue_green_and_rings() {
    let plan = planned("strategy = \"blue-green\"\ntargets = 4");
    let steps: Vec<_> = plan.steps.iter().map(|step| (step.targets, step.traffic)).collect();
    assert_eq!(steps, [(4, Some(0.0)), (4, Some(100.0))]);
    let rings = planned(
        "strategy = \"rings\"\n[[ring]]\nname = \"own\"\ntargets = [\"a\"]\n\
         [[ring]]\nname = \"world\"\ntargets = [\"b\", \"c\"]\n",
    );
    assert_eq!(counts(&rings), [(1, 1, 1), (3, 2, 0)]);
    assert_eq!(rings.steps[1].names, ["b", "c"]);
}

#[test]
fn a_deadline_that_cannot_be_met_is_said() {
    let plan = planned("targets = 4\ndeadline = \"30m\"");
    assert!(plan.warnings.iter().any(|warning| warning.contains("raise deadline")), "{plan:?}");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, expected) in [
        ("", "line 1, column 1: targets is missing"),
        ("targets = ", "line 1, column"),
        ("targets = 1\nstpes = [100]", "line 2, column 1: stpes: unknown key; did you mean steps?"),
        ("targets = 0", "line 1, column 11: targets: expected a number of targets"),
        ("targets = []", "expected a number of targets"),
        ("targets = [\"a\", \"a\"]", "line 1, column 17: targets[1]: the target \"a\" is empty or"),
        (
            "targets = 1\nsteps = [10, 5, 100]",
            "line 2, column 14: steps[1]: expected percent, above 10",
        ),
        (
            "targets = 1\nsteps = [10]",
            "line 2, column 9: steps: the last step has to be 100 percent",
        ),
        ("targets = 1\nsteps = [101]", "at most 100"),
        ("targets = 1\nsteps = [\"1\"]", "steps[0]: expected percent"),
        ("targets = 1\nsteps = [nan]", "steps[0]: expected percent"),
        ("targets = 1\nsupersede = \"newer\"", "line 2, column 13: supersede: expected"),
        ("targets = 1\nbake = \"soon\"", "bake: expected a time like"),
        ("targets = 1\nstrategy = \"yolo\"", "strategy: expected one of canary, blue-green, rings"),
        (
            "targets = 1\nstrategy = \"blue-green\"\nsteps = [100]",
            "line 3, column 9: steps: is for strategy",
        ),
        ("targets = 1\ncolour = \"slot\"", "colour: is for strategy = \"blue-green\""),
        (
            "targets = [\"a\"]\nstrategy = \"blue-green\"",
            "targets: of two sets it is said how many targets each has",
        ),
        ("targets = 1\nby = \"traffic\"\nstay_up = 1", "nothing that serves is restarted"),
        ("targets = 1\n[judge]\nbaseline = \"old\"", "expected running or fresh"),
        ("strategy = \"rings\"", "ring is missing"),
        (
            "strategy = \"rings\"\n[[ring]]\nname = \"a\"\ntargets = []",
            "a ring has at least one target",
        ),
    ] {
        let error = read(text).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n{error}\n{expected}");
    }
    let long = format!("# {}", "x".repeat(1 << 20));
    assert!(read(&long).map(drop).unwrap_err().to_string().contains("bytes are more than"));
}
