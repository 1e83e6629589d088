//! Programs that are run: with an end to their time and their output, and all that they started gone with them; also where this
//! process is killed, by a [`guard`] beside each.

pub mod guard;

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use crate::counts::duration;
use guard::Guard;

/// After its end a program's children may hold its streams open for so long.
const LINGER: Duration = Duration::from_millis(500);
/// Variables that are handed on to programs that see no others.
const KEPT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("{program} cannot be started")]
    Start {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{program} took longer than {}", duration(*.limit))]
    Slow { program: String, limit: Duration, printed: Vec<u8> },
    #[error("{program} printed more than {most} bytes")]
    Loud { program: String, most: usize },
    #[error("{program} ended with {status}: {said}")]
    Failed { program: String, status: ExitStatus, said: String },
}

/// What is kept of a stream.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// All of it, and more than so much is an error.
    All(usize),
    /// The last bytes.
    End(usize),
}

/// How a program ended, and what was kept of its output.
#[derive(Debug)]
pub struct ProcessOutput {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A process group that ends when this is dropped: all that is left of it.
struct Group {
    /// Who leads it, and ends it in that case.
    guard: Option<Guard>,
    /// Whose number it has where nobody guards it.
    program: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let (None, Some(group)) = (&self.guard, self.program) {
            // That it is gone already is as well.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// A program with its arguments, as an operator names it. Of the environment it sees what every program needs, and the
/// variables that `env` names.
pub fn bare(argv: &[String], env: &[String]) -> Command {
    let (program, arguments) =
        argv.split_first().map_or(("", &[][..]), |(it, rest)| (it.as_str(), rest));
    let mut command = Command::new(program);
    let kept = KEPT.iter().copied().chain(env.iter().map(String::as_str));
    let kept = kept.filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.args(arguments).env_clear().envs(kept);
    command
}

/// A program that runs, with all that it starts.
struct Started {
    program: String,
    child: Child,
    group: Group,
}

/// Starts a program in a process group of its own, with its output to be read.
fn start(command: &mut Command, guarded: bool) -> Result<Started, ProcessError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = |source| ProcessError::Start { program: program.clone(), source };
    let guard = if guarded { Guard::start().map_err(failed)? } else { None };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(guard::joins(guard.as_ref())).kill_on_drop(true);
    let child = command.spawn().map_err(failed)?;
    let id = child.id().and_then(|it| i32::try_from(it).ok()).and_then(Pid::from_raw);
    Ok(Started { program, child, group: Group { guard, program: id } })
}

async fn feed(stdin: Option<ChildStdin>, input: Option<&[u8]>) {
    if let (Some(mut stdin), Some(input)) = (stdin, input) {
        // Who does not read it says so by its exit code.
        stdin.write_all(input).await.ok();
    }
}

/// Runs a program in a process group of its own. `input` is written to its stdin; without, it has the stdin that
/// the command says. Whoever drops the future ends the program, and so does whoever kills this process.
pub async fn run(
    command: Command,
    input: Option<&[u8]>,
    limit: Duration,
    keep: Keep,
) -> Result<ProcessOutput, ProcessError> {
    finish(command, input, (limit, keep), true).await
}

/// The same without a guard: for programs that take moments, of which there are many (most of git's commands), and that may end by
/// themselves where this process is killed.
pub async fn run_brief(
    command: Command,
    input: Option<&[u8]>,
    limit: Duration,
    keep: Keep,
) -> Result<ProcessOutput, ProcessError> {
    finish(command, input, (limit, keep), false).await
}

async fn finish(
    mut command: Command,
    input: Option<&[u8]>,
    (limit, keep): (Duration, Keep),
    guarded: bool,
) -> Result<ProcessOutput, ProcessError> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let Started { program, mut child, group } = start(&mut command, guarded)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feeding = feed(child.stdin.take(), input);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut loud = false;
    let work = async {
        let reading = async {
            tokio::join!(read(stdout, keep, &mut out), read(stderr, Keep::End(64 << 10), &mut err))
        };
        tokio::pin!(reading);
        let waiting = async { tokio::join!(child.wait(), feeding).0 };
        tokio::pin!(waiting);
        tokio::select! {
            (fits, _) = &mut reading => {
                loud = !fits;
                if loud { None } else { Some(waiting.await) }
            }
            status = &mut waiting => {
                if let Ok((fits, _)) = tokio::time::timeout(LINGER, &mut reading).await {
                    loud = !fits;
                }
                Some(status)
            }
        }
    };
    let ended = tokio::time::timeout(limit, work).await;
    drop(group);
    if loud {
        let (Keep::All(most) | Keep::End(most)) = keep;
        return Err(ProcessError::Loud { program, most });
    }
    match ended {
        Ok(Some(Ok(status))) => Ok(ProcessOutput { status, stdout: out, stderr: err }),
        Ok(Some(Err(source))) => Err(ProcessError::Start { program, source }),
        Ok(None) | Err(_) => Err(ProcessError::Slow { program, limit, printed: out }),
    }
}

/// Called with each piece of a program's output as it comes. The first argument: whether the piece is from standard
/// error.
pub type OutputListener<'a> = dyn Fn(bool, &[u8]) + Send + Sync + 'a;

/// Runs a program as [`run`] does, but hands its output to `told` and keeps none of it.
pub async fn run_told(
    mut command: Command,
    input: Option<&[u8]>,
    limit: Duration,
    told: &OutputListener<'_>,
) -> Result<ExitStatus, ProcessError> {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let Started { program, mut child, group } = start(&mut command, true)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feeding = feed(child.stdin.take(), input);
    let work = async {
        let reading = async { tokio::join!(pass(stdout, false, told), pass(stderr, true, told)) };
        let waiting = async { tokio::join!(child.wait(), feeding).0 };
        tokio::pin!(reading, waiting);
        tokio::select! {
            _ = &mut reading => waiting.await,
            status = &mut waiting => {
                // Children that hold its streams open for longer are not listened to.
                let _ = tokio::time::timeout(LINGER, &mut reading).await;
                status
            }
        }
    };
    let ended = tokio::time::timeout(limit, work).await;
    drop(group);
    match ended {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(source)) => Err(ProcessError::Start { program, source }),
        Err(_) => Err(ProcessError::Slow { program, limit, printed: Vec::new() }),
    }
}

async fn pass(stream: Option<impl AsyncRead + Unpin>, stderr: bool, told: &OutputListener<'_>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        told(stderr, buffer.get(..count).unwrap_or_default());
    }
}

/// The same for whoever may wait: on a thread of its own, so that it does not matter on which this is called.
pub fn run_blocking(
    command: Command,
    input: Option<&[u8]>,
    limit: Duration,
    keep: Keep,
) -> Result<ProcessOutput, ProcessError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let start = |source| ProcessError::Start { program, source };
    let ran = std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok::<_, io::Error>(runtime.block_on(run(command, input, limit, keep)))
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
    });
    ran.map_err(start)?
}

/// Answers whether what was read fits.
async fn read(stream: Option<impl AsyncRead + Unpin>, keep: Keep, into: &mut Vec<u8>) -> bool {
    let Some(mut stream) = stream else { return true };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = stream.read(&mut buffer).await else { return true };
        into.extend_from_slice(buffer.get(..count).unwrap_or_default());
        match keep {
            Keep::All(most) if into.len() > most => return false,
            Keep::End(most) if into.len() > 2 * most => drop(into.drain(..into.len() - most)),
            _ => {}
        }
    }
}

/// The last of what a program said, for people.
pub fn words(of: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(of);
    let text = text.trim();
    let from = text.len().saturating_sub(most);
    text.get(text.ceil_char_boundary(from)..).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn what_it_reads_and_prints_is_bounded() {
        let (short, minute) = (Duration::from_millis(200), Duration::from_secs(60));
        let ran = run_blocking(sh("cat; echo no >&2; exit 3"), Some(b"in"), minute, Keep::All(2));
        let ran = ran.unwrap();
        assert_eq!((ran.stdout.as_slice(), ran.stderr.as_slice()), (&b"in"[..], &b"no\n"[..]));
        assert_eq!(ran.status.code(), Some(3));
        let loud = run_blocking(sh("yes"), None, minute, Keep::All(10_000));
        assert!(matches!(loud, Err(ProcessError::Loud { most: 10_000, .. })), "{loud:?}");
        let end = run_blocking(sh("seq 1 100000"), None, minute, Keep::End(100)).unwrap();
        assert!(end.stdout.ends_with(b"99999\n100000\n") && end.stdout.len() <= 200);
        let slow = run_blocking(sh("sleep 1000"), None, short, Keep::All(100));
        assert!(matches!(slow, Err(ProcessError::Slow { .. })), "{slow:?}");
        let none = run_blocking(Command::new("/nowhere/at-all"), None, minute, Keep::All(1));
        assert!(matches!(none, Err(ProcessError::Start { .. })), "{none:?}");
    }

    #[tokio::test]
    async fn it_may_be_called_where_nothing_may_block() {
        let ran = run_blocking(sh("true"), None, Duration::from_secs(60), Keep::All(1)).unwrap();
        assert!(ran.status.success());
    }

    #[tokio::test]
    async fn what_it_prints_is_told_as_it_comes_and_nothing_of_it_stays() {
        use std::sync::Mutex;
        let minute = Duration::from_secs(60);
        let heard = Mutex::new((Vec::new(), Vec::new()));
        let told = |stderr: bool, data: &[u8]| {
            let mut heard = heard.lock().unwrap();
            let stream = if stderr { &mut heard.1 } else { &mut heard.0 };
            stream.extend_from_slice(data);
        };
        let script = sh("cat; echo no >&2; sleep 600 & exit 3");
        let status = run_told(script, Some(b"in"), minute, &told).await.unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(*heard.lock().unwrap(), (b"in".to_vec(), b"no\n".to_vec()));
        let slow = run_told(sh("sleep 600"), None, Duration::from_millis(100), &told).await;
        assert!(matches!(slow, Err(ProcessError::Slow { .. })), "{slow:?}");
    }

    #[test]
    fn the_end_of_words_is_cut_between_characters() {
        assert_eq!(words("  ab\u{e9}\n".as_bytes(), 1), "");
        assert_eq!(words("  ab\u{e9}\n".as_bytes(), 2), "\u{e9}");
    }
}
