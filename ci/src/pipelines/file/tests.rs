//! Files that are right, and what is said of those that are not.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{TemplateError, fill, fits, read};
use crate::pipelines::stage::{On, Program, Work};
use crate::pipelines::{Begun, LayError, explain, lay_out};

const WHOLE: &str = r#"
name = "app"

[inputs.version]
default = "dev"

[concurrency]
group = "app-${run.branch}"
busy = "supersede"

[[trigger]]
on = "schedule"
cron = "0 3 * * mon-fri"
timezone = "Europe/Zurich"

[[stage]]
name = "build"
kind = "build"
command = ["make", "VERSION=${input.version}"]
outputs = ["dist"]

[[stage]]
name = "test"
kind = "test"
needs = ["build"]
script = "./run.sh \"$OS\""
environment = { OS = "${matrix.os}" }
matrix = { os = ["linux", "mac"], level = [1, 2], exclude = [{ os = "mac", level = "2" }] }
from = ["build"]
retries = 2

[[stage]]
name = "release"
kind = "release"
needs = ["build", "test"]
when = { branch = ["main", "release/*"] }
release = "team/app:${input.version}"
from = "build"

[[stage]]
name = "ask"
kind = "approve"
needs = ["release"]

[[stage]]
name = "deploy"
kind = "promote"
needs = ["ask", "release"]
release = "${stages.release.release}"
to = "prod"

[[stage]]
name = "tidy"
needs = ["deploy"]
on = "always"
command = ["true"]
"#;

fn begun(branch: &str) -> Begun {
    Begun {
        id: "m1".to_owned(),
        trigger: "manual".to_owned(),
        branch: branch.to_owned(),
        ..Begun::default()
    }
}

#[test]
fn a_whole_pipeline_is_laid_out_and_explained() {
    let declared = read(WHOLE).unwrap();
    let laid = lay_out(&declared, &begun("main")).unwrap();
    let names: Vec<_> = laid.stages.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "build",
            "test (level=1, os=linux)",
            "test (level=1, os=mac)",
            "test (level=2, os=linux)",
            "release",
            "ask",
            "deploy",
            "tidy"
        ]
    );
    assert_eq!(laid.group.as_deref(), Some("app-main"));
    let Work::Build(build) = &laid.stages[0].work else { panic!("a build") };
    assert_eq!(
        build.program,
        Program::Arguments(vec!["make".to_owned(), "VERSION=dev".to_owned()])
    );
    assert_eq!(laid.stages[4].needs, [0, 1, 2, 3], "each cell is needed");
    assert_eq!(laid.stages[7].on, On::Always);
    let Work::Promote(deploy) = &laid.stages[6].work else { panic!("a promotion") };
    assert_eq!(deploy.release, "${stages.release.release}", "it is put in when it starts");
    assert_eq!(deploy.reason, "the pipeline app, run m1");

    let explained = explain(&declared, &laid);
    assert_eq!(
        explained.critical,
        ["build", "test (level=1, os=linux)", "release", "ask", "deploy", "tidy"]
    );
    let waves: Vec<_> = explained.stages.iter().map(|it| it.wave).collect();
    assert_eq!(waves, [1, 2, 2, 2, 3, 4, 5, 6]);

    let other = lay_out(&declared, &begun("feature")).unwrap();
    assert!(other.stages[4].left_out.as_ref().unwrap().contains("release/*"));
}

const EXAMPLE: &str = include_str!("../../../../examples/pipeline/kiln-pipeline.toml");
const MANUAL: &str = include_str!("../../../../docs/pipelines.md");

#[test]
fn the_example_and_the_manual_can_be_run() {
    let laid = lay_out(&read(EXAMPLE).unwrap(), &begun("main")).unwrap();
    assert_eq!(laid.stages.len(), 10);
    assert!(laid.stages.iter().all(|it| it.left_out.is_none()));
    let blocks: Vec<_> =
        MANUAL.split("```toml\n").skip(1).filter_map(|it| it.split("```").next()).collect();
    let whole: Vec<_> = blocks.iter().filter(|it| it.starts_with("name = ")).collect();
    assert!(!whole.is_empty());
    for text in whole {
        lay_out(&read(text).unwrap(), &begun("main")).unwrap();
    }
    for part in blocks.iter().filter(|it| it.starts_with("[[stage]]")) {
        // Stages as they stand there need some that do not.
        let before = "name = \"x\"\n[[stage]]\nname = \"build\"\nkind = \"build\"\ncommand = [\"a\"]\noutputs = [\"o\"]\n";
        read(&format!("{before}{part}")).unwrap_or_else(|error| panic!("{part}: {error}"));
    }
}

/// `message` has to be in what is said of a file in which `from` was replaced by `to`.
fn refused(from: &str, to: &str, place: (usize, usize), message: &str) {
    assert!(WHOLE.contains(from), "{from} is in it");
    let text = WHOLE.replacen(from, to, 1);
    let error = read(&text).expect_err(to).to_string();
    let at = format!("line {}, column {}: ", place.0, place.1);
    assert!(error.starts_with(&at), "{to}: {error}, expected at {at}");
    assert!(error.contains(message), "{to}: {error}");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    refused("retries = 2", "retrys = 2", (30, 1), "did you mean retries?");
    refused("kind = \"build\"", "kind = \"biuld\"", (18, 8), "expected one of command, build");
    let needs = "needs = [\"ask\", \"release\"]";
    refused(needs, "needs = [\"relase\"]", (48, 10), "did you mean \"release\"?");
    refused("${matrix.os}", "${matrix.oss}", (27, 22), "did you mean matrix.os?");
    refused("${input.version}", "${input.version", (19, 20), "without `}`");
    refused("cron = \"0 3 * * mon-fri\"", "cron = \"0 3 * *\"", (13, 8), "this has 4");
    refused("Europe/Zurich", "Europe/Zuerich", (14, 12), "no time zone");
    refused("outputs = [\"dist\"]", "outputs = [\"../dist\"]", (20, 12), "without . and ..");
    refused("busy = \"supersede\"", "busy = \"drop\"", (9, 8), "queue, supersede");
    refused("from = \"build\"", "from = \"test\"", (38, 8), "has a matrix");
    let script = "script = \"./run.sh \\\"$OS\\\"\"";
    let with_value = "script = \"./run.sh ${matrix.os}\"";
    refused(script, with_value, (26, 10), "no value is put into a script");
    let needs = "needs = [\"build\"]\n";
    refused(needs, "needs = [\"build\", \"tidy\"]\n", (23, 8), "in a circle: ");
}

#[test]
fn a_push_that_a_forge_tells_gives_no_input_and_names_its_repository() {
    let with = |input: &str, keys: &str| {
        let text = format!(
            "name = \"x\"\n[inputs.version]\n{input}[[trigger]]\non = \"push\"\nbranches = [\"main\"]\n{keys}[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n"
        );
        read(&text).map(drop).map_err(|error| error.to_string())
    };
    let default = "default = \"dev\"\n";
    let told = "forge = \"hub\"\nrepository = \"owner/app\"\n";
    assert_eq!((with("", ""), with(default, told)), (Ok(()), Ok(())));
    for (input, keys, words) in [
        ("", told, "it needs a default"),
        (default, "forge = \"hub\"\n", "repository is missing"),
        (default, "repository = \"owner/app\"\n", "forge is missing"),
        (default, "forge = \"hub\"\nrepository = \"app\"\n", "owner/name"),
    ] {
        let error = with(input, keys).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_circle_is_shown_as_it_goes() {
    let text = "name = \"x\"\n[[stage]]\nname = \"a\"\nneeds = [\"b\"]\ncommand = [\"true\"]\n[[stage]]\nname = \"b\"\nneeds = [\"a\"]\ncommand = [\"true\"]\n";
    let error = read(text).unwrap_err().to_string();
    assert!(error.contains("stages need each other in a circle: a needs b needs a"), "{error}");
}

fn many(count: usize) -> String {
    let mut text = "name = \"many\"\n".to_owned();
    for at in 0..count {
        let needs = if at == 0 { String::new() } else { format!("needs = [\"s{}\"]\n", at - 1) };
        write!(text, "[[stage]]\nname = \"s{at}\"\n{needs}command = [\"true\"]\n").unwrap();
    }
    text
}

#[test]
fn ten_thousand_stages_are_read_and_one_more_is_not() {
    let declared = read(&many(10_000)).unwrap();
    let laid = lay_out(&declared, &begun("")).unwrap();
    let explained = explain(&declared, &laid);
    assert_eq!(explained.critical.len(), 10_000);
    let error = read(&many(10_001)).unwrap_err().to_string();
    assert!(error.contains("at most 10000"), "{error}");
}

#[test]
fn what_a_matrix_makes_is_bounded() {
    let axis: Vec<_> = (0..100).map(|it| it.to_string()).collect();
    let axis = axis.join(", ");
    let stage = |name: &str, needs: &str| {
        format!(
            "[[stage]]\nname = \"{name}\"\n{needs}matrix = {{ a = [{axis}], b = [{axis}] }}\ncommand = [\"true\"]\n"
        )
    };
    let one = format!("name = \"x\"\n{}", stage("a", ""));
    assert_eq!(lay_out(&read(&one).unwrap(), &begun("")).unwrap().stages.len(), 10_000);
    let two = format!("{one}{}", stage("b", ""));
    assert_eq!(lay_out(&read(&two).unwrap(), &begun("")), Err(LayError::Stages));
    let error = read(&format!("{two}{}", stage("c", ""))).unwrap_err().to_string();
    assert!(error.contains("more than 20000 cells"), "{error}");
    let script = "x".repeat(10_000);
    let large = format!("{}script = \"{script}\"\n", one.replace("command = [\"true\"]\n", ""));
    assert_eq!(lay_out(&read(&large).unwrap(), &begun("")), Err(LayError::Large));
}

#[test]
fn what_is_put_in_is_no_reference_later() {
    let first = fill("${input.x} $${y} ${stages.a.b}", true, |_| None).unwrap();
    assert_eq!(first, "${input.x} $${y} ${stages.a.b}");
    let put = |reference: &super::Reference<'_>| match reference {
        super::Reference::Input(_) => Some("${stages.a.secret}".to_owned()),
        _ => None,
    };
    let first = fill("${input.x} ${stages.a.b}", true, put).unwrap();
    let told = |_: &super::Reference<'_>| Some("told".to_owned());
    assert_eq!(fill(&first, false, told).unwrap(), "${stages.a.secret} told");
    assert_eq!(fill("a${", false, told), Err(TemplateError::Open));
    // Neither do two of them make one.
    let parts = |reference: &super::Reference<'_>| match reference {
        super::Reference::Input(_) => Some("$".to_owned()),
        super::Reference::Run(_) => Some("{stages.a.b}".to_owned()),
        _ => None,
    };
    for text in ["${input.x}${run.branch}", "${input.x}{stages.a.b}", "${input.x}${stages.a.b}"] {
        assert_eq!(fill(text, true, parts), Err(TemplateError::Joined), "{text}");
    }
    assert_eq!(fill("${input.x} ${run.branch}", true, parts).unwrap(), "$ {stages.a.b}");
}

#[test]
fn stars_stand_for_any_characters() {
    let all = |patterns: &[&str]| patterns.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    assert!(fits(&all(&["main", "release/*"]), "release/1.2"));
    assert!(fits(&all(&["*/app:*.0"]), "team/app:1.0"));
    assert!(!fits(&all(&["a*a"]), "a"));
    assert!(!fits(&all(&["main"]), "main2"));
    assert!(fits(&all(&["*"]), ""));
}

proptest! {
    #[test]
    fn nothing_that_is_written_ends_the_reader(text in "[ -~\n]{0,300}") {
        let _ = read(&text);
        let _ = fill(&text, true, |_| Some("${".to_owned()));
    }

    #[test]
    fn no_change_of_a_file_ends_the_reader(at in 0usize..1_500, with in "[\\[\\]{}\"$=a-z0-9.\n ]{0,6}") {
        let mut text = WHOLE.to_owned();
        if text.is_char_boundary(at) {
            text.insert_str(at, &with);
        }
        if let Ok(declared) = read(&text) {
            let _ = lay_out(&declared, &begun("main"));
        }
    }
}
