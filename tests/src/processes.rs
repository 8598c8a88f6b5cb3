//! Memory and CPU time of the processes of a network namespace, and their CPUs.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, time::Duration};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};

use crate::lab::Namespace;

/// Helpers of an overlay root, which are not part of a server.
const HARNESS: [&str; 5] = ["unshare", "nsenter", "chroot", "sh", "cat"];

/// The processes in a namespace, without those of the tests.
#[derive(Debug, Default)]
pub struct Processes {
    /// Number of processes.
    pub count: usize,
    /// Sum of their proportional set sizes.
    pub pss_kib: u64,
    /// Processor time of all that there have been, in clock ticks; see
    /// [`ticks_per_second`].
    pub ticks: u64,
    /// Number of processes by name.
    pub names: BTreeMap<String, usize>,
}

impl Processes {
    /// Reads each process. One that ends meanwhile does not count.
    ///
    /// # Panics
    /// Without /proc.
    pub fn of(namespace: &Namespace) -> Self {
        let file = format!("/run/netns/{}", namespace.name());
        let inode = fs::metadata(&file).expect("the namespace is there").ino();
        let mut found = Self::default();
        for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|of| of.ino() == inode) {
                found.add(pid);
            }
        }
        found
    }

    fn add(&mut self, pid: u32) {
        let Some((name, ticks)) = ticks(pid) else {
            return;
        };
        if HARNESS.contains(&name.as_str()) {
            return;
        }
        if let Some(pss) = pss_kib(pid) {
            self.count += 1;
            self.pss_kib += pss;
            self.ticks += ticks;
            *self.names.entry(name).or_default() += 1;
        }
    }
}

/// A process's name, and its ticks with those of its children that have ended.
pub fn ticks(pid: u32) -> Option<(String, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, fields) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // utime, stime, cutime, cstime are the fields 14 to 17 of all, from 1.
    let fields = fields.split_whitespace().skip(14 - 3).take(4);
    let ticks = fields.map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Some((name.to_owned(), ticks))
}

/// A process's proportional set size.
pub fn pss_kib(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Clock ticks in a second of processor time.
pub fn ticks_per_second() -> f64 {
    // SAFETY: it takes no pointer.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// Raises the limit of descriptors for this process and its children, and returns how many
/// of `wanted` it allows.
///
/// # Panics
/// When the kernel does not report the limit.
pub fn raise_descriptors(wanted: usize) -> usize {
    let needed = wanted as u64;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let limit = if hard < needed && setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok() {
        needed
    } else {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
        hard
    };
    limit.min(needed) as usize
}

/// An end of a lab, with a CPU of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Where the server is.
    Host,
    /// Where its clients are.
    Client,
}

impl End {
    /// The first and the second that the program may use.
    ///
    /// # Panics
    /// When there is only one.
    pub fn processor(self) -> usize {
        // The main thread's: others may have one processor already.
        let allowed = sched_getaffinity(Pid::this()).expect("an affinity");
        let allowed = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
        let mut allowed = allowed.skip(if self == Self::Host { 0 } else { 1 });
        allowed.next().expect("two processors, one for each end")
    }

    /// Keeps the calling thread, and what it starts, on its processor.
    ///
    /// # Panics
    /// When there is none.
    pub fn stay(self) {
        let mut set = CpuSet::new();
        set.set(self.processor()).expect("a processor");
        sched_setaffinity(Pid::from_raw(0), &set).expect("a processor");
    }
}

/// How long the calling thread has waited for its processor, while others ran.
pub fn waited() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split(' ').nth(1).and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}
