//! Programs that the operator's policy names, and which are asked about a release. They run as the server's user, without what is
//! in its environment, and no longer than they may.

use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use kiln_deploy::promotion::{Check, Known, RunCheck};
use kiln_net::process::{Keep, ProcessError, bare, run, words};

/// Bytes of what a program prints that are repeated: the last ones, on one line. All of it is read, so that it does not block.
const MAX_SAID: usize = 1_000;

pub struct Programs;

#[async_trait]
impl RunCheck for Programs {
    async fn run(&self, check: &Check, release: &Known, environment: &str) -> Result<(), String> {
        if check.command.is_empty() {
            return Err("no program is named".to_owned());
        }
        let mut command = bare(&check.command, &[]);
        command
            .env("KILN_RELEASE", release.name.to_string())
            .env("KILN_DIGEST", release.digest.to_string())
            .env("KILN_ENVIRONMENT", environment)
            .env("KILN_INVOCATION", &release.invocation)
            .stdin(Stdio::null());
        let limit = Duration::from_secs(check.timeout);
        let ran = match run(command, None, limit, Keep::End(MAX_SAID)).await {
            Ok(ran) => ran,
            Err(ProcessError::Slow { .. }) => {
                return Err(format!("it took more than {} s and was ended", check.timeout));
            }
            Err(error) => return Err(kiln_net::causes::chain(&error)),
        };
        if ran.status.success() {
            return Ok(());
        }
        let said = words(&ran.stderr, MAX_SAID);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(if said.is_empty() {
            ran.status.to_string()
        } else {
            format!("{}: {said}", ran.status)
        })
    }
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
        assert!(ran(&["/nowhere/at-all"], 60).await.unwrap_err().contains("cannot be started"));
        // Kiln does not keep what a check prints to stderr, and however much that is, it does not hold the
        // check up.
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
