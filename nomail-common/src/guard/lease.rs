//! The lease: until when XDP may count on the agent, or on its listeners.

/// How long a program that outlives its agent goes on challenging. Short against what a
/// client waits for, long against what a flood delays the agent.
pub const LEASE_SECS: u32 = 10;
/// How long a lease is where XDP takes over when it ends
/// ([`RESPOND_FOR_LISTENERS`](super::policy::RESPOND_FOR_LISTENERS)): with the time until the
/// agent knows that its listeners no longer accept, less than a second.
pub const FALLBACK_LEASE_MILLIS: u32 = 600;
/// The longest lease in jiffies, of which there are at most 1000 in a second.
const LEASE_TICKS_MAX: u32 = LEASE_SECS * 1000;

/// Whether the lease holds, so that XDP may challenge. `until` is the word of
/// [`LEASE_MAP`](crate::abi::LEASE_MAP), 0 where the program ends with its agent anyway;
/// both are the low 32 bits of jiffies. An old lease looks like a new one again for
/// [`LEASE_SECS`] in 2^32 jiffies, 50 days at 1000 Hz.
#[inline(always)]
pub const fn lease_holds(until: u32, now: u32) -> bool {
    until == 0 || until.wrapping_sub(now) <= LEASE_TICKS_MAX || crate::Mechanism::Lease.is_off()
}

#[cfg(test)]
mod tests;
