//! What the agent's process takes: processor time, memory, descriptors. The files of /proc are
//! opened before the sandbox, which lets no file of it be opened.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::{
    dir::Dir,
    fcntl::OFlag,
    sys::{
        resource::{Resource, getrlimit},
        stat::{Mode, fstat},
    },
    time::{ClockId, clock_gettime},
};

/// Open files, and what does not change.
#[derive(Debug)]
pub(super) struct Process {
    files: Mutex<Files>,
    start_time_secs: f64,
    descriptors_max: u64,
}

#[derive(Debug)]
struct Files {
    memory: File,
    descriptors: Dir,
}

/// What the process takes at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessMetrics {
    /// Processor time of all threads.
    pub(super) cpu: Duration,
    /// Bytes of memory in use.
    pub(super) resident_memory: u64,
    /// Bytes of memory mapped.
    pub(super) virtual_memory: u64,
    /// Open descriptors.
    pub(super) descriptors: u64,
    /// Most descriptors allowed.
    pub(super) descriptors_max: u64,
    /// When the process was started, in seconds since 1970.
    pub(super) start_time_secs: f64,
}

impl Process {
    /// Opens the files, before the sandbox and with the final limit of descriptors.
    ///
    /// # Errors
    /// Without /proc.
    pub(super) fn open() -> io::Result<Self> {
        let stat = procfs::process::Process::myself()
            .and_then(|process| process.stat())
            .map_err(io::Error::other)?;
        let booted = procfs::boot_time_secs().map_err(io::Error::other)?;
        let ticks = procfs::ticks_per_second() as f64;
        let descriptors = Dir::open(
            "/proc/self/fd",
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        Ok(Self {
            files: Mutex::new(Files {
                memory: File::open("/proc/self/statm")?,
                descriptors,
            }),
            start_time_secs: booted as f64 + stat.starttime as f64 / ticks,
            descriptors_max: getrlimit(Resource::RLIMIT_NOFILE)?.0,
        })
    }

    /// The values of now.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub(super) fn metrics(&self) -> io::Result<ProcessMetrics> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        files.memory.rewind()?;
        files.memory.read_to_string(&mut text)?;
        let mut pages = text.split(' ').map_while(|pages| pages.parse::<u64>().ok());
        let (Some(mapped), Some(resident)) = (pages.next(), pages.next()) else {
            return Err(io::Error::other("/proc/self/statm has no numbers"));
        };
        let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        Ok(ProcessMetrics {
            cpu: cpu.into(),
            resident_memory: resident * procfs::page_size(),
            virtual_memory: mapped * procfs::page_size(),
            descriptors: count(&mut files.descriptors)?,
            descriptors_max: self.descriptors_max,
            start_time_secs: self.start_time_secs,
        })
    }
}

/// The number of descriptors. Linux 6.2 and later have it as the size of the folder; before,
/// the names are counted, as many as there are connections.
fn count(descriptors: &mut Dir) -> io::Result<u64> {
    let size = fstat(&*descriptors)?.st_size;
    if size > 0 {
        return Ok(size as u64);
    }
    let mut count = 0;
    for entry in descriptors.iter() {
        count += u64::from(!entry?.file_name().to_bytes().starts_with(b"."));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn the_values_are_those_of_this_process() {
        let process = Process::open().unwrap();
        let before = process.metrics().unwrap();
        let files: Vec<_> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
        let after = process.metrics().unwrap();
        assert!(after.descriptors >= 100, "{after:?}");
        drop(files);
        assert!(before.resident_memory > 1 << 20 && before.virtual_memory > before.resident_memory);
        assert!(before.descriptors_max >= after.descriptors);
        assert!(before.cpu <= after.cpu && after.cpu > Duration::ZERO);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - before.start_time_secs;
        assert!((-2.0..600.0).contains(&age), "{age}");
    }

    #[test]
    fn descriptors_can_be_counted_again() {
        let mut directory = Dir::open("/proc/self/fd", OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        let counted = |directory: &mut Dir| directory.iter().count();
        assert!(counted(&mut directory) > 3);
        assert!(counted(&mut directory) > 3, "rewound");
    }
}
