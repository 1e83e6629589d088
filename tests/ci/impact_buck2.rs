//! `kiln impact` in a workspace of Buck2. A program stands in for Buck2 and prints lines as Buck2 does, because Buck2
//! itself cannot be had here.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::impact::{Said, run};

/// The program that stands in for Buck2. It refuses every command line but those that Kiln shall use.
const BUCK2: &str = r#"#!/bin/sh
[ "$1" = --isolation-dir ] && shift 2
case "$*" in
  --version) echo "buck2 5b1aa3f8c2d94e67 <local>" ;;
  "audit cell --json") printf '{"prelude":"%s/prelude","root":"%s","toolchains":"%s/toolchains"}' "$PWD" "$PWD" "$PWD" ;;
  "targets --streaming --imports --json-lines --show-unconfigured-target-hash --target-hash-file-mode=paths_and_contents --output-attribute=^name$ --output-attribute=^labels$ --output-attribute=^buck\. //...") exec cat recorded.jsonl ;;
  *) echo "error: unexpected: $*" >&2; exit 3 ;;
esac
"#;

/// The lines that Buck2 prints for a small workspace. The tests replace `HASH` by a hash that differs between two
/// commits.
const RECORDED: &str = r#"{"buck.package":"root//app","buck.file":"root//app/BUCK","buck.imports":["prelude//prelude.bzl","root//macros.bzl"]}
{"buck.type":"root//rules/app.bzl:app_library","buck.deps":["toolchains//:cxx"],"buck.inputs":["root//app/lib.cc"],"buck.target_hash":"HASH","buck.package":"root//app","buck.oncall":null,"buck.package_values":{},"name":"lib","labels":[]}
{"buck.type":"root//rules/app.bzl:app_test","buck.deps":["root//app:lib","toolchains//:cxx"],"buck.inputs":["root//app/lib_test.cc"],"buck.target_hash":"HASH","buck.package":"root//app","buck.package_values":{},"name":"lib_test","labels":{"__type":"selector","entries":{"DEFAULT":[],"config//os:linux":["fast"]}}}
{"buck.type":"prelude//rules.bzl:sh_test","buck.deps":[],"buck.inputs":["root//app/other.sh"],"buck.target_hash":"413a2991febb853a43ce1a7a56f10225","buck.package":"root//app","buck.package_values":{},"name":"other_test"}
{"buck.file":"prelude//prelude.bzl","buck.imports":[]}
{"buck.file":"root//macros.bzl","buck.imports":["prelude//prelude.bzl"]}
{"buck.file":"root//rules/app.bzl","buck.imports":["prelude//prelude.bzl","root//rules/compile.bzl"]}
{"buck.file":"root//rules/compile.bzl","buck.imports":["prelude//prelude.bzl"]}
{"buck.file":"prelude//rules.bzl","buck.imports":["prelude//prelude.bzl"]}
"#;

struct Repository {
    directory: tempfile::TempDir,
}

impl Repository {
    fn new() -> Self {
        let here = Self { directory: tempfile::tempdir().expect("a directory") };
        for directory in ["repository/ws/rules", "repository/ws/prelude"] {
            fs::create_dir_all(here.directory.path().join(directory)).expect("directories");
        }
        fs::write(here.buck2(), BUCK2).expect("a program");
        fs::set_permissions(here.buck2(), fs::Permissions::from_mode(0o755)).expect("a mode");
        here.write(".buckconfig", "[cells]\n  root = .\n  prelude = prelude\n");
        for file in [
            "macros.bzl",
            "rules/app.bzl",
            "rules/compile.bzl",
            "prelude/prelude.bzl",
            "prelude/rules.bzl",
        ] {
            here.write(file, "# code\n");
        }
        here.record("43ce1a7a56f10225413a2991febb853a");
        here.git(&["init", "-q", "-b", "main", "."]);
        here.commit("a workspace");
        here
    }

    fn buck2(&self) -> PathBuf {
        self.directory.path().join("buck2")
    }

    fn write(&self, path: &str, text: &str) {
        let workspace = self.directory.path().join("repository/ws");
        fs::write(workspace.join(path), text).expect("a file");
    }

    fn record(&self, hash: &str) {
        self.write("recorded.jsonl", &RECORDED.replace("HASH", hash));
    }

    fn git(&self, words: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
        let top = self.directory.path().join("repository");
        let said = run(Path::new("git"), &[&identity, words].concat(), &top);
        assert_eq!(said.code, 0, "git {words:?}: {}", said.stderr);
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    fn impact(&self, words: &[&str]) -> Said {
        let buck2 = self.buck2();
        let buck2 = buck2.to_string_lossy();
        let words = [&["impact", "--bazel", &*buck2], words].concat();
        let workspace = self.directory.path().join("repository/ws");
        run(env!("CARGO_BIN_EXE_kiln").as_ref(), &words, &workspace)
    }

    /// Returns the affected labels, those of files included, and the distance of each from the change.
    fn affected(&self) -> Vec<(String, Option<u64>)> {
        let said = self.impact(&["--base", "HEAD~1", "--head", "HEAD", "--json"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        let said: Value = serde_json::from_str(&said.stdout).expect("JSON");
        assert_eq!(said["everything"], Value::Null, "{said:#}");
        let affected = said["affected"].as_array().expect("a list").iter();
        let label = |it: &Value| it["label"].as_str().expect("a label").to_owned();
        affected.map(|it| (label(it), it["distance"].as_u64())).collect()
    }
}

fn at(label: &str, distance: u64) -> (String, Option<u64>) {
    (label.to_owned(), Some(distance))
}

#[test]
fn hashes_of_buck2_and_the_code_of_rules_say_what_a_change_affects() {
    let here = Repository::new();
    here.record("56f10225413a2991febb853a43ce1a7a");
    here.commit("a source file");
    assert_eq!(here.affected(), [at("root//app:lib", 0), at("root//app:lib_test", 1)]);
    let said = here.impact(&["--base", "HEAD~1", "--head", "HEAD", "--tests"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "root//app:lib_test\n"), "{}", said.stderr);

    // The code of a rule changes, but no target's hash does. Kiln has to find the change by the imports.
    here.write("rules/compile.bzl", "# other code\n");
    here.commit("the code of a rule");
    let expected = [
        at("root//rules/compile.bzl", 0),
        at("root//rules/app.bzl", 1),
        at("root//app:lib", 2),
        at("root//app:lib_test", 2),
    ];
    assert_eq!(here.affected(), expected);

    here.write("README", "It concerns nothing.\n");
    here.commit("a file that nothing is made of");
    assert_eq!(here.affected(), []);
}

#[test]
fn a_base_that_buck2_cannot_load_affects_everything_and_a_change_is_an_error() {
    let here = Repository::new();
    let broken = "{\"buck.package\":\"root//app\",\"buck.error\":\"no such rule\"}\n";
    here.write("recorded.jsonl", broken);
    here.commit("a mistake");
    let said = here.impact(&["--base", "HEAD~1", "--head", "HEAD"]);
    assert_eq!(said.code, 5, "{}", said.stderr);
    assert!(
        said.stderr.contains("line 1: Buck2 cannot load a package: no such rule"),
        "{}",
        said.stderr
    );
    here.record("43ce1a7a56f10225413a2991febb853a");
    here.commit("and its mend");
    let said = here.impact(&["--base", "HEAD~1", "--head", "HEAD", "--tests"]);
    let tests = "root//app:lib_test\nroot//app:other_test\n";
    assert_eq!((said.code, said.stdout.as_str()), (0, tests), "{}", said.stderr);
    assert!(
        said.stderr.contains("everything is affected: the base cannot be compared with"),
        "{}",
        said.stderr
    );
}
