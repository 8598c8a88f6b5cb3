//! An interpreter of the XDP object that counts what a frame costs: the same figures on
//! every machine.
//!
//! It starts from what aya gives to the kernel: maps and calls are relocated, globals
//! patched. It knows the instructions of RFC 9669 except signed division, and the helpers
//! and types of maps that nomail uses; on any other it panics. Each access is checked
//! against the memory that it is in. The kernel may execute less than is counted here: its
//! verifier removes branches that globals rule out.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use aya_obj::{
    Object,
    generated::{
        BPF_ALU, BPF_ALU64, BPF_ATOMIC, BPF_B, BPF_CALL, BPF_CMPXCHG, BPF_DW, BPF_END, BPF_EXIT,
        BPF_FETCH, BPF_H, BPF_IMM, BPF_JA, BPF_JMP, BPF_JMP32, BPF_LD, BPF_LDX, BPF_MEM, BPF_MEMSX,
        BPF_NEG, BPF_PSEUDO_CALL, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, BPF_ST, BPF_STX, BPF_W,
        BPF_X, BPF_XCHG, bpf_insn,
    },
};

use crate::memory::{self, Memory};

/// Most instructions of one run.
const INSTRUCTIONS_MAX: u64 = 1_000_000;
/// Bytes of stack of each function, and most functions that call each other.
const STACK: u64 = 512;
const CALLS_MAX: u64 = 8;
/// What is in a register that the kernel does not let a program read.
const UNREADABLE: u64 = 0xdead_dead_dead_dead;
/// The register that points to the end of a function's stack.
const FRAME_POINTER: usize = 10;
/// `bpf_tail_call`, the one helper that changes the control flow.
const TAIL_CALL: i32 = 12;

/// What a run executed.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathCost {
    pub(crate) instructions: u64,
    /// Calls of functions of the program.
    pub(crate) calls: u64,
    /// Calls of helpers of the kernel.
    pub(crate) helpers: u64,
    /// Atomic operations.
    pub(crate) atomics: u64,
    /// Lines of 64 bytes written in maps that all CPUs share, as region and number.
    pub(crate) shared_lines: BTreeSet<(u64, u64)>,
}

/// An object and its maps.
pub(crate) struct Interpreter {
    programs: BTreeMap<String, Rc<[bpf_insn]>>,
    pub(crate) memory: Memory,
}

impl Interpreter {
    /// Reads an object, and patches globals in it.
    pub(crate) fn new(object: &[u8], globals: &[(&str, &[u8])]) -> Self {
        let mut object = Object::parse(object).unwrap();
        let globals = globals.iter().map(|&(name, value)| (name, (value, true)));
        object.patch_map_data(globals.collect()).unwrap();
        let maps: Vec<_> = std::mem::take(&mut object.maps).into_iter().collect();
        let sections = object.functions.keys().map(|(section, _)| *section);
        let sections = sections.collect();
        let numbered = maps.iter().zip(0..);
        let numbered = numbered.map(|((name, map), number)| (name.as_str(), number, map));
        object.relocate_maps(numbered, &sections).unwrap();
        object.relocate_calls(&sections).unwrap();
        let programs = object.programs.iter().map(|(name, program)| {
            let function = &object.functions[&program.function_key()];
            (name.clone(), function.instructions.as_slice().into())
        });
        Self {
            programs: programs.collect(),
            memory: Memory::new(&maps),
        }
    }

    /// The instructions of a program, its functions behind it.
    pub(crate) fn program(&self, name: &str) -> Rc<[bpf_insn]> {
        let program = self.programs.get(name);
        Rc::clone(program.unwrap_or_else(|| panic!("the object has no program {name}")))
    }

    /// Runs a program on a frame: its result, the frame afterwards, and what it cost.
    pub(crate) fn run(&mut self, program: &str, frame: &[u8]) -> (u32, Vec<u8>, PathCost) {
        let mut program = self.program(program);
        self.memory.receive(frame);
        let mut cost = PathCost::default();
        let mut registers = [UNREADABLE; 11];
        registers[1] = memory::CONTEXT << 32;
        registers[FRAME_POINTER] = (memory::STACK << 32) + STACK * CALLS_MAX;
        let mut callers: Vec<(usize, [u64; 5])> = Vec::new();
        let mut next = 0;
        loop {
            cost.instructions += 1;
            assert!(cost.instructions < INSTRUCTIONS_MAX, "an endless loop");
            let insn = program[next];
            let code = u32::from(insn.code);
            let (dst, src) = (usize::from(insn.dst_reg()), usize::from(insn.src_reg()));
            next += 1;
            let (class, operation) = (code & 7, code & 0xf0);
            let operand = match code & BPF_X {
                0 => i64::from(insn.imm) as u64,
                _ => registers[src],
            };
            let offset = i64::from(insn.off) as u64;
            match class {
                BPF_ALU | BPF_ALU64 if operation == BPF_END => {
                    registers[dst] = swapped(&insn, registers[dst]);
                }
                BPF_ALU | BPF_ALU64 => {
                    let wide = class == BPF_ALU64;
                    registers[dst] = calculated(&insn, wide, registers[dst], operand);
                }
                BPF_JMP if operation == BPF_CALL && src == BPF_PSEUDO_CALL as usize => {
                    cost.calls += 1;
                    callers.push((next, registers[6..].try_into().unwrap()));
                    assert!((callers.len() as u64) < CALLS_MAX, "too many nested calls");
                    registers[FRAME_POINTER] -= STACK;
                    next = target(next, insn.imm);
                }
                BPF_JMP if operation == BPF_CALL && src == 0 => {
                    cost.helpers += 1;
                    let arguments = registers[1..6].try_into().unwrap();
                    let called = (insn.imm == TAIL_CALL).then(|| self.memory.called(arguments));
                    if let Some(Some(name)) = called {
                        assert!(callers.is_empty(), "a tail call in a function");
                        program = self.program(&name);
                        next = 0;
                    } else {
                        registers[0] = match called {
                            Some(_) => -2_i64 as u64,
                            None => self.memory.help(insn.imm, arguments),
                        };
                        registers[1..6].fill(UNREADABLE);
                    }
                }
                BPF_JMP if operation == BPF_EXIT => match callers.pop() {
                    None => return (registers[0] as u32, self.memory.frame().to_vec(), cost),
                    Some((back, saved)) => {
                        next = back;
                        registers[6..].copy_from_slice(&saved);
                        registers[1..6].fill(UNREADABLE);
                    }
                },
                BPF_JMP if operation == BPF_JA => next = target(next, insn.off.into()),
                BPF_JMP32 if operation == BPF_JA => next = target(next, insn.imm),
                BPF_JMP | BPF_JMP32 => {
                    if is_true(&insn, class == BPF_JMP, registers[dst], operand) {
                        next = target(next, insn.off.into());
                    }
                }
                BPF_LD if code == BPF_LD | BPF_IMM | BPF_DW => {
                    let high = program[next].imm;
                    next += 1;
                    registers[dst] = match src as u32 {
                        0 => u64::from(insn.imm as u32) | u64::from(high as u32) << 32,
                        BPF_PSEUDO_MAP_FD => memory::handle(insn.imm),
                        BPF_PSEUDO_MAP_VALUE => memory::value(insn.imm, high as u64),
                        _ => panic!("unknown constant: {}", shown(&insn)),
                    };
                }
                BPF_LDX => {
                    let address = registers[src].wrapping_add(offset);
                    let value = self.memory.load(address, width(code));
                    registers[dst] = match code & 0xe0 {
                        BPF_MEM => value,
                        BPF_MEMSX => signed(value, width(code) * 8) as u64,
                        _ => panic!("unknown load: {}", shown(&insn)),
                    };
                }
                BPF_STX if code & 0xe0 == BPF_ATOMIC => {
                    cost.atomics += 1;
                    let address = registers[dst].wrapping_add(offset);
                    let old = self.memory.load(address, width(code));
                    let new = exchanged(&insn, old, registers[src], registers[0]);
                    self.memory.store(address, width(code), new, &mut cost);
                    if insn.imm as u32 == BPF_CMPXCHG {
                        registers[0] = old;
                    } else if insn.imm as u32 & BPF_FETCH != 0 {
                        registers[src] = old;
                    }
                }
                BPF_ST | BPF_STX if code & 0xe0 == BPF_MEM => {
                    let value = if class == BPF_STX {
                        registers[src]
                    } else {
                        i64::from(insn.imm) as u64
                    };
                    let address = registers[dst].wrapping_add(offset);
                    self.memory.store(address, width(code), value, &mut cost);
                }
                _ => panic!("unknown instruction: {}", shown(&insn)),
            }
        }
    }
}

/// Where a jump goes, relative to the next instruction.
pub(crate) fn target(next: usize, offset: i32) -> usize {
    next.checked_add_signed(offset as isize).unwrap()
}

fn shown(insn: &bpf_insn) -> String {
    let (dst, src) = (insn.dst_reg(), insn.src_reg());
    let bpf_insn { code, off, imm, .. } = insn;
    format!("code {code:#x}, registers {dst} and {src}, offset {off}, immediate {imm}")
}

/// Bytes that a load or a store moves.
fn width(code: u32) -> u32 {
    match code & 0x18 {
        BPF_W => 4,
        BPF_H => 2,
        BPF_B => 1,
        _ => 8,
    }
}

/// The low bits of a number, as a signed one.
fn signed(value: u64, bits: u32) -> i64 {
    (value << (64 - bits)) as i64 >> (64 - bits)
}

fn swapped(insn: &bpf_insn, value: u64) -> u64 {
    let code = u32::from(insn.code);
    // BPF_X: to big endian; in BPF_ALU64: always.
    let swaps = code & 7 == BPF_ALU64 || (code & BPF_X != 0) != cfg!(target_endian = "big");
    match (insn.imm, swaps) {
        (16, true) => u64::from((value as u16).swap_bytes()),
        (32, true) => u64::from((value as u32).swap_bytes()),
        (64, true) => value.swap_bytes(),
        (bits @ (16 | 32 | 64), false) => value & u64::MAX >> (64 - bits),
        _ => panic!("unknown swap: {}", shown(insn)),
    }
}

fn calculated(insn: &bpf_insn, wide: bool, left: u64, right: u64) -> u64 {
    let bits = if wide { 64 } else { 32 };
    let mask = u64::MAX >> (64 - bits);
    let (a, b) = (left & mask, right & mask);
    let shift = b as u32 % bits;
    let result = match (u32::from(insn.code) & 0xf0, insn.off) {
        (0x00, 0) => a.wrapping_add(b),
        (0x10, 0) => a.wrapping_sub(b),
        (0x20, 0) => a.wrapping_mul(b),
        (0x30, 0) => a.checked_div(b).unwrap_or(0),
        (0x40, 0) => a | b,
        (0x50, 0) => a & b,
        (0x60, 0) => a << shift,
        (0x70, 0) => a >> shift,
        (BPF_NEG, 0) => a.wrapping_neg(),
        (0x90, 0) => a.checked_rem(b).unwrap_or(a),
        (0xa0, 0) => a ^ b,
        (0xb0, 0) => b,
        (0xb0, of @ (8 | 16 | 32)) => signed(b, of as u32) as u64,
        (0xc0, 0) => (signed(a, bits) >> shift) as u64,
        _ => panic!("unknown calculation: {}", shown(insn)),
    };
    result & mask
}

fn is_true(insn: &bpf_insn, wide: bool, left: u64, right: u64) -> bool {
    let bits = if wide { 64 } else { 32 };
    let mask = u64::MAX >> (64 - bits);
    let (a, b) = (left & mask, right & mask);
    let (signed_a, signed_b) = (signed(a, bits), signed(b, bits));
    match u32::from(insn.code) & 0xf0 {
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x40 => a & b != 0,
        0x50 => a != b,
        0x60 => signed_a > signed_b,
        0x70 => signed_a >= signed_b,
        0xa0 => a < b,
        0xb0 => a <= b,
        0xc0 => signed_a < signed_b,
        0xd0 => signed_a <= signed_b,
        _ => panic!("unknown comparison: {}", shown(insn)),
    }
}

/// What an atomic operation leaves in memory.
fn exchanged(insn: &bpf_insn, old: u64, operand: u64, expected: u64) -> u64 {
    let mask = u64::MAX >> (64 - 8 * width(insn.code.into()));
    match insn.imm as u32 {
        BPF_XCHG => operand,
        BPF_CMPXCHG if old == expected & mask => operand,
        BPF_CMPXCHG => old,
        operation => match operation & !BPF_FETCH {
            0x00 => old.wrapping_add(operand),
            0x40 => old | operand,
            0x50 => old & operand,
            0xa0 => old ^ operand,
            _ => panic!("unknown atomic operation: {}", shown(insn)),
        },
    }
}
