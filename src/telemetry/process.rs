//! This process as the kernel sees it.

use std::fs;

/// Ticks a second in `/proc/*/stat`: fixed in Linux's interface with programs.
const TICKS: f64 = 100.0;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessStats {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub threads: u64,
    pub open_fds: u64,
    pub max_fds: u64,
    /// When the process began, in seconds since the Unix epoch.
    pub start_seconds: f64,
}

impl ProcessStats {
    /// Reads the figures of this process from `/proc`; a figure that cannot be read is zero.
    pub fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        Self {
            // One of them is the directory that is being read.
            open_fds: fs::read_dir("/proc/self/fd")
                .map_or(0, |fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: limit.map_or(0, |(soft, _)| soft),
            ..parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/stat"))
        }
    }
}

fn parse(stat: &str, status: &str, system: &str) -> ProcessStats {
    // The program's name, the second field, may hold spaces and parentheses.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    // Numbered as in proc(5), where the first field after the name is the third.
    let ticks = |field: usize| -> f64 {
        fields.get(field - 3).and_then(|text| text.parse().ok()).unwrap_or(0.0)
    };
    let boot = number(system, "btime") as f64;
    ProcessStats {
        cpu_seconds: (ticks(14) + ticks(15)) / TICKS,
        resident_bytes: number(status, "VmRSS:") * 1024,
        virtual_bytes: number(status, "VmSize:") * 1024,
        threads: number(status, "Threads:"),
        start_seconds: boot + ticks(22) / TICKS,
        ..ProcessStats::default()
    }
}

/// The number after `name` at the start of a line.
fn number(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn fields_are_found_behind_a_strange_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1234 0 0";
        let status = "Name:\ta) b (c\nVmSize:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t9\n";
        let stats = parse(stat, status, "cpu 1 2 3\nbtime 1000\n");
        let expected = ProcessStats {
            cpu_seconds: 2.0,
            resident_bytes: 1 << 20,
            virtual_bytes: 2 << 20,
            threads: 9,
            start_seconds: 1012.34,
            ..ProcessStats::default()
        };
        assert_eq!(stats, expected);
        assert_eq!(parse("", "", ""), ProcessStats::default());
    }

    #[test]
    fn this_process_uses_memory_and_began_in_the_past() {
        let stats = ProcessStats::read();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(stats.resident_bytes > 1 << 20, "{stats:?}");
        assert!(stats.threads >= 1 && stats.open_fds >= 3, "{stats:?}");
        assert!(stats.open_fds <= stats.max_fds, "{stats:?}");
        assert!(stats.start_seconds <= now && stats.start_seconds > now - 86_400.0, "{stats:?}");
    }
}
