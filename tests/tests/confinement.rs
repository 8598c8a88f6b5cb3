//! What code that has taken over a thread of the agent can ask of the kernel: each
//! call that is not on the thread's list is made there, and fails with EPERM, and
//! does not in a process of the same account and capabilities without a filter.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    io::ErrorKind,
    mem::MaybeUninit,
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::{Child, Stdio},
};

use nix::{errno::Errno, sys::signal::Signal, unistd::Pid};
use nomail_agent::{
    guard::program_name,
    net::{FrameSocket, link_address},
};
use nomail_tests::{
    agent::{self, Agent},
    client::quit,
    inject::{Call, Puppet},
    lab::{HOST_INTERFACE, HOST_IPV4, Lab},
    poll::{DEADLINE, until},
};
use socket2::{Domain, SockRef, Socket, Type};

/// No descriptor.
const NONE: u64 = u64::MAX;
const PAGE: u64 = 4096;

/// Commands of bpf(2).
const BPF: [(&str, u64); 15] = [
    ("PROG_LOAD", 5),
    ("OBJ_PIN", 6),
    ("OBJ_GET", 7),
    ("PROG_ATTACH", 8),
    ("PROG_DETACH", 9),
    ("PROG_TEST_RUN", 10),
    ("RAW_TRACEPOINT_OPEN", 17),
    ("BTF_LOAD", 18),
    ("MAP_LOOKUP_AND_DELETE_ELEM", 21),
    ("MAP_FREEZE", 22),
    ("MAP_UPDATE_BATCH", 26),
    ("LINK_UPDATE", 29),
    ("LINK_DETACH", 34),
    ("PROG_BIND_MAP", 35),
    ("of a later kernel", 4096),
];

fn bpf(command: u64) -> (libc::c_long, [u64; 6]) {
    (libc::SYS_bpf, [command, 0, 0, 0, 0, 0])
}

fn socket(family: i32, kind: i32, protocol: i32) -> (libc::c_long, [u64; 6]) {
    let arguments = [family as u64, kind as u64, protocol as u64, 0, 0, 0];
    (libc::SYS_socket, arguments)
}

/// What no thread may do. `process` and `other` are the thread's process and
/// another one of its threads, `page` is memory of its own.
fn forbidden_to_all(process: Pid, other: Pid, page: u64) -> Vec<Call> {
    let (process, other) = (process.as_raw() as u64, other.as_raw() as u64);
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let read = libc::PROT_READ as u64;
    let execute = libc::PROT_EXEC as u64;
    let write = libc::PROT_WRITE as u64;
    let fastopen = (libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL) as u64;
    let aborts = libc::SIGABRT as u64;
    let mut calls = Vec::new();
    for (name, command) in BPF {
        let (number, arguments) = bpf(command);
        calls.push((name, number, arguments));
    }
    for (what, (number, arguments)) in [
        ("a Unix socket", socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
        ("UDP", socket(libc::AF_INET, libc::SOCK_DGRAM, 0)),
        ("UDP", socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)),
        ("netlink", socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
        (
            "MPTCP",
            socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        ),
    ] {
        calls.push((what, number, arguments));
    }
    calls.extend([
        ("sendmsg", libc::SYS_sendmsg, [NONE, page, 0, 0, 0, 0]),
        ("sendmmsg", libc::SYS_sendmmsg, [NONE, page, 1, 0, 0, 0]),
        ("recvmsg", libc::SYS_recvmsg, [NONE, page, 0, 0, 0, 0]),
        (
            "Fast Open",
            libc::SYS_sendto,
            [NONE, page, 1, fastopen, page, 16],
        ),
        (
            "a handler",
            libc::SYS_rt_sigaction,
            [libc::SIGUSR1 as u64, 0, 0, 8, 0, 0],
        ),
        (
            "a signal to a thread",
            libc::SYS_tgkill,
            [process, other, 0, 0, 0, 0],
        ),
        (
            "SIGABRT to a thread",
            libc::SYS_tgkill,
            [process, NONE >> 33, aborts, 0, 0, 0],
        ),
        ("a signal", libc::SYS_kill, [process, 0, 0, 0, 0, 0]),
        ("a signal", libc::SYS_tkill, [other, 0, 0, 0, 0, 0]),
        ("a pidfd", libc::SYS_pidfd_open, [process, 0, 0, 0, 0, 0]),
        ("open", libc::SYS_open, [0; 6]),
        ("openat2", libc::SYS_openat2, [0; 6]),
        ("exec", libc::SYS_execve, [0; 6]),
        ("execveat", libc::SYS_execveat, [NONE, 0, 0, 0, 0, 0]),
        (
            "a thread",
            libc::SYS_clone,
            [libc::CLONE_THREAD as u64, 0, 0, 0, 0, 0],
        ),
        ("a process", libc::SYS_clone3, [0; 6]),
        ("a namespace", libc::SYS_unshare, [0; 6]),
        ("a namespace", libc::SYS_setns, [NONE, 0, 0, 0, 0, 0]),
        (
            "ptrace",
            libc::SYS_ptrace,
            [u64::from(libc::PTRACE_DETACH), 0, 0, 0, 0, 0],
        ),
        (
            "memory of a process",
            libc::SYS_process_vm_readv,
            [process, 0, 0, 0, 0, 0],
        ),
        (
            "memory of a process",
            libc::SYS_process_vm_writev,
            [process, 0, 0, 0, 0, 0],
        ),
        ("a program in memory", libc::SYS_memfd_create, [0; 6]),
        ("io_uring", libc::SYS_io_uring_enter, [NONE, 0, 0, 0, 0, 0]),
        (
            "prctl",
            libc::SYS_prctl,
            [libc::PR_GET_NO_NEW_PRIVS as u64, 0, 0, 0, 0, 0],
        ),
        (
            "read implies exec",
            libc::SYS_personality,
            [0xffff_ffff, 0, 0, 0, 0, 0],
        ),
        ("chmod", libc::SYS_fchmod, [NONE, 0, 0, 0, 0, 0]),
        ("a link", libc::SYS_symlink, [0; 6]),
        (
            "a copy of a descriptor",
            libc::SYS_dup,
            [NONE, 0, 0, 0, 0, 0],
        ),
        (
            "typing into a terminal",
            libc::SYS_ioctl,
            [NONE, libc::TIOCSTI, page, 0, 0, 0],
        ),
        (
            "signals of a descriptor",
            libc::SYS_fcntl,
            [NONE, libc::F_SETOWN as u64, 0, 0, 0, 0],
        ),
        (
            "code",
            libc::SYS_mmap,
            [0, PAGE, read | write | execute, private, NONE, 0],
        ),
        (
            "code",
            libc::SYS_mmap,
            [0, PAGE, read | execute, private, NONE, 0],
        ),
        (
            "a file in memory",
            libc::SYS_mmap,
            [0, PAGE, read, libc::MAP_PRIVATE as u64, NONE, 0],
        ),
        (
            "code",
            libc::SYS_mprotect,
            [page, PAGE, read | write | execute, 0, 0, 0],
        ),
        ("code", libc::SYS_mprotect, [page, PAGE, execute, 0, 0, 0]),
        (
            "code",
            libc::SYS_pkey_mprotect,
            [page, PAGE, read | execute, NONE, 0, 0],
        ),
    ]);
    calls
}

/// What the main thread may do, and the one that talks to clients may not.
fn forbidden_to_clients(page: u64) -> Vec<Call> {
    let silent = libc::MSG_NOSIGNAL as u64;
    let (tcp, tcp_of) = socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP);
    let mut calls: Vec<Call> = [
        ("MAP_CREATE", 0),
        ("MAP_LOOKUP_ELEM", 1),
        ("MAP_UPDATE_ELEM", 2),
        ("MAP_DELETE_ELEM", 3),
        ("MAP_GET_NEXT_KEY", 4),
        ("OBJ_GET_INFO_BY_FD", 15),
        ("MAP_LOOKUP_BATCH", 24),
        ("LINK_CREATE", 28),
    ]
    .map(|(name, command)| (name, libc::SYS_bpf, bpf(command).1))
    .to_vec();
    calls.extend([
        ("TCP", tcp, tcp_of),
        ("connect", libc::SYS_connect, [NONE, page, 16, 0, 0, 0]),
        ("bind", libc::SYS_bind, [NONE, page, 16, 0, 0, 0]),
        ("listen", libc::SYS_listen, [NONE, 1, 0, 0, 0, 0]),
        ("setsockopt", libc::SYS_setsockopt, [NONE, 1, 2, page, 4, 0]),
        (
            "a destination",
            libc::SYS_sendto,
            [NONE, page, 0, silent, page, 16],
        ),
        (
            "a destination",
            libc::SYS_sendto,
            [NONE, page, 0, 0, page, 16],
        ),
        ("openat", libc::SYS_openat, [NONE, 0, 0, 0, 0, 0]),
        ("unlink", libc::SYS_unlink, [0; 6]),
        ("rename", libc::SYS_rename, [0; 6]),
        (
            "a directory",
            libc::SYS_getdents64,
            [NONE, page, PAGE, 0, 0, 0],
        ),
    ]);
    calls
}

/// Of those, what `nomail-agent crowdsec` needs: TCP, connect, and files.
fn forbidden_to_crowdsec(page: u64) -> Vec<Call> {
    let allowed = [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_openat,
        libc::SYS_unlink,
        libc::SYS_rename,
        libc::SYS_getdents64,
    ];
    let calls = forbidden_to_clients(page).into_iter();
    calls
        .filter(|(_, number, _)| !allowed.contains(number))
        .collect()
}

fn forbidden_to_main(page: u64) -> Vec<Call> {
    vec![("connect", libc::SYS_connect, [NONE, page, 16, 0, 0, 0])]
}

/// Memory that the thread may ask for.
fn page_of(puppet: &Puppet) -> u64 {
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let both = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let call = ("memory", libc::SYS_mmap, [0, PAGE, both, private, NONE, 0]);
    puppet.call(call).unwrap()
}

/// A process that waits, of the agent's account and with its capabilities, or none.
struct Unconfined(Child);

impl Unconfined {
    fn new(lab: &Lab, capabilities: &str) -> Self {
        let mut command = lab.host.command("setpriv");
        command
            .args([
                "--reuid=12345",
                "--regid=12345",
                "--clear-groups",
                "--no-new-privs",
            ])
            .args([
                format!("--inh-caps={capabilities}"),
                format!("--ambient-caps={capabilities}"),
            ])
            .arg(format!("--bounding-set={capabilities}"))
            .args(["sleep", "600"])
            .stdin(Stdio::null())
            .process_group(0);
        let child = command.spawn().unwrap();
        let process = format!("/proc/{}", child.id());
        until("it sleeps", || {
            let name = fs::read_to_string(format!("{process}/comm")).unwrap();
            let status = fs::read_to_string(format!("{process}/status")).unwrap();
            (name == "sleep\n" && status.contains("\nState:\tS")).then_some(())
        });
        Self(child)
    }

    /// Makes each call but those that need a capability: none fails with EPERM.
    fn may(&self, calls: fn(u64) -> Vec<Call>, but: &[&str]) {
        let pid = Pid::from_raw(self.0.id() as i32);
        let puppet = Puppet::hold(pid);
        let page = page_of(&puppet);
        let refused: Vec<_> = forbidden_to_all(pid, pid, page)
            .into_iter()
            .chain(calls(page))
            .filter(|call| !but.contains(&call.0))
            .filter(|call| puppet.call(*call) == Err(Errno::EPERM))
            .collect();
        assert_eq!(refused, [], "they are refused without a filter");
    }
}

impl Drop for Unconfined {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `nomail-agent crowdsec`, once it waits for its next try.
struct Crowdsec(Child);

impl Crowdsec {
    fn start(lab: &Lab, config: &str, written: &str) -> Self {
        let mut command = lab.host.command(agent::binary().to_str().unwrap());
        command
            .args(["crowdsec", "--config", config])
            .stdin(Stdio::null())
            .process_group(0);
        let crowdsec = Self(command.spawn().unwrap());
        let status = format!("/proc/{}/status", crowdsec.pid());
        until("it waits", || {
            let failed = fs::read_to_string(written).is_ok_and(|text| text.contains("reached"));
            let waits = fs::read_to_string(&status).unwrap().contains("\nState:\tS");
            (failed && waits).then_some(())
        });
        crowdsec
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }
}

impl Drop for Crowdsec {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn each_thread_is_refused_all_that_it_does_not_use() {
    let lab = Lab::new();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("key"), "0123456789abcdef").unwrap();
    let config = format!(
        "interfaces = [{HOST_INTERFACE:?}]\nuser = \"12345\"\nrefuse_at = \"greeting\"\n\
         [crowdsec]\nurl = \"http://127.0.0.1:1\"\napi_key_file = {:?}\nrun_dir = {:?}\n",
        path("key"),
        path("decisions")
    );
    fs::write(path("nomail.toml"), config).unwrap();
    let agent = Agent::start(&lab.host, &["--config", &path("nomail.toml")]);
    let process = agent.pid();
    let smtp = agent.waiting_thread("smtp");
    assert_eq!(agent.process("Threads"), "2");
    let refused = |thread: Pid, other: Pid, calls: fn(u64) -> Vec<Call>| {
        let puppet = Puppet::hold(thread);
        let page = page_of(&puppet);
        let all = forbidden_to_all(process, other, page);
        for call in all.into_iter().chain(calls(page)) {
            assert_eq!(puppet.call(call), Err(Errno::EPERM), "{call:?}");
        }
    };
    refused(smtp, process, forbidden_to_clients);
    let program = agent::binary();
    let main = agent.waiting_thread(program.file_name().and_then(|name| name.to_str()).unwrap());
    assert_eq!(main, process);
    refused(main, smtp, forbidden_to_main);
    // The process that connects, which no one else does.
    let crowdsec = Crowdsec::start(&lab, &path("nomail.toml"), &path("decisions/status.json"));
    let puppet = Puppet::hold(crowdsec.pid());
    let page = page_of(&puppet);
    for call in forbidden_to_all(crowdsec.pid(), process, page)
        .into_iter()
        .chain(forbidden_to_crowdsec(page))
    {
        assert_eq!(puppet.call(call), Err(Errno::EPERM), "{call:?}");
    }
    drop(puppet);
    // Without the filter, each of these calls gets further than EPERM.
    let capable = Unconfined::new(&lab, "-all,+bpf,+net_bind_service");
    capable.may(forbidden_to_main, &[]);
    let incapable = Unconfined::new(&lab, "-all");
    incapable.may(
        forbidden_to_clients,
        &["MAP_CREATE", "PROG_LOAD", "BTF_LOAD"],
    );
    // And the agent goes on.
    let heard = quit(&lab.client, HOST_IPV4).unwrap();
    assert!(heard.starts_with("521 "), "{heard}");
    agent.signal(Signal::SIGHUP);
    until("it reloads", || {
        agent
            .log()
            .contains("the configuration was reloaded")
            .then_some(())
    });
    agent.stop();
}

#[test]
fn no_memory_can_be_written_and_run_and_no_program_is_left_but_the_guards() {
    let lab = Lab::new();
    let agent = Agent::start(&lab.host, &["--iface", HOST_INTERFACE]);
    let maps = fs::read_to_string(format!("/proc/{}/maps", agent.pid())).unwrap();
    for line in maps.lines() {
        let access = line.split_whitespace().nth(1).unwrap();
        assert!(!(access.contains('w') && access.contains('x')), "{line}");
    }
    let mut programs = Vec::new();
    for info in fs::read_dir(format!("/proc/{}/fdinfo", agent.pid())).unwrap() {
        let text = fs::read_to_string(info.unwrap().path()).unwrap_or_default();
        if text.contains("link_type") {
            continue;
        }
        let id = text
            .lines()
            .find_map(|line| line.strip_prefix("prog_id:\t"));
        programs.extend(id.and_then(|id| program_name(id.parse().unwrap())));
    }
    assert_eq!(programs, ["nomail"]);
    agent.stop();
}

#[test]
fn the_packet_socket_hears_nothing() {
    let lab = Lab::new();
    let ours = lab.host.within(|| FrameSocket::open().unwrap());
    let ours = SockRef::from(&ours);
    let open = lab
        .host
        .within(|| Socket::new(Domain::PACKET, Type::RAW, None).unwrap());
    let open = SockRef::from(&open);
    // As a process without any capability may.
    let all = link_address(0, libc::ETH_P_ALL as u16).unwrap();
    let detached = ours.detach_filter().unwrap_err();
    assert_eq!(detached.raw_os_error(), Some(libc::EPERM));
    let mut frame = [MaybeUninit::uninit(); 2048];
    for socket in [&ours, &open] {
        socket.set_nonblocking(true).unwrap();
        socket.bind(&all).unwrap();
    }
    let frames = until("a frame is heard without the filter", || {
        lab.client.within(|| {
            let _ = TcpStream::connect_timeout(&"192.0.2.1:9".parse().unwrap(), DEADLINE);
        });
        open.recv(&mut frame).ok()
    });
    assert!(frames > 0);
    let heard = ours.recv(&mut frame).unwrap_err();
    assert_eq!(heard.kind(), ErrorKind::WouldBlock);
}
