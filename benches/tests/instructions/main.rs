//! What each path of the XDP object costs: the instructions that a frame executes, and the
//! stack. `NOMAIL_BPF_OBJECT` names the object, which may be one to compare:
//! `--nocapture` prints its figures beside those that are recorded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, too"
)]

mod interpreter;
mod memory;
mod paths;
mod sharing;
mod stack;

use std::{env, fs};

use nomail_common::abi;
use nomail_tests::record::Record;

use crate::{
    interpreter::Interpreter,
    stack::{STACK_MAX, stack_of},
};

const PATHS: Record = Record {
    file: "benches/tests/instructions/paths.txt",
    text: include_str!("paths.txt"),
    command: "cargo xtask test host -- each_path_executes_what_is_recorded",
};
const STACK: Record = Record {
    file: "benches/tests/instructions/stack.txt",
    text: include_str!("stack.txt"),
    command: "cargo xtask test host -- each_program_takes_the_stack_that_is_recorded",
};

#[test]
fn each_path_executes_what_is_recorded() {
    let (object, compiler) = object();
    let columns = [
        "instructions",
        "calls",
        "helpers",
        "atomics",
        "shared lines",
    ];
    PATHS.check(&compiler, &columns, &paths::measure(&object));
}

#[test]
fn each_program_takes_the_stack_that_is_recorded() {
    let (object, compiler) = object();
    let interpreter = Interpreter::new(&object, &[]);
    let programs = [abi::PROGRAM, abi::RESPONDER_PROGRAM, abi::CLOCK_PROGRAM];
    let rows = programs.map(|name| {
        let stack = stack_of(&interpreter.program(name));
        assert!(stack <= STACK_MAX, "{name}: {stack} bytes of {STACK_MAX}");
        (name.to_owned(), vec![stack])
    });
    STACK.check(&compiler, &["bytes"], &rows);
}

/// What a stranger writes, no CPU writes for another stranger, but for what is named.
#[test]
fn no_path_of_a_stranger_writes_a_line_that_another_cpu_writes() {
    sharing::check(&object().0);
}

/// A development object logs (`cargo xtask run --trace`); none of it is in another.
#[test]
fn the_object_logs_nothing() {
    let (object, _) = object();
    let maps = aya_obj::Object::parse(&object).unwrap().maps;
    assert!(maps.contains_key(abi::CONFIG_MAP) && !maps.contains_key("AYA_LOGS"));
}

/// The object, and the version of its compiler.
fn object() -> (Vec<u8>, String) {
    let path = env::var_os("NOMAIL_BPF_OBJECT");
    let path = path.expect("NOMAIL_BPF_OBJECT is to name the object; cargo xtask test sets it");
    let object = fs::read(path).unwrap();
    let producer = b"rustc version ";
    let found = object.windows(producer.len()).position(|at| at == producer);
    let version = &object[found.expect("its debug information names the compiler")..];
    let words = version.split(|byte| *byte == b' ').take(3);
    let words = words.map(|word| String::from_utf8(word.to_vec()).unwrap());
    let compiler = words.collect::<Vec<_>>().join(" ");
    (object, compiler)
}
