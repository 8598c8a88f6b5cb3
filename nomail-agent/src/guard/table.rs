//! Reading maps: arrays as a whole, and counters of all CPUs.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
};

use aya::maps::{Map, MapData, PerCpuArray};
use nix::errno::Errno;
use nomail_common::abi::Counters;

use super::error::BpfError;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`, which aya does not offer.
const LOOKUP_BATCH: libc::c_long = 24;

/// The member `batch` of `union bpf_attr`.
#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// An array whose values are read by one system call.
pub(super) struct Table<V> {
    map: MapData,
    entries: u32,
    value: PhantomData<V>,
}

impl<V: aya::Pod + Default> Table<V> {
    /// `name` is for the error, where the map is no array of such values.
    pub(super) fn new(map: Map, name: &'static str) -> Result<Self, BpfError> {
        let Map::Array(map) = map else {
            return Err(BpfError::Missing(name));
        };
        // The kernel's own sizes, which decide how much `read` writes.
        let info = map.info()?;
        if info.value_size() as usize != size_of::<V>() || info.key_size() != 4 {
            return Err(BpfError::Missing(name));
        }
        Ok(Self {
            entries: info.max_entries(),
            map,
            value: PhantomData,
        })
    }

    /// All values, in order. Each is consistent, but not all are of the same moment.
    pub(super) fn read(&self) -> Result<Vec<V>, BpfError> {
        let mut keys = vec![0u32; self.entries as usize];
        let mut values = vec![V::default(); self.entries as usize];
        let mut next = 0u32;
        let mut batch = Batch {
            in_batch: 0,
            out_batch: ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: self.entries,
            map_fd: self.map.fd().as_fd().as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the kernel writes at most `count` keys of 4 bytes and `count` values of the
        // size that `new` has compared, and one key to `out_batch`; there is room for all of
        // them, and any bytes are a `Pod`.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                ptr::from_mut(&mut batch),
                size_of::<Batch>(),
            )
        };
        // ENOENT: there are no more values.
        match Errno::result(result) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(BpfError::Table(io::Error::from(error))),
        }
        values.truncate(batch.count as usize);
        Ok(values)
    }
}

/// The counters of an entry, summed over all CPUs.
pub(super) fn sum_of_cpus(
    counters: &PerCpuArray<MapData, Counters>,
    entry: u32,
) -> Result<Counters, BpfError> {
    let mut sum = Counters::default();
    for cpu in counters.get(&entry, 0)?.iter() {
        for (sum, cpu) in sum.verdicts.iter_mut().zip(cpu.verdicts) {
            *sum += cpu;
        }
        for (sum, cpu) in sum.answers.iter_mut().zip(cpu.answers) {
            *sum += cpu;
        }
        sum.evictions += cpu.evictions;
        sum.contended += cpu.contended;
    }
    Ok(sum)
}
