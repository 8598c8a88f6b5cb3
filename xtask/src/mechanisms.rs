//! The tier mechanisms: a test that cannot fail proves nothing. Each row of
//! [`MECHANISMS`] switches one mechanism of the guard off, in a copy of the sources,
//! and has the tests that are about it fail there.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Built};
use crate::{setup, shell, test};

/// A mechanism, and how it is switched off.
struct Mechanism {
    /// What is so without it.
    without: &'static str,
    /// Where it is, from the top of the workspace.
    file: &'static str,
    /// Its text, which is in there once.
    text: &'static str,
    /// What stands there without it.
    instead: &'static str,
    /// `PROGRAM::TEST`, each of which fails without it.
    tests: &'static [&'static str],
}

/// Passes without any of the mechanisms: the program loads, and the agent serves.
const CONTROL: &str = "guard::generic_mode_and_the_responder_alone";

const MECHANISMS: &[Mechanism] = &[
    Mechanism {
        without: "the deny list comes before malformed",
        file: "nomail-common/src/guard/policy.rs",
        text: "    if facts.malformed() {
        return unproven(Verdict::Malformed);
    }
    let allowed = facts.allowed();
    if !allowed && facts.denied() {
        return unproven(Verdict::Denied);
    }
",
        instead: "    let allowed = facts.allowed();
    if !allowed && facts.denied() {
        return unproven(Verdict::Denied);
    }
    if facts.malformed() {
        return unproven(Verdict::Malformed);
    }
",
        tests: &["bpf_truth_table::the_whole_truth_table"],
    },
    Mechanism {
        without: "the cap comes before the buckets",
        file: "nomail-common/src/guard/policy.rs",
        text: "    let verdict = if charged && facts.over_source(proven) {
        Verdict::LimitedSource
    } else if charged && facts.over_prefix(proven) {
        Verdict::LimitedPrefix
    } else if !proven && facts.over_cap() {
        Verdict::Flood
    } else {
",
        instead: "    let verdict = if !proven && facts.over_cap() {
        Verdict::Flood
    } else if charged && facts.over_source(proven) {
        Verdict::LimitedSource
    } else if charged && facts.over_prefix(proven) {
        Verdict::LimitedPrefix
    } else {
",
        tests: &["bpf_truth_table::the_whole_truth_table"],
    },
    Mechanism {
        without: "no source is over its bucket",
        file: "nomail-ebpf/src/main.rs",
        text: "Verdict::LimitedSource, proven);
        }
        charged & OVER != 0
",
        instead: "Verdict::LimitedSource, proven);
        }
        false
",
        tests: &[
            "flood::a_botnet_that_proves_itself_gets_its_rate_and_no_more",
            "flood::forging_an_address_does_not_silence_it",
            "bpf_verdicts::a_source_over_its_bucket_is_dropped_and_no_other",
            "bpf_truth_table::the_whole_truth_table",
        ],
    },
    Mechanism {
        without: "no prefix is over its bucket",
        file: "nomail-ebpf/src/main.rs",
        text: "Verdict::LimitedPrefix, proven);
        }
        charged & OVER != 0
",
        instead: "Verdict::LimitedPrefix, proven);
        }
        false
",
        tests: &[
            "flood::forging_the_neighbours_does_not_silence_a_network",
            "bpf_challenge::a_prefix_has_its_own_bucket",
            "bpf_truth_table::the_whole_truth_table",
        ],
    },
    Mechanism {
        without: "the unproven have no cap",
        file: "nomail-ebpf/src/main.rs",
        text: "        self.is_over_shared(CAP, self.config.cap)\n",
        instead: "        self.is_over_shared(CAP, self.config.cap) && self.config.cap.interval == 0\n",
        tests: &[
            "challenge_loss::a_stalled_agent_does_not_let_the_flood_through",
            "flood::strangers_with_forged_sources_do_not_stop_an_honest_one",
        ],
    },
    Mechanism {
        without: "no connection makes room for another",
        file: "nomail-agent/src/smtp/listener.rs",
        text: "let Some(key) = victim else {",
        instead: "let Some(key) = victim.filter(|_| false) else {",
        tests: &["responder::a_full_house_has_room_for_all_but_the_fullest_network"],
    },
    Mechanism {
        without: "auto refuses a network at EHLO for ever",
        file: "nomail-agent/src/smtp/senders.rs",
        text: "self.ehlo_refusals >= EHLO_REFUSALS_MAX",
        instead: "self.ehlo_refusals == u8::MAX",
        tests: &["responder::a_health_check_settles_and_a_monitor_never_flaps"],
    },
    Mechanism {
        without: "an LF alone waits for its line",
        file: "nomail-agent/src/smtp/dialog.rs",
        text: "Ending::Lf => return Some(say(Reply::BareLf).and_close(Outcome::Closed)),",
        instead: "Ending::Lf => return None,",
        tests: &["responder::a_proxy_header_and_a_bare_lf_end_in_521"],
    },
    Mechanism {
        without: "XDP takes nobody's place",
        file: "nomail-common/src/guard/policy.rs",
        text: "        } else if responder == RESPOND_FOR_LISTENERS {\n",
        instead: "        } else if responder == RESPOND_FOR_LISTENERS && false {\n",
        tests: &[
            "failover::a_stalled_agent_is_stood_in_for",
            "bpf_responder::it_takes_the_place_of_listeners_and_gives_it_back",
        ],
    },
    Mechanism {
        without: "a flood is dropped, and nobody challenged",
        file: "nomail-common/src/guard/policy.rs",
        text: "1 => Self::Challenge,",
        instead: "1 => Self::Drop,",
        tests: &[
            "flood::strangers_with_forged_sources_do_not_stop_an_honest_one",
            "flood::all_of_them_at_once_do_not_stop_an_honest_one",
        ],
    },
    Mechanism {
        without: "who is over a bucket is dropped, proven or not",
        file: "nomail-common/src/guard/policy.rs",
        text: "Verdict::LimitedSource | Verdict::LimitedPrefix | Verdict::Flood",
        instead: "Verdict::Flood",
        tests: &[
            "flood::forging_an_address_does_not_silence_it",
            "flood::forging_the_neighbours_does_not_silence_a_network",
            "flood::all_of_them_at_once_do_not_stop_an_honest_one",
            "bpf_challenge::over_its_bucket_the_proven_is_dropped_and_the_unproven_challenged",
        ],
    },
    Mechanism {
        without: "the proven share the buckets of the unproven",
        file: "nomail-common/src/guard/policy.rs",
        text: "    let verdict = if charged && facts.over_source(proven) {
        Verdict::LimitedSource
    } else if charged && facts.over_prefix(proven) {
",
        instead: "    let verdict = if charged && facts.over_source(false) {
        Verdict::LimitedSource
    } else if charged && facts.over_prefix(false) {
",
        tests: &[
            "flood::forging_an_address_does_not_silence_it",
            "flood::forging_the_neighbours_does_not_silence_a_network",
            "bpf_challenge::over_its_bucket_the_proven_is_dropped_and_the_unproven_challenged",
        ],
    },
    Mechanism {
        without: "a proof is of the tuple, whatever the SYN's sequence number",
        file: "nomail-common/src/guard/tickets.rs",
        text: "(sequence >> 16).wrapping_sub(high) & HIGH_MASK as u32 <= 1",
        instead: "(sequence >> 16).wrapping_sub(high) & 0 <= 1",
        tests: &[
            "flood::forging_an_address_does_not_silence_it",
            "bpf_challenge::the_reset_proves_the_tuple_and_its_next_syn_passes",
        ],
    },
    Mechanism {
        without: "a proof holds for half a second",
        file: "nomail-agent/src/guard/mod.rs",
        text: "config.proof_ticks = hz * PROOF_SECS as u32;",
        instead: "config.proof_ticks = hz * PROOF_SECS as u32 / 20;",
        tests: &["challenge_loss::with_loss_each_way_the_honest_are_through"],
    },
    Mechanism {
        without: "a SYN with data or ECN is malformed",
        file: "nomail-common/src/wire/packet.rs",
        text: "            if flags & (TCP_FIN | TCP_RST) != 0
                || header_length < TCP_LENGTH_MIN
                || header_length > transport.length
",
        instead: "            if flags & !TCP_SYN != 0 || header_length != transport.length
",
        tests: &[
            "challenge_stacks::odd_syns_have_their_verdicts_and_the_honest_are_through",
            "challenge_stacks::linux_with_data_in_its_syn_is_through",
            "bpf_verdicts::syns_for_guarded_pairs_are_counted",
        ],
    },
    Mechanism {
        without: "a first fragment passes",
        file: "nomail-common/src/wire/packet.rs",
        text: "        let header: [u8; 4] = frame.read(transport.offset)?;
        let port = u16::from_be_bytes([header[2], header[3]]);
",
        instead: "        let header: [u8; 4] = frame.read(transport.offset)?;
        let port = u16::from_be_bytes([header[2], header[3]]) & 0;
",
        tests: &[
            "challenge_stacks::odd_syns_have_their_verdicts_and_the_honest_are_through",
            "bpf_verdicts::malformed_is_dropped_and_charges_nobody",
        ],
    },
    Mechanism {
        without: "IPv6 passes unseen",
        file: "nomail-common/src/wire/packet.rs",
        text: "ETHERTYPE_IPV6 => ipv6(frame, network),",
        instead: "ETHERTYPE_IPV6 => None,",
        tests: &[
            "flood::strangers_with_forged_sources_do_not_stop_an_honest_one",
            "bpf_truth_table::the_whole_truth_table",
        ],
    },
    Mechanism {
        without: "a bucket is loaded and stored, not compared and swapped",
        file: "nomail-ebpf/src/maps.rs",
        text: "self.bucket_word(slot).replace(old.0, new.0)",
        instead: "{
            self.bucket_word(slot).prepare(new.0);
            old.0 != new.0
        }",
        tests: &["bpf_cpus::a_source_on_two_cpus_gets_its_exact_rate"],
    },
    Mechanism {
        without: "a port is guarded at any address",
        file: "nomail-ebpf/src/main.rs",
        text: "let guarded = config.guarded(segment.local, segment.port)?;",
        instead: "let guarded = config
        .guarded(segment.local, segment.port)
        .unwrap_or(&config.guarded[0]);",
        tests: &[
            "challenge_loss::two_hosts_with_nomail_forward_for_each_other",
            "guard::forwarded_port_25_passes",
        ],
    },
    Mechanism {
        without: "what netlink tells is not heard",
        file: "nomail-agent/src/agent/mod.rs",
        text: "more = self.kernel.changed(), if following =>",
        instead: "more = self.kernel.changed(), if following && false =>",
        tests: &[
            "lifetime::an_interface_that_is_deleted_and_comes_back_is_guarded_again",
            "guard::addresses_that_come_and_go_are_followed",
            "guard::a_renamed_interface_is_followed",
            "guard::without_its_interface_it_waits_for_it",
        ],
    },
    Mechanism {
        without: "an upgrade detaches the old program, then attaches the new one",
        file: "nomail-agent/src/guard/mod.rs",
        text: "        let link = attach::replace(program(&mut self.ebpf, abi::PROGRAM)?, link)?;
        self.links.push((interface, link));
        Ok(true)
",
        instead: "        drop(link);
        self.release(interface)?;
        while let Err(error) = self.attach(interface, &[Mode::Native]) {
            if !matches!(error, BpfError::Occupied) {
                return Err(error);
            }
        }
        Ok(true)
",
        tests: &["lifetime::no_syn_is_missed_while_agents_come_and_go"],
    },
    Mechanism {
        without: "a program needs no lease to challenge",
        file: "nomail-common/src/abi.rs",
        text: "until == 0 || until.wrapping_sub(now) <= LEASE_TICKS_MAX",
        instead: "until == 0 || until.wrapping_sub(now) < u32::MAX",
        tests: &["lifetime::a_dead_agent_challenges_nobody"],
    },
    Mechanism {
        without: "a wrong line of a list file costs the whole file",
        file: "nomail-agent/src/config/lines.rs",
        text: "if file.entries == 0 && file.left_out > 0 {",
        instead: "if file.left_out > 0 {",
        tests: &["lists::a_bad_line_costs_that_line_and_public_lists_are_read"],
    },
    Mechanism {
        without: "what a missing file allows may be denied",
        file: "nomail-agent/src/config/lists.rs",
        text: "let denies_nothing = files.iter().any(|file| file.unread.is_some());",
        instead: "let denies_nothing = false;",
        tests: &["lists::without_a_file_of_the_allowed_nothing_is_denied_until_it_is_there"],
    },
    Mechanism {
        without: "a list file that changes waits for a signal",
        file: "nomail-agent/src/config/watch.rs",
        text: "let changed = now != self.taken && self.same >= SETTLED_LOOKS;",
        instead: "let changed = false;",
        tests: &["lists::files_that_change_are_taken_up_by_themselves"],
    },
    Mechanism {
        without: "bans stay when the process that pulls them ends",
        file: "nomail-agent/src/agent/decisions.rs",
        text: "        self.lift()\n    }\n\n    /// Ends all bans;",
        instead: "        false\n    }\n\n    /// Ends all bans;",
        tests: &["crowdsec::bans_end_with_the_process_and_what_hangs_is_reported"],
    },
    Mechanism {
        without: "a network names as many domains as it likes",
        file: "nomail-agent/src/smtp/foreign.rs",
        text: ">= OF_NETWORK_MAX {",
        instead: ">= usize::MAX {",
        tests: &["foreign_domains::forty_invented_domains_do_not_silence_the_warning"],
    },
    Mechanism {
        without: "the thread that talks to clients has its own system calls",
        file: "nomail-agent/src/host/privilege/syscalls.rs",
        text: "        Thread::Smtp => SMTP,",
        instead: "        Thread::Smtp => MAIN,",
        tests: &["confinement::each_thread_is_refused_all_that_it_does_not_use"],
    },
    Mechanism {
        without: "the packet socket drops what arrives",
        file: "nomail-agent/src/net/frames.rs",
        text: "        socket.attach_filter(&[drop])?;
",
        instead: "",
        tests: &["confinement::the_packet_socket_hears_nothing"],
    },
    Mechanism {
        without: "the filter of the packet socket is locked",
        file: "nomail-agent/src/net/frames.rs",
        text: "        lock_filter(&socket)?;
",
        instead: "",
        tests: &["confinement::the_packet_socket_hears_nothing"],
    },
    Mechanism {
        without: "no memory can be made executable",
        file: "nomail-agent/src/host/privilege/syscalls.rs",
        text: "    (libc::SYS_mprotect, NOT_EXECUTABLE),",
        instead: "    (libc::SYS_mprotect, ALWAYS),",
        tests: &["confinement::each_thread_is_refused_all_that_it_does_not_use"],
    },
    Mechanism {
        without: "the program that reads the clock is unloaded",
        file: "nomail-agent/src/guard/clock.rs",
        text: "        program.unload()?;
",
        instead: "",
        tests: &[
            "confinement::no_memory_can_be_written_and_run_and_no_program_is_left_but_the_guards",
        ],
    },
    Mechanism {
        without: "no link of another account is followed",
        file: "nomail-agent/src/walk.rs",
        text: "        if is(&found, SFlag::S_IFLNK) {
            if !trusted.contains(&found.st_uid) {",
        instead: "        if is(&found, SFlag::S_IFLNK) {
            if !trusted.contains(&0) {",
        tests: &[
            "privileges::a_list_or_key_is_not_read_over_a_link_of_another_account",
            "privileges::a_control_socket_in_a_directory_of_another_account_is_refused",
        ],
    },
    Mechanism {
        without: "metrics that cannot be bound are tried again",
        file: "nomail-agent/src/agent/metrics_socket.rs",
        text: "        self.failure.is_some()",
        instead: "        false",
        tests: &["metrics::a_port_that_is_taken_is_tried_again"],
    },
    Mechanism {
        without: "a guard that another process detached is attached again",
        file: "nomail-agent/src/agent/watch.rs",
        text: "None => self.attach_again(place, &glance).await,",
        instead: "None => {}",
        tests: &[
            "detached::a_program_that_was_detached_is_attached_again",
            "detached::a_pinned_guard_that_was_detached_is_attached_again",
            "detached::an_interface_that_comes_back_under_its_number_is_guarded_again",
        ],
    },
    Mechanism {
        without: "a program in place of the guard is told of",
        file: "nomail-agent/src/agent/watch.rs",
        text: "Some(found) => self.tell_replaced(place, &glance, found),",
        instead: "Some(_) => {}",
        tests: &[
            "detached::another_program_in_its_place_is_told_of_and_left_alone",
            "detached::a_link_that_was_given_another_program_is_told_of",
        ],
    },
    Mechanism {
        without: "what the kernel says of the other end of a veth pair is heard",
        file: "nomail-agent/src/agent/watch.rs",
        text: "bits != 0 && bits & XDP_SENDS == 0",
        instead: "bits & XDP_SENDS == u64::MAX",
        tests: &["answers::native_mode_that_was_asked_for_and_cannot_answer_is_loud"],
    },
    Mechanism {
        without: "the driver's counters say that answers are lost",
        file: "nomail-agent/src/agent/arrival.rs",
        text: "let lost = dropped >= sent.div_ceil(10) * 9 || dropped >= sent;",
        instead: "let lost = dropped == u64::MAX;",
        tests: &["answers::a_driver_that_drops_all_that_xdp_sends_is_noticed"],
    },
    Mechanism {
        without: "XDP answers segments from its own ports",
        file: "nomail-common/src/guard/policy.rs",
        text: "            && !ports.contains(&segment.peer_port)
",
        instead: "            && ports.len() == MAX_PORTS
",
        tests: &[
            "bpf_responder::a_segment_from_one_of_our_ports_is_never_answered",
            "bpf_challenge::nobody_is_answered_who_must_not_be",
        ],
    },
    Mechanism {
        without: "a text before the greeting is greeted",
        file: "nomail-common/src/stateless/dialog.rs",
        text: "        if length > 0 {
            return Outcome::Silence;
        }
",
        instead: "",
        tests: &["bpf_responder::a_client_that_talks_before_its_greeting_is_not_answered"],
    },
    Mechanism {
        without: "a reset ends nothing that is owed",
        file: "nomail-common/src/stateless/dialog.rs",
        text: "            if is_meant && syns > BARE_SYNS {
",
        instead: "            if is_meant && syns > BARE_SYNS && false {
",
        tests: &["bpf_responder::what_is_owed_is_what_the_client_has_yet_to_acknowledge"],
    },
    Mechanism {
        without: "a ticket admits any number of SYNs",
        file: "nomail-common/src/guard/tickets.rs",
        text: "            admitted if admitted < u64::from(TICKET_SYNS) => Proof::Used,
            _ => Proof::Spent,
",
        instead: "            _ => Proof::Used,
",
        tests: &[
            "bpf_challenge::a_ticket_admits_a_first_syn_and_its_retransmissions_and_charges_once",
        ],
    },
    Mechanism {
        without: "wrong answers cost nothing",
        file: "nomail-common/src/guard/tickets.rs",
        text: "                _ if strict => (",
        instead: "                _ if strict && false => (",
        tests: &[
            "bpf_challenge::trying_all_proofs_gives_hardly_a_ticket",
            "bpf_challenge::beyond_the_limit_of_wrong_answers_a_client_answers_twice",
        ],
    },
    Mechanism {
        without: "whether a SYN can be answered is asked before its cookie",
        file: "nomail-ebpf/src/main.rs",
        text: "            Reach::Yes => return self.reply(proof),
",
        instead:
            "            _ if self.flood_answer == FloodAnswer::Cookie && self.cookie() == 0 => {
                return XDP_DROP;
            }
            Reach::Yes => return self.reply(proof),
",
        tests: &["bpf_challenge::nobody_is_answered_who_must_not_be"],
    },
    Mechanism {
        without: "a SYN that cannot be answered is dropped",
        file: "nomail-ebpf/src/main.rs",
        text: "            Reach::NotThisWay => true,
",
        instead: "            Reach::NotThisWay => false,
",
        tests: &[
            "bpf_challenge::nobody_is_answered_who_must_not_be",
            "bpf_truth_table::the_whole_truth_table",
        ],
    },
    Mechanism {
        without: "all behind NAT64 are one source",
        file: "nomail-common/src/guard/source.rs",
        text: "            if is_nat64(high, low) {
",
        instead: "            if is_nat64(high, low) && false {
",
        tests: &["bpf_challenge::a_client_behind_nat64_is_one_of_many"],
    },
];

/// Longest for a test program, which has deadlines of its own.
const PROGRAM_DEADLINE_SECS: &str = "600";
/// Of a line of a panic, so many characters are worth a place in a table.
const SHOWN_MAX: usize = 80;

/// Switches off the mechanisms whose names have one of `filters` in them, each in
/// turn, and has their tests fail; prints the table and keeps it in
/// target/mechanisms.md.
///
/// # Errors
/// When a text is not in its file once, something does not build, a test fails with
/// all mechanisms, or does not fail without its own.
pub(crate) fn test(filters: &[OsString]) -> Result<()> {
    setup::ensure_runtime_tools()?;
    let rows: Vec<_> = MECHANISMS
        .iter()
        .filter(|row| row.is_one(filters))
        .collect();
    if rows.is_empty() {
        bail!("there is no such row in MECHANISMS of xtask/src/mechanisms.rs: {filters:?}");
    }
    for row in &rows {
        row.changed(&shell::workspace())?;
    }
    let bench = Bench::new()?;
    let tests: BTreeSet<_> = rows.iter().flat_map(|row| row.tests).copied().collect();
    shell::say("building a copy of the sources (the first time some minutes)");
    bench.mirror()?;
    shell::say("running the tests with all mechanisms");
    for (name, outcome) in bench.outcomes("all", &tests)? {
        if outcome != Outcome::Passed {
            bail!("{name} does not pass as things are: {outcome}");
        }
    }
    let mut table = "| without this | fails | how |\n|---|---|---|\n".to_owned();
    let mut failed = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let (number, of) = (number + 1, rows.len());
        shell::say(format!("{number} of {of}: {}", row.without));
        let outcomes = bench.without(row).unwrap_or_else(|err| {
            shell::report(&err);
            BTreeMap::from([("nothing".to_owned(), Outcome::Missing)])
        });
        for (name, outcome) in &outcomes {
            table += &line_of(row, name, outcome);
        }
        let all = outcomes.values().all(|it| matches!(it, Outcome::Failed(_)));
        if !all {
            failed.push(row.without);
        }
    }
    bench.mirror()?;
    print!("{table}");
    let file = shell::target_dir()?.join("mechanisms.md");
    fs::write(&file, &table).with_context(|| format!("cannot write {}", file.display()))?;
    shell::say(format!("the table is in {}", file.display()));
    if !failed.is_empty() {
        bail!(
            "not shown to be tested: {}; what was said is in {}",
            failed.join("; "),
            bench.logs.display()
        );
    }
    Ok(())
}

fn line_of(row: &Mechanism, test: &str, outcome: &Outcome) -> String {
    let how = match outcome {
        Outcome::Failed(how) => how.replace('|', "\\|"),
        other => format!("**{other}**"),
    };
    format!("| {} | `{test}` | {how} |\n", row.without)
}

impl Mechanism {
    fn is_one(&self, filters: &[OsString]) -> bool {
        let mut filters = filters.iter().map(|filter| filter.to_string_lossy());
        filters.len() == 0 || filters.any(|filter| self.without.contains(&*filter))
    }

    /// The file of the workspace without the mechanism.
    fn changed(&self, workspace: &Path) -> Result<String> {
        let file = workspace.join(self.file);
        let whole =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", self.file))?;
        let found = whole.matches(self.text).count();
        if found != 1 {
            bail!(
                "{}: the text of the mechanism is there {found} times, not once; mend the row \
                 {:?} of xtask/src/mechanisms.rs. The text:\n{}",
                self.file,
                self.without,
                self.text
            );
        }
        Ok(whole.replace(self.text, self.instead))
    }
}

/// A copy of the sources, with a target directory of its own.
struct Bench {
    copy: PathBuf,
    logs: PathBuf,
    built: Built,
}

impl Bench {
    fn new() -> Result<Self> {
        let top = shell::target_dir()?.join("mechanisms");
        let (copy, logs) = (top.join("source"), top.join("logs"));
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        let target = copy.join("target");
        let built = Built {
            object: build::object_path(&target.join("bpf")),
            agent: target.join("debug/nomail-agent"),
        };
        Ok(Self { copy, logs, built })
    }

    /// Makes the copy what the sources are.
    fn mirror(&self) -> Result<()> {
        mirror(&shell::workspace(), &self.copy, &shell::target_dir()?)
    }

    /// What comes of a row's tests without its mechanism.
    fn without(&self, row: &Mechanism) -> Result<BTreeMap<String, Outcome>> {
        self.mirror()?;
        fs::write(self.copy.join(row.file), row.changed(&self.copy)?)
            .with_context(|| format!("cannot change {}", row.file))?;
        let tests: BTreeSet<_> = row.tests.iter().copied().chain([CONTROL]).collect();
        let mut outcomes = self.outcomes(row.without, &tests)?;
        match outcomes.remove(CONTROL) {
            Some(Outcome::Passed) => Ok(outcomes),
            other => bail!(
                "nothing works any more, so that a failure tells nothing: {CONTROL}: {}",
                other.unwrap_or(Outcome::Missing)
            ),
        }
    }

    /// Builds what the copy is and runs these tests of it, those of a program by
    /// one call. The logs are named after `run`.
    fn outcomes(&self, run: &str, tests: &BTreeSet<&str>) -> Result<BTreeMap<String, Outcome>> {
        let mut of_programs = BTreeMap::<&str, Vec<&str>>::new();
        for name in tests {
            let (program, test) = name.split_once("::").context("PROGRAM::TEST")?;
            of_programs.entry(program).or_default().push(test);
        }
        shell::check_silent(self.cargo()?.args(["xtask", "build"]))?;
        let mut command = vec!["test"];
        for program in of_programs.keys() {
            command.extend(["--test", program]);
        }
        let programs = test::compile(self.cargo()?, &command, &self.built)?;
        let mut outcomes = BTreeMap::new();
        for (program, tests) in of_programs {
            let path = programs.iter().find(|(found, _)| found == program);
            let (_, path) = path.with_context(|| format!("tests/tests has no {program}.rs"))?;
            let said = self.run(path, &tests)?;
            let log = format!(
                "{}.{program}.log",
                run.replace(|c: char| !c.is_alphanumeric(), "-")
            );
            fs::write(self.logs.join(log), &said).context("cannot write a log")?;
            for test in tests {
                outcomes.insert(format!("{program}::{test}"), Outcome::of(test, &said));
            }
        }
        Ok(outcomes)
    }

    /// Runs tests of a program as root: what it says.
    fn run(&self, program: &Path, tests: &[&str]) -> Result<String> {
        let timeout = shell::find_program("timeout", &shell::search_path())
            .context("there is no `timeout`, which coreutils have")?;
        let mut arguments = vec![
            OsStr::new("--kill-after=10"),
            OsStr::new(PROGRAM_DEADLINE_SECS),
            program.as_os_str(),
            OsStr::new("--exact"),
        ];
        arguments.extend(tests.iter().map(OsStr::new));
        let mut command = test::program_command(
            &timeout,
            &self.built,
            &self.copy.join("tests"),
            // A flood is to have the machine to itself.
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

    /// Cargo in the copy, with the linker that is there already.
    fn cargo(&self) -> Result<Command> {
        let tools = shell::target_dir()?.join("tools/bin");
        let path = env::join_paths([tools].into_iter().chain(shell::search_path()))
            .context("the target directory cannot be put on PATH")?;
        let mut cargo = shell::cargo()?;
        cargo
            .current_dir(&self.copy)
            .env("CARGO_TARGET_DIR", self.copy.join("target"))
            .env("PATH", path)
            .env_remove(build::OBJECT);
        Ok(cargo)
    }
}

/// Makes `to` what `from` is, but for what is built and the history. A file that is
/// the same keeps its time, so that cargo does not build it anew.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn mirror(from: &Path, to: &Path, target: &Path) -> Result<()> {
    let is_left_out =
        |path: &Path| path == target || [".git", "target"].map(OsStr::new).contains(&name_of(path));
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for path in entries(from)? {
        let copy = to.join(name_of(&path));
        if is_left_out(&path) {
            continue;
        }
        if path.is_dir() {
            mirror(&path, &copy, target)?;
        } else if fs::read(&copy).ok() != fs::read(&path).ok() {
            fs::copy(&path, &copy)
                .with_context(|| format!("cannot copy {} to {}", path.display(), copy.display()))?;
        }
    }
    for copy in entries(to)? {
        if is_left_out(&copy) || from.join(name_of(&copy)).exists() {
            continue;
        }
        let removed = match copy.is_dir() {
            true => fs::remove_dir_all(&copy),
            false => fs::remove_file(&copy),
        };
        removed.with_context(|| format!("cannot remove {}", copy.display()))?;
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot read {}", folder.display()))
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// What came of a test.
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
            Self::Passed => f.write_str("it passes"),
            Self::Failed(how) => write!(f, "it fails: {how}"),
            Self::Missing => f.write_str("it is not there, or has not come to its end"),
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
    // The column tells nothing.
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

    /// Also without a run of the tier, which takes long, no row gets old.
    #[test]
    fn every_row_has_its_text_and_its_tests() {
        let workspace = shell::workspace();
        let mut names = BTreeSet::new();
        for row in MECHANISMS {
            assert!(names.insert(row.without), "{} is there twice", row.without);
            let changed = row.changed(&workspace).unwrap();
            assert!(changed.contains(row.instead) && row.text != row.instead);
            for name in row.tests.iter().chain([&CONTROL]) {
                let (program, test) = name.split_once("::").unwrap();
                let file = workspace.join("tests/tests").join(format!("{program}.rs"));
                let source = fs::read_to_string(&file).unwrap();
                assert!(source.contains(&format!("#[test]\nfn {test}()")), "{name}");
            }
        }
    }

    #[test]
    fn a_copy_follows_its_source() {
        let top = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| top.path().join(name));
        let target = from.join("built");
        for folder in ["a/b", "target", ".git", "built"] {
            fs::create_dir_all(from.join(folder)).unwrap();
            fs::write(from.join(folder).join("file"), folder).unwrap();
        }
        mirror(&from, &to, &target).unwrap();
        assert_eq!(fs::read(to.join("a/b/file")).unwrap(), b"a/b");
        assert_eq!(entries(&to).unwrap(), [to.join("a")]);

        let time = |path: &str| fs::metadata(to.join(path)).unwrap().modified().unwrap();
        let before = time("a/b/file");
        fs::create_dir_all(to.join("target")).unwrap();
        fs::create_dir_all(to.join("c/d")).unwrap();
        fs::write(to.join("a/other"), "x").unwrap();
        fs::write(from.join("new"), "y").unwrap();
        mirror(&from, &to, &target).unwrap();
        assert_eq!(time("a/b/file"), before);
        assert!(to.join("target").exists() && to.join("new").exists());
        assert!(!to.join("c").exists() && !to.join("a/other").exists());
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
        let line = line_of(&MECHANISMS[0], "bad", &Outcome::of("bad", said));
        assert!(line.ends_with(
            " | `bad` | waited 20s in vain: the flood \\| is answered (tests/flood.rs:51) |\n"
        ));
    }
}
