//! A slot for a test, and running a test once as root and once as an ordinary user.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiln_executor::sandbox::{
    CommandSpec, Ending, Finished, Limits, OutputStream, RootFs, SandboxError, Slot, SlotConfig,
};
use nix::unistd::Uid;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// An ordinary user's number: nobody's, who exists everywhere and owns nothing.
const ORDINARY: u32 = 65_534;

/// Defines a test twice: `NAME::as_root` and `NAME::as_ordinary_user`.
#[macro_export]
macro_rules! both {
    ($(async fn $name:ident($slot:ident: &mut Fixture) $body:block)*) => {$(
        mod $name {
            use super::*;

            async fn body($slot: &mut Fixture) $body

            #[test]
            fn as_root() {
                $crate::harness::as_root(|| $crate::harness::block_on(async {
                    let mut fixture = Fixture::new().await;
                    body(&mut fixture).await;
                    fixture.stop().await;
                }));
            }

            #[test]
            fn as_ordinary_user() {
                $crate::harness::as_ordinary_user(
                    concat!(module_path!(), "::as_ordinary_user"),
                    || $crate::harness::block_on(async {
                        let mut fixture = Fixture::new().await;
                        body(&mut fixture).await;
                        fixture.stop().await;
                    }),
                );
            }
        }
    )*};
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

pub fn as_root(body: impl FnOnce()) {
    if Uid::effective().is_root() {
        body();
    } else {
        eprintln!("SKIPPED: this half of the test needs root");
    }
}

/// Root runs the test `name` again in a process of an ordinary user; that user runs it as it is.
pub fn as_ordinary_user(name: &str, body: impl FnOnce()) {
    if !Uid::effective().is_root() {
        return body();
    }
    let name = name.split_once("::").expect("a path within the crate").1;
    let home = tempfile::tempdir().expect("a directory");
    chown(home.path(), Some(ORDINARY), Some(ORDINARY)).expect("chown");
    let status = Command::new(std::env::current_exe().expect("the own path"))
        .args(["--exact", name, "--nocapture"])
        .env("TMPDIR", home.path())
        .current_dir(home.path())
        // As root this leaves the supplementary groups as well.
        .uid(ORDINARY)
        .gid(ORDINARY)
        .status()
        .expect("the test starts again");
    assert!(status.success(), "as an ordinary user: {status}");
}

pub struct Fixture {
    slot: Slot,
    /// The directory of the test; in it lies `inputs`, the lower tree into which inputs are put.
    pub dir: TempDir,
}

#[derive(Debug)]
pub struct Ran {
    pub ending: Ending,
    pub stdout: String,
    pub stderr: String,
    pub finished: Finished,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

pub fn config(dir: &Path) -> SlotConfig {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    SlotConfig {
        name: format!("test-{number}"),
        scratch_dir: dir.join("scratch"),
        zygote_command: vec![env!("CARGO_BIN_EXE_kiln-zygote").into()],
        input_dirs: vec![dir.to_owned()],
        grace: Duration::from_secs(1),
        ..SlotConfig::default()
    }
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut SlotConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("inputs")).expect("mkdir");
        let mut config = config(dir.path());
        change(&mut config);
        let slot = Slot::start(config).await.expect("the slot starts");
        Self { slot, dir }
    }

    pub async fn stop(self) {
        self.slot.stop().await;
    }

    pub fn slot(&mut self) -> &mut Slot {
        &mut self.slot
    }

    pub fn inputs(&self) -> PathBuf {
        self.dir.path().join("inputs")
    }

    /// Puts a file among the inputs.
    pub fn input(&self, path: &str, content: &str) -> PathBuf {
        let path = self.inputs().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        std::fs::write(&path, content).expect("write");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o555)).expect("chmod");
        path
    }

    pub fn shell(&self, script: &str) -> CommandSpec {
        self.command(&["/bin/bash", "-c", script])
    }

    pub fn command(&self, arguments: &[&str]) -> CommandSpec {
        CommandSpec {
            arguments: arguments.iter().map(|text| text.as_bytes().to_vec()).collect(),
            environment: vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
            working_directory: String::new(),
            lower: vec![self.inputs()],
            directories: Vec::new(),
            writable: Vec::new(),
            root: RootFs::Host,
            network: false,
            timeout: Duration::from_secs(60),
            limits: Limits {
                memory_bytes: Some(256 << 20),
                processes: Some(64),
                disk_bytes: Some(32 << 20),
                output_bytes: Some(4 << 20),
                cpu_millis: None,
            },
            conditions: Default::default(),
        }
    }

    pub async fn run(&mut self, spec: &CommandSpec) -> Ran {
        self.try_run(spec, CancellationToken::new()).await.expect("the action runs")
    }

    pub async fn sh(&mut self, script: &str) -> Ran {
        let spec = self.shell(script);
        self.run(&spec).await
    }

    pub async fn try_run(
        &mut self,
        spec: &CommandSpec,
        cancel: CancellationToken,
    ) -> Result<Ran, SandboxError> {
        let (sender, receiver) = mpsc::channel(4);
        let (finished, (stdout, stderr)) =
            tokio::join!(self.slot.run(spec, sender, cancel), collect(receiver));
        let finished = finished?;
        Ok(Ran { ending: finished.ending.clone(), stdout, stderr, finished })
    }
}

pub async fn collect(mut receiver: mpsc::Receiver<(OutputStream, Bytes)>) -> (String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some((stream, chunk)) = receiver.recv().await {
        match stream {
            OutputStream::Stdout => stdout.extend_from_slice(&chunk),
            OutputStream::Stderr => stderr.extend_from_slice(&chunk),
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(stdout), text(stderr))
}

impl Ran {
    #[track_caller]
    pub fn succeeded(&self) -> &str {
        assert_eq!(
            self.ending,
            Ending::Exited(0),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self.stdout.trim_end()
    }

    /// Reads beneath the input root as the worker does: no link leads anywhere.
    pub fn output(&self, path: &str) -> nix::Result<String> {
        use std::io::Read;
        let how = nix::fcntl::OpenHow::new()
            .flags(nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC)
            .resolve(
                nix::fcntl::ResolveFlag::RESOLVE_BENEATH
                    | nix::fcntl::ResolveFlag::RESOLVE_NO_SYMLINKS,
            );
        let fd = nix::fcntl::openat2(&self.finished.root, path, how)?;
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text).expect("text");
        Ok(text)
    }
}
