use super::*;

const THREADS: [Thread; 4] = [
    Thread::Main { guard: true },
    Thread::Main { guard: false },
    Thread::Smtp,
    Thread::Crowdsec,
];

#[test]
fn each_filter_compiles_on_each_architecture() {
    for thread in THREADS {
        for architecture in [TargetArch::x86_64, TargetArch::aarch64] {
            assert!(compile(thread, architecture).is_ok(), "{thread:?}");
        }
    }
}

/// A call without conditions is allowed always: no list may add one to a call
/// that another list of the same thread bounds.
#[test]
fn no_call_is_both_bounded_and_allowed_always() {
    for thread in THREADS {
        let calls = calls(thread);
        for (call, allowed) in &calls {
            let mut same = calls.iter().filter(|(other, _)| other == call);
            assert!(
                same.all(|(_, other)| other.is_empty() == allowed.is_empty()),
                "{thread:?}: {call}"
            );
        }
    }
}

#[test]
fn only_the_main_thread_calls_bpf_and_no_thread_of_the_agent_connects() {
    let has = |thread, call| calls(thread).iter().any(|(other, _)| *other == call);
    let bpf = THREADS.map(|thread| has(thread, libc::SYS_bpf));
    assert_eq!(bpf, [true, false, false, false]);
    let connect = THREADS.map(|thread| has(thread, libc::SYS_connect));
    assert_eq!(connect, [false, false, false, true]);
}
