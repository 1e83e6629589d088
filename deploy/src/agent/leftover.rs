//! The process that an agent has started, noted on disk: one that was killed leaves it behind, and the next one ends it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use super::disk::{read_if_there, remove_if_there, write_whole};
use crate::json;

/// Bytes of the note.
const MAX_NOTE: usize = 4 << 10;
/// The time between two looks whether the process is gone: it is nobody's child here, so nothing tells.
const LOOK: Duration = Duration::from_millis(20);
/// How long a process that was killed may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Names a process. Its number may be given out again; the number together with the time of the start is not.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    pid: i32,
    /// When the process started, as `/proc/PID/stat` says it: in ticks since the boot that `boot` names.
    started: String,
    boot: String,
}

pub struct Leftover {
    path: PathBuf,
}

impl Leftover {
    pub fn new(root: &Path) -> Self {
        Self { path: root.join("process.json") }
    }

    pub fn note(&self, pid: Pid) -> io::Result<()> {
        let pid = pid.as_raw_nonzero().get();
        let started = started(pid).ok_or(io::ErrorKind::NotFound)?;
        let note = Note { pid, started, boot: boot() };
        write_whole(&self.path, &json::write(&note).map_err(io::Error::other)?)
    }

    /// Ends the process that is noted, if it is still there.
    pub fn end(&self, grace: Duration) -> io::Result<()> {
        let Some(data) = read_if_there(&self.path, MAX_NOTE)? else { return Ok(()) };
        // What cannot be read names no process.
        let note: Option<Note> = json::read(&data, MAX_NOTE).ok();
        let note = note.filter(Note::is_there);
        if let Some((note, pid)) = note.and_then(|it| Pid::from_raw(it.pid).map(|pid| (it, pid))) {
            tracing::info!(pid = note.pid, "a program that an earlier agent left behind is ended");
            let _ = kill_process_group(pid, Signal::TERM);
            if !note.is_gone_within(grace) {
                let _ = kill_process_group(pid, Signal::KILL);
                if !note.is_gone_within(GONE_WITHIN) {
                    return Err(io::Error::other(format!("process {} does not end", note.pid)));
                }
            }
        }
        remove_if_there(&self.path)
    }
}

impl Note {
    fn is_there(&self) -> bool {
        self.boot == boot() && started(self.pid).as_ref() == Some(&self.started)
    }

    fn is_gone_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        while self.is_there() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::park_timeout(LOOK);
        }
        true
    }
}

/// When a process was started; `None`: there is none, or it has ended and nobody has asked how.
fn started(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses and may have any character.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18).map(str::to_owned)).flatten()
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
