//! The stack that a program needs, as Linux 6.1 adds it up.

use std::collections::BTreeSet;

use aya_obj::generated::{
    BPF_ADD, BPF_ALU, BPF_ALU64, BPF_CALL, BPF_JMP, BPF_LD, BPF_LDX, BPF_MOV, BPF_PSEUDO_CALL,
    BPF_ST, BPF_STX, BPF_X, bpf_insn,
};

use crate::interpreter::target;

/// Most bytes that the kernel gives to functions that call each other.
pub(crate) const STACK_MAX: u64 = 512;
/// What the kernel rounds the stack of each function up to.
const GRANULE: u64 = 32;
const FRAME_POINTER: u8 = 10;

/// The most bytes of stack of functions that call each other, each rounded up
/// (`check_max_stack_depth` of the kernel).
pub(crate) fn stack_of(program: &[bpf_insn]) -> u64 {
    let calls = program.iter().enumerate().filter_map(|(at, insn)| {
        let is_call = u32::from(insn.code) == BPF_JMP | BPF_CALL;
        let is_call = is_call && u32::from(insn.src_reg()) == BPF_PSEUDO_CALL;
        is_call.then(|| (at, target(at + 1, insn.imm)))
    });
    let calls: Vec<(usize, usize)> = calls.collect();
    let mut starts: BTreeSet<usize> = calls.iter().map(|(_, callee)| *callee).collect();
    starts.extend([0, program.len()]);
    deepest(program, &calls, &starts, 0)
}

fn deepest(
    program: &[bpf_insn],
    calls: &[(usize, usize)],
    starts: &BTreeSet<usize>,
    start: usize,
) -> u64 {
    let end = *starts.range(start + 1..).next().unwrap();
    let own = frame_of(&program[start..end])
        .max(1)
        .next_multiple_of(GRANULE);
    let callees = calls.iter().filter(|(at, _)| (start..end).contains(at));
    let below = callees.map(|(_, callee)| deepest(program, calls, starts, *callee));
    own + below.max().unwrap_or(0)
}

/// Bytes of its stack that a function addresses: by the frame pointer, or by a copy of it to
/// which a constant is added.
fn frame_of(function: &[bpf_insn]) -> u64 {
    let mut lowest = 0;
    for (at, insn) in function.iter().enumerate() {
        if let Some(offset) = offset_from(insn, FRAME_POINTER) {
            lowest = lowest.min(offset);
        }
        let copies = u32::from(insn.code) == BPF_ALU64 | BPF_MOV | BPF_X;
        if !copies || insn.src_reg() != FRAME_POINTER {
            continue;
        }
        let copy = insn.dst_reg();
        for used in &function[at + 1..] {
            if u32::from(used.code) == BPF_ALU64 | BPF_ADD && used.dst_reg() == copy {
                lowest = lowest.min(used.imm);
                break;
            }
            if let Some(offset) = offset_from(used, copy) {
                lowest = lowest.min(offset);
            }
            if writes(used, copy) {
                break;
            }
        }
    }
    lowest.unsigned_abs().into()
}

/// The offset of a load or store relative to a register.
fn offset_from(insn: &bpf_insn, register: u8) -> Option<i32> {
    let base = match u32::from(insn.code) & 7 {
        BPF_LDX => insn.src_reg(),
        BPF_ST | BPF_STX => insn.dst_reg(),
        _ => return None,
    };
    (base == register).then_some(insn.off.into())
}

fn writes(insn: &bpf_insn, register: u8) -> bool {
    match u32::from(insn.code) & 7 {
        BPF_LD | BPF_LDX | BPF_ALU | BPF_ALU64 => insn.dst_reg() == register,
        // A call leaves nothing in these.
        BPF_JMP => u32::from(insn.code) & 0xf0 == BPF_CALL && register < 6,
        _ => false,
    }
}
