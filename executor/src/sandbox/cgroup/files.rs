//! The controllers' files: opened once, read and written for every action.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::set::{CgroupSet, Kind, Version};
use crate::sandbox::Limits;

/// The period of a cpu quota, microseconds.
const CPU_PERIOD: u64 = 100_000;
/// Processes of the sandbox in a slot's cgroup: the zygote, and an action's init.
const OWN_PROCESSES: u64 = 2;
/// Bytes of memory that the zygote may want between two actions.
const RESERVE: u64 = 16 << 20;
/// Bytes of memory that the smallest process takes, with its page tables and what starts it.
pub(in crate::sandbox) const SMALLEST: u64 = 1 << 20;
/// Bytes that suffice for any of the small files that are read here.
const SMALL_FILE: usize = 1024;

pub(super) const fn limit_file(kind: Kind, version: Version) -> &'static str {
    match (kind, version) {
        (Kind::Memory, Version::V1) => "memory.limit_in_bytes",
        (Kind::Memory, Version::V2) => "memory.max",
        (Kind::Pids, _) => "pids.max",
        (Kind::Cpu, Version::V1) => "cpu.cfs_quota_us",
        (Kind::Cpu, Version::V2) => "cpu.max",
    }
}

/// The open cgroups of a slot.
#[derive(Debug, Default)]
pub(in crate::sandbox) struct Cgroups {
    memory: Option<Memory>,
    pids: Option<Pids>,
    cpu: Option<Cpu>,
    /// The file `cgroup.procs` of each distinct cgroup, which processes enter by it.
    entrances: Vec<File>,
    /// The limits that are set. `None` until the first action: the cgroups may carry another
    /// zygote's.
    applied: Option<Limits>,
}

/// What the cgroups saw of an action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sandbox) struct Seen {
    pub out_of_memory: bool,
    pub out_of_processes: bool,
    pub peak_memory_bytes: Option<u64>,
}

impl Cgroups {
    pub(in crate::sandbox) fn open(set: &CgroupSet) -> Result<Self, String> {
        let mut cgroups = Self::default();
        let mut entered: Vec<PathBuf> = Vec::new();
        for controller in &set.controllers {
            let (dir, version) = (&controller.dir, controller.version);
            let opened = match controller.kind {
                Kind::Memory => {
                    Memory::open(dir, version).map(|memory| cgroups.memory = Some(memory))
                }
                Kind::Pids => Pids::open(dir).map(|pids| cgroups.pids = Some(pids)),
                Kind::Cpu => Cpu::open(dir, version).map(|cpu| cgroups.cpu = Some(cpu)),
            };
            opened.map_err(|error| format!("cannot open the cgroup {}: {error}", dir.display()))?;
            if !entered.contains(dir) {
                let file = open_rw(dir, "cgroup.procs")
                    .map_err(|error| format!("{}: {error}", dir.display()))?;
                cgroups.entrances.push(file);
                entered.push(dir.clone());
            }
        }
        Ok(cgroups)
    }

    pub(in crate::sandbox) fn limits_memory(&self) -> bool {
        self.memory.is_some()
    }

    pub(in crate::sandbox) fn limits_processes(&self) -> bool {
        self.pids.is_some()
    }

    /// Sets the limits for the next action and forgets what was seen of the last. False: there is more in
    /// the cgroup already than the memory limit allows an action with all that starts it.
    pub(in crate::sandbox) fn prepare(&mut self, limits: &Limits) -> Result<bool, String> {
        let applied = self.applied.take();
        let differs =
            |get: fn(&Limits) -> Option<u64>| applied.as_ref().map(get) != Some(get(limits));
        if let Some(memory) = &mut self.memory {
            if differs(|limits| limits.memory_bytes) {
                if limits.memory_bytes.is_some_and(|bytes| !memory.has_room(bytes)) {
                    return Ok(false);
                }
                memory.limit(limits.memory_bytes).map_err(failed("set the memory limit"))?;
            }
            memory.forget().map_err(failed("read the memory cgroup"))?;
        }
        if let Some(pids) = &mut self.pids {
            if differs(|limits| limits.processes.map(u64::from)) {
                pids.limit(limits.processes).map_err(failed("set the process limit"))?;
            }
            pids.forget().map_err(failed("read the pids cgroup"))?;
        }
        if let Some(cpu) = &self.cpu
            && differs(|limits| limits.cpu_millis.map(u64::from))
        {
            cpu.limit(limits.cpu_millis).map_err(failed("set the cpu limit"))?;
        }
        self.applied = Some(limits.clone());
        Ok(true)
    }

    /// Moves the calling process in; what it starts is born inside. Not to be done for each action: the
    /// kernel may wait milliseconds for every fork on the machine to pause.
    pub(in crate::sandbox) fn enter(&self) -> io::Result<()> {
        // "0" stands for the writer.
        self.entrances.iter().try_for_each(|file| put(file, "0"))
    }

    /// Lifts the memory limit after an action that came near it: the files it left still count, and the
    /// zygote must not be the one to run out. The next action sets its own.
    pub(in crate::sandbox) fn relieve(&mut self) {
        let limit = self.applied.as_ref().and_then(|limits| limits.memory_bytes);
        let (Some(limit), Some(memory)) = (limit, &self.memory) else { return };
        if memory.peak().is_none_or(|peak| peak.saturating_add(RESERVE) > limit) {
            // If it fails, the limit stays as it was.
            let _ = memory.limit(None);
            self.applied = None;
        }
    }

    /// What the cgroups saw since the last call of this, or since the start.
    pub(in crate::sandbox) fn look(&mut self) -> Seen {
        let seen = self.seen();
        if let Some(memory) = &mut self.memory {
            memory.kills_before = memory.kills();
        }
        if let Some(pids) = &mut self.pids {
            pids.refusals_before = pids.refusals();
        }
        seen
    }

    pub(in crate::sandbox) fn seen(&self) -> Seen {
        Seen {
            out_of_memory: self
                .memory
                .as_ref()
                .is_some_and(|memory| memory.kills() > memory.kills_before),
            out_of_processes: self
                .pids
                .as_ref()
                .is_some_and(|pids| pids.refusals() > pids.refusals_before),
            peak_memory_bytes: self.memory.as_ref().and_then(Memory::peak),
        }
    }
}

#[derive(Debug)]
struct Memory {
    version: Version,
    limit: File,
    /// Version 1: memory and swap together; version 2: swap alone. Missing without swap accounting.
    swap: Option<File>,
    /// Missing in version 2 before Linux 5.19, and not to be reset before 6.12.
    peak: Option<File>,
    usage: Option<File>,
    events: File,
    force_empty: Option<File>,
    kills_before: u64,
}

impl Memory {
    fn open(dir: &Path, version: Version) -> io::Result<Self> {
        let (limit, swap, peak, usage, events) = match version {
            Version::V1 => (
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                "memory.max_usage_in_bytes",
                "memory.usage_in_bytes",
                "memory.oom_control",
            ),
            Version::V2 => {
                ("memory.max", "memory.swap.max", "memory.peak", "memory.current", "memory.events")
            }
        };
        Ok(Self {
            version,
            limit: open_rw(dir, limit)?,
            swap: open_rw(dir, swap).ok(),
            peak: open_rw(dir, peak).ok(),
            usage: File::open(dir.join(usage)).ok(),
            events: File::open(dir.join(events))?,
            force_empty: open_rw(dir, "memory.force_empty").ok(),
            kills_before: 0,
        })
    }

    /// Whether so many bytes are enough for what is there and for a process more: below that a limit
    /// would be refused, or be the end of the zygote.
    fn has_room(&self, bytes: u64) -> bool {
        let fits = || {
            let text = self.usage.as_ref().and_then(|file| get(file).ok());
            let usage = text.and_then(|text| text.trim().parse::<u64>().ok());
            usage.is_none_or(|usage| usage.saturating_add(SMALLEST) <= bytes)
        };
        // Caches of earlier actions are given up for it.
        fits() || (self.force_empty.as_ref().is_some_and(|file| put(file, "0").is_ok()) && fits())
    }

    fn limit(&self, bytes: Option<u64>) -> io::Result<()> {
        match self.version {
            Version::V1 => {
                // The sum's limit can never be below the memory's: open it first.
                self.set_swap("-1")?;
                let value = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
                if let Err(error) = put(&self.limit, &value) {
                    // Caches of earlier actions may stand above the new limit.
                    let Some(force_empty) = &self.force_empty else { return Err(error) };
                    put(force_empty, "0")?;
                    put(&self.limit, &value)?;
                }
                self.set_swap(&value)
            }
            Version::V2 => {
                put(
                    &self.limit,
                    &bytes.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string()),
                )?;
                self.set_swap(if bytes.is_some() { "0" } else { "max" })
            }
        }
    }

    fn set_swap(&self, value: &str) -> io::Result<()> {
        self.swap.as_ref().map_or(Ok(()), |file| put(file, value))
    }

    fn forget(&mut self) -> io::Result<()> {
        if let Some(peak) = &self.peak
            && put(peak, "0").is_err()
        {
            // It cannot be reset here, so it would tell of earlier actions.
            self.peak = None;
        }
        self.kills_before = self.kills();
        Ok(())
    }

    fn kills(&self) -> u64 {
        get(&self.events).ok().and_then(|text| field(&text, "oom_kill")).unwrap_or(0)
    }

    fn peak(&self) -> Option<u64> {
        get(self.peak.as_ref()?).ok()?.trim().parse().ok()
    }
}

#[derive(Debug)]
struct Pids {
    limit: File,
    events: File,
    refusals_before: u64,
}

impl Pids {
    fn open(dir: &Path) -> io::Result<Self> {
        let events = File::open(dir.join("pids.events"))?;
        Ok(Self { limit: open_rw(dir, "pids.max")?, events, refusals_before: 0 })
    }

    fn limit(&self, processes: Option<u32>) -> io::Result<()> {
        let limit = processes.map(|count| u64::from(count) + OWN_PROCESSES);
        put(&self.limit, &limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string()))
    }

    fn forget(&mut self) -> io::Result<()> {
        self.refusals_before = self.refusals();
        Ok(())
    }

    fn refusals(&self) -> u64 {
        get(&self.events).ok().and_then(|text| field(&text, "max")).unwrap_or(0)
    }
}

#[derive(Debug)]
struct Cpu {
    version: Version,
    limit: File,
    period: Option<File>,
}

impl Cpu {
    fn open(dir: &Path, version: Version) -> io::Result<Self> {
        let limit = open_rw(dir, limit_file(Kind::Cpu, version))?;
        Ok(Self { version, limit, period: open_rw(dir, "cpu.cfs_period_us").ok() })
    }

    fn limit(&self, millis: Option<u32>) -> io::Result<()> {
        // The kernel refuses less than a millisecond in a period.
        let quota = millis.map(|millis| (u64::from(millis) * CPU_PERIOD / 1000).max(1000));
        match self.version {
            Version::V1 => {
                if let Some(period) = &self.period {
                    put(period, &CPU_PERIOD.to_string())?;
                }
                put(&self.limit, &quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string()))
            }
            Version::V2 => {
                let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                put(&self.limit, &format!("{quota} {CPU_PERIOD}"))
            }
        }
    }
}

fn open_rw(dir: &Path, name: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(dir.join(name))
}

fn put(file: &File, value: &str) -> io::Result<()> {
    file.write_at(value.as_bytes(), 0).map(drop)
}

fn get(file: &File) -> io::Result<String> {
    let mut buffer = [0; SMALL_FILE];
    let count = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// The number behind `name` in lines of `name number`.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("cannot {action} of the slot's cgroup: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::cgroup::Controller;

    /// A directory with the files that a version 2 cgroup shows: what a write leaves is what the kernel would read.
    fn version_2() -> (tempfile::TempDir, CgroupSet) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["memory.max", "memory.swap.max", "memory.peak", "pids.max", "cpu.max"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        std::fs::write(
            dir.path().join("memory.events"),
            "low 0\noom 3\noom_kill 2\noom_group_kill 1\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("pids.events"), "max 5\n").unwrap();
        let controllers = Kind::ALL
            .map(|kind| Controller { kind, version: Version::V2, dir: dir.path().to_owned() })
            .to_vec();
        (dir, CgroupSet { controllers })
    }

    #[test]
    fn version_2_limits_are_written_in_its_own_words() {
        let (dir, set) = version_2();
        let mut cgroups = Cgroups::open(&set).unwrap();
        assert_eq!(cgroups.entrances.len(), 1, "one directory is entered once");
        let limits = Limits {
            memory_bytes: Some(1 << 20),
            processes: Some(10),
            cpu_millis: Some(1500),
            ..Limits::default()
        };
        cgroups.prepare(&limits).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("memory.max"), "1048576");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("pids.max"), "12");
        assert_eq!(read("cpu.max"), "150000 100000");
    }

    #[test]
    fn only_what_happened_since_the_start_counts() {
        let (dir, set) = version_2();
        let mut cgroups = Cgroups::open(&set).unwrap();
        cgroups.prepare(&Limits::default()).unwrap();
        assert_eq!((cgroups.seen().out_of_memory, cgroups.seen().out_of_processes), (false, false));
        std::fs::write(dir.path().join("memory.events"), "oom_kill 3\n").unwrap();
        std::fs::write(dir.path().join("pids.events"), "max 6\n").unwrap();
        assert_eq!((cgroups.seen().out_of_memory, cgroups.seen().out_of_processes), (true, true));
        assert!(cgroups.look().out_of_memory);
        let seen = cgroups.look();
        assert_eq!((seen.out_of_memory, seen.out_of_processes), (false, false));
    }
}
