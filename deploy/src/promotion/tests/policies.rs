//! The file of an operator, and what is said where it is wrong.

use super::super::pipeline::{Approvals, Pipeline};
use super::POLICY;

fn wrong(text: &str) -> String {
    Pipeline::read(text).unwrap_err().to_string()
}

#[test]
fn a_policy_says_what_it_takes() {
    let pipeline = Pipeline::read(POLICY).unwrap();
    assert_eq!(pipeline.order, ["dev", "staging", "prod"]);
    let prod = &pipeline.environments["prod"];
    assert_eq!((prod.soak, prod.settle), (86_400, 3_600));
    let approvals = Approvals { count: 2, group: Some("managers".to_owned()) };
    assert_eq!(prod.approvals, Some(approvals));
    assert_eq!(prod.checks[0].timeout, 60);
    assert_eq!(pipeline.freezes_of("prod").count(), 1);
    assert_eq!(pipeline.freezes_of("dev").count(), 0);
    assert!(pipeline.is_member("managers", "ana") && !pipeline.is_member("managers", "eve"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, said) in [
        (
            "[environments.dev]\n[environments.prod]\nafter = [\"dev\"]\nsaok = \"1h\"\n",
            "line 4, column 1: environments.prod.saok: unknown key; did you mean soak?",
        ),
        (
            "[enviroments.dev]\n",
            "line 1, column 2: enviroments: unknown key; did you mean environments?",
        ),
        (
            "[environments.dev]\nlevel = 4\n",
            "line 2, column 9: environments.dev.level: expected a whole number from 0 to 3",
        ),
        (
            "[environments.dev]\nlevel = \"3\"\n",
            "line 2, column 9: environments.dev.level: expected a whole number from 0 to 3, found string",
        ),
        (
            "[environments.dev]\n[environments.prod]\nafter = [\"devs\"]\n",
            "line 3, column 10: environments.prod.after[0]: there is no environment \"devs\"; did you mean \"dev\"?",
        ),
        (
            "[environments.dev]\n[environments.prod]\nafter = [\"dev\", \"dev\"]\n",
            "line 3, column 17: environments.prod.after[1]: \"dev\" is named twice",
        ),
        (
            "[environments.Dev]\n",
            "line 1, column 1: environments.Dev: a name has 1 to 40 lowercase letters, digits and dashes",
        ),
        (
            "[environments.dev]\nsoak = \"1h\"\n",
            "line 2, column 8: environments.dev.soak: there is no environment before this one to soak in: see after",
        ),
        (
            "[environments.a]\nafter = [\"b\"]\n[environments.b]\nafter = [\"a\"]\n",
            "line 1, column 15: environments follow each other in a circle: a, b",
        ),
        (
            "[environments.dev]\nconditions = [\"relase.level > 1\"]\n",
            "line 2, column 15: environments.dev.conditions[0]: relase is not known; known are release, environment, now",
        ),
        (
            "[environments.dev]\napprovals = { count = 2, group = \"us\" }\n[groups]\nus = [\"ana\"]\n",
            "line 2, column 23: environments.dev.approvals.count: more approvals than the group has members",
        ),
        (
            "[environments.dev]\nbreak_glass = \"us\"\n",
            "line 2, column 15: environments.dev.break_glass: there is no group \"us\"",
        ),
        (
            "[environments.dev]\nchecks = [{ name = \"smoke\", command = [] }]\n",
            "line 2, column 39: environments.dev.checks[0].command: expected a program with its arguments",
        ),
        ("", "line 1, column 1: environments is missing"),
    ] {
        assert_eq!(wrong(text), said, "{text}");
    }
    let freeze = "[environments.dev]\n[freezes.w]\nreason = \"r\"\nzone = \"Europe/Berlin\"\n\
                  start = \"2026-01-02T17:00\"\nlasts = \"1h\"\nrule = \"FREQ=WEEKLY;COUNT=3\"\n";
    assert!(wrong(freeze).contains("rule: COUNT is not supported"), "{}", wrong(freeze));
    assert!(wrong("[environments.dev\n").starts_with("line "));
    assert!(wrong(&"#".repeat(300 << 10)).contains("a file of 307200 bytes"));
}
