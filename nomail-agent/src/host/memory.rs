//! Returning unused memory to the kernel.

/// Returns freed memory from the allocator to the kernel. glibc keeps what lies below memory in
/// use: megabytes after a start, of the kernel's type information (BTF) and of the program's
/// object file, both read once. Does nothing with another allocator.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, in any thread, and does not touch
    // memory in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
