use std::time::Instant;

use rstest::rstest;

use super::*;

fn figures() -> Figures {
    Figures {
        interfaces: vec![("eth0".to_owned(), "native".to_owned())],
        syns: 1234,
        limited: 12,
        connections: 3,
        ..Figures::default()
    }
}

#[test]
fn figures_are_one_line() {
    let line = figures().to_string();
    assert_eq!(
        line,
        "guarding eth0 (native): 1234 SYNs, 12 limited, 3 connections"
    );
    let mut two = figures();
    two.interfaces.push(("eth1".to_owned(), "off".to_owned()));
    (two.observe, two.flood) = (true, true);
    assert!(
        two.to_string()
            .starts_with("flood of SYNs, observing eth0 (native), eth1 (off): 1234 SYNs")
    );
    let alone = Figures {
        connections: 3,
        ..Figures::default()
    };
    assert_eq!(alone.to_string(), "guarding no interface: 3 connections");
}

fn manager_and_its_messages() -> (Manager, unix::UnixDatagram) {
    let (socket, messages) = unix::UnixDatagram::pair().unwrap();
    messages.set_nonblocking(true).unwrap();
    let manager = Manager {
        socket: Some(socket),
        ..Manager::default()
    };
    (manager, messages)
}

fn next_message(messages: &unix::UnixDatagram) -> Option<String> {
    let mut buffer = [0; 512];
    let count = messages.recv(&mut buffer).ok()?;
    Some(String::from_utf8(buffer[..count].to_vec()).unwrap())
}

#[test]
fn the_same_figures_are_sent_once_and_a_failed_reload_until_one_succeeds() {
    let (mut manager, messages) = manager_and_its_messages();
    manager.ready(&figures());
    let status = format!("STATUS={}", figures());
    assert_eq!(next_message(&messages), Some(format!("READY=1\n{status}")));
    manager.figures(&figures());
    assert_eq!(next_message(&messages), None);
    manager.reloading();
    let reloading = next_message(&messages).unwrap();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    manager.reloaded(false, &figures());
    let failed = next_message(&messages).unwrap();
    assert!(failed.starts_with("READY=1\n") && failed.contains("the last reload failed"));
    manager.figures(&Figures {
        syns: 1235,
        ..figures()
    });
    assert!(
        next_message(&messages)
            .unwrap()
            .contains("the last reload failed")
    );
    manager.reloaded(true, &figures());
    assert_eq!(next_message(&messages), Some(format!("READY=1\n{status}")));
}

#[test]
fn a_manager_that_does_not_read_delays_nothing_for_long() {
    let (mut manager, messages) = manager_and_its_messages();
    let timeout = Some(Duration::from_millis(10));
    let socket = manager.socket.as_ref().unwrap();
    socket.set_write_timeout(timeout).unwrap();
    let start = Instant::now();
    while !manager.failing {
        manager.alive();
        assert!(start.elapsed() < SEND_TIMEOUT * 5);
    }
    assert_eq!(next_message(&messages), Some("WATCHDOG=1".to_owned()));
    manager.alive();
    assert!(!manager.failing);
    drop(messages);
    manager.alive();
    assert!(manager.failing);
}

#[rstest]
#[case("vsock:2:1234")]
#[case("relative")]
#[case("")]
#[case("/nonexistent/notify")]
#[case("@nomail-no-such-name")]
fn what_cannot_be_reached_is_an_error(#[case] name: &str) {
    assert!(connect(OsStr::new(name)).is_err());
}

#[test]
fn abstract_names_are_connected_to() {
    let name = format!("nomail-test-{}", std::process::id());
    let address = unix::SocketAddr::from_abstract_name(&name).unwrap();
    let messages = unix::UnixDatagram::bind_addr(&address).unwrap();
    let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
    socket.send(b"READY=1").unwrap();
    assert_eq!(messages.recv(&mut [0; 16]).unwrap(), 7);
}
