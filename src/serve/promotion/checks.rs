//! Programs that the operator's policy names, and which are asked about a release. They run as the server's user, without what is
//! in its environment, and no longer than they may.

use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use kiln_deploy::promotion::{Check, Known, RunCheck};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// Bytes of what a program prints to stderr that are repeated. All of it is read, so that it does not block.
const MAX_SAID: usize = 1_000;
/// Variables that are handed on.
const KEPT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

pub struct Programs;

/// A program with all that it started; what has not ended by itself is ended when nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        // It may have ended by itself in the meantime.
        let _ = self.0.map(|it| killpg(it, Signal::SIGKILL));
    }
}

#[async_trait]
impl RunCheck for Programs {
    async fn run(&self, check: &Check, release: &Known, environment: &str) -> Result<(), String> {
        let (program, arguments) = check.command.split_first().ok_or("no program is named")?;
        let kept = KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(kept)
            .env("KILN_RELEASE", release.name.to_string())
            .env("KILN_DIGEST", release.digest.to_string())
            .env("KILN_ENVIRONMENT", environment)
            .env("KILN_INVOCATION", &release.invocation)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What it starts itself is ended with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let mut child = child.map_err(|error| format!("{program} cannot be run: {error}"))?;
        let mut group = Group(child.id().and_then(|it| i32::try_from(it).ok()).map(Pid::from_raw));
        let stderr = child.stderr.take();
        let ending = async {
            let said = said(stderr).await;
            (child.wait().await, said)
        };
        let ended = tokio::time::timeout(Duration::from_secs(check.timeout), ending).await;
        let Ok((status, said)) = ended else {
            return Err(format!("it took more than {} s and was ended", check.timeout));
        };
        group.0 = None;
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) if said.is_empty() => Err(status.to_string()),
            Ok(status) => Err(format!("{status}: {said}")),
            Err(error) => Err(format!("it cannot be waited for: {error}")),
        }
    }
}

/// The beginning of what is printed, on one line.
async fn said(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let (mut kept, mut part) = (Vec::new(), [0; 4_096]);
    while let Ok(length) = stream.read(&mut part).await {
        let Some(read) = part.get(..length).filter(|it| !it.is_empty()) else { break };
        let room = MAX_SAID.saturating_sub(kept.len());
        kept.extend(read.iter().take(room));
    }
    String::from_utf8_lossy(&kept).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use kiln_deploy::oci::ContentDigest;
    use kiln_deploy::timestamp::Timestamp;

    use super::*;

    async fn ran(command: &[&str], timeout: u64) -> Result<(), String> {
        let release = Known {
            name: "team/app:1".parse().unwrap(),
            digest: ContentDigest::of(b"app"),
            author: String::new(),
            created: Timestamp::from_unix(0),
            invocation: "i".to_owned(),
            instance: String::new(),
            target: String::new(),
            rejected: None,
        };
        let command = command.iter().map(|it| (*it).to_owned()).collect();
        let check = Check { name: "c".to_owned(), command, timeout };
        Programs.run(&check, &release, "prod").await
    }

    #[tokio::test]
    async fn a_program_says_yes_or_no() {
        let knows = "test \"$KILN_RELEASE/$KILN_ENVIRONMENT\" = team/app:1/prod";
        assert_eq!(ran(&["sh", "-c", knows], 60).await, Ok(()));
        let refused = ran(&["sh", "-c", "echo no way >&2; exit 3"], 60).await.unwrap_err();
        assert_eq!(refused, "exit status: 3: no way");
        assert!(ran(&["/nowhere/at-all"], 60).await.unwrap_err().contains("cannot be run"));
        // What it prints is neither kept nor does it hinder it.
        assert_eq!(ran(&["sh", "-c", "yes | head -c 1000000 >&2"], 60).await, Ok(()));
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_ended_with_all_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // The grandchild holds the pipe open for writing for as long as it lives.
        let script = format!("sleep 1000 3>'{}' & wait", fifo.display());
        let reading = tokio::task::spawn_blocking(move || std::fs::read(fifo));
        let error = ran(&["sh", "-c", &script], 1).await.unwrap_err();
        assert!(error.contains("took more than 1 s"), "{error}");
        assert_eq!(reading.await.unwrap().unwrap(), b"");
    }
}
