//! The tier mechanisms: a test that cannot fail proves nothing. Builds without one
//! mechanism after another, and checks that the tests about it fail.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nomail_common::mechanisms::Mechanism::{self, *};

use crate::build::{self, Built};
use crate::{programs, setup, shell};

/// Names the mechanism that a build leaves out.
const WITHOUT: &str = "NOMAIL_WITHOUT";

/// Passes without any of the mechanisms: the program loads, and the agent serves.
const CONTROL: &str = "guard::generic_mode_and_the_responder_alone";

/// Each mechanism, and the tests (`PROGRAM::TEST`) that fail without it.
const MECHANISMS: &[(Mechanism, &[&str])] = &[
    (MalformedFirst, &["bpf_truth_table::the_whole_truth_table"]),
    (
        BucketsBeforeCap,
        &["bpf_truth_table::the_whole_truth_table"],
    ),
    (
        SourceBucket,
        &[
            "flood::a_botnet_that_proves_itself_gets_its_rate_and_no_more",
            "flood::forging_an_address_does_not_silence_it",
            "bpf_verdicts::a_source_over_its_bucket_is_dropped_and_no_other",
            "bpf_truth_table::the_whole_truth_table",
        ],
    ),
    (
        PrefixBucket,
        &[
            "flood::forging_the_neighbours_does_not_silence_a_network",
            "bpf_challenge::a_prefix_has_its_own_bucket",
            "bpf_truth_table::the_whole_truth_table",
        ],
    ),
    (
        Cap,
        &[
            "challenge_loss::a_stalled_agent_does_not_let_the_flood_through",
            "flood::strangers_with_forged_sources_do_not_stop_an_honest_one",
        ],
    ),
    (
        ProvenBuckets,
        &[
            "flood::forging_an_address_does_not_silence_it",
            "flood::forging_the_neighbours_does_not_silence_a_network",
            "bpf_challenge::over_its_bucket_the_proven_is_dropped_and_the_unproven_challenged",
        ],
    ),
    (
        ExactBucket,
        &["bpf_cpus::a_source_on_two_cpus_gets_its_exact_rate"],
    ),
    (
        Nat64Sources,
        &["bpf_challenge::a_client_behind_nat64_is_one_of_many"],
    ),
    (
        DataAndEcnAccepted,
        &[
            "challenge_stacks::odd_syns_have_their_verdicts_and_the_honest_are_through",
            "challenge_stacks::linux_with_data_in_its_syn_is_through",
            "bpf_verdicts::syns_for_guarded_pairs_are_counted",
        ],
    ),
    (
        FirstFragments,
        &[
            "challenge_stacks::odd_syns_have_their_verdicts_and_the_honest_are_through",
            "bpf_verdicts::malformed_is_dropped_and_charges_nobody",
        ],
    ),
    (
        Ipv6,
        &[
            "flood::strangers_with_forged_sources_do_not_stop_an_honest_one",
            "bpf_truth_table::the_whole_truth_table",
        ],
    ),
    (
        GuardedAddresses,
        &[
            "challenge_loss::two_hosts_with_nomail_forward_for_each_other",
            "guard::forwarded_port_25_passes",
        ],
    ),
    (
        Challenge,
        &[
            "flood::strangers_with_forged_sources_do_not_stop_an_honest_one",
            "flood::all_of_them_at_once_do_not_stop_an_honest_one",
        ],
    ),
    (
        ChallengeOverBucket,
        &[
            "flood::forging_an_address_does_not_silence_it",
            "flood::forging_the_neighbours_does_not_silence_a_network",
            "flood::all_of_them_at_once_do_not_stop_an_honest_one",
            "bpf_challenge::over_its_bucket_the_proven_is_dropped_and_the_unproven_challenged",
        ],
    ),
    (
        TicketSequence,
        &["bpf_challenge::the_reset_proves_the_tuple_and_its_next_syn_passes"],
    ),
    (
        TicketTime,
        &["challenge_loss::with_loss_each_way_the_honest_are_through"],
    ),
    (
        TicketSyns,
        &["bpf_challenge::a_ticket_admits_a_first_syn_and_its_retransmissions_and_charges_once"],
    ),
    (
        WrongAnswers,
        &[
            "bpf_challenge::trying_all_proofs_gives_hardly_a_ticket",
            "bpf_challenge::beyond_the_limit_of_wrong_answers_a_client_answers_twice",
        ],
    ),
    (
        ReachBeforeCookie,
        &["bpf_challenge::nobody_is_answered_who_must_not_be"],
    ),
    (
        OtherWayPasses,
        &[
            "bpf_challenge::nobody_is_answered_who_must_not_be",
            "bpf_truth_table::the_whole_truth_table",
        ],
    ),
    (
        OwnPortsUnanswered,
        &[
            "bpf_responder::a_segment_from_one_of_our_ports_is_never_answered",
            "bpf_challenge::nobody_is_answered_who_must_not_be",
        ],
    ),
    (Lease, &["lifetime::a_dead_agent_challenges_nobody"]),
    (
        Fallback,
        &[
            "failover::a_stalled_agent_is_stood_in_for",
            "bpf_responder::it_takes_the_place_of_listeners_and_gives_it_back",
        ],
    ),
    (
        SilenceBeforeGreeting,
        &["bpf_responder::a_client_that_talks_before_its_greeting_is_not_answered"],
    ),
    (
        ResetEndsGreeting,
        &["bpf_responder::what_is_owed_is_what_the_client_has_yet_to_acknowledge"],
    ),
    (
        MakeRoom,
        &["responder::a_full_house_has_room_for_all_but_the_fullest_network"],
    ),
    (
        EhloRefusalsEnd,
        &["responder::a_health_check_settles_and_a_monitor_never_flaps"],
    ),
    (
        BareLf,
        &["responder::a_proxy_header_and_a_bare_lf_end_in_521"],
    ),
    (
        DomainsOfNetwork,
        &["foreign_domains::forty_invented_domains_do_not_silence_the_warning"],
    ),
    (
        WrongLineSkipped,
        &["lists::a_bad_line_costs_that_line_and_public_lists_are_read"],
    ),
    (
        AllowMissing,
        &["lists::without_a_file_of_the_allowed_nothing_is_denied_until_it_is_there"],
    ),
    (
        ListsWatched,
        &["lists::files_that_change_are_taken_up_by_themselves"],
    ),
    (
        Netlink,
        &[
            "lifetime::an_interface_that_is_deleted_and_comes_back_is_guarded_again",
            "guard::addresses_that_come_and_go_are_followed",
            "guard::a_renamed_interface_is_followed",
            "guard::without_its_interface_it_waits_for_it",
        ],
    ),
    (
        ReplaceLink,
        &["lifetime::no_syn_is_missed_while_agents_come_and_go"],
    ),
    (
        MetricsRetry,
        &["metrics::a_port_that_is_taken_is_tried_again"],
    ),
    (
        Reattach,
        &[
            "detached::a_program_that_was_detached_is_attached_again",
            "detached::a_pinned_guard_that_was_detached_is_attached_again",
            "detached::an_interface_that_comes_back_under_its_number_is_guarded_again",
        ],
    ),
    (
        ReplacedReported,
        &[
            "detached::another_program_in_its_place_is_told_of_and_left_alone",
            "detached::a_link_that_was_given_another_program_is_told_of",
        ],
    ),
    (
        PeerFeatures,
        &["answers::native_mode_that_was_asked_for_and_cannot_answer_is_loud"],
    ),
    (
        LostAnswers,
        &["answers::a_driver_that_drops_all_that_xdp_sends_is_noticed"],
    ),
    (
        GreetingPause,
        &["responder::auto_refuses_a_sender_that_returns_from_another_network"],
    ),
    (
        Sight,
        &["sight::a_guard_that_misses_what_connects_is_noticed"],
    ),
    (
        BansEnd,
        &["crowdsec::bans_end_with_the_process_and_what_hangs_is_reported"],
    ),
    (
        SmtpSyscalls,
        &["confinement::each_thread_is_refused_all_that_it_does_not_use"],
    ),
    (
        NoExecutableMemory,
        &["confinement::each_thread_is_refused_all_that_it_does_not_use"],
    ),
    (
        FrameFilter,
        &["confinement::the_packet_socket_hears_nothing"],
    ),
    (
        FrameFilterLock,
        &["confinement::the_packet_socket_hears_nothing"],
    ),
    (
        ClockUnloaded,
        &["confinement::no_memory_can_be_written_and_run_and_no_program_is_left_but_the_guards"],
    ),
    (
        ForeignLinks,
        &[
            "privileges::a_list_or_key_is_not_read_over_a_link_of_another_account",
            "privileges::a_control_socket_in_a_directory_of_another_account_is_refused",
        ],
    ),
];

/// Longest for a test program, which has deadlines of its own.
const PROGRAM_DEADLINE_SECS: &str = "600";
/// Characters of a panic's line that the table shows.
const SHOWN_MAX: usize = 80;

/// Leaves out each mechanism whose name contains one of `filters`, runs its tests, prints
/// what failed as a table and keeps that in target/mechanisms.md.
///
/// # Errors
/// When something does not build, a test fails with all mechanisms, or passes without its
/// own.
pub(crate) fn test(filters: &[OsString]) -> Result<()> {
    setup::ensure_runtime_tools()?;
    let is_wanted = |name: &str| {
        let mut filters = filters.iter().map(|filter| filter.to_string_lossy());
        filters.len() == 0 || filters.any(|filter| name.contains(&*filter))
    };
    let rows: Vec<_> = MECHANISMS
        .iter()
        .filter(|(mechanism, _)| is_wanted(mechanism.name()))
        .collect();
    if rows.is_empty() {
        bail!("MECHANISMS of xtask/src/mechanisms.rs has no such row: {filters:?}");
    }
    let bench = Bench::new()?;
    let tests: BTreeSet<_> = rows.iter().flat_map(|(_, tests)| *tests).copied().collect();
    shell::say("running the tests with all mechanisms (the first build takes some minutes)");
    for (name, outcome) in bench.outcomes(None, &tests)? {
        if outcome != Outcome::Passed {
            bail!("{name} fails with all mechanisms: {outcome}");
        }
    }
    let mut table = "| without this | fails | how |\n|---|---|---|\n".to_owned();
    let mut failed = Vec::new();
    for (number, (mechanism, tests)) in rows.iter().enumerate() {
        let (number, of, name) = (number + 1, rows.len(), mechanism.name());
        shell::say(format!("{number} of {of}: {name}"));
        let outcomes = bench.without(*mechanism, tests).unwrap_or_else(|err| {
            shell::report(&err);
            BTreeMap::from([("nothing".to_owned(), Outcome::Missing)])
        });
        for (test, outcome) in &outcomes {
            table += &line_of(name, test, outcome);
        }
        let all = outcomes.values().all(|it| matches!(it, Outcome::Failed(_)));
        if !all {
            failed.push(name);
        }
    }
    print!("{table}");
    let file = shell::target_dir()?.join("mechanisms.md");
    fs::write(&file, &table).with_context(|| format!("cannot write {}", file.display()))?;
    shell::say(format!("the table is in {}", file.display()));
    if !failed.is_empty() {
        bail!(
            "not shown to be tested: {}; the output of the tests is in {}",
            failed.join(", "),
            bench.logs.display()
        );
    }
    Ok(())
}

fn line_of(mechanism: &str, test: &str, outcome: &Outcome) -> String {
    let how = match outcome {
        Outcome::Failed(how) => how.replace('|', "\\|"),
        other => format!("**{other}**"),
    };
    format!("| {mechanism} | `{test}` | {how} |\n")
}

/// Builds apart from all others, in target/mechanisms.
struct Bench {
    target: PathBuf,
    logs: PathBuf,
    built: Built,
}

impl Bench {
    fn new() -> Result<Self> {
        let target = shell::target_dir()?.join("mechanisms");
        let logs = target.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let built = Built {
            object: build::object_path(&target.join("bpf")),
            traces: false,
            agent: target.join("debug/nomail-agent"),
        };
        Ok(Self {
            target,
            logs,
            built,
        })
    }

    /// Outcomes of these tests without the mechanism.
    fn without(&self, mechanism: Mechanism, tests: &[&str]) -> Result<BTreeMap<String, Outcome>> {
        let tests: BTreeSet<_> = tests.iter().copied().chain([CONTROL]).collect();
        let mut outcomes = self.outcomes(Some(mechanism), &tests)?;
        match outcomes.remove(CONTROL) {
            Some(Outcome::Passed) => Ok(outcomes),
            other => bail!(
                "nothing works any more, so a failure proves nothing: {CONTROL}: {}",
                other.unwrap_or(Outcome::Missing)
            ),
        }
    }

    /// Builds without the mechanism, if one is named, and runs these tests, those of a
    /// program by one call.
    fn outcomes(
        &self,
        without: Option<Mechanism>,
        tests: &BTreeSet<&str>,
    ) -> Result<BTreeMap<String, Outcome>> {
        let mut of_programs = BTreeMap::<&str, Vec<&str>>::new();
        for name in tests {
            let (program, test) = name.split_once("::").context("PROGRAM::TEST")?;
            of_programs.entry(program).or_default().push(test);
        }
        let name = without.map_or("", Mechanism::name);
        let xtask = env::current_exe().context("xtask is gone")?;
        shell::check_silent(self.prepare(Command::new(xtask).arg("build"), name)?)?;
        let mut command = vec!["test", "--package", "nomail-tests"];
        for program in of_programs.keys() {
            command.extend(["--test", program]);
        }
        let mut cargo = shell::cargo()?;
        self.prepare(&mut cargo, name)?;
        let programs = programs::compile(cargo, &command, &self.built)?;
        let mut outcomes = BTreeMap::new();
        for (program, tests) in of_programs {
            let path = programs.iter().find(|(found, _)| found == program);
            let (_, path) = path.with_context(|| format!("tests/tests has no {program}.rs"))?;
            let said = self.run(path, &tests)?;
            let log = without.map_or("all", Mechanism::name);
            let log = self.logs.join(format!("{log}.{program}.log"));
            fs::write(log, &said).context("cannot write a log")?;
            for test in tests {
                outcomes.insert(format!("{program}::{test}"), Outcome::of(test, &said));
            }
        }
        Ok(outcomes)
    }

    /// Runs tests of a program as root and returns their output.
    fn run(&self, program: &Path, tests: &[&str]) -> Result<String> {
        let timeout = shell::find_program("timeout", &shell::search_path())
            .context("there is no `timeout`, a program of coreutils")?;
        let mut arguments = vec![
            OsStr::new("--kill-after=10"),
            OsStr::new(PROGRAM_DEADLINE_SECS),
            program.as_os_str(),
            OsStr::new("--exact"),
        ];
        arguments.extend(tests.iter().map(OsStr::new));
        let mut command = programs::program_command(
            &timeout,
            &self.built,
            &shell::workspace().join("tests"),
            // A flood needs the machine for itself.
            &[("RUST_TEST_THREADS", OsStr::new("1"))],
            &arguments,
        )?;
        let output = command
            .output()
            .with_context(|| format!("cannot start: {}", shell::shown(&command)))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        Ok(format!("{said}\n{complained}"))
    }

    /// Has a command build here, without the mechanism of this name, and with the linker
    /// that is installed already.
    fn prepare<'a>(&self, command: &'a mut Command, without: &str) -> Result<&'a mut Command> {
        let tools = shell::target_dir()?.join("tools/bin");
        let path = env::join_paths([tools].into_iter().chain(shell::search_path()))
            .context("the target directory cannot be put on PATH")?;
        Ok(command
            .env("CARGO_TARGET_DIR", &self.target)
            .env("PATH", path)
            .env(WITHOUT, without)
            .env_remove(build::OBJECT))
    }
}

/// Outcome of a test.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// And how.
    Failed(String),
    /// It has not come to its end, or there is no such test.
    Missing,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed => f.write_str("passes"),
            Self::Failed(how) => write!(f, "fails: {how}"),
            Self::Missing => f.write_str("is missing, or has not ended"),
        }
    }
}

impl Outcome {
    /// From what the test program said.
    fn of(test: &str, said: &str) -> Self {
        let result = format!("test {test} ... ");
        let mut results = said.lines().filter_map(|line| line.strip_prefix(&result));
        if results.clone().any(|result| result == "ok") {
            return Self::Passed;
        }
        if !results.any(|result| result == "FAILED") {
            return Self::Missing;
        }
        let title = format!("---- {test} stdout ----");
        let section = said.lines().skip_while(|line| *line != title).skip(1);
        let section = section.take_while(|line| !line.starts_with("---- "));
        Self::Failed(panic_in(section).unwrap_or_else(|| "without a word".to_owned()))
    }
}

/// Where and how the first panic was: its first line, and the two sides of a
/// comparison.
fn panic_in<'a>(lines: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut lines = lines.skip_while(|line| !line.contains(" panicked at "));
    let (_, place) = lines.next()?.split_once(" panicked at ")?;
    let place = place.trim_end_matches(':');
    let mut place = place.rsplitn(2, ':');
    // The column says nothing.
    let place = place.nth(1)?;
    // What follows an opening brace is on other lines.
    let first = lines.next()?.trim_end_matches([' ', ':', '{']);
    let sides = lines
        .take_while(|line| !line.contains(" panicked at "))
        .map(str::trim_start)
        .filter(|line| line.starts_with("left: ") || line.starts_with("right: "));
    let how = std::iter::once(first).chain(sides).map(shortened);
    let how = how.collect::<Vec<_>>().join(", ");
    Some(format!("{how} ({place})"))
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mechanism_has_a_site_and_tests() {
        let workspace = shell::workspace();
        let sources = ["nomail-common/src", "nomail-ebpf/src", "nomail-agent/src"]
            .map(|folder| text_of(&workspace.join(folder)))
            .concat();
        let rows: Vec<_> = MECHANISMS.iter().map(|(mechanism, _)| *mechanism).collect();
        assert_eq!(rows, Mechanism::ALL);
        for (mechanism, tests) in MECHANISMS {
            let name = mechanism.name();
            assert!(
                sources.contains(&format!("Mechanism::{name}.is_o")),
                "{name}"
            );
            assert!(!tests.is_empty(), "{name}");
            for test in tests.iter().chain([&CONTROL]) {
                let (program, test) = test.split_once("::").unwrap();
                let file = workspace.join("tests/tests").join(format!("{program}.rs"));
                let source = fs::read_to_string(&file).unwrap();
                assert!(source.contains(&format!("#[test]\nfn {test}()")), "{test}");
            }
        }
    }

    /// The Rust sources of a folder, without white space.
    fn text_of(folder: &Path) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                text += &text_of(&path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&path).unwrap();
                text.extend(source.split_whitespace());
            }
        }
        text
    }

    #[test]
    fn reads_what_came_of_a_test() {
        let said = "
running 4 tests
test good ... ok
test equal ... FAILED
test bad ... FAILED
test good_too ... ok

failures:

---- equal stdout ----
flood: 12 frames

thread 'equal' (12) panicked at tests/flood.rs:50:5:
assertion `left == right` failed: {
  \"a\": 1
}
  left: 3
 right: 100

---- bad stdout ----

thread '<unnamed>' (13) panicked at tests/flood.rs:51:9:
waited 20s in vain: the flood | is answered
thread 'bad' (12) panicked at tests/lab.rs:1:1:
another

failures:
    equal
    bad
";
        assert_eq!(Outcome::of("good", said), Outcome::Passed);
        assert_eq!(Outcome::of("other", said), Outcome::Missing);
        assert_eq!(
            Outcome::of("equal", said),
            Outcome::Failed(
                "assertion `left == right` failed, left: 3, right: 100 (tests/flood.rs:50)".into()
            )
        );
        let line = line_of("Cap", "bad", &Outcome::of("bad", said));
        assert!(line.ends_with(
            " | `bad` | waited 20s in vain: the flood \\| is answered (tests/flood.rs:51) |\n"
        ));
    }
}
