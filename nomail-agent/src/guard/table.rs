//! Arrays of the program that are read as a whole.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
};

use aya::maps::{Map, MapData};
use nix::errno::Errno;

use super::BpfError;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`, which aya does not offer.
const LOOKUP_BATCH: libc::c_long = 24;

/// The part `batch` of `union bpf_attr`.
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

/// An array, of which all values are read by one system call.
pub(super) struct Table<V> {
    map: MapData,
    entries: u32,
    value: PhantomData<V>,
}

impl<V: aya::Pod + Default> Table<V> {
    /// `name` is for the error: it is no array of such values.
    pub(super) fn new(map: Map, name: &'static str) -> Result<Self, BpfError> {
        let Map::Array(map) = map else {
            return Err(BpfError::Missing(name));
        };
        // As the kernel has it: what is read below is that long.
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

    /// All values, in order. Each is of one moment, but not all of the same.
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
        // SAFETY: the kernel writes at most `count` keys of 4 octets and `count`
        // values of the size that `new` has compared, and one key to `out_batch`;
        // there is room for all of them, and any octets are a `Pod`.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                ptr::from_mut(&mut batch),
                size_of::<Batch>(),
            )
        };
        // ENOENT says that nothing is left.
        match Errno::result(result) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(BpfError::Table(io::Error::from(error))),
        }
        values.truncate(batch.count as usize);
        Ok(values)
    }
}
