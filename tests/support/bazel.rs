//! A Bazel with an output base of its own, shut down when dropped.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use tempfile::TempDir;

pub struct Bazel {
    binary: PathBuf,
    workspace: PathBuf,
    user_root: TempDir,
    /// Startup options beside the usual ones: another set is another Bazel server.
    pub startup: Vec<&'static str>,
    /// The paths that `bazel info` has given, by key: each is asked for once, since it does not
    /// change.
    said: Mutex<HashMap<String, PathBuf>>,
}

/// Makes a program in `directory` that is Bazel for whoever knows none of its startup options. Its output bases are in
/// `directory`, and a home's `.bazelrc` is not read.
pub fn script(binary: &Path, directory: &Path) -> PathBuf {
    let path = directory.join("bazel.sh");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec '{0}' --version\n\
         exec '{0}' --output_user_root='{1}/out' --max_idle_secs=60 --nohome_rc \
         --host_jvm_args=-XX:TieredStopAtLevel=1 --host_jvm_args=-XX:+UseSerialGC \"$@\"\n",
        binary.display(),
        directory.display(),
    );
    std::fs::write(&path, text).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    path
}

pub struct Run {
    pub code: i32,
    /// Everything that Bazel printed to stdout and stderr.
    pub text: String,
}

impl Bazel {
    /// A Bazel with an output base of its own; `workspace` is relative to the repository's root.
    pub fn new(binary: PathBuf, workspace: &str) -> Self {
        let user_root = TempDir::with_prefix("kiln-bazel-").expect("a temporary directory");
        let workspace = super::root().join(workspace);
        Self { binary, workspace, user_root, startup: Vec::new(), said: Mutex::default() }
    }

    /// The command that runs Bazel with these arguments; it is not started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg(format!("--output_user_root={}", self.user_root.path().display()))
            // Debian's Bazel finds its own parts through the system's bazelrc: that one is read.
            .args(["--max_idle_secs=60", "--nohome_rc"])
            // It lives for seconds: what it compiles well it never earns back.
            .args(["--host_jvm_args=-XX:TieredStopAtLevel=1", "--host_jvm_args=-XX:+UseSerialGC"])
            .args(&self.startup)
            .args(arguments)
            // Java without a locale finds no file whose name goes beyond ASCII.
            .env("LC_ALL", "C.UTF-8")
            .current_dir(&self.workspace);
        command
    }

    /// Runs Bazel without a server, whatever the workspace's configuration says.
    pub fn local(&self, arguments: &[&str]) -> Run {
        let mut all = arguments.to_vec();
        all.insert(1, "--spawn_strategy=local");
        all.insert(1, "--symlink_prefix=/");
        all.insert(1, "--incompatible_strict_action_env");
        Run::of(self.command(&all).output().expect("Bazel runs"))
    }

    /// Runs Bazel with the server at `address` (host and port) until it ends.
    pub fn remote(&self, address: &str, arguments: &[&str]) -> Run {
        Run::of(self.start_remote(address, arguments).wait_with_output().expect("Bazel runs"))
    }

    pub fn start_remote(&self, address: &str, arguments: &[&str]) -> std::process::Child {
        self.start_at(&format!("grpc://{address}"), arguments)
    }

    /// Runs Bazel with the server at `url`, which has its scheme, until it ends.
    pub fn remote_at(&self, url: &str, arguments: &[&str]) -> Run {
        Run::of(self.start_at(url, arguments).wait_with_output().expect("Bazel runs"))
    }

    fn start_at(&self, url: &str, arguments: &[&str]) -> std::process::Child {
        let executor = format!("--remote_executor={url}");
        let mut all = arguments.to_vec();
        // In reverse: what the configuration sets, the options after it override.
        for option in ["--show_progress", "--symlink_prefix=/", &executor, "--config=kiln"] {
            all.insert(1, option);
        }
        self.command(&all)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .stdin(std::process::Stdio::null())
            .spawn()
            .expect("Bazel starts")
    }

    pub fn clean(&self) {
        let run = Run::of(self.command(&["clean"]).output().expect("Bazel runs"));
        assert_eq!(run.code, 0, "{}", run.text);
    }

    /// The directory that `bazel-bin` would point to.
    pub fn bin(&self) -> PathBuf {
        self.info("bazel-bin")
    }

    pub fn testlogs(&self) -> PathBuf {
        self.info("bazel-testlogs")
    }

    /// The path that `bazel info KEY` gives. Bazel is asked once for each key.
    pub fn info(&self, key: &str) -> PathBuf {
        let mut said = self.said.lock().unwrap();
        if let Some(path) = said.get(key) {
            return path.clone();
        }
        let run = self.command(&["info", key]).output().expect("Bazel runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let path = PathBuf::from(String::from_utf8_lossy(&run.stdout).trim());
        said.insert(key.to_owned(), path.clone());
        path
    }

    pub fn user_root(&self) -> &Path {
        self.user_root.path()
    }

    pub fn workspace(&self) -> &Path {
        &self.workspace
    }
}

impl Drop for Bazel {
    fn drop(&mut self) {
        let _ = self.command(&["shutdown"]).output();
        // Bazel makes its install base read-only; root removes it all the same.
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(self.user_root.path()).status();
    }
}

impl Run {
    pub fn of(output: Output) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self { code: output.status.code().unwrap_or(-1), text }
    }

    pub fn expect_success(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.text);
        self
    }

    /// The number of processes of `kind` in the summary line, such as
    /// `INFO: 50 processes: 13 internal, 37 remote.`; 0: there are none.
    pub fn processes(&self, kind: &str) -> usize {
        let Some(line) =
            self.text.lines().find(|line| line.contains("INFO:") && line.contains(" process"))
        else {
            return 0;
        };
        let Some((_, list)) = line.split_once(": ").and_then(|(_, rest)| rest.split_once(": "))
        else {
            return 0;
        };
        list.trim_end_matches('.')
            .split(", ")
            .filter_map(|part| part.split_once(' '))
            .find(|(_, name)| *name == kind)
            .and_then(|(count, _)| count.parse().ok())
            .unwrap_or(0)
    }
}
