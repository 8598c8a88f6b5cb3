//! A virtual machine for what this one does not allow: Debian's kernel, a disk
//! with a few programs and their libraries, and a shell script instead of init.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    agent,
    lab::Namespace,
    peers::tried,
    root::{Instance, Root},
};

const PACKAGES: [&str; 2] = ["qemu-system-x86", "linux-image-cloud-amd64"];
/// Longest that a machine may take, with boot.
const DEADLINE: Duration = Duration::from_secs(900);
/// What the guest's last line is.
const END: &str = "end of the guest";
/// What stands before it if the program failed.
const FAILED: &str = "the program failed";

/// Run by the kernel. The output of the program goes to the serial line.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
insmod /veth.ko
ip link set lo up
export NOMAIL_AGENT=/agent
/program ARGUMENTS > /dev/ttyS0 2> /tmp/errors || {
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
cp $FILES/agent $FILES/program $FILES/init $disk
for command in sh ip nsenter mount insmod cat sleep; do
    cp -L "$(command -v $command)" $disk/usr/bin/$command
done
# "name => path (address)", and the loader, which has no name.
for file in $disk/agent $disk/program $disk/usr/bin/*; do
    ldd $file | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p'
done | sort -u | while read -r library; do
    mkdir -p "$disk/usr/lib/x86_64-linux-gnu"
    case $library in
    */ld-linux*) cp -L "$library" $disk/usr/lib ;;
    *) cp -L "$library" $disk/usr/lib/x86_64-linux-gnu ;;
    esac
done
kernel=$(ls /boot/vmlinuz-* | tail -n 1)
module=$(ls /lib/modules/*/kernel/drivers/net/veth.ko* | tail -n 1)
case $module in
*.xz) xz --decompress --stdout "$module" > $disk/veth.ko ;;
*) cp "$module" $disk/veth.ko ;;
esac
mke2fs -q -t ext4 -d $disk /var/tmp/image 400M
qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 6144 \
    -nographic -nodefaults -serial file:/var/tmp/serial -no-reboot -nic none \
    -kernel $kernel \
    -append "root=/dev/nvme0n1 rw init=/init console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off" \
    -drive file=/var/tmp/image,format=raw,if=none,id=d0,cache=unsafe \
    -device nvme,drive=d0,serial=r0
"#;

/// Runs this program in a machine with 2 processors and 6 GiB, with the agent
/// beside it, and gives what it writes on standard output.
///
/// # Errors
/// Why not.
///
/// # Panics
/// When the program's files cannot be copied.
pub fn run(arguments: &str) -> Result<String, String> {
    // Where the root sees it: it has a /tmp of its own.
    let files = tempfile::Builder::new()
        .prefix("nomail-vm-")
        .tempdir_in("/var/tmp")
        .expect("a temporary directory");
    let copy = |from: &Path, name: &str| {
        fs::copy(from, files.path().join(name)).expect("a program can be copied");
    };
    copy(&agent::binary(), "agent");
    copy(
        &env::current_exe().expect("the program has a path"),
        "program",
    );
    let init = files.path().join("init");
    let text = INIT
        .replace("ARGUMENTS", arguments)
        .replace("END", END)
        .replace("FAILED", FAILED);
    fs::write(&init, text).expect("a script");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("its mode");
    tried(|| {
        let root = Root::install("vm", &PACKAGES);
        let namespace = Namespace::new("vm");
        let script = format!("FILES={}\n{START}", files.path().display());
        let machine = root.start(&namespace, &script);
        let serial = serial_output(&machine);
        match serial.split_once(END) {
            Some((said, _)) if !said.contains(FAILED) => said.to_owned(),
            _ => panic!(
                "the virtual machine failed: {serial}{}",
                machine.read("/var/tmp/log")
            ),
        }
    })
}

/// What the machine has written when it ends, or takes too long.
fn serial_output(machine: &Instance<'_>) -> String {
    let start = Instant::now();
    while machine.read("/var/tmp/ended").is_empty() && start.elapsed() < DEADLINE {
        sleep(Duration::from_millis(200));
    }
    machine.read("/var/tmp/serial").replace('\r', "")
}
