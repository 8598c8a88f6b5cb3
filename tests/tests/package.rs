//! The packages of `cargo xtask dist`, on a real Debian: what an installation, an
//! upgrade under traffic, a removal and a purge leave behind.
//!
//! systemd does not run in such a root: its tools edit links and files there, and
//! the maintainer scripts find that there is nobody to start or stop units. One test
//! boots a machine in which it does.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    fs,
    io::Read as _,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nomail_tests::{
    agent,
    agent::GREETING,
    lab::{HOST_INTERFACE, HOST_IPV4, Lab, Namespace},
    poll::until,
    repository::repository,
    root::{Instance, Root},
};

const DEB: &str = "/var/tmp/package.deb";
const RPM: &str = "/var/tmp/package.rpm";

/// Longest that a step may take: a play on four hosts, one after the other, beside
/// another test.
const STEP_DEADLINE: Duration = Duration::from_secs(300);
/// Longest that a machine may take, with boot.
const BOOT_DEADLINE: Duration = Duration::from_secs(300);

/// What a package brings beside the book, with modes and owners.
const FILES: &[&str] = &[
    "644 root:root /etc/nomail/nomail.toml",
    "644 root:root /usr/lib/systemd/system/nomail-agent.service",
    "644 root:root /usr/lib/systemd/system/nomail-agent.socket",
    "644 root:root /usr/lib/systemd/system/nomail-crowdsec.service",
    "644 root:root /usr/lib/sysusers.d/nomail.conf",
    "644 root:root /usr/lib/tmpfiles.d/nomail.conf",
    "755 root:root /usr/sbin/nomail-agent",
    "644 root:root /usr/share/bash-completion/completions/nomail-agent",
    "644 root:root /usr/share/doc/nomail-agent/changelog.Debian.gz",
    "644 root:root /usr/share/doc/nomail-agent/copyright",
    "644 root:root /usr/share/doc/nomail-agent/examples/crowdsec/README.md",
    "644 root:root /usr/share/doc/nomail-agent/examples/crowdsec/acquis.d/nomail.yaml",
    "644 root:root /usr/share/doc/nomail-agent/examples/crowdsec/parsers/s01-parse/nomail-logs.yaml",
    "644 root:root /usr/share/doc/nomail-agent/examples/crowdsec/profiles-range.yaml",
    "644 root:root /usr/share/doc/nomail-agent/examples/crowdsec/scenarios/nomail-many-connections.yaml",
    "644 root:root /usr/share/doc/nomail-agent/examples/grafana/nomail.json",
    "644 root:root /usr/share/doc/nomail-agent/examples/prometheus/nomail.rules.yml",
    "644 root:root /usr/share/fish/vendor_completions.d/nomail-agent.fish",
    "644 root:root /usr/share/man/man5/nomail.toml.5.gz",
    "644 root:root /usr/share/man/man8/nomail-agent.8.gz",
    "644 root:root /usr/share/zsh/vendor-completions/_nomail-agent",
];

/// All that a package brings, by path.
fn files() -> Vec<String> {
    let docs = repository().join("docs");
    let book = files_below(&docs, "/usr/share/doc/nomail-agent");
    let mut files: Vec<_> = book
        .into_iter()
        .map(|(_, path)| path)
        .filter(|path| {
            [".md", ".png", ".svg"]
                .iter()
                .any(|end| path.ends_with(end))
        })
        .chain(["/usr/share/doc/nomail-agent/CHANGELOG.md".to_owned()])
        .map(|path| format!("644 root:root {path}"))
        .chain(FILES.iter().map(|line| (*line).to_owned()))
        .collect();
    files.sort_by_key(|line| line.rsplit(' ').next().map(str::to_owned));
    files
}

/// The next version: the same, and a default file that says something else.
const MAKE_NEXT: &str = "
cd /var/tmp
dpkg-deb --raw-extract package.deb next
sed -i 's/^Version: .*/Version: 99.0-1/' next/DEBIAN/control
echo '# of the next version' >> next/etc/nomail/nomail.toml
dpkg-deb --build next next.deb
";

/// The process of the agent.
const PID: &str = "grep -lx nomail-agent /proc/[0-9]*/comm | grep -o '[0-9]*'";

/// Ends the agent, and waits until it is gone.
const END_AGENT: &str = "
pid=$(grep -lx nomail-agent /proc/[0-9]*/comm | grep -o '[0-9]*')
kill $pid
while [ -e /proc/$pid/exe ]; do sleep 0.1; done
";

/// The pages of the book with commands, in their order.
const GUIDE: &str = concat!(
    include_str!("../../docs/install.md"),
    include_str!("../../docs/first-521.md"),
    include_str!("../../docs/configuration.md"),
    include_str!("../../docs/operating.md"),
    include_str!("../../docs/fleet.md"),
);
const CONTAINER: &str = include_str!("../../docs/container.md");

/// The blocks of a page that are to be run, in order: the word behind `sh`, which
/// says where, and the commands.
///
/// # Panics
/// When a block is of another kind: nobody would run it.
fn blocks(page: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut commands = Vec::new();
    // Before, in, between, in, … fences.
    for block in page.split("```").skip(1).step_by(2) {
        let (kind, text) = block.split_once('\n').unwrap();
        match kind {
            "sh build" | "sh image" | "sh host" | "sh client" | "sh rpm" | "sh fleet" => {
                commands.push((&kind["sh ".len()..], text));
            }
            // What a command prints, files, a dialog; and what needs a checkout or a terminal.
            "text" | "list" | "toml" | "yaml" | "haproxy" | "puppet" | "smtp" | "console"
            | "sh source" => (),
            _ => panic!("nobody knows where this is run: {kind}\n{text}"),
        }
    }
    commands
}

/// The blocks of a page for one place.
fn blocks_at(page: &'static str, place: &str) -> Vec<&'static str> {
    let blocks = blocks(page);
    let here = blocks.iter().filter(|(at, _)| *at == place);
    here.map(|(_, text)| *text).collect()
}

/// The only package of that kind in `target/dist`.
fn package(extension: &str) -> PathBuf {
    let agent = agent::binary();
    let target = agent.ancestors().nth(2).unwrap();
    let folder = target.join("dist").join(extension);
    let mut files = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}: cargo xtask dist", folder.display()));
    files.next().unwrap().unwrap().path()
}

/// Runs a step to its end, and gives what it prints.
fn step(instance: &mut Instance<'_>, name: &str, script: &str) -> String {
    let (log, end) = (
        format!("/var/tmp/{name}.log"),
        format!("/var/tmp/{name}.end"),
    );
    instance.run(&format!(
        "(set -eu\n{script}\n) > {log} 2>&1; echo \"exit $?\" > {end}"
    ));
    let start = Instant::now();
    let exit = loop {
        let exit = instance.read(&end);
        if exit.ends_with('\n') || start.elapsed() > STEP_DEADLINE {
            break exit;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let log = instance.read(&log);
    assert_eq!(exit, "exit 0\n", "{name}:\n{log}");
    log
}

/// What the host says to whoever connects; nothing if it refuses.
fn greeting() -> Option<String> {
    let mut stream = TcpStream::connect((HOST_IPV4, 25)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut greeting = vec![0; GREETING.len()];
    stream.read_exact(&mut greeting).ok()?;
    String::from_utf8(greeting).ok()
}

/// Configures the package in one line, as an administrator does, and to keep the guard;
/// and starts the agent.
fn configure_and_start(host: &mut Instance<'_>, lab: &Lab) {
    step(
        host,
        "configure",
        &format!(
            "cd /etc/nomail
             sed -i 's/^#   hostname = .*/hostname = \"mailless.example.org\"/' nomail.toml
             mkdir nomail.toml.d
             printf 'interfaces = [\"{HOST_INTERFACE}\"]\\non_exit = \"keep\"\\n' \
                 > nomail.toml.d/10-site.toml
             nomail-agent check-config
             systemctl enable nomail-agent.service"
        ),
    );
    host.run("exec nomail-agent > /var/tmp/agent.log 2>&1");
    lab.client.within(|| {
        until("the agent of the package answers", || {
            greeting().filter(|greeting| greeting == GREETING)
        })
    });
}

#[test]
fn a_package_comes_and_goes() {
    let lab = Lab::new();
    let root = Root::install("package", &["man-db"]);
    let mut host = root.start_with(
        &lab.host,
        // For the pins of on_exit = "keep".
        "mount -t sysfs sys /sys\nmount -t bpf bpf /sys/fs/bpf",
        &[(&package("deb"), DEB)],
    );
    host.ready();

    step(&mut host, "install", &format!("dpkg --install {DEB}"));
    let brought = step(
        &mut host,
        "brought",
        "dpkg --listfiles nomail-agent | while read -r file; do
             [ -d \"$file\" ] || stat --format '%a %U:%G %n' \"$file\"
         done | LC_ALL=C sort --key=3",
    );
    assert_eq!(brought.lines().collect::<Vec<_>>(), files());
    let state = step(
        &mut host,
        "state",
        "stat --format '%a %U:%G' /var/lib/nomail",
    );
    assert_eq!(state, "750 nomail:nomail\n");
    // Not even the command that it comes with changes this.
    let enabled = "for unit in nomail-agent.service nomail-agent.socket; do
                       systemctl is-enabled $unit || true
                   done";
    assert_eq!(step(&mut host, "fresh", enabled), "disabled\ndisabled\n");
    step(
        &mut host,
        "nothing_runs",
        "! grep -l nomail-agent /proc/[0-9]*/comm",
    );
    step(
        &mut host,
        "usable",
        "nomail-agent check-config
         systemd-analyze verify nomail-agent.service nomail-agent.socket nomail-crowdsec.service
         man --where 8 nomail-agent
         man --where 5 nomail.toml
         bash -c '. /usr/share/bash-completion/completions/nomail-agent
                  complete -p nomail-agent'",
    );

    configure_and_start(&mut host, &lab);
    assert!(lab.host.has_xdp(HOST_INTERFACE));

    // An upgrade: nobody is refused, and what was configured stays.
    step(&mut host, "next", MAKE_NEXT);
    let asked = under_traffic(&lab.client, || {
        step(
            &mut host,
            "upgrade",
            "dpkg --force-confdef --force-confold --install /var/tmp/next.deb",
        );
    });
    assert!(asked > 0);
    let after = step(
        &mut host,
        "upgraded",
        "dpkg-query --show --showformat='${Version} ${db:Status-Status}\\n' nomail-agent
         grep -x 'hostname = .*' /etc/nomail/nomail.toml
         tail -n 1 /etc/nomail/nomail.toml.dpkg-dist",
    );
    assert_eq!(
        after,
        "99.0-1 installed\nhostname = \"mailless.example.org\"\n# of the next version\n"
    );
    assert_eq!(step(&mut host, "still", enabled), "enabled\ndisabled\n");

    // Removed: nothing that works is left, also not in the kernel; what is the
    // administrator's stays.
    step(&mut host, "end", END_AGENT);
    assert!(lab.host.has_xdp(HOST_INTERFACE), "on_exit = keep");
    step(&mut host, "remove", "dpkg --remove nomail-agent");
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
    step(
        &mut host,
        "removed",
        "[ ! -e /usr/sbin/nomail-agent ]
         [ ! -e /usr/lib/systemd/system/nomail-agent.service ]
         [ \"$(readlink /etc/systemd/system/nomail-agent.service)\" = /dev/null ]
         grep -x 'hostname = .*' /etc/nomail/nomail.toml
         [ -e /etc/nomail/nomail.toml.d/10-site.toml ]
         [ -e /var/lib/nomail/senders ]",
    );

    // It comes back as it was.
    step(&mut host, "again", "dpkg --install /var/tmp/next.deb");
    assert_eq!(step(&mut host, "back", enabled), "enabled\ndisabled\n");

    step(&mut host, "purge", "dpkg --purge nomail-agent");
    let left = step(
        &mut host,
        "purged",
        "find /etc /usr/lib /usr/sbin /usr/share /var/lib -xdev -name '*nomail*' \
             -not -path '/var/lib/dpkg/*'",
    );
    assert_eq!(left, "");
    // A uid is not given to somebody else.
    step(&mut host, "account", "getent passwd nomail");
}

/// Connects again and again while `work` is done: how often. Each time it must be
/// told 521, or, when it has come before, a greeting of another kind.
fn under_traffic(client: &Namespace, work: impl FnOnce()) -> u32 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            client.within(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect((HOST_IPV4, 25)).unwrap();
                    stream
                        .set_read_timeout(Some(Duration::from_secs(5)))
                        .unwrap();
                    let mut code = [0; 3];
                    stream.read_exact(&mut code).unwrap();
                    assert!([*b"521", *b"220"].contains(&code), "{code:?}");
                    asked += 1;
                    // Below the limit of one source.
                    thread::sleep(Duration::from_millis(150));
                }
                asked
            })
        });
        work();
        done.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    })
}

#[test]
fn lintian_likes_it() {
    let root = Root::install("lintian", &["lintian"]);
    let namespace = Namespace::new("lintian");
    let deb = package("deb");
    let mut machine = root.start_with(&namespace, "true", &[(&deb, DEB)]);
    machine.ready();
    let said = step(
        &mut machine,
        "lintian",
        &format!("lintian --allow-root --fail-on error {DEB}"),
    );
    assert!(!said.lines().any(|line| line.starts_with("E:")), "{said}");
    println!("{said}");
}

/// A package that says of this Debian that it has what the .rpm asks for, because no
/// rpm has put it there. And the next version of the .rpm, with another default file.
const MAKE_RPMS: &str = r#"
cd /var/tmp
{
    printf 'Name: debian\nVersion: 12\nRelease: 1\nSummary: What is there\nLicense: none\n'
    # "systemd >= 252": what provides it says "=".
    rpm --query --package --requires package.rpm | grep -v ^rpmlib | sed 's/^/Provides: /; s/>=/=/'
    printf '%%description\nWhat is there.\n%%files\n'
} > debian.spec
rpmbuild -bb --define '_rpmdir /var/tmp/made' debian.spec

mkdir tree
cd tree
rpm2cpio ../package.rpm | cpio --extract --make-directories --quiet
echo '# of the next version' >> etc/nomail/nomail.toml
cd ..
tag() { rpm --query --package --queryformat "%{$1}" package.rpm; }
{
    printf 'Name: nomail-agent\nVersion: 99.0\nRelease: 1\nSummary: Next\nLicense: none\n'
    printf 'AutoReqProv: no\n%%description\nNext.\n'
    printf '%%post\n'; tag POSTIN
    printf '\n%%preun\n'; tag PREUN
    printf '\n%%postun\n'; tag POSTUN
    printf '\n%%install\ncp --archive /var/tmp/tree/. %%{buildroot}\n'
    printf '%%files\n%%config(noreplace) /etc/nomail/nomail.toml\n'
    (cd tree && find . -type f | sed 's/^\.//' | grep -v /etc/nomail)
} > next.spec
# As they are: not stripped or compressed.
rpmbuild -bb --define '_rpmdir /var/tmp/made' --define '__os_install_post %{nil}' \
    --define 'debug_package %{nil}' --define '_build_id_links none' next.spec
"#;

/// With rpm itself, on a root that is no Red Hat: systemd, its tools and the paths
/// that the package uses are the same there.
#[test]
fn an_rpm_comes_and_goes() {
    let lab = Lab::new();
    let root = Root::install("rpm", &["rpm", "cpio"]);
    let (rpm, version) = (package("rpm"), env!("CARGO_PKG_VERSION"));
    let mut host = root.start_with(
        &lab.host,
        "mount -t sysfs sys /sys\nmount -t bpf bpf /sys/fs/bpf",
        &[(&rpm, RPM)],
    );
    host.ready();

    let facts = step(
        &mut host,
        "facts",
        &format!(
            "rpm --query --package --configfiles {RPM}
             rpm --query --package --queryformat '%{{LICENSE}}\\n' {RPM}"
        ),
    );
    assert_eq!(facts, "/etc/nomail/nomail.toml\nMIT OR Apache-2.0\n");
    step(&mut host, "make", MAKE_RPMS);
    step(
        &mut host,
        "have",
        "rpm --install /var/tmp/made/*/debian-12-1.*.rpm",
    );

    // As the guide says it.
    let [install, remove] = blocks_at(GUIDE, "rpm")[..] else {
        panic!("the guide installs and removes")
    };
    step(
        &mut host,
        "install",
        &format!(
            "cp {RPM} /var/tmp/nomail-agent-{version}-1.x86_64.rpm
             cd /var/tmp
             {install}"
        ),
    );
    let brought = step(
        &mut host,
        "brought",
        "rpm --query --list nomail-agent | while read -r file; do
             stat --format '%a %U:%G %n' \"$file\"
         done | LC_ALL=C sort --key=3",
    );
    let mut expected: Vec<_> = files()
        .into_iter()
        // Debian's own.
        .filter(|file| !file.ends_with("changelog.Debian.gz") && !file.ends_with("/copyright"))
        .map(|file| {
            file.replace("zsh/vendor-completions", "zsh/site-functions")
                .replace(".gz", "")
        })
        .collect();
    for licence in ["APACHE", "MIT"] {
        expected.push(format!(
            "644 root:root /usr/share/licenses/nomail-agent/LICENSE-{licence}"
        ));
    }
    expected.sort_by_key(|line| line.rsplit(' ').next().map(str::to_owned));
    assert_eq!(brought.lines().collect::<Vec<_>>(), expected);
    let state = step(
        &mut host,
        "state",
        "rpm --verify nomail-agent
         stat --format '%a %U:%G' /var/lib/nomail",
    );
    assert_eq!(state, "750 nomail:nomail\n");
    let enabled = "for unit in nomail-agent.service nomail-agent.socket; do
                       systemctl is-enabled $unit || true
                   done";
    assert_eq!(step(&mut host, "fresh", enabled), "disabled\ndisabled\n");
    step(
        &mut host,
        "nothing_runs",
        "! grep -l nomail-agent /proc/[0-9]*/comm",
    );

    configure_and_start(&mut host, &lab);

    // An upgrade: nobody is refused, and what was configured stays.
    let asked = under_traffic(&lab.client, || {
        step(
            &mut host,
            "upgrade",
            "rpm --upgrade /var/tmp/made/*/nomail-agent-99.0-1.*.rpm",
        );
    });
    assert!(asked > 0);
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    let after = step(
        &mut host,
        "upgraded",
        "rpm --query nomail-agent
         grep -x 'hostname = .*' /etc/nomail/nomail.toml
         tail -n 1 /etc/nomail/nomail.toml.rpmnew",
    );
    let (package, rest) = after.split_once('\n').unwrap();
    assert!(package.starts_with("nomail-agent-99.0-1"), "{after}");
    assert_eq!(
        rest,
        "hostname = \"mailless.example.org\"\n# of the next version\n"
    );
    assert_eq!(step(&mut host, "still", enabled), "enabled\ndisabled\n");

    // Removed: nothing that works is left, also not in the kernel.
    step(&mut host, "end", END_AGENT);
    assert!(lab.host.has_xdp(HOST_INTERFACE), "on_exit = keep");
    step(&mut host, "remove", remove);
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
    let left = step(
        &mut host,
        "left",
        "find /etc /usr/lib /usr/sbin /usr/share /var/lib -xdev -name '*nomail*' | LC_ALL=C sort",
    );
    // What is the administrator's, and what the agent has learnt.
    assert_eq!(
        left,
        "/etc/nomail\n/etc/nomail/nomail.toml.d\n/etc/nomail/nomail.toml.rpmnew\n\
         /etc/nomail/nomail.toml.rpmsave\n/var/lib/nomail\n"
    );
    step(&mut host, "account", "getent passwd nomail");
}

/// What the guest's last line is.
const END: &str = "end of the guest";

/// In the root of the machine's host: the guest's root.
const DEBOOTSTRAP: &str = "
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources | head -n 1)
release=$(. /etc/os-release; echo $VERSION_CODENAME)
debootstrap --variant=minbase --include=systemd-sysv,udev,dbus,iproute2,kmod,procps,python3-minimal,curl,netcat-openbsd \
    $release /var/lib/guest $mirror
";

/// Lays out the disk and runs the machine.
const BOOT: &str = r#"
exec > /var/tmp/log 2>&1
trap 'echo "$?" > /var/tmp/ended' EXIT
guest=/var/lib/guest
cp /var/tmp/package.deb $guest/root/$NAME
cp /var/tmp/check $guest/root/check
chmod 755 $guest/root/check
module=$(ls /lib/modules/*/kernel/drivers/net/veth.ko* | tail -n 1)
case $module in
*.xz) xz --decompress --stdout "$module" > $guest/root/veth.ko ;;
*) cp "$module" $guest/root/veth.ko ;;
esac
cat > $guest/etc/systemd/system/check.service <<UNIT
[Unit]
DefaultDependencies=no
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/root/check
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStopPost=/usr/bin/systemctl --force --force poweroff
[Install]
WantedBy=multi-user.target
UNIT
chroot $guest systemctl enable check.service
# It would take the line over.
chroot $guest systemctl mask serial-getty@ttyS0.service
mke2fs -q -t ext4 -d $guest /var/tmp/image 1200M
qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 \
    -nographic -nodefaults -serial file:/var/tmp/serial -no-reboot -nic none \
    -kernel $(ls /boot/vmlinuz-* | tail -n 1) \
    -append "root=/dev/nvme0n1 rw console=ttyS0 systemd.show_status=0 quiet mitigations=off" \
    -drive file=/var/tmp/image,format=raw,if=none,id=d0,cache=unsafe \
    -device nvme,drive=d0,serial=r0
"#;

/// In the guest, with systemd as process 1: a wire to a client, behind which the
/// world is, the package, and its next version.
const PREPARE: &str = r#"#!/bin/sh
exec 2>&1 < /dev/null
set -eux
trap '[ $? = 0 ] || journalctl --no-pager --lines 30 --unit nomail-agent' EXIT
insmod /root/veth.ko
ip netns add client
ip link add host0 type veth peer name client0 netns client
ip address add 192.0.2.1/24 dev host0
ip link set host0 up
ip -n client address add 192.0.2.100/24 dev client0
ip -n client link set client0 up
ip route add default via 192.0.2.100
echo '192.0.2.1 mailless.example.org' >> /etc/hosts
cd /root
package=$(ls nomail-agent_*.deb)
dpkg-deb --raw-extract $package next
sed -i 's/^Version: .*/Version: 0.2.0-1/' next/DEBIAN/control
dpkg-deb --build next nomail-agent_0.2.0-1_amd64.deb
"#;

/// The package, one line of configuration, one command, and a mail that comes back.
const MINUTE: &str = r#"
now() { cut -d ' ' -f 1 /proc/uptime; }
before=$(now)
dpkg --install $package
sed -i 's/^#   hostname = .*/hostname = "mailless.example.org"/' /etc/nomail/nomail.toml
systemctl enable --now nomail-agent.service
ip netns exec client curl --silent --show-error --mail-from a@client.example \
    --mail-rcpt user@mailless.example.org --upload-file /etc/hostname \
    smtp://mailless.example.org > curl 2>&1 || code=$?
after=$(now)
cat curl
[ $code = 8 ]
grep -F ' 521' curl
ip -details link show host0 | grep xdp
set +x
echo "from the package to a 521: $before to $after s"
"#;

/// What a life with systemd brings.
const CHECK: &str = r#"
cat > /root/ask <<'PYTHON'
import os, socket, sys, time
def ask():
    with socket.create_connection(("192.0.2.1", 25), 10) as s:
        s.settimeout(10)
        return s.recv(3)
if len(sys.argv) == 1:
    sys.exit(0 if ask() in (b"521", b"220") else 1)
count = 0
while not os.path.exists(sys.argv[1]):
    assert ask() in (b"521", b"220")
    count += 1
    time.sleep(0.15)
print("asked", count)
PYTHON
ask() { ip netns exec client python3 /root/ask "$@"; }
pid() { systemctl show --property MainPID --value nomail-agent.service; }
# A plain "!" does not end a script.
not() { if "$@"; then exit 1; fi; }
state() { systemctl is-active nomail-agent.service || true; }

# Nothing by surprise.
dpkg --install $package
[ "$(state)" = inactive ]
[ "$(systemctl is-enabled nomail-agent.service || true)" = disabled ]
not ask

systemd-analyze verify --man=no nomail-agent.service nomail-agent.socket nomail-crowdsec.service
# Without [crowdsec] it has nothing to do.
[ "$(systemctl show --property Wants nomail-agent.service | grep -c nomail-crowdsec)" = 1 ]
systemctl show --property Documentation nomail-agent.service | grep nomail.toml
sed -i 's/^#   hostname = .*/hostname = "mailless.example.org"/' /etc/nomail/nomail.toml
systemctl enable --now nomail-agent.service
ask
ip -details link show host0 | grep xdp
systemctl show --property StatusText nomail-agent.service

systemctl reload nomail-agent.service
ask
echo 'no_such_key = 1' > /etc/nomail/nomail.toml.d-wrong
mkdir /etc/nomail/nomail.toml.d
mv /etc/nomail/nomail.toml.d-wrong /etc/nomail/nomail.toml.d/wrong.toml
not systemctl reload nomail-agent.service
[ "$(state)" = active ]
ask
rm -r /etc/nomail/nomail.toml.d

before=$(pid)
kill -9 "$before"
for i in $(seq 300); do
    [ "$(state)" = active ] && [ "$(pid)" != "$before" ] && break
    sleep 0.1
done
[ "$(pid)" != "$before" ]
ask

# An upgrade under traffic, with systemd at port 25.
systemctl stop nomail-agent.service
systemctl start nomail-agent.socket
systemctl start nomail-agent.service
before=$(pid)
ask /root/done > /root/asked 2>&1 &
asking=$!
sleep 1
dpkg --install nomail-agent_0.2.0-1_amd64.deb
[ "$(pid)" != "$before" ]
[ "$(state)" = active ]
sleep 1
touch /root/done
wait $asking
cat /root/asked

# It stays off through an upgrade when its administrator has stopped it.
systemctl stop nomail-agent.socket nomail-agent.service
dpkg --install $package
[ "$(state)" = inactive ]
systemctl start nomail-agent.service
ask

dpkg --remove nomail-agent
[ "$(state)" != active ]
not ask
[ -z "$(ip -details link show host0 | grep xdp)" ]
dpkg --purge nomail-agent
[ ! -e /var/lib/nomail ]
[ ! -e /etc/nomail ]
"#;

/// Runs a script in a machine with the package, and gives what it said.
fn guest(script: &str) -> String {
    let files = tempfile::tempdir().unwrap();
    let check = files.path().join("check");
    let end = format!("set +x\necho '{END}'\n");
    fs::write(&check, [PREPARE, script, &end].concat()).unwrap();
    let packages = ["qemu-system-x86", "linux-image-cloud-amd64", "debootstrap"];
    let root = Root::install_more("guest", &packages, DEBOOTSTRAP);
    let namespace = Namespace::new("guest");
    let deb = package("deb");
    let name = deb.file_name().unwrap().to_str().unwrap();
    let files: [(&Path, &str); 2] = [(&deb, DEB), (&check, "/var/tmp/check")];
    let boot = format!("NAME={name}\n{BOOT}");
    let machine = root.start_with(&namespace, &boot, &files);
    let start = Instant::now();
    while machine.read("/var/tmp/ended").is_empty() && start.elapsed() < BOOT_DEADLINE {
        thread::sleep(Duration::from_millis(200));
    }
    let serial = machine.read("/var/tmp/serial").replace('\r', "");
    assert!(
        serial.lines().any(|line| line == END),
        "{serial}\n{}",
        machine.read("/var/tmp/log")
    );
    println!("{serial}");
    serial
}

#[test]
fn systemd_starts_restarts_and_stops_it() {
    guest(CHECK);
}

#[test]
fn a_521_within_a_minute() {
    let said = guest(MINUTE);
    let times = said.split_once("from the package to a 521: ").unwrap().1;
    let times: Vec<f64> = times
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .take(2)
        .collect();
    let secs = times[1] - times[0];
    println!("from dpkg --install to a 521, in an emulated machine: {secs:.1} s");
    assert!(secs < 60.0);
}

#[test]
fn the_guide_is_true() {
    // This tier has run it before.
    assert_eq!(blocks_at(GUIDE, "build"), ["cargo xtask dist\n"]);
    let script: String = blocks(GUIDE)
        .into_iter()
        .map(|(place, text)| match place {
            "host" => text.to_owned(),
            "client" => format!("ip netns exec client sh -eux <<'CLIENT'\n{text}CLIENT\n"),
            _ => String::new(),
        })
        .collect();
    let said = guest(&script);
    let printed = GUIDE.split("```text\n").skip(1);
    for line in printed.flat_map(|rest| rest.split("```").next().unwrap().lines()) {
        assert!(said.lines().any(|said| said == line), "{line}:\n{said}");
    }
}

/// Beside podman: a Debian of which the base image is made, since none is fetched from
/// a registry. What apt-get would fetch for the image is in it.
const BASE: &str = "
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources | head -n 1)
include=systemd-standalone-sysusers,systemd-standalone-tmpfiles,procps
debootstrap --variant=minbase --include=$include bookworm /var/lib/base $mirror
tar --create --file /var/lib/base.tar --directory /var/lib/base .
rm -r /var/lib/base
";

/// podman as it can be in a root that is an overlay already, has no systemd to make
/// control groups, and is not the machine's first root. The commands stay as they are.
const PODMAN: &str = "
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
cat > /etc/containers/storage.conf <<'STORAGE'
[storage]
driver = 'vfs'
graphroot = '/var/tmp/containers'
runroot = '/run/containers'
STORAGE
cat > /etc/containers/containers.conf <<'CONTAINERS'
[containers]
cgroups = 'disabled'
log_driver = 'k8s-file'
[engine]
cgroup_manager = 'cgroupfs'
events_logger = 'file'
CONTAINERS
# As the real one says it.
podman import --change ENV=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /var/lib/base.tar docker.io/library/debian:bookworm-slim
mkdir /etc/nomail
printf 'hostname = \"mailless.example.org\"\ninterfaces = [\"host0\"]\n' > /etc/nomail/nomail.toml
";

#[test]
fn a_container_guards_the_host() {
    let lab = Lab::new();
    let root = Root::install_more("container", &["podman", "crun", "debootstrap"], BASE);
    let file = repository().join("packaging/container/Containerfile");
    let deb = package("deb");
    let place = format!(
        "/srv/nomail/target/dist/deb/{}",
        deb.file_name().unwrap().to_str().unwrap()
    );
    let files: [(&Path, &str); 2] = [
        (&file, "/srv/nomail/packaging/container/Containerfile"),
        (&deb, &place),
    ];
    let mut host = root.start_with(&lab.host, "true", &files);
    host.ready();
    step(&mut host, "podman", PODMAN);

    // This tier has run it before, for both kinds.
    assert_eq!(blocks_at(CONTAINER, "build"), ["cargo xtask dist deb\n"]);
    let [image] = blocks_at(CONTAINER, "image")[..] else {
        panic!("the page builds an image")
    };
    // In the root's one network namespace, and without one process tree more.
    let built = step(
        &mut host,
        "image",
        &format!("cd /srv/nomail\nexport BUILDAH_ISOLATION=chroot\n{image}"),
    );
    println!("{built}");
    let [run, look, stop] = blocks_at(CONTAINER, "host")[..] else {
        panic!("the page runs, asks and stops")
    };
    step(&mut host, "run", run);
    // What it says lies outside of the container, for the line below.
    host.run("podman logs --follow nomail > /var/tmp/agent.log 2>&1");
    host.line(
        "/var/tmp/agent.log",
        &["does not accept mail: listening on"],
    );
    lab.client.within(|| {
        until("the agent in the container answers", || {
            greeting().filter(|greeting| greeting == GREETING)
        })
    });
    assert!(lab.host.has_xdp(HOST_INTERFACE));
    // A root of a test is no root of its mount namespace, which is where `exec` would
    // look for the program; so it is run in the container's root by its process.
    let inside = format!("chroot /proc/$({PID})/root ");
    let said = step(
        &mut host,
        "look",
        &look.replace("podman exec nomail ", &inside),
    );
    println!("{said}");
    assert!(said.contains("state        guarding"), "{said}");
    // Two capabilities, and no way to more.
    let status = step(
        &mut host,
        "status",
        &format!("grep -e ^Uid -e ^CapEff -e ^NoNewPrivs /proc/$({PID})/status"),
    );
    println!("{status}");
    assert!(status.contains("CapEff:\t0000008000000400"), "{status}");
    step(&mut host, "stop", stop);
    assert!(!lab.host.has_xdp(HOST_INTERFACE));
}

/// How each command of Ansible begins.
const AS_ANSIBLE: &str = "
export PATH=/opt/ansible/bin:$PATH ANSIBLE_NOCOLOR=1 LC_ALL=C.UTF-8
cd /srv/nomail/packaging/ansible
";

/// A play on the machine itself: how many tasks changed something, and the output.
fn play(machine: &mut Instance<'_>, name: &str, arguments: &str) -> (u32, String) {
    let said = step(
        machine,
        name,
        &format!("{AS_ANSIBLE}ansible-playbook -i /srv/hosts.yml nomail.yml {arguments}"),
    );
    let (_, rest) = said.rsplit_once("changed=").unwrap();
    let changed = rest.split(' ').next().unwrap().parse().unwrap();
    (changed, said)
}

/// Every file below a folder of the repository, and where it goes.
fn files_below(folder: &Path, to: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let to = format!("{to}/{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files.extend(files_below(&path, &to));
        } else {
            files.push((path, to));
        }
    }
    files
}

/// A root with ansible-core.
fn with_ansible() -> Root {
    let install = "python3 -m venv --system-site-packages /opt/ansible
                   /opt/ansible/bin/pip install --quiet 'ansible-core==2.19.*' ansible-lint";
    Root::install_more("ansible", &["python3-venv", "python3-apt"], install)
}

/// A control node, which is the only host, too: the role and the package lie there as
/// in a checkout. Its inventory is /srv/hosts.yml.
fn control_node<'a>(root: &'a Root, namespace: &Namespace) -> Instance<'a> {
    let folder = repository().join("packaging/ansible");
    let mut files = files_below(&folder, "/srv/nomail/packaging/ansible");
    let deb = package("deb");
    let name = deb.file_name().unwrap().to_str().unwrap();
    let place = format!("/srv/nomail/target/dist/deb/{name}");
    files.push((deb, place));
    let files: Vec<_> = files
        .iter()
        .map(|(from, to)| (from.as_path(), to.as_str()))
        .collect();
    let local = "
cat > /srv/nomail/packaging/ansible/group_vars/all.yml <<'ALL'
---
ansible_connection: local
ansible_python_interpreter: /usr/bin/python3
ALL
cat > /srv/hosts.yml <<'HOSTS'
all:
  children:
    mailless:
      children:
        observing: {hosts: {mailless.example.org: {}}}
        enforcing: {hosts: {}}
HOSTS";
    let mut machine = root.start_with(namespace, local, &files);
    machine.ready();
    machine
}

#[test]
fn the_guide_rolls_out_a_fleet() {
    let root = with_ansible();
    let namespace = Namespace::new("fleet");
    let mut machine = control_node(&root, &namespace);
    let [roll_out, enforce, remove] = blocks_at(GUIDE, "fleet")[..] else {
        panic!("the guide rolls out, enforces and removes")
    };
    // All hosts of the example inventory are this one: the last one's name stays, which
    // is one that enforces.
    step(
        &mut machine,
        "roll_out",
        &format!("{AS_ANSIBLE}cd /srv/nomail\n{roll_out}"),
    );
    let effective = "nomail-agent check-config --show | grep -e ^hostname -e ^observe";
    let said = step(&mut machine, "rolled_out", effective);
    assert!(said.contains("\"web2.example.org\""), "{said}");
    assert!(said.contains("observe = false"), "{said}");
    step(&mut machine, "enforce", &format!("{AS_ANSIBLE}{enforce}"));
    let said = step(&mut machine, "enforced", effective);
    assert!(said.contains("\"web1.example.org\""), "{said}");
    step(&mut machine, "remove", &format!("{AS_ANSIBLE}{remove}"));
    step(
        &mut machine,
        "removed",
        "[ ! -e /etc/nomail ] && [ ! -e /usr/sbin/nomail-agent ]",
    );
}

#[test]
fn ansible_rolls_it_out() {
    let root = with_ansible();
    let namespace = Namespace::new("ansible");
    let mut machine = control_node(&root, &namespace);
    step(
        &mut machine,
        "lint",
        &format!("{AS_ANSIBLE}ansible-lint --offline"),
    );

    // It tells what it would do, and does nothing.
    let (would, said) = play(&mut machine, "check", "--check --diff");
    assert_eq!(would, 2, "{said}");
    assert!(
        said.contains("+hostname = \"mailless.example.org\""),
        "{said}"
    );
    step(&mut machine, "nothing", "[ ! -e /etc/nomail ]");

    let (changed, said) = play(&mut machine, "first", "");
    assert_eq!(changed, 3, "{said}");
    let shown = "nomail-agent check-config --show";
    let effective = step(&mut machine, "effective", shown);
    for line in ["hostname = \"mailless.example.org\"", "observe = true"] {
        assert!(effective.contains(line), "{line}:\n{effective}");
    }
    let (changed, said) = play(&mut machine, "second", "");
    assert_eq!(changed, 0, "{said}");
    let (would, said) = play(&mut machine, "check_again", "--check --diff");
    assert_eq!(would, 0, "{said}");

    // The host has observed long enough, and one thing of each kind is set.
    let enforce = r#"-e '{"nomail_observe": false, "nomail_config": {
        "hostname": "mailless.example.org", "limits": {"syn_rate": 30},
        "lists": {"allow": ["192.0.2.0/24", "2001:db8::/32"]},
        "relay": {"domains": ["b\u00fccher.example"], "text": "gone \"away\""}}}'"#;
    let (would, said) = play(
        &mut machine,
        "check_enforce",
        &format!("{enforce} --check --diff"),
    );
    assert_eq!(would, 1, "{said}");
    assert!(said.contains("-observe = true\n+observe = false"), "{said}");
    let (changed, said) = play(&mut machine, "enforce", enforce);
    assert_eq!(changed, 1, "{said}");
    let effective = step(&mut machine, "enforced", shown);
    for line in [
        "observe = false",
        "syn_rate = 30",
        "\"2001:db8::/32\"",
        "'gone \"away\"'",
    ] {
        assert!(effective.contains(line), "{line}:\n{effective}");
    }

    // What the agent would not take is not written.
    let wrong = step(
        &mut machine,
        "wrong",
        &format!(
            "{AS_ANSIBLE}
             cp /etc/nomail/nomail.toml /srv/before
             if ansible-playbook -i /srv/hosts.yml nomail.yml \
                 -e '{{\"nomail_config\": {{\"limits\": {{\"syn_rate\": 0}}}}}}'; then exit 1; fi
             cmp /srv/before /etc/nomail/nomail.toml"
        ),
    );
    assert!(wrong.contains("limits.syn_rate"), "{wrong}");

    let (changed, said) = play(&mut machine, "remove", "-e nomail_state=absent");
    assert_eq!(changed, 2, "{said}");
    step(
        &mut machine,
        "removed",
        "[ ! -e /etc/nomail ]
         [ ! -e /usr/sbin/nomail-agent ]",
    );
    let (changed, said) = play(&mut machine, "remove_again", "-e nomail_state=absent");
    assert_eq!(changed, 0, "{said}");
}
