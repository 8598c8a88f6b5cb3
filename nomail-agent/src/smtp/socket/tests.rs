use rstest::rstest;

use super::*;

#[test]
fn only_errors_of_one_connection_are_passed_over() {
    let concerns_one = |code| concerns_one_connection(&io::Error::from_raw_os_error(code));
    assert!([libc::ECONNABORTED, libc::EPROTO, libc::EINTR].map(concerns_one) == [true; 3]);
    let full = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EBADF,
    ];
    assert!(full.map(concerns_one) == [false; 5]);
}

#[rstest]
#[case("127.0.0.1:0")]
#[case("[::1]:0")]
fn binds_without_blocking(#[case] address: SocketAddr) {
    let listener = bind(address, LISTEN_BACKLOG, false).unwrap();
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    assert!(bind(listener.local_addr().unwrap(), LISTEN_BACKLOG, false).is_err());
}

#[test]
fn binds_an_address_that_is_not_there_only_when_asked() {
    let address: SocketAddr = "192.0.2.7:0".parse().unwrap();
    assert!(bind(address, LISTEN_BACKLOG, false).is_err());
    assert!(bind(address, LISTEN_BACKLOG, true).is_ok());
    let address: SocketAddr = "[2001:db8::7]:0".parse().unwrap();
    assert!(bind(address, LISTEN_BACKLOG, true).is_ok());
}
