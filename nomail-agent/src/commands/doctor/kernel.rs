//! Checks of the kernel.

use std::{collections::HashSet, fs, io, path::Path};

use anyhow::anyhow;

use super::finding::{Check, Finding};
use crate::guard::{BpfError, Guard, OLDEST_KERNEL};

const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";
const UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// The port that the loaded program guards; it is attached to nothing.
const PORT: u16 = 25;

pub(super) fn check(root: bool) -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let loaded = Guard::load(&HashSet::from([PORT])).map(drop);
    vec![
        kernel(release.trim()),
        btf(Path::new(BTF).exists()),
        jit(number(JIT).as_ref().ok().copied()),
        unprivileged_bpf(number(UNPRIVILEGED_BPF).ok()),
        bpf_load(loaded, root),
    ]
}

/// The number in a file of /proc/sys.
pub(super) fn number(path: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(io::Error::other)
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    match (next(), next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_KERNEL => {
            Finding::ok(Check::Kernel, format!("Linux {release}"))
        }
        (Some(_), Some(_)) => Finding::fail(
            Check::Kernel,
            format!(
                "Linux {release} is older than {}.{}",
                OLDEST_KERNEL.0, OLDEST_KERNEL.1
            ),
            "boot a newer kernel, or run the responder alone: xdp_mode = \"off\"",
        ),
        _ => Finding::skip(Check::Kernel, "the kernel does not show its version"),
    }
}

fn btf(there: bool) -> Finding {
    match there {
        true => Finding::ok(Check::Btf, format!("{BTF} exists")),
        false => Finding::warn(
            Check::Btf,
            format!("there is no {BTF}: bpf_load shows whether the program loads without it"),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y, and mount /sys",
        ),
    }
}

fn jit(enabled: Option<u64>) -> Finding {
    match enabled {
        Some(0) => Finding::warn(
            Check::BpfJit,
            "off: each packet of the interface costs several times as much",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok(Check::BpfJit, "on"),
        None => Finding::unseen(
            Check::BpfJit,
            format!("there is no {JIT} in this network namespace"),
            "check the host's: nsenter --target 1 --net sysctl net.core.bpf_jit_enable",
        ),
    }
}

fn unprivileged_bpf(disabled: Option<u64>) -> Finding {
    match disabled {
        Some(0) => Finding::warn(
            Check::UnprivilegedBpf,
            "every user may load BPF programs; nomail does not need that",
            "sysctl -w kernel.unprivileged_bpf_disabled=2",
        ),
        Some(_) => Finding::ok(Check::UnprivilegedBpf, "only with privilege"),
        None => Finding::skip(
            Check::UnprivilegedBpf,
            format!("the kernel has no {UNPRIVILEGED_BPF}"),
        ),
    }
}

fn bpf_load(loaded: Result<(), BpfError>, root: bool) -> Finding {
    match loaded {
        Ok(()) => Finding::ok(
            Check::BpfLoad,
            "the kernel loads the XDP program and its maps",
        ),
        Err(BpfError::Permission(_)) if !root => {
            Finding::needs_root(Check::BpfLoad, "whether the XDP program loads")
        }
        Err(error) => Finding::fail(
            Check::BpfLoad,
            format!("{:#}", anyhow!(error)),
            "run the responder alone until then: xdp_mode = \"off\"",
        ),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::finding::CheckResult, *};

    #[rstest]
    #[case("6.18.44-fc-v657", CheckResult::Ok)]
    #[case("6.0.0", CheckResult::Ok)]
    #[case("5.19.17", CheckResult::Fail)]
    #[case("4.19", CheckResult::Fail)]
    #[case("", CheckResult::Skip)]
    fn versions(#[case] release: &str, #[case] result: CheckResult) {
        assert_eq!(kernel(release).result, result);
    }

    #[test]
    fn switches() {
        assert_eq!(btf(true).result, CheckResult::Ok);
        assert_eq!(btf(false).result, CheckResult::Warn);
        assert_eq!(jit(Some(1)).result, CheckResult::Ok);
        assert_eq!(jit(Some(0)).result, CheckResult::Warn);
        assert_eq!(jit(None).result, CheckResult::Skip);
        assert_eq!(unprivileged_bpf(Some(2)).result, CheckResult::Ok);
        assert_eq!(unprivileged_bpf(Some(0)).result, CheckResult::Warn);
        assert_eq!(unprivileged_bpf(None).result, CheckResult::Skip);
    }

    #[test]
    fn loading() {
        let denied = || Err(BpfError::Permission(io::Error::other("denied")));
        assert_eq!(bpf_load(Ok(()), true).result, CheckResult::Ok);
        assert_eq!(bpf_load(denied(), false).result, CheckResult::Skip);
        assert_eq!(bpf_load(denied(), true).result, CheckResult::Fail);
        let refused = bpf_load(Err(BpfError::Load(io::Error::other("no JIT"))), true);
        assert_eq!(refused.result, CheckResult::Fail);
        assert!(refused.found.contains("no JIT"), "{refused:?}");
    }
}
