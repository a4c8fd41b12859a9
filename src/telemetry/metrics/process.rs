//! This process as the kernel sees it: the `process_*` families every Prometheus client has.

use std::fs;
use std::io;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What /proc says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessStats {
    /// User and system time of all threads.
    pub cpu_seconds: f64,
    /// Resident set size.
    pub resident_bytes: u64,
    /// Virtual memory size.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// When the process started, in seconds since 1970.
    pub start_time_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The soft limit of file descriptors; `None` = unlimited.
    pub max_fds: Option<u64>,
}

// === impl ProcessStats ===

impl ProcessStats {
    /// Reads /proc.
    ///
    /// # Errors
    /// /proc is not mounted, or not as proc(5) has it.
    pub fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let system = fs::read_to_string("/proc/stat")?;
        let mut stats = Self::parse(&stat, &system, clock_ticks_per_second(), page_size() as u64)
            .ok_or(io::ErrorKind::InvalidData)?;
        stats.open_fds = open_fds()?;
        stats.max_fds = getrlimit(Resource::Nofile).current;
        Ok(stats)
    }

    /// The fields of proc_pid_stat(5) and the boot time of proc_stat(5).
    fn parse(stat: &str, system: &str, ticks: u64, page: u64) -> Option<Self> {
        // The second field is the name, in parentheses, and may hold any character.
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `rest` begins with field 3.
        let field = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        let boot = system
            .lines()
            .find_map(|line| line.strip_prefix("btime "))?;
        let boot: u64 = boot.trim().parse().ok()?;
        let seconds = |n: u64| n as f64 / ticks.max(1) as f64;
        Some(Self {
            cpu_seconds: seconds(field(14)? + field(15)?),
            threads: field(20)?,
            start_time_seconds: boot as f64 + seconds(field(22)?),
            virtual_bytes: field(23)?,
            resident_bytes: field(24)?.checked_mul(page)?,
            open_fds: 0,
            max_fds: None,
        })
    }
}

/// Since Linux 6.2 the size of the directory is the count; before, it is 0 and must be walked.
fn open_fds() -> io::Result<u64> {
    match fs::metadata("/proc/self/fd")?.len() {
        // One entry is the walk's own descriptor.
        0 => Ok((fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1)),
        n => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_line_with_a_hostile_name() {
        let stat =
            "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 150 13 14 15 16 7 18 3000 8192000 100 1";
        let system = "cpu 1 2 3\nbtime 1700000000\nprocesses 9\n";
        let stats = ProcessStats::parse(stat, system, 100, 4096).unwrap();
        assert_eq!(
            stats,
            ProcessStats {
                cpu_seconds: 4.0,
                resident_bytes: 409_600,
                virtual_bytes: 8_192_000,
                threads: 7,
                start_time_seconds: 1_700_000_030.0,
                open_fds: 0,
                max_fds: None,
            }
        );
        for broken in [
            "",
            "42",
            "42 (a) S 1",
            "42 (a) S x x x x x x x x x x x x x x x x x x x x x",
        ] {
            assert_eq!(ProcessStats::parse(broken, system, 100, 4096), None);
        }
        assert_eq!(ProcessStats::parse(stat, "", 100, 4096), None);
    }

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        let stats = ProcessStats::read().unwrap();
        assert!(stats.resident_bytes > 100_000);
        assert!(stats.virtual_bytes >= stats.resident_bytes);
        assert!(stats.threads >= 1);
        assert!(stats.open_fds >= 3);
        assert!(stats.start_time_seconds > 1.7e9);
    }
}
