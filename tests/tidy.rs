//! House rules as an ordinary test. Allow-lists may only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[path = "tidy/folders.rs"]
mod folders;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/source.rs"]
mod source;

/// Crate -> the Kiln crates it may depend on (docs/ARCHITECTURE.md).
const MAY_DEPEND_ON: [(&str, &[&str]); 10] = [
    ("kiln-test-servers", &[]),
    ("kiln-net", &[]),
    ("kiln-protos", &[]),
    ("kiln-cas", &["kiln-net", "kiln-protos"]),
    ("kiln-scheduler", &["kiln-net", "kiln-protos", "kiln-cas"]),
    ("kiln-executor", &["kiln-net", "kiln-protos", "kiln-cas"]),
    ("kiln-ci", &["kiln-net", "kiln-protos"]),
    ("kiln-deploy", &["kiln-net", "kiln-protos", "kiln-cas"]),
    (
        "kiln-web",
        &["kiln-net", "kiln-protos", "kiln-cas", "kiln-scheduler", "kiln-ci", "kiln-deploy"],
    ),
    (
        "kiln",
        &[
            "kiln-net",
            "kiln-protos",
            "kiln-cas",
            "kiln-scheduler",
            "kiln-executor",
            "kiln-ci",
            "kiln-deploy",
            "kiln-web",
        ],
    ),
];

/// What the compiler of protocols writes is data, and may be longer.
const MAX_FILE_LINES: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// Files that git tracks, or would, below the repository's root.
fn files(extension: &str) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.ends_with(extension))
        .map(|line| root().join(line))
        .filter(|path| path.is_file())
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = MAY_DEPEND_ON.into_iter().collect();
    let mut checked = 0;
    for package in list(&metadata, "packages") {
        let Some(allowed) = allowed.get(text(package, "name")) else { continue };
        checked += 1;
        for dependency in list(package, "dependencies") {
            let name = text(dependency, "name");
            let normal = dependency["kind"].is_null();
            if normal && (name == "kiln" || name.starts_with("kiln-")) {
                assert!(
                    allowed.contains(&name),
                    "{} must not depend on {name}",
                    text(package, "name")
                );
            }
        }
    }
    assert_eq!(checked, MAY_DEPEND_ON.len());
}

/// The versions of each crate in a lock file.
fn locked(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join(lock)).expect("it is there");
    let lock: toml::Table = text.parse().expect("it is TOML");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("packages") {
        let text = |key: &str| package[key].as_str().expect("text").to_owned();
        versions.entry(text("name")).or_default().insert(text("version"));
    }
    versions
}

/// What is fuzzed is what ships. docs/development.md says how to bring the two together again.
#[test]
fn fuzzing_takes_the_versions_that_ship() {
    let (shipped, fuzzed) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let others: Vec<_> = fuzzed
        .iter()
        .filter(|(name, versions)| shipped.get(*name).is_some_and(|it| !it.is_superset(versions)))
        .collect();
    assert!(others.is_empty(), "not as in Cargo.lock: {others:?}");
    let common = fuzzed.keys().filter(|name| shipped.contains_key(*name)).count();
    assert!(common > 100, "only {common} crates in common");
}

/// A lock file that lacks what a crate depends on makes `--locked` fail, and fuzzing is built by nothing that runs every day.
#[test]
fn fuzzing_locks_all_that_our_crates_depend_on() {
    let text_of = std::fs::read_to_string(root().join("fuzz/Cargo.lock")).expect("it is there");
    let lock: toml::Table = text_of.parse().expect("it is TOML");
    let locked = |name: &str| {
        let packages = lock["package"].as_array().expect("packages");
        let package = packages.iter().find(|it| it["name"].as_str() == Some(name))?;
        let of = |it: &toml::Value| it.as_str()?.split(' ').next().map(str::to_owned);
        let dependencies = package.get("dependencies").and_then(|it| it.as_array());
        Some(dependencies.into_iter().flatten().filter_map(of).collect::<BTreeSet<_>>())
    };
    let mut checked = 0;
    for package in list(&metadata(), "packages") {
        let name = text(package, "name");
        if !name.starts_with("kiln-") {
            continue;
        }
        let Some(locked) = locked(name) else { continue };
        checked += 1;
        for dependency in list(package, "dependencies") {
            let needed = text(dependency, "name");
            let is_built = dependency["kind"].is_null() && dependency["optional"] == false;
            assert!(
                !is_built || locked.contains(needed),
                "{name} lacks {needed} in fuzz/Cargo.lock"
            );
        }
    }
    assert!(checked > 5, "only {checked} crates are fuzzed");
}

#[test]
fn no_file_is_too_long() {
    let name = |path: &Path| path.strip_prefix(root()).expect("below it").display().to_string();
    let lines = |path: &Path| std::fs::read_to_string(path).expect("UTF-8").lines().count();
    let long: Vec<_> = files(".rs")
        .iter()
        .filter(|path| !path.starts_with(root().join("protos/src/generated")))
        .filter(|path| lines(path) > MAX_FILE_LINES)
        .map(|path| name(path))
        .collect();
    assert!(long.is_empty(), "longer than {MAX_FILE_LINES} lines: {long:?}");
}

#[test]
fn unsafe_code_lives_in_the_sandbox_alone() {
    for path in files(".rs") {
        let inside = path.starts_with(root().join("executor/src/sandbox"));
        let allows = std::fs::read_to_string(&path)
            .expect("UTF-8")
            .contains(concat!("allow(", "unsafe_code"));
        assert!(inside || !allows, "{} allows unsafe code", path.display());
    }
}

/// What makes unsafe code sound is said where it stands.
#[test]
fn unsafe_code_says_why_it_is_sound() {
    const BEGINNINGS: [&str; 3] = ["unsafe {", "unsafe impl", "unsafe fn"];
    /// Lines of a statement, and of the comment before it, above the word itself.
    const ABOVE: usize = 6;
    let mut found = 0;
    for path in files(".rs") {
        if !path.starts_with(root().join("executor/src/sandbox")) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let lines: Vec<_> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !BEGINNINGS.iter().any(|it| code.contains(it)) {
                continue;
            }
            found += 1;
            let around = &lines[index.saturating_sub(ABOVE)..=index];
            let says = around.iter().any(|it| it.contains("// SAFETY: "));
            assert!(says, "{}:{}: no SAFETY comment", path.display(), index + 1);
        }
    }
    assert!(found > 20, "only {found} blocks");
}

/// Whoever fetches does so through `kiln-net`: one place honours proxies, trust and time limits, and
/// one parser reads what is fetched. S3's SDK brings a client of its own.
#[test]
fn one_crate_alone_speaks_http_to_others() {
    const CLIENTS: [&str; 6] =
        ["reqwest", "hyper-rustls", "hyper-tls", "ureq", "isahc", "rustls-native-certs"];
    let metadata = metadata();
    for package in list(&metadata, "packages") {
        let name = text(package, "name");
        if !MAY_DEPEND_ON.iter().any(|(own, _)| *own == name) || name == "kiln-net" {
            continue;
        }
        for dependency in list(package, "dependencies") {
            let other = text(dependency, "name");
            assert!(!CLIENTS.contains(&other), "{name} depends on {other}: use kiln_net::http");
            let features = list(dependency, "features").iter().filter_map(Value::as_str);
            let client = features.into_iter().any(|it| it.starts_with("client"));
            let normal = dependency["kind"].is_null();
            assert!(
                !(normal && client && other.starts_with("hyper")),
                "{name} uses the client of {other}: use kiln_net::http"
            );
        }
    }
}

/// Files with a pause that is always the same, for which nobody waits at the same moment.
const OWN_PAUSES: [&str; 5] = [
    // A fault of one process.
    "net/src/panics.rs",
    // Connections to one socket.
    "src/cli/agent/peers/serving.rs",
    // One balancer, until it shows what its file says.
    "deploy/src/traffic/rendered.rs",
    // A rollout that may not begin yet.
    "src/serve/stages/rollout.rs",
    // A backoff follows.
    "cas/src/stores/indexed/write_behind/mod.rs",
];

/// Whoever tries again waits as `kiln_net::Backoff` says: longer each time, and not all at once.
#[test]
fn one_module_alone_knows_how_long_to_wait_before_trying_again() {
    const SIGNS: [&str; 6] = [
        "fastrand::f64",
        "fastrand::f32",
        "pause * 2",
        "delay * 2",
        "failures.min(",
        "saturating_mul(1 <<",
    ];
    for path in files(".rs") {
        let name = path.strip_prefix(root()).expect("below the root");
        let own = name == Path::new("net/src/backoff.rs") || name == Path::new("tests/tidy.rs");
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        for sign in SIGNS.iter().filter(|_| !own) {
            assert!(!text.contains(sign), "{}: {sign}: use kiln_net::Backoff", name.display());
        }
        let is_test = name.components().any(|it| it.as_os_str() == "tests");
        if !is_test && !OWN_PAUSES.iter().any(|it| name == Path::new(it)) {
            let fixed = fixed_pause(&text);
            assert!(fixed.is_none(), "{}: {fixed:?}: use kiln_net::Backoff", name.display());
        }
    }
}

/// A pause before something is tried again that is always the same, be it slept or noted as the moment when it is over: the name
/// of its constant.
fn fixed_pause(text: &str) -> Option<&str> {
    fn constant(rest: &str) -> Option<&str> {
        let end = rest.find(|it: char| it != '_' && !it.is_ascii_uppercase())?;
        let (name, rest) = rest.split_at(end);
        let pauses = name.contains("PAUSE") || name.contains("AGAIN");
        (pauses && !rest.starts_with('.')).then_some(name)
    }
    let waits = ["sleep(", "now() + "].into_iter();
    waits.flat_map(move |begins| text.split(begins).skip(1)).find_map(constant)
}

#[test]
fn a_pause_that_is_always_the_same_is_found() {
    assert_eq!(fixed_pause("self.due = Some(Instant::now() + PAUSE);"), Some("PAUSE"));
    assert_eq!(fixed_pause("tokio::time::sleep(LAST_PAUSE).await;"), Some("LAST_PAUSE"));
    assert_eq!(fixed_pause("() = sleep(AGAIN) => {}"), Some("AGAIN"));
    for other in ["sleep(AGAIN.pause(failures))", "Instant::now() + DELAY;", "sleep(pause)"] {
        assert_eq!(fixed_pause(other), None, "{other}");
    }
}

/// Domain code answers with its own errors; only adapters know gRPC's.
#[test]
fn only_adapters_know_the_grpc_status() {
    let adapters = [
        "/services/",
        "/remote/",
        "/grpc/",
        "/front/",
        "/cli/",
        "/tests/",
        "/benches/",
        "/protos/",
    ];
    for path in files(".rs") {
        let name = path.strip_prefix(root()).expect("below the root");
        let name = format!("/{}", name.display());
        let adapter = adapters.iter().any(|part| name.contains(part));
        let knows = std::fs::read_to_string(&path).expect("UTF-8").contains("tonic::Status");
        assert!(adapter || !knows || name == "/tests/tidy.rs", "{name} knows tonic::Status");
    }
}

/// Files and folders that the architecture names are there.
#[test]
fn the_architecture_names_what_is_there() {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("it is there");
    let crates =
        ["net", "protos", "cas", "scheduler", "executor", "ci", "deploy", "web", "src", "tests"];
    let named: Vec<_> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|span| span.split_once('/').is_some_and(|(first, _)| crates.contains(&first)))
        .filter(|span| !span.contains(['*', ' ']))
        .collect();
    assert!(named.len() > 40, "only {} are named", named.len());
    let gone: Vec<_> = named.into_iter().filter(|path| !root().join(path).exists()).collect();
    assert!(gone.is_empty(), "not there: {gone:?}");
}

/// What the threat model says is shown by a test is.
#[test]
fn the_threat_model_names_what_is_there() {
    const FOLDERS: &str = "src/ web/ tests/ cas/ net/ scheduler/ executor/ ci/ deploy/ fuzz/";
    let text = std::fs::read_to_string(root().join("docs/threat-model.md")).expect("it is there");
    let mut named = 0;
    for span in text.split('`').skip(1).step_by(2) {
        // It may go on in the next line.
        let span = span.split_whitespace().collect::<Vec<_>>().join(" ");
        let (file, test) = span.split_once(": ").unwrap_or((&span, ""));
        let is_path = FOLDERS.split(' ').any(|start| file.starts_with(start));
        if !is_path {
            continue;
        }
        named += 1;
        assert!(root().join(file).exists(), "{file} is not there");
        if !test.is_empty() {
            let source = std::fs::read_to_string(root().join(file)).expect("a source file");
            assert!(source.contains(&format!("fn {test}(")), "{file} has no test {test}");
        }
    }
    assert!(named > 20, "only {named} tests are named");
}

/// A closed or full stdout is an error to tell, and no panic; that nobody reads stderr is neither.
#[test]
fn only_one_place_prints_to_stdout_and_one_to_stderr() {
    for path in files(".rs") {
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let ours = shown.starts_with("src/") || shown.starts_with("web/");
        let allowed = !ours || shown == "src/cli/text.rs";
        if allowed || shown.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        for (number, line) in text.lines().enumerate() {
            let calls = |name: &str| {
                line.match_indices(name).any(|(at, _)| {
                    !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
                })
            };
            let number = number + 1;
            assert!(!calls("println!(") && !calls("print!("), "{shown}:{number}: use text::print");
            assert!(!calls("eprintln!(") && !calls("eprint!("), "{shown}:{number}: use say");
        }
    }
}
