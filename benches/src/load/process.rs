//! Processor time and memory of processes on this machine, from /proc.

use std::fs;
use std::io;
use std::time::Duration;

/// Kernel clock ticks a second, the unit of /proc/PID/stat: 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;
/// Index of the parent's number in /proc/PID/stat; as with the indices below, fields after the
/// command count, from 0 at the state.
const PARENT: usize = 1;
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const REAPED_USER_TIME: usize = 13;
const REAPED_SYSTEM_TIME: usize = 14;

/// Counts the processor time that a process uses from now on.
#[derive(Debug, Clone, Copy)]
pub struct CpuClock {
    pid: u32,
    tree: bool,
    start: f64,
}

impl CpuClock {
    /// Starts a clock for one process with all its threads.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::start(pid, false)
    }

    /// Starts a clock for a process with its descendants, living and waited for.
    pub fn of_tree(pid: u32) -> io::Result<Self> {
        Self::start(pid, true)
    }

    fn start(pid: u32, tree: bool) -> io::Result<Self> {
        Ok(Self { pid, tree, start: used(pid, tree)? })
    }

    pub fn elapsed(&self) -> io::Result<Duration> {
        let used = used(self.pid, self.tree)? - self.start;
        Ok(Duration::from_secs_f64(used.max(0.0)))
    }
}

/// Seconds of processor time that the process has used by now; with `tree` its descendants as well.
fn used(pid: u32, tree: bool) -> io::Result<f64> {
    if !tree {
        return Ok(seconds(&stat(pid)?, &[USER_TIME, SYSTEM_TIME]));
    }
    let all = [USER_TIME, SYSTEM_TIME, REAPED_USER_TIME, REAPED_SYSTEM_TIME];
    let members = tree_of(pid)?;
    Ok(members.iter().filter_map(|pid| stat(*pid).ok()).map(|stat| seconds(&stat, &all)).sum())
}

fn seconds(stat: &[u64], fields: &[usize]) -> f64 {
    let ticks: u64 = fields.iter().filter_map(|field| stat.get(*field)).sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// The fields of /proc/PID/stat after the command; those that are no number are 0.
fn stat(pid: u32) -> io::Result<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_command = text.rsplit(") ").next().unwrap_or_default();
    Ok(after_command.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
}

/// The process and its living descendants.
fn tree_of(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if let Ok(stat) = stat(pid) {
            parents.push((pid, stat.get(PARENT).copied().unwrap_or(0)));
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(parents.iter().filter(|(_, p)| *p == u64::from(parent)).map(|(pid, _)| pid));
        next += 1;
    }
    Ok(tree)
}

#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Memory {
    /// Resident bytes of the process itself.
    pub resident: u64,
    /// Proportional resident bytes of the process and its descendants.
    pub tree: u64,
}

pub fn memory_of_tree(pid: u32) -> io::Result<Memory> {
    let field = |file: &str, name: &str| -> io::Result<u64> {
        let text = fs::read_to_string(file)?;
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        Ok(kib.unwrap_or(0) * 1024)
    };
    let resident = field(&format!("/proc/{pid}/status"), "VmRSS:")?;
    let tree = tree_of(pid)?
        .iter()
        .filter_map(|pid| field(&format!("/proc/{pid}/smaps_rollup"), "Pss:").ok())
        .sum();
    Ok(Memory { resident, tree })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_uses_processor_time_and_memory() {
        let pid = std::process::id();
        let clock = CpuClock::of_tree(pid).unwrap();
        let mut x = 1_u64;
        let start = std::time::Instant::now();
        // On a busy machine it takes a while until this process had its time.
        while clock.elapsed().unwrap() < Duration::from_millis(20) {
            assert!(start.elapsed() < Duration::from_secs(60), "its processor time stands still");
            for _ in 0..100_000 {
                x = std::hint::black_box(x.wrapping_mul(3));
            }
        }
        assert!(memory_of_tree(pid).unwrap().resident > 1 << 20);
    }

    #[test]
    fn a_child_belongs_to_the_tree() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let tree = tree_of(std::process::id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(tree.contains(&child.id()));
    }
}
