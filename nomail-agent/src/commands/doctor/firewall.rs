//! Checks of connection tracking, SYN cookies and the length of the listener's queue.

use super::{
    finding::{Check, Finding},
    kernel::number,
};
use crate::smtp::LISTEN_BACKLOG;

/// Percentage of a full table of connections that is worth a warning.
const CONNTRACK_FULL: u64 = 80;

pub(super) fn check() -> [Finding; 3] {
    let conntrack_number = |name| number(&format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
    [
        conntrack(
            conntrack_number("count").ok(),
            conntrack_number("max").ok(),
            conntrack_number("tcp_loose").ok(),
        ),
        syncookies(number("/proc/sys/net/ipv4/tcp_syncookies").ok()),
        somaxconn(number("/proc/sys/net/core/somaxconn").ok()),
    ]
}

fn conntrack(count: Option<u64>, max: Option<u64>, loose: Option<u64>) -> Finding {
    let check = Check::Conntrack;
    let (Some(count), Some(max)) = (count, max) else {
        return Finding::ok(check, "the kernel tracks no connections here");
    };
    if count * 100 >= max * CONNTRACK_FULL {
        return Finding::warn(
            check,
            format!(
                "{count} of {max} entries are in use: a full table drops new connections of all services"
            ),
            format!("sysctl -w net.netfilter.nf_conntrack_max={}", max * 2),
        );
    }
    let loose = match loose {
        Some(0) => "; tcp_loose = 0, which does not affect challenges",
        _ => "",
    };
    Finding::ok(
        check,
        format!(
            "{count} of {max} entries are in use; SYNs that XDP drops or challenges take none{loose}"
        ),
    )
}

fn syncookies(value: Option<u64>) -> Finding {
    let check = Check::SynCookies;
    match value {
        Some(1) => Finding::ok(check, "1: only when a listener's queue is full"),
        Some(0) => Finding::warn(
            check,
            "0: when a listener's queue is full, new clients are dropped",
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        Some(_) => Finding::warn(
            check,
            "2: each connection begins with a cookie; one whose last packet is lost hangs, and \
             never sees the 521",
            "sysctl -w net.ipv4.tcp_syncookies=1",
        ),
        None => Finding::skip(check, "the kernel has no SYN cookies"),
    }
}

fn somaxconn(value: Option<u64>) -> Finding {
    let check = Check::Somaxconn;
    let wanted = u64::from(LISTEN_BACKLOG);
    match value {
        Some(value) if value >= wanted => Finding::ok(check, format!("{value}")),
        Some(value) => Finding::warn(
            check,
            format!(
                "{value}: the listener's queue has room for fewer than {wanted}, so that clients \
                 are challenged from {} unproven SYNs a second on",
                (value / 16).max(1)
            ),
            format!("sysctl -w net.core.somaxconn={wanted}, and restart the agent"),
        ),
        None => Finding::skip(check, "the kernel does not show net.core.somaxconn"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::CheckResult, *};

    #[test]
    fn numbers() {
        let result = |count, max| conntrack(Some(count), Some(max), Some(0)).result;
        assert_eq!(result(79, 100), CheckResult::Ok);
        assert_eq!(result(80, 100), CheckResult::Warn);
        assert_eq!(conntrack(None, None, None).result, CheckResult::Ok);
        assert_eq!(syncookies(Some(1)).result, CheckResult::Ok);
        assert_eq!(syncookies(Some(0)).result, CheckResult::Warn);
        assert_eq!(syncookies(Some(2)).result, CheckResult::Warn);
        assert_eq!(syncookies(None).result, CheckResult::Skip);
        assert_eq!(somaxconn(Some(4096)).result, CheckResult::Ok);
        assert_eq!(somaxconn(Some(128)).result, CheckResult::Warn);
        assert_eq!(somaxconn(None).result, CheckResult::Skip);
    }
}
