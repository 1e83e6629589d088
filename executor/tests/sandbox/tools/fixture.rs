//! A tool that does what it is told, and a look at what processes there are.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use kiln_executor::sandbox::{CommandSpec, SlotConfig, Tool, ToolEvent};
use tempfile::TempDir;

use crate::harness;

/// Does each line that it reads, as a shell, and says after it what it answers.
const SHELL: &str = "echo $$ > /tmp/pid; while read -r line; do eval \"$line\" 2>&1; echo .; done";

/// A tool whose answers are what the shell prints.
pub struct Fixture {
    pub dir: TempDir,
    pub tool: Tool,
    /// The input root as the tool sees it now, to read outputs from.
    pub root: OwnedFd,
}

pub fn tree(dir: &TempDir, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let base = dir.path().join(name);
    for (path, content) in files {
        let path = base.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::create_dir_all(&base).unwrap();
    // These directories have the mode of those in a worker's input roots.
    let mut directories = vec![base.clone()];
    while let Some(directory) = directories.pop() {
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
        let entries = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        directories.extend(entries.filter(|path| path.is_dir()));
    }
    base
}

pub fn spec(lower: PathBuf, directories: &[&str]) -> CommandSpec {
    let arguments = ["/bin/bash", "-c", SHELL].map(|text| text.as_bytes().to_vec()).to_vec();
    CommandSpec {
        arguments,
        environment: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        working_directory: String::new(),
        lower: vec![lower],
        directories: directories.iter().map(|path| (*path).to_owned()).collect(),
        writable: Vec::new(),
        root: kiln_executor::sandbox::RootFs::Host,
        network: false,
        timeout: Duration::from_secs(60),
        limits: kiln_executor::sandbox::Limits {
            memory_bytes: Some(256 << 20),
            processes: Some(64),
            disk_bytes: Some(4 << 20),
            output_bytes: Some(4 << 20),
            cpu_millis: None,
        },
        conditions: Default::default(),
    }
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut SlotConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lower = tree(&dir, "first", &[("lib/tool", "1"), ("src/a", "old"), ("top", "t")]);
        let mut config = harness::config(dir.path());
        change(&mut config);
        let (tool, root) = Tool::start(config, &spec(lower, &["out"])).await.unwrap();
        Self { dir, tool, root }
    }

    /// Has the tool do `line`, and answers what it prints.
    pub async fn ask(&mut self, line: &str) -> String {
        let mut input = Bytes::from(format!("{line}\n"));
        let mut said = String::new();
        while !said.ends_with(".\n") {
            match self.tool.step(&mut input).await.unwrap() {
                ToolEvent::Stdout(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {said:?}"),
            }
        }
        said.trim_end_matches(".\n").to_owned()
    }

    pub async fn present(&mut self, name: &str, files: &[(&str, &str)], directories: &[&str]) {
        let lower = tree(&self.dir, name, files);
        self.root = self.tool.present(&spec(lower, directories)).await.unwrap();
    }

    /// Starts another tool, which runs `script` and answers nothing.
    pub async fn another(&self, script: &str) -> (Tool, OwnedFd) {
        let mut other = spec(self.dir.path().join("first"), &[]);
        other.arguments[2] = script.into();
        let config = harness::config(self.dir.path());
        let config = SlotConfig { scratch_dir: self.dir.path().join("other"), ..config };
        Tool::start(config, &other).await.unwrap()
    }

    pub fn output(&self, path: &str) -> Option<String> {
        let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
        let how = nix::fcntl::OpenHow::new()
            .flags(flags)
            .resolve(nix::fcntl::ResolveFlag::RESOLVE_BENEATH);
        let fd = nix::fcntl::openat2(self.root.as_fd(), path, how).ok()?;
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text).unwrap();
        Some(text)
    }

    pub async fn stop(self) {
        self.tool.stop().await.unwrap();
    }
}

pub async fn poll_until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not happen");
}

/// The number of a process whose arguments begin with this text; `None`: there is none.
pub fn processes_of(text: &str) -> Option<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut numbers = entries.filter(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.starts_with(text.as_bytes()))
    });
    numbers.find_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub fn parent(process: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    line.trim().parse().unwrap()
}

/// Numbers of processes that have this text among their arguments.
pub fn processes(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}
