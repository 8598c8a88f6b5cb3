//! The other test programs on Debian's kernels, each in a virtual machine.
//!
//! `cargo xtask test vm [-- [--kernel VERSION] [FILTER…]]`: runs all tests but
//! [`EXCLUDED`], or those of them with FILTER in `PROGRAM::TEST`, and prints what
//! came of them; fails when one has failed or has not come to its end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on is to fail, and has no harness to print for it"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use nomail_tests::{
    root::target,
    vm::{KERNELS, Kernel, Machine},
};

const PEERS: &str = "it installs Debian packages, and the machine has no network";
const TIMED: &str = "it counts on times that an emulated machine does not keep";
const ALIKE: &str = "it is about the agent, not the kernel, and takes long here";

/// What is not run: the program, its tests (none: all of them), why.
const EXCLUDED: &[(&str, &[&str], &str)] = &[
    ("mail_servers", &[], PEERS),
    ("challenge_firewalls", &[], PEERS),
    (
        "challenge_loss",
        &["with_loss_each_way_the_honest_are_through"],
        PEERS,
    ),
    ("challenge_stacks", &["lwip_is_through"], PEERS),
    ("crowdsec", &[], PEERS),
    ("doctor", &[], PEERS),
    ("prometheus", &[], PEERS),
    ("service", &["systemd_likes_the_units"], PEERS),
    (
        "sight",
        &["a_guard_that_misses_what_connects_is_noticed"],
        PEERS,
    ),
    (
        "socketless",
        &[
            "a_greeting_that_is_lost_for_good_is_sent_again",
            "programs_that_speak_smtp",
        ],
        PEERS,
    ),
    ("generator", &[], TIMED),
    (
        "socketless",
        &["with_loss_each_way_the_honest_are_through"],
        TIMED,
    ),
    ("bpf_truth_table", &["the_whole_truth_table"], TIMED),
    (
        "bpf_challenge",
        &[
            "a_source_has_so_many_tickets_at_a_time",
            "trying_all_proofs_gives_hardly_a_ticket",
        ],
        TIMED,
    ),
    ("configuration", &[], ALIKE),
    ("metrics", &[], ALIKE),
    ("terminal", &[], ALIKE),
    ("terminal_lost", &[], ALIKE),
    ("captures", &[], PEERS),
    (
        "socketless_paths",
        &[
            "clients_behind_a_masquerade_are_served",
            "clients_whose_router_chooses_ports_by_chance_are_not_served",
            "clients_with_a_firewall_are_served",
            "lwip_is_served",
        ],
        PEERS,
    ),
    (
        "lifetime",
        &[
            "kept_it_counts_on_and_the_next_agent_goes_on_from_there",
            "proven_tuples_and_the_buckets_survive_and_the_key_with_them",
            "no_syn_is_missed_while_agents_come_and_go",
        ],
        TIMED,
    ),
    ("bpf_faults", &[], ALIKE),
    (
        "faults",
        &["a_storm_of_netlink_is_weathered", "memory_runs_out"],
        ALIKE,
    ),
    (
        "responder",
        &["a_report_tells_the_time_that_it_is_of"],
        TIMED,
    ),
    (
        "responder",
        &[
            "a_hundred_thousand_domains_are_read_answered_and_read_again",
            "a_relay_refuses_its_domains_and_follows_its_list",
            "a_relay_without_a_list_or_with_another_point_does_not_start",
            "auto_under_pressure_greets_and_remembers",
            "mail_for_other_domains_is_told_once_and_no_envelope_unasked",
            "the_log_has_a_line_for_the_busiest_and_one_for_the_others",
            "the_log_in_json_is_json_and_detail_is_sampled",
            "who_does_not_speak_smtp_is_told_once_and_closed",
        ],
        ALIKE,
    ),
];

/// Tests that need what the kernel tells of drivers since Linux 6.3, and why.
const TOLD: (&str, &[&str], &str) = (
    "answers",
    &[
        "answers_that_no_longer_arrive_end_native_mode",
        "native_mode_that_was_asked_for_and_cannot_answer_is_loud",
        "with_a_listener_it_is_healthy_and_loud",
    ],
    "the kernel tells what the other end of a veth pair takes since Linux 6.3",
);

/// Programs whose tests flood, and have the machine to themselves.
const ALONE: &[&str] = &["flood", "challenge_loss", "challenge_stacks", "reload"];
/// Programs of this machine that the tests run.
const COMMANDS: &[&str] = &[
    "env", "ethtool", "prlimit", "setpriv", "ss", "timeout", "umount", "unshare",
];
/// Longest for a test program, and for all of a machine.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(600);
const DEADLINE: Duration = Duration::from_secs(2400);
const MEMORY_MIB: u32 = 2048;
/// Begins the lines of the guest that are not a test program's.
const MARK: &str = "@@ ";

fn main() -> ExitCode {
    let mut arguments: Vec<_> = env::args().skip(1).collect();
    let mut kernels = KERNELS.to_vec();
    if let Some(at) = arguments.iter().position(|argument| argument == "--kernel") {
        let wanted = arguments.get(at + 1).cloned().unwrap_or_default();
        arguments.drain(at..(at + 2).min(arguments.len()));
        kernels.retain(|kernel| kernel.version == wanted);
        assert!(
            !kernels.is_empty(),
            "no kernel {wanted:?}: there are {KERNELS:?}"
        );
    }
    let programs = Program::all();
    // One after the other: two would share the processors, and floods want them all.
    let whole = kernels.into_iter().fold(true, |whole, kernel| {
        let run = Run::of(kernel, &programs, &arguments);
        run.print();
        whole & run.is_good()
    });
    if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A test program.
struct Program {
    name: String,
    path: PathBuf,
    tests: BTreeSet<String>,
}

impl Program {
    /// Those that `NOMAIL_TEST_PROGRAMS` names, with their tests.
    fn all() -> Vec<Self> {
        let paths = env::var_os("NOMAIL_TEST_PROGRAMS")
            .expect("NOMAIL_TEST_PROGRAMS names the test programs: run `cargo xtask test vm`");
        let programs: Vec<_> = env::split_paths(&paths).map(Self::at).collect();
        // A test that was renamed would no longer be excluded, nor missed.
        for (name, tests, _) in EXCLUDED.iter().chain([&TOLD]) {
            let program = programs.iter().find(|found| found.name == *name);
            let program = program.unwrap_or_else(|| panic!("no program to exclude: {name}"));
            for test in *tests {
                assert!(
                    program.tests.contains(*test),
                    "no test to exclude: {name}::{test}"
                );
            }
        }
        programs
    }

    fn at(path: PathBuf) -> Self {
        let file = path.file_name().unwrap().to_string_lossy();
        let name = file.rsplit_once('-').map_or(&*file, |(name, _)| name);
        let listed = Command::new(&path)
            .args(["--list", "--format", "terse", "--include-ignored"])
            .output()
            .expect("a test program runs");
        assert!(
            listed.status.success(),
            "{name} does not list its tests: {listed:?}"
        );
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let tests = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"));
        Self {
            name: name.to_owned(),
            tests: tests.map(str::to_owned).collect(),
            path,
        }
    }
}

/// What came of the tests on a kernel.
struct Run {
    kernel: Kernel,
    /// Its own words on its version.
    release: String,
    took: Duration,
    /// The tests, and whether each has passed.
    tests: BTreeMap<String, bool>,
    excluded: Vec<(String, &'static str)>,
    /// What the machine said; all of it, or until it failed.
    said: Result<String, String>,
    log: PathBuf,
}

impl Run {
    fn of(kernel: Kernel, programs: &[Program], filters: &[String]) -> Self {
        let start = Instant::now();
        let mut excluded = Vec::new();
        let mut tests = BTreeMap::new();
        let mut files = Vec::new();
        // tun is loaded by opening its device file, which is not there; ss does without
        // tcp_diag, but then it does not know how long a queue may be.
        let mut script = format!(
            "modprobe tun\nmodprobe tcp_diag\necho \"{MARK}release $(cat /proc/sys/kernel/osrelease)\"\n"
        );
        for program in programs {
            let wanted = |test: &&String| {
                let whole = format!("{}::{test}", program.name);
                filters.is_empty() || filters.iter().any(|filter| whole.contains(filter))
            };
            let mut selected = Vec::new();
            for test in program.tests.iter().filter(wanted) {
                let whole = format!("{}::{test}", program.name);
                match why_not(kernel, &program.name, test) {
                    Some(reason) => excluded.push((whole, reason)),
                    None => {
                        selected.push(test.as_str());
                        tests.insert(whole, false);
                    }
                }
            }
            if selected.is_empty() {
                continue;
            }
            files.push((program.path.clone(), format!("tests/{}", program.name)));
            // What counts are the lines of the single tests, not the status.
            script += &format!(
                "echo '{MARK}program {name}'\n\
                 timeout -k 5 {secs} /tests/{name} --exact --include-ignored --show-output \
                 --test-threads {threads} {tests} 2> /tmp/stderr || {{ echo '{MARK}ended with' $?; cat /tmp/stderr; }}\n",
                name = program.name,
                secs = PROGRAM_DEADLINE.as_secs(),
                threads = if ALONE.contains(&&*program.name) {
                    1
                } else {
                    2
                },
                tests = selected.join(" "),
            );
        }
        let mut current = String::new();
        let mut release = String::new();
        let said = Machine {
            kernel,
            memory_mib: MEMORY_MIB,
            commands: COMMANDS,
            files: &files,
            script: &script,
            deadline: DEADLINE,
        }
        .run(&mut |line| {
            let of_us = |what: &str| line.strip_prefix(MARK)?.strip_prefix(what);
            if let Some(program) = of_us("program ") {
                eprintln!("{kernel}: {program}, after {} s", start.elapsed().as_secs());
                program.clone_into(&mut current);
            } else if let Some(said) = of_us("release ") {
                said.clone_into(&mut release);
            } else if let Some(test) = passed(line)
                && let Some(passed) = tests.get_mut(&format!("{current}::{test}"))
            {
                *passed = true;
            } else if line.ends_with(" ... FAILED") {
                eprintln!("{kernel}: {line}");
            }
        });
        let run = Self {
            log: log_of(kernel),
            kernel,
            release,
            took: start.elapsed(),
            tests,
            excluded,
            said,
        };
        let (Ok(text) | Err(text)) = &run.said;
        fs::create_dir_all(run.log.parent().unwrap()).unwrap();
        fs::write(&run.log, text).unwrap();
        run
    }

    fn failed(&self) -> impl Iterator<Item = &str> {
        let failed = self.tests.iter().filter(|(_, passed)| !**passed);
        failed.map(|(test, _)| test.as_str())
    }

    fn is_good(&self) -> bool {
        self.said.is_ok() && !self.tests.is_empty() && self.failed().next().is_none()
    }

    fn print(&self) {
        let failed = self.failed().count();
        eprintln!(
            "\nLinux {} ({}): {} passed, {failed} failed, {} not run, in {} s; all it said: {}",
            self.kernel,
            self.release,
            self.tests.len() - failed,
            self.excluded.len(),
            self.took.as_secs(),
            self.log.display(),
        );
        if self.said.is_err() {
            eprintln!("  the machine did not come to its end");
        }
        for test in self.failed() {
            eprintln!("  failed: {test}");
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (test, reason) in &self.excluded {
            reasons.entry(reason).or_default().push(test);
        }
        for (reason, tests) in reasons {
            eprintln!("  not run: {reason}: {}", tests.join(", "));
        }
    }
}

/// Why a test is not run.
fn why_not(kernel: Kernel, program: &str, test: &str) -> Option<&'static str> {
    let told = (kernel.version == "6.1").then_some(&TOLD);
    let excluded = EXCLUDED.iter().chain(told).find(|(in_program, tests, _)| {
        *in_program == program && (tests.is_empty() || tests.contains(&test))
    });
    excluded.map(|(.., reason)| *reason)
}

/// The test that a line of libtest says has passed.
fn passed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... ok")
}

/// Where what a machine said is kept.
fn log_of(kernel: Kernel) -> PathBuf {
    target().join("vm").join(format!("{kernel}.log"))
}
