//! What a program reads and writes: context, packet, stack, maps; and the helpers of the
//! kernel, which are deterministic here.
//!
//! An address is the number of a region, shifted left by 32, and an offset in it.

use aya_obj::{Map, generated::bpf_map_type};
use nomail_common::guard::lists::Page;

use crate::interpreter::PathCost;

/// Region of `xdp_md`.
pub(crate) const CONTEXT: u64 = 1;
const PACKET: u64 = 2;
/// Region of the stacks of all functions.
pub(crate) const STACK: u64 = 3;
/// A `bpf_sock`.
const SOCKET: u64 = 4;
/// The reserved record of a ring buffer.
const RECORD: u64 = 5;
/// The maps themselves, of which a program only has a handle.
const HANDLES: u64 = 6;
/// The values of the first map. Those of the others follow.
const VALUES: u64 = 7;

/// Bytes before and behind a frame, for what makes it longer.
const ROOM: usize = 256;
/// Least bytes of a frame: an Ethernet header.
const FRAME_MIN: u64 = 14;
/// `state` of `bpf_sock`, and `BPF_TCP_LISTEN`.
const SOCKET_STATE: usize = 72;
const LISTEN: u8 = 10;
/// The cookie of a full listener: above the sequence number a maximum segment size.
const COOKIE: u64 = 1460 << 32 | 0x5ca1_ab1e;
/// `-EINVAL` of the kernel.
const INVALID: u64 = -22_i64 as u64;

/// A map of the object.
struct MapShape {
    name: String,
    kind: bpf_map_type,
    key_size: usize,
    value_size: usize,
    max_entries: u32,
    /// The programs of a program array.
    programs: Vec<(u32, String)>,
    /// The maps of an array of maps, as indexes.
    maps: Vec<(u32, usize)>,
}

impl MapShape {
    /// Bytes from one value to the next.
    fn stride(&self) -> usize {
        self.value_size.next_multiple_of(8)
    }

    fn is_per_cpu(&self) -> bool {
        self.kind == bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY
    }

    /// Whether it has a value with this index.
    fn has(&self, index: u32) -> bool {
        use bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY};
        assert!(
            matches!(self.kind, BPF_MAP_TYPE_ARRAY | BPF_MAP_TYPE_PERCPU_ARRAY),
            "look-ups in {:?} {} are not known",
            self.kind,
            self.name
        );
        index < self.max_entries
    }
}

/// The address of a map's handle.
pub(crate) fn handle(map: i32) -> u64 {
    HANDLES << 32 | map as u64
}

/// The address of a byte of a map's values.
pub(crate) fn value(map: i32, offset: u64) -> u64 {
    (VALUES + map as u64) << 32 | offset
}

pub(crate) struct Memory {
    maps: Vec<MapShape>,
    regions: Vec<Vec<u8>>,
    /// Where in its region the packet is.
    data: u64,
    data_end: u64,
    random: u64,
    /// The kernel's `jiffies64`.
    pub(crate) jiffies: u64,
    /// Jiffies in a second.
    pub(crate) hz: u32,
}

impl Memory {
    pub(crate) fn new(maps: &[(String, Map)]) -> Self {
        let mut regions = vec![Vec::new(); VALUES as usize];
        regions[CONTEXT as usize] = vec![0; 24];
        regions[STACK as usize] = vec![0; 4096];
        regions[SOCKET as usize] = vec![0; 80];
        regions[SOCKET as usize][SOCKET_STATE] = LISTEN;
        let mut shapes = Vec::new();
        for (name, map) in maps {
            let shape = MapShape {
                name: name.clone(),
                kind: bpf_map_type::try_from(map.map_type())
                    .unwrap_or_else(|_| panic!("the type of {name} is not known")),
                key_size: map.key_size() as usize,
                value_size: map.value_size() as usize,
                max_entries: map.max_entries(),
                programs: Vec::new(),
                maps: Vec::new(),
            };
            regions.push(match (shape.kind, map.data()) {
                (bpf_map_type::BPF_MAP_TYPE_ARRAY, data) if !data.is_empty() => data.to_vec(),
                (bpf_map_type::BPF_MAP_TYPE_ARRAY | bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY, _) => {
                    vec![0; shape.stride() * shape.max_entries as usize]
                }
                _ => Vec::new(),
            });
            shapes.push(shape);
        }
        Self {
            maps: shapes,
            regions,
            data: 0,
            data_end: 0,
            random: 1,
            jiffies: 5_000_000,
            hz: 250,
        }
    }

    /// Receives a frame on the interface with index 1.
    pub(crate) fn receive(&mut self, frame: &[u8]) {
        let mut packet = vec![0; ROOM];
        packet.extend(frame);
        packet.resize(packet.len() + ROOM, 0);
        self.regions[PACKET as usize] = packet;
        (self.data, self.data_end) = (ROOM as u64, (ROOM + frame.len()) as u64);
        self.regions[CONTEXT as usize][12] = 1;
    }

    /// The frame as it is now.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.regions[PACKET as usize][self.data as usize..self.data_end as usize]
    }

    fn bytes(&mut self, address: u64, length: usize) -> &mut [u8] {
        let (region, offset) = (address >> 32, address & u64::from(u32::MAX));
        let in_packet = offset >= self.data && offset + length as u64 <= self.data_end;
        assert!(
            region != PACKET || in_packet,
            "{offset} is outside of the packet"
        );
        let bytes = self.regions.get_mut(region as usize);
        let bytes =
            bytes.and_then(|bytes| bytes.get_mut(offset as usize..offset as usize + length));
        bytes.unwrap_or_else(|| panic!("no {length} bytes at {address:#x}"))
    }

    pub(crate) fn load(&mut self, address: u64, width: u32) -> u64 {
        // The verifier turns these 32 bits into a pointer.
        match (address >> 32, address & 0xffff_ffff, width) {
            (CONTEXT, 0, 4) => return PACKET << 32 | self.data,
            (CONTEXT, 4, 4) => return PACKET << 32 | self.data_end,
            _ => {}
        }
        let mut value = [0; 8];
        value[..width as usize].copy_from_slice(self.bytes(address, width as usize));
        u64::from_le_bytes(value)
    }

    pub(crate) fn store(&mut self, address: u64, width: u32, value: u64, cost: &mut PathCost) {
        let bytes = self.bytes(address, width as usize);
        bytes.copy_from_slice(&value.to_le_bytes()[..width as usize]);
        let map = (address >> 32).checked_sub(VALUES);
        if map.is_some_and(|map| !self.maps[map as usize].is_per_cpu()) {
            cost.shared_lines
                .insert((address >> 32, (address & 0xffff_ffff) / 64));
        }
    }

    /// The name of the map whose values are that region.
    pub(crate) fn map_of(&self, region: u64) -> &str {
        &self.maps[(region - VALUES) as usize].name
    }

    fn number(&self, name: &str) -> usize {
        let found = self.maps.iter().position(|map| map.name == name);
        found.unwrap_or_else(|| panic!("the object has no map {name}"))
    }

    /// A value of an array map.
    fn entry(&mut self, map: &str, index: u32) -> &mut [u8] {
        let number = self.number(map);
        let shape = &self.maps[number];
        assert!(index < shape.max_entries, "{map} has no entry {index}");
        let (offset, size) = (index as usize * shape.stride(), shape.value_size);
        self.bytes(value(number as i32, offset as u64), size)
    }

    pub(crate) fn read(&mut self, map: &str, index: u32) -> &[u8] {
        self.entry(map, index)
    }

    pub(crate) fn write(&mut self, map: &str, index: u32, value: &[u8]) {
        self.entry(map, index).copy_from_slice(value);
    }

    /// Puts a new array into an array of maps.
    pub(crate) fn set_map(&mut self, map: &str, index: u32, values: &[Page]) {
        let number = self.number(map);
        let outer = &mut self.maps[number];
        assert!(index < outer.max_entries, "{map} has no entry {index}");
        let added = self.regions.len() - VALUES as usize;
        outer.maps.push((index, added));
        self.maps.push(MapShape {
            name: format!("{map} {index}"),
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: size_of::<Page>(),
            max_entries: values.len() as u32,
            programs: Vec::new(),
            maps: Vec::new(),
        });
        let words = values.as_flattened().iter();
        let bytes = words.flat_map(|word| word.to_ne_bytes()).collect();
        self.regions.push(bytes);
    }

    /// Puts a program into a program array.
    pub(crate) fn set_program(&mut self, map: &str, index: u32, program: &str) {
        let number = self.number(map);
        self.maps[number].programs.push((index, program.to_owned()));
    }

    fn map(&self, handle: u64) -> &MapShape {
        assert_eq!(handle >> 32, HANDLES, "{handle:#x} is no map");
        &self.maps[(handle & 0xffff_ffff) as usize]
    }

    /// The program that a tail call continues in.
    pub(crate) fn called(&self, [_, map, index, ..]: [u64; 5]) -> Option<String> {
        let mut programs = self.map(map).programs.iter();
        let found = programs.find(|(at, _)| u64::from(*at) == index);
        found.map(|(_, program)| program.clone())
    }

    /// The result of a helper, by its number in the kernel's `bpf.h`.
    pub(crate) fn help(&mut self, helper: i32, [a, b, c, d, _]: [u64; 5]) -> u64 {
        match helper {
            // map_lookup_elem
            1 => {
                let key = self.bytes(b, 4).try_into().unwrap();
                let index = u32::from_ne_bytes(key);
                let shape = self.map(a);
                assert_eq!(shape.key_size, 4, "a key of {}", shape.name);
                if shape.kind == bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS {
                    let found = shape.maps.iter().find(|(at, _)| *at == index);
                    return found.map_or(0, |(_, map)| handle(*map as i32));
                }
                if !shape.has(index) {
                    return 0;
                }
                let offset = index as usize * shape.stride();
                value((a & 0xffff_ffff) as i32, offset as u64)
            }
            // ktime_get_ns, ktime_get_boot_ns, ktime_get_coarse_ns
            5 | 125 | 160 => self.jiffies * (1_000_000_000 / u64::from(self.hz)),
            // get_prandom_u32
            7 => {
                self.random = self.random.wrapping_mul(6_364_136_223_846_793_005) + 1;
                self.random >> 32
            }
            // get_smp_processor_id, sk_release, ringbuf_output, ringbuf_submit,
            // ringbuf_discard
            8 | 86 | 130 | 132 | 133 => 0,
            // xdp_adjust_head
            44 => {
                let data = self.data.wrapping_add(u64::from(b as u32)) & 0xffff_ffff;
                self.resize(data, self.data_end)
            }
            // xdp_adjust_tail
            65 => {
                let data_end = self.data_end.wrapping_add(u64::from(b as u32)) & 0xffff_ffff;
                self.resize(self.data, data_end)
            }
            // skc_lookup_tcp
            99 => SOCKET << 32,
            // tcp_gen_syncookie, tcp_raw_gen_syncookie_ipv4 and _ipv6
            110 | 204 | 205 => COOKIE,
            // jiffies64
            118 => self.jiffies,
            // ringbuf_reserve
            131 => {
                self.regions[RECORD as usize] = vec![0; b as usize];
                RECORD << 32
            }
            // xdp_get_buff_len
            188 => self.data_end - self.data,
            // xdp_load_bytes, xdp_store_bytes
            189 | 190 => {
                let length = d as u32 as usize;
                let start = self.data + u64::from(b as u32);
                if start + length as u64 > self.data_end {
                    return INVALID;
                }
                let (from, to) = if helper == 189 {
                    (PACKET << 32 | start, c)
                } else {
                    (c, PACKET << 32 | start)
                };
                let bytes = self.bytes(from, length).to_vec();
                self.bytes(to, length).copy_from_slice(&bytes);
                0
            }
            _ => panic!("the helper {helper} is not known"),
        }
    }

    fn resize(&mut self, data: u64, data_end: u64) -> u64 {
        let room = self.regions[PACKET as usize].len() as u64;
        if data + FRAME_MIN > data_end || data_end > room {
            return INVALID;
        }
        (self.data, self.data_end) = (data, data_end);
        0
    }
}
