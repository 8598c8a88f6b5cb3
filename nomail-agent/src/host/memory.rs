//! Returning unused memory to the kernel.

use std::{fs, ops::Range};

/// Bytes of a block of memory that is returned when it is freed.
#[cfg(target_env = "gnu")]
const LARGE_BLOCK: libc::c_int = 64 << 10;

/// Returns freed memory from the allocator to the kernel. glibc keeps what lies below memory in
/// use: megabytes after a start and a reload. Does nothing with another allocator.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, in any thread, and does not touch
    // memory in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Has the allocator return each large block when it is freed. glibc raises that bound with the
/// first such block, and keeps all later ones: 12 MiB once the table of sources was read. To be
/// called before there are threads. Does nothing with another allocator.
pub fn keep_no_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers, and no other thread allocates meanwhile.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BLOCK);
    }
}

/// The code and constants of the process. A start, and an answer to a client, need much more
/// of them than what the agent does each second.
#[derive(Debug)]
pub struct FilePages(Vec<Range<usize>>);

impl FilePages {
    /// Finds them; none where that cannot be read, as in a sandbox.
    pub fn find() -> Self {
        let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        Self(unchanged_file_mappings(&maps))
    }

    /// Returns them to the kernel. Those that are used again come back from its cache, or from
    /// the file.
    pub fn give_back(&self) {
        for &Range { start, end } in &self.0 {
            // SAFETY: the pages of these mappings are those of their file: they cannot be
            // written to, and there was no private copy of one. Whoever reads them next gets
            // the same bytes.
            unsafe {
                libc::madvise(start as *mut _, end - start, libc::MADV_DONTNEED);
            }
        }
    }
}

/// The mappings of files in `maps`, as smaps(5) has them, that cannot be written to and have no
/// page that differs from the file, as those of relocated constants do.
fn unchanged_file_mappings(maps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut file = None;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-') {
            let is_read_only = words.next().is_some_and(|mode| mode.starts_with("r-"));
            let is_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
            let address = |text| usize::from_str_radix(text, 16).ok();
            let range = address(start).zip(address(end));
            file = range.filter(|_| is_read_only && is_file);
        } else if first == "Anonymous:"
            && let Some((start, end)) = file.take()
            && words.next() == Some("0")
        {
            found.push(start..end);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unchanged_pages_of_files_are_found() {
        let mapping = |line: &str, anonymous: u32| {
            format!("{line}\nSize: 8 kB\nRss: 8 kB\nAnonymous: {anonymous} kB\nVmFlags: rd\n")
        };
        let maps = [
            mapping(
                "1000-2000 r--p 00000000 fe:00 7    /usr/bin/nomail-agent",
                0,
            ),
            mapping(
                "2000-4000 r-xp 00001000 fe:00 7    /usr/bin/nomail-agent",
                0,
            ),
            mapping(
                "4000-5000 r--p 00003000 fe:00 7    /usr/bin/nomail-agent",
                4,
            ),
            mapping(
                "5000-6000 rw-p 00004000 fe:00 7    /usr/bin/nomail-agent",
                0,
            ),
            mapping("6000-7000 rw-p 00000000 00:00 0    [heap]", 0),
            mapping("7000-8000 r--p 00000000 00:00 0", 0),
            mapping("8000-9000 r-xp 00000000 00:00 0    [vdso]", 0),
            mapping("9000-a000 r--s 00000000 00:0f 9    anon_inode:bpf-map", 0),
        ];
        let found = unchanged_file_mappings(&maps.concat());
        assert_eq!(found, [0x1000..0x2000, 0x2000..0x4000]);
    }

    #[test]
    fn the_process_goes_on_without_them() {
        let text = "constants stay as they are".repeat(3);
        let pages = FilePages::find();
        assert!(pages.0.len() > 1, "{pages:?}");
        pages.give_back();
        assert_eq!(text, "constants stay as they are".repeat(3));
    }
}
