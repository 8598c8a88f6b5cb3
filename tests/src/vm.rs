//! Virtual machines for what this one does not allow, or does not have: one of
//! Debian's kernels under emulation, a disk with a few programs and their
//! libraries, and a shell script instead of init.

use std::{
    env, fmt, fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    agent,
    lab::Namespace,
    poll::{EMULATED, tried},
    root::{Instance, Root},
};

/// A kernel of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Major and minor number.
    pub version: &'static str,
    /// The package that depends on its newest build.
    package: &'static str,
}

/// Those that Debian 12 has, the oldest first.
pub const KERNELS: [Kernel; 2] = [
    Kernel {
        version: "6.1",
        package: "linux-image-cloud-amd64",
    },
    Kernel {
        version: "6.12",
        package: "linux-image-6.12-cloud-amd64",
    },
];

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.version)
    }
}

const PACKAGES: [&str; 2] = ["qemu-system-x86", "kmod"];
/// Programs that each machine has; its init needs them, and the lab.
const COMMANDS: [&str; 8] = [
    "sh", "ip", "nsenter", "mount", "modprobe", "cat", "sleep", "mkdir",
];
/// What the guest's last line is.
const END: &str = "end of the guest";
/// What stands before it if the script failed.
const FAILED: &str = "the script failed";

/// Unpacks the kernels. They are not installed: that would make an initrd for
/// this machine.
const UNPACK: &str = r#"
fetch() {
    image=$(apt-cache depends "$2" | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    [ -n "$image" ] && cd "$1" && apt-get download "$image"
}
unpack() {
    mkdir -p "$1"
    (fetch "$1" "$2") || { apt-get update && (fetch "$1" "$2"); }
    dpkg-deb -x "$1"/*.deb "$1"
    rm "$1"/*.deb
    depmod --basedir "$1" "$(ls "$1/lib/modules")"
}
"#;

/// Run by the kernel. What the script writes goes to the serial line.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir /run/netns
modprobe veth
ip link set lo up
export NOMAIL_AGENT=/agent EMULATED=1
# The firmware's words end no line.
echo > /dev/ttyS0
sh -eu /script > /dev/ttyS0 2> /tmp/errors || {
    echo "FAILED"
    cat /tmp/errors
} > /dev/ttyS0
echo 'END' > /dev/ttyS0
# What is written reaches the line a little later.
sleep 1
echo b > /proc/sysrq-trigger
"#;

/// Lays out the disk and runs the machine.
const START: &str = r#"
exec > /var/tmp/log 2>&1
trap 'echo "$?" > /var/tmp/ended' EXIT
disk=/var/tmp/disk
mkdir -p $disk/proc $disk/sys $disk/dev $disk/run $disk/tmp $disk/etc $disk/usr/bin $disk/usr/lib
for directory in bin sbin lib lib64; do
    ln -s usr/$directory $disk/$directory
done
ln -s bin $disk/usr/sbin
ln -s lib $disk/usr/lib64
cp /etc/passwd /etc/group $disk/etc
(cd "$FILES" && find . -type f) | while read -r file; do
    mkdir -p "$(dirname "$disk/$file")"
    # Most of a test program is debug information; a script is no object.
    strip --strip-debug -o "$disk/$file" "$FILES/$file" || cp "$FILES/$file" "$disk/$file"
done
for command in $COMMANDS; do
    cp -L "$(command -v "$command")" "$disk/usr/bin/$command"
done
# "name => path (address)", and the loader, which has no name.
find $disk -type f -perm -100 -exec ldd {} + 2> /dev/null |
    sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' |
    sort -u | while read -r library; do
    mkdir -p "$disk/usr/lib/x86_64-linux-gnu"
    case $library in
    */ld-linux*) cp -L "$library" $disk/usr/lib ;;
    *) cp -L "$library" $disk/usr/lib/x86_64-linux-gnu ;;
    esac
done
cp -R "$KERNEL/lib/modules" $disk/usr/lib
[ -x $disk/agent ]
mke2fs -q -t ext4 -d $disk /var/tmp/image "$(($(du -sm $disk | cut -f 1) * 5 / 4 + 64))M"
qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$MEMORY_MIB" \
    -nographic -nodefaults -serial file:/var/tmp/serial -no-reboot -nic none \
    -kernel "$KERNEL"/boot/vmlinuz-* \
    -append "root=/dev/nvme0n1 rw init=/init console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off" \
    -drive file=/var/tmp/image,format=raw,if=none,id=d0,cache=unsafe \
    -device nvme,drive=d0,serial=r0
"#;

/// A machine with 2 processors, and what it is to do. The agent under test is
/// in it, as `/agent`, and `NOMAIL_AGENT` names it.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What it runs on.
    pub kernel: Kernel,
    /// Its memory.
    pub memory_mib: u32,
    /// Programs of this machine that it is to have, too, with the libraries that
    /// they need.
    pub commands: &'a [&'a str],
    /// Files of this machine, and where it has them.
    pub files: &'a [(PathBuf, String)],
    /// What it does, for `sh -eu`. Its standard output is what the machine says.
    pub script: &'a str,
    /// Longest that it may take, with boot; then it is ended.
    pub deadline: Duration,
}

impl Machine<'_> {
    /// Runs it to its end, and gives what it said; `hear` gets each line as it
    /// comes.
    ///
    /// # Errors
    /// All that it said, where it did not start, the script failed, or it did not
    /// come to its end.
    ///
    /// # Panics
    /// When the root cannot be installed, or the files cannot be copied.
    pub fn run(&self, hear: &mut dyn FnMut(&str)) -> Result<String, String> {
        // Where the root sees it: it has a /tmp of its own.
        let files = tempfile::Builder::new()
            .prefix("nomail-vm-")
            .tempdir_in("/var/tmp")
            .expect("a temporary directory");
        let init = INIT
            .replace("END", END)
            .replace("FAILED", FAILED)
            .replace("EMULATED", EMULATED);
        for (name, text) in [("init", init.as_str()), ("script", self.script)] {
            let path = files.path().join(name);
            fs::write(&path, text).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        let agent = [(agent::binary(), "agent".to_owned())];
        for (from, to) in self.files.iter().chain(&agent) {
            let to = files.path().join(to.trim_start_matches('/'));
            let parent = to.parent().expect("it has a name");
            fs::create_dir_all(parent)
                // A link where it can be: test programs are large.
                .and_then(|()| fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).map(drop)))
                .unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
        let unpack = KERNELS.map(|kernel| {
            let directory = kernel.directory();
            format!("unpack {directory} {}\n", kernel.package)
        });
        let root = Root::install_more("vm", &PACKAGES, &format!("{UNPACK}{}", unpack.concat()));
        let namespace = Namespace::new("vm");
        let script = format!(
            "FILES={}\nKERNEL={}\nMEMORY_MIB={}\nCOMMANDS='{} {}'\n{START}",
            files.path().display(),
            self.kernel.directory(),
            self.memory_mib,
            COMMANDS.join(" "),
            self.commands.join(" "),
        );
        let machine = root.start(&namespace, &script);
        let serial = self.listen(&machine, hear);
        match serial.split_once(END) {
            Some((said, _)) if !said.contains(FAILED) => Ok(said.to_owned()),
            _ => Err(format!("{serial}{}", machine.read("/var/tmp/log"))),
        }
    }

    /// What it has written when it ends, or takes too long.
    fn listen(&self, machine: &Instance<'_>, hear: &mut dyn FnMut(&str)) -> String {
        let start = Instant::now();
        let mut heard = 0;
        loop {
            // First: what it wrote before it ended counts.
            let ended = !machine.read("/var/tmp/ended").is_empty();
            let serial = machine.read("/var/tmp/serial").replace('\r', "");
            let whole = serial.rfind('\n').map_or(0, |last| last + 1);
            for line in serial.get(heard..whole).unwrap_or_default().lines() {
                hear(line);
            }
            heard = heard.max(whole);
            if ended || start.elapsed() >= self.deadline {
                return serial;
            }
            sleep(Duration::from_millis(200));
        }
    }
}

impl Kernel {
    /// Where it lies unpacked in the root.
    fn directory(self) -> String {
        format!("/kernels/{self}")
    }
}

/// Runs this program in a machine with 6 GiB, and gives what it writes on
/// standard output.
///
/// # Errors
/// Why not, in one line; all of it is on standard error.
///
/// # Panics
/// Without a path of this program.
pub fn run(arguments: &str) -> Result<String, String> {
    let program = env::current_exe().expect("the program has a path");
    let machine = Machine {
        kernel: KERNELS[0],
        memory_mib: 6144,
        commands: &[],
        files: &[(program, "program".to_owned())],
        script: &format!("exec /program {arguments}"),
        deadline: Duration::from_secs(900),
    };
    tried(|| {
        let said = machine.run(&mut |_| {});
        said.unwrap_or_else(|said| panic!("the virtual machine failed: {said}"))
    })
}
