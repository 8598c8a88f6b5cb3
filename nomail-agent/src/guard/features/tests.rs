use super::*;

#[test]
fn names_what_is_not_there_and_nothing_else() {
    assert_eq!(missing(|_| true), "");
    // As Linux 5.15 has it.
    let newer = [
        BpfHelper::BPF_FUNC_xdp_load_bytes,
        BpfHelper::BPF_FUNC_tcp_raw_gen_syncookie_ipv4,
    ]
    .map(Probe::Helper);
    assert_eq!(
        missing(|probe| !newer.contains(&probe)),
        "access to frames in several buffers (Linux 5.18), SYN cookies without a socket (Linux \
         6.0, CONFIG_SYN_COOKIES)"
    );
}
