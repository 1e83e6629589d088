//! `kiln impact` in a real repository, with a real Bazel, is asked which targets a change affects.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::bazel::script;
use support::{client, root};

struct Repository {
    directory: tempfile::TempDir,
    bazel: PathBuf,
}

pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn run(program: &Path, words: &[&str], directory: &Path) -> Said {
    let output = Command::new(program)
        .args(words)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").expect("a PATH"))
        .output()
        .expect("the program starts");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

impl Repository {
    /// Makes a repository that holds the example in a directory below its root.
    fn new(bazel: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let here = Self { bazel: script(bazel, directory.path()), directory };
        let (workspace, example) = (here.workspace(), root().join("examples/bazel"));
        fs::create_dir_all(workspace.parent().expect("a parent")).expect("directories");
        let copied = Command::new("cp").arg("-rL").arg(example).arg(&workspace).status();
        assert!(copied.expect("cp runs").success());
        here.git(&["init", "-q", "-b", "main", "."]);
        here.commit("the example");
        here
    }

    fn top(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    fn workspace(&self) -> PathBuf {
        self.top().join("sub/ws")
    }

    fn git(&self, words: &[&str]) -> String {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
        let said = run(Path::new("git"), &[&identity, words].concat(), &self.top());
        assert_eq!(said.code, 0, "git {words:?}: {}", said.stderr);
        said.stdout.trim().to_owned()
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.workspace().join(path), text).expect("a file");
    }

    fn append(&self, path: &str, text: &str) {
        let before = fs::read_to_string(self.workspace().join(path)).expect("a file");
        self.write(path, &(before + text));
    }

    fn impact_from(&self, directory: &str, words: &[&str]) -> Said {
        let bazel = self.bazel.to_string_lossy();
        let words = [&["impact", "--bazel", &bazel], words].concat();
        run(env!("CARGO_BIN_EXE_kiln").as_ref(), &words, &self.workspace().join(directory))
    }

    fn impact(&self, words: &[&str]) -> Said {
        let said = self.impact_from("", words);
        assert_eq!(said.code, 0, "{words:?}: {}", said.stderr);
        said
    }

    /// Runs `kiln impact` as a hook of git would, with the variables that git sets when it commits in the user's
    /// tree, and with those that it sets in another repository before that takes a push.
    fn impact_in_a_hook(&self, words: &[&str]) -> Said {
        let git = self.top().join(".git");
        let index = format!("GIT_INDEX_FILE={}", git.join("index").display());
        let (git, bazel) = (format!("GIT_DIR={}", git.display()), self.bazel.to_string_lossy());
        let pushed = self.directory.path().join("other.git/objects/tmp_objdir-incoming-1");
        let of_a_push = ["GIT_OBJECT_DIRECTORY", "GIT_QUARANTINE_PATH"];
        let [objects, quarantine] = of_a_push.map(|name| format!("{name}={}", pushed.display()));
        let kiln = env!("CARGO_BIN_EXE_kiln");
        let program =
            [git.as_str(), &index, &objects, &quarantine, kiln, "impact", "--bazel", &bazel];
        run(Path::new("env"), &[&program, words].concat(), &self.workspace())
    }

    fn json(&self, words: &[&str]) -> Value {
        let said = self.impact(&[words, &["--json"]].concat());
        serde_json::from_str(&said.stdout).expect("JSON")
    }
}

impl Drop for Repository {
    /// Stops Bazel's servers, which hold open the output bases in the directory that is deleted next.
    fn drop(&mut self) {
        let trees = [self.workspace(), self.top().join(".git/kiln/impact/tree/sub/ws")];
        for tree in trees.iter().filter(|tree| tree.exists()) {
            run(&self.bazel, &["shutdown"], tree);
        }
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn a_change_affects_what_is_made_from_it() {
    let Some(bazel) = client("KILN_BAZEL") else { return };
    let here = Repository::new(&bazel);
    let first = here.git(&["rev-parse", "HEAD"]);

    // At first nothing has changed. The question is asked from a directory below the workspace.
    let said = here.impact_from("greet", &["--base", "HEAD"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{}", said.stderr);
    assert!(said.stderr.contains("asking bazel"), "{}", said.stderr);

    // A changed source file affects the binary and its test, and not the poem.
    here.append("greet/greet.cc", "// changed\n");
    let said = here.impact(&["--base", "HEAD"]);
    let affected = lines(&said.stdout);
    for label in ["//greet:greet", "//greet:hello", "//greet:greet_test"] {
        assert!(affected.contains(&label), "{label} of {affected:?}");
    }
    assert!(!affected.iter().any(|label| label.starts_with("//text")), "{affected:?}");
    assert!(said.stderr.contains("the base was known"), "{}", said.stderr);

    // The same change is asked for as a commit, with the options that write the tests for Bazel.
    let second = here.commit("greet differently");
    let list = here.directory.path().join("tests.txt");
    let said = here.impact(&[
        "--base",
        &first,
        "--head",
        &second,
        "--tests",
        "--tests-to",
        &list.to_string_lossy(),
    ]);
    assert_eq!(lines(&said.stdout), ["//greet:greet_test"]);
    assert_eq!(fs::read_to_string(&list).expect("a list"), said.stdout);
    let json = here.json(&["--base", &first, "--head", &second]);
    let find = |label: &str| {
        let all = json["affected"].as_array().expect("a list");
        all.iter().find(|target| target["label"] == label).cloned().expect(label)
    };
    assert_eq!(find("//greet:greet.cc")["distance"], 0);
    assert_eq!(find("//greet:greet.cc")["cause"], "changed");
    assert_eq!(find("//greet:greet")["through"], "//greet:greet.cc");
    assert_eq!(
        (&find("//greet:greet_test")["test"], &find("//greet:greet_test")["class"]),
        (&true.into(), &"cc_test".into())
    );

    // A test that only people run is not named among those that are to run.
    let by_hand =
        "sh_test(name = \"by_hand_test\", srcs = [\"hermetic_test.sh\"], tags = [\"manual\"])";
    here.append("tests/BUILD", &format!("\n{by_hand}\n"));
    let said = here.impact(&["--base", "HEAD", "--tests"]);
    assert_eq!(said.stdout, "", "{}", said.stderr);
    assert!(said.stderr.contains("1 test tagged manual not listed"), "{}", said.stderr);
    let said = here.impact(&["--base", "HEAD", "--tests", "--manual"]);
    assert_eq!(lines(&said.stdout), ["//tests:by_hand_test"]);
    here.git(&["checkout", "-q", "sub/ws/tests/BUILD"]);

    // A comment in a BUILD file affects nothing, but the code of a rule affects everything that the rule makes.
    here.append("greet/BUILD", "# a comment\n");
    assert_eq!(here.impact(&["--base", "HEAD"]).stdout, "");
    let rule = fs::read_dir(here.workspace().join("rules")).expect("rules");
    let rule = rule.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
    let rule = rule.into_iter().find(|name| name.ends_with(".bzl")).expect("a rule");
    here.append(&format!("rules/{rule}"), "\nNOTHING = 1\n");
    let said = here.impact(&["--base", "HEAD"]);
    assert!(lines(&said.stdout).contains(&"//text:words"), "{}", said.stdout);
    assert!(!said.stdout.contains("//greet"), "{}", said.stdout);

    // The question goes back to an old commit. Kiln checks that out beside the user's tree, which stays as it is.
    let before = here.git(&["status", "--porcelain"]);
    here.git(&["stash", "-q"]);
    here.git(&["stash", "pop", "-q"]);
    let said = here.impact(&["--base", &second, "--head", &first, "--tests"]);
    assert_eq!(lines(&said.stdout), ["//greet:greet_test"]);
    assert_eq!(here.git(&["status", "--porcelain"]), before);
}

#[test]
fn where_it_cannot_be_said_everything_is_affected_and_why() {
    let Some(bazel) = client("KILN_BAZEL") else { return };
    let here = Repository::new(&bazel);

    // Every target depends on .bazelrc, and so on each file that .bazelrc imports.
    here.write("more.bazelrc", "build --jobs=3\n");
    here.append(".bazelrc", "import %workspace%/more.bazelrc\n");
    let base = here.commit("import");
    here.write("more.bazelrc", "build --jobs=4\n");
    let said = here.impact(&["--base", &base, "--tests"]);
    assert_eq!(lines(&said.stdout).len(), 3, "{}", said.stdout);
    assert!(
        said.stderr.contains("everything is affected: more.bazelrc differs"),
        "{}",
        said.stderr
    );
    here.git(&["checkout", "-q", "."]);

    // The packages of the base cannot be loaded. A git hook, whose variables name the user's index and HEAD, may ask
    // nevertheless.
    here.append("text/BUILD", "no_such_rule()\n");
    let broken = here.commit("break it");
    here.git(&["revert", "--no-edit", &broken]);
    let stands =
        || [&["status", "--porcelain"][..], &["symbolic-ref", "HEAD"]].map(|it| here.git(it));
    let before = stands();
    let said = here.impact_in_a_hook(&["--base", &broken, "--json"]);
    assert_eq!((said.code, stands()), (0, before), "{}", said.stderr);
    let json: Value = serde_json::from_str(&said.stdout).expect("JSON");
    let why = json["everything"].as_str().expect("a reason");
    assert!(
        why.contains("the base cannot be compared with") && why.contains("no_such_rule"),
        "{why}"
    );
    assert!(json["affected"].as_array().expect("a list").len() > 20);

    // Where the packages of the change itself cannot be loaded, the user has to mend them, so Kiln fails.
    here.append("text/BUILD", "no_such_rule()\n");
    let said = here.impact_from("", &["--base", "HEAD"]);
    assert_eq!((said.code, said.stdout.as_str()), (5, ""));
    assert!(
        said.stderr.contains("no_such_rule") && said.stderr.contains("hint:"),
        "{}",
        said.stderr
    );

    // Mistakes on the command line end with exit code 2.
    let said = here.impact_from("", &["--base", "no-such-branch"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("no-such-branch"), "{}", said.stderr);
    let said = run(env!("CARGO_BIN_EXE_kiln").as_ref(), &["impact", "--base", "x"], Path::new("/"));
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("no workspace"), "{}", said.stderr);
}
