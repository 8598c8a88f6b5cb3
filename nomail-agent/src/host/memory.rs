//! Memory that is no longer used, given back to the host.

/// Gives back to the kernel what the allocator keeps of memory that was used and freed.
/// glibc keeps what lies below something that is still used: after a start megabytes,
/// of the kernel's type information (BTF) and of the program's object file, both read
/// once. Where the allocator is another, nothing happens.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time, in any thread, and changes
    // nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
