//! BuildStream sends whole systems as input roots and expects them at `/`. These tests build with it through `kiln
//! serve` with `workers.root = inputs`, and use Kiln as the server of its artifacts.

use crate::support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::bazel::Run;
use support::client;
use support::server::{self, Server};
use tempfile::TempDir;

/// The programs that the project's elements run.
const TOOLS: [&str; 8] = ["sh", "cat", "tr", "sort", "mv", "mkdir", "ln", "grep"];

struct BuildStream {
    binary: PathBuf,
    /// The directory that holds a copy of the project, and the caches of several users.
    dir: TempDir,
}

impl BuildStream {
    /// Starts a server whose workers take the inputs as the root. The server has to say so, because BuildStream sends
    /// no property of Kiln's.
    fn server(&self, arguments: &[&str]) -> Server {
        let data = self.dir.path().join("kiln");
        let mut command = server::command("127.0.0.1:0", &data, arguments);
        command.env("KILN_WORKERS_ROOT", "inputs");
        Server::spawn(command, &data)
    }

    /// Copies the project. The program `bst` lies in the same Python environment as `casd`.
    fn new(casd: &Path) -> Self {
        let binary = casd
            .ancestors()
            .map(|directory| directory.join("bin/bst"))
            .find(|path| path.exists())
            .expect("bst lies in the environment of its buildbox-casd");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bst = Self { binary, dir };
        let source = support::root().join("tests/builds/clients/buildstream");
        let copied = Command::new("cp").arg("-r").arg(source).arg(bst.project()).status();
        assert!(copied.expect("cp runs").success());
        sysroot(&bst.project().join("files/sysroot"));
        bst
    }

    fn project(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    /// Writes the configuration of a user who has built nothing yet, and returns its path.
    fn user(&self, name: &str, server: &str, artifacts: bool) -> PathBuf {
        let home = self.dir.path().join(name);
        fs::create_dir(&home).expect("a new directory");
        let service = |name: &str| format!("  {name}:\n    url: {server}\n");
        let mut text = format!(
            "cachedir: {home}/cache\nlogdir: {home}/logs\nsourcedir: {home}/sources\nremote-execution:\n{}{}{}",
            service("execution-service"),
            service("storage-service"),
            service("action-cache-service"),
            home = home.display(),
        );
        if artifacts {
            text += &format!("artifacts:\n  servers:\n  - url: {server}\n    push: true\n");
        }
        let configuration = home.join("buildstream.conf");
        fs::write(&configuration, text).expect("the configuration is written");
        configuration
    }

    fn run(&self, configuration: &Path, arguments: &[&str]) -> Run {
        let output = Command::new(&self.binary)
            .args(["--no-interactive", "--no-colors", "--config"])
            .arg(configuration)
            .args(arguments)
            .env("HOME", self.dir.path())
            .env_remove("XDG_CACHE_HOME")
            .current_dir(self.project())
            .output()
            .expect("bst runs");
        Run::of(output)
    }

    fn checkout(&self, configuration: &Path, element: &str) -> PathBuf {
        let directory = configuration.with_file_name("checkout");
        let to = directory.to_str().expect("UTF-8");
        // BuildStream's integration commands would need the whole system below the checkout.
        let arguments =
            ["artifact", "checkout", "--deps=none", "--no-integrate", "--directory", to, element];
        self.run(configuration, &arguments).expect_success();
        directory
    }
}

/// Copies the machine's shell and some tools to `root`, with their libraries where the programs look for them.
fn sysroot(root: &Path) {
    let copy = |from: &Path| {
        let path = from.strip_prefix("/").expect("absolute");
        let path = path.strip_prefix("usr").unwrap_or(path);
        let to = root.join("usr").join(path);
        fs::create_dir_all(to.parent().expect("a parent")).expect("mkdir");
        fs::copy(from, to).expect("copied");
    };
    for tool in TOOLS.map(|name| Path::new("/bin").join(name)) {
        copy(&tool);
        let output = Command::new("ldd").arg(&tool).output().expect("ldd runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.map(Path::new).for_each(copy);
    }
    for name in
        ["bin", "lib", "lib64"].into_iter().filter(|name| root.join("usr").join(name).exists())
    {
        std::os::unix::fs::symlink(Path::new("usr").join(name), root.join(name)).expect("a link");
    }
}

const RUN_REMOTELY: &str = "SUCCESS Waiting for the remote build to complete";
const HIT: &str = "Action result found in action cache";

fn count(text: &str, what: &str) -> usize {
    text.matches(what).count()
}

#[test]
fn elements_are_built_in_their_own_root_and_hit_afterwards() {
    let Some(casd) = client("KILN_CASD") else { return };
    let bst = BuildStream::new(&casd);
    let server = bst.server(&[]);

    let first = bst.user("first", &server.url(), false);
    let built = bst.run(&first, &["build", "check.bst", "system.bst"]).expect_success();
    // BuildStream reports hello.bst, check.bst and system.bst. It runs the integration commands before check.bst
    // remotely as well, but does not report them.
    assert_eq!(count(&built.text, RUN_REMOTELY), 3, "{}", built.text);
    let made = bst.checkout(&first, "check.bst");
    assert_eq!(fs::read_to_string(made.join("sorted")).expect("an output"), "HELLO\na\nb\n");
    assert!(made.join("empty").is_dir());

    let second = bst.user("second", &server.url(), false);
    let cached = bst.run(&second, &["build", "check.bst", "system.bst"]).expect_success();
    // BuildStream finds results for hello.bst, for check.bst, and for the integration commands before check.bst and
    // system.bst.
    let counts = (count(&cached.text, RUN_REMOTELY), count(&cached.text, HIT));
    assert_eq!(counts, (0, 4), "{}", cached.text);
    let whole = bst.checkout(&second, "system.bst");
    let integrated = fs::read_to_string(whole.join("etc/integrated")).expect("an output");
    assert_eq!(integrated, "HELLO\na\nb\n");
    assert!(whole.join("usr/bin/sh").exists(), "the inputs are part of the root");
    assert!(!whole.join("proc/self").exists(), "what is mounted is not");

    let broken = bst.run(&second, &["build", "broken.bst"]);
    assert_ne!(broken.code, 0, "{}", broken.text);
    assert!(broken.text.contains("/no/such/file: No such file"), "{}", broken.text);
    assert!(broken.text.contains("printed before the end"), "{}", broken.text);
}

/// Artifacts are blobs and assets: Kiln is BuildStream's artifact server as well.
#[test]
fn artifacts_are_pushed_and_pulled() {
    let Some(casd) = client("KILN_CASD") else { return };
    let bst = BuildStream::new(&casd);
    let server = bst.server(&["--allow-cache-updates"]);

    let first = bst.user("first", &server.url(), true);
    let built = bst.run(&first, &["build", "hello.bst"]).expect_success();
    assert!(built.text.contains("Pushed artifact"), "{}", built.text);

    let second = bst.user("second", &server.url(), true);
    let pulled = bst.run(&second, &["build", "hello.bst"]).expect_success();
    assert!(pulled.text.contains("Pulled artifact"), "{}", pulled.text);
    assert_eq!(count(&pulled.text, "Running commands"), 0, "{}", pulled.text);
    let made = bst.checkout(&second, "hello.bst");
    let hello =
        fs::read_to_string(made.join("usr/share/link")).expect("an output, through its link");
    assert_eq!(hello, "HELLO\na\nb\n");
}
