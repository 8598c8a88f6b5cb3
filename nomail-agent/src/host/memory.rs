//! Returning unused memory to the kernel.

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
