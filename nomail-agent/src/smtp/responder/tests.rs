use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use rstest::rstest;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::*;
use crate::{
    refusal::{AfterGreeting, RefusalPoint, RelayCode},
    smtp::{
        dialog::Outcome,
        relay::RefusedDomains,
        replies::Replies,
        server::IDLE_MIN,
        session::{LINGER_MAX, Session},
        settings::SHED_MAX,
        socket::{LISTEN_BACKLOG, bind},
        stats::Counter,
    },
};

const HOST: &str = "mailless.example.org";
const GREETING: &str = "521 mailless.example.org does not accept mail\r\n";
const REFUSAL: &str = "521 5.3.2 mailless.example.org does not accept mail\r\n";
const GOODBYE: &str = "221 2.0.0 mailless.example.org closing connection\r\n";
const TIMED_OUT: &str = "421 4.4.2 mailless.example.org timed out, closing connection\r\n";
const SHUTTING_DOWN: &str = "421 4.3.2 mailless.example.org shutting down, closing connection\r\n";

/// The longest wait in these tests.
const PATIENCE: Duration = Duration::from_secs(20);

fn settings() -> Settings {
    Settings {
        replies: Arc::new(Replies::new(HOST, None).unwrap()),
        refuse_at: Some(RefusalPoint::Greeting),
        after_greeting: AfterGreeting::Hold,
        connections_max: 10_000,
        shed_max: SHED_MAX,
        connections_per_source_max: 10_000,
        idle_timeout: PATIENCE,
        session_timeout: PATIENCE,
        sender_age_secs: 3600,
        monitors: Vec::new(),
        unlogged: Vec::new(),
        log_envelope: false,
    }
}

/// A responder on a port of 127.0.0.1.
struct TestServer {
    responder: SmtpThread,
    listener: ListenerId,
    address: SocketAddr,
    ended: Option<oneshot::Receiver<()>>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.responder.stop(Duration::ZERO);
    }
}

impl TestServer {
    fn open(settings: Settings) -> Self {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), LISTEN_BACKLOG, false).unwrap();
        Self::on(listener, settings)
    }

    fn on(listener: std::net::TcpListener, settings: Settings) -> Self {
        let address = listener.local_addr().unwrap();
        let senders = Senders::new(settings.sender_age_secs);
        let (responder, ended) = SmtpThread::start(settings, senders, || {}).unwrap();
        let listener = responder.listen(listener);
        Self {
            responder,
            listener,
            address,
            ended: Some(ended),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The counts once no connection is left.
    async fn drained(&self) -> Connections {
        self.until(|counts| counts.active == 0 && counts.shed_lingering == 0)
            .await
    }

    /// Waits until the counts are as wanted.
    async fn until(&self, wanted: impl Fn(&Connections) -> bool) -> Connections {
        let poll = async {
            loop {
                let counts = self.responder.snapshot();
                check_sum(&counts);
                if wanted(&counts) {
                    return counts;
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, poll).await.unwrap()
    }

    /// Sends all at once, and returns everything that is received.
    async fn replies_to(&self, input: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(input).await.unwrap();
        read_all(&mut client).await
    }
}

fn check_sum(counts: &Connections) {
    assert_eq!(counts.accepted, counts.active + counts.ended.sum());
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut text))
        .await
        .unwrap();
    read.unwrap_or_else(|error| panic!("{error} after {text:?}"));
    text
}

async fn expect(stream: &mut TcpStream, line: &str) {
    let mut text = vec![0; line.len()];
    let read = timeout(PATIENCE, stream.read_exact(&mut text))
        .await
        .unwrap();
    read.unwrap_or_else(|error| panic!("{error} instead of {line:?}"));
    assert_eq!(str::from_utf8(&text), Ok(line));
}

#[tokio::test]
async fn greets_and_answers_quit() {
    let server = TestServer::open(settings());
    let mut client = server.connect().await;
    expect(&mut client, GREETING).await;
    client.write_all(b"EHLO a\r\n").await.unwrap();
    expect(&mut client, REFUSAL).await;
    client.write_all(b"QUIT\r\n").await.unwrap();
    assert_eq!(read_all(&mut client).await, GOODBYE);
    drop(client);
    let counts = server.drained().await;
    assert_eq!(
        (
            counts.accepted,
            counts.ended[Outcome::Quit],
            counts.refused[RefusalPoint::Greeting]
        ),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let server = TestServer::open(settings());
    let mut client = server.connect().await;
    client
        .write_all(&[b"NOOP\r\n".repeat(50), b"QUIT\r\nNOOP\r\n".to_vec()].concat())
        .await
        .unwrap();
    let expected = [GREETING, &REFUSAL.repeat(50), GOODBYE].concat();
    assert_eq!(read_all(&mut client).await, expected);
}

#[tokio::test]
async fn a_reset_after_quit_is_a_quit() {
    let server = TestServer::open(settings());
    for _ in 0..20 {
        let mut client = server.connect().await;
        expect(&mut client, GREETING).await;
        client.write_all(b"QUIT\r\n").await.unwrap();
        SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
    }
    server.until(|counts| counts.accepted == 20).await;
    let counts = server.drained().await;
    // The reset may overtake the reading of QUIT, and is no error either.
    assert_eq!(
        counts.ended[Outcome::Quit] + counts.ended[Outcome::ClosedByPeer],
        20
    );
}

#[rstest]
#[case::hold(AfterGreeting::Hold)]
#[case::close(AfterGreeting::Close)]
#[tokio::test]
async fn a_client_that_talks_first_reads_the_greeting(#[case] after_greeting: AfterGreeting) {
    const TIMES: u64 = 1000;
    let server = TestServer::open(Settings {
        refuse_at: Some(RefusalPoint::Greeting),
        after_greeting,
        ..settings()
    });
    for _ in 0..TIMES {
        let mut client = server.connect().await;
        client.write_all(&[b'x'; 4096]).await.unwrap();
        if after_greeting == AfterGreeting::Hold {
            expect(&mut client, GREETING).await;
            client.write_all(b"\r\nQUIT\r\n").await.unwrap();
            assert_eq!(read_all(&mut client).await, [REFUSAL, GOODBYE].concat());
        } else {
            // A client that goes on after the greeting is no error either.
            expect(&mut client, GREETING).await;
            client.write_all(&[b'x'; 4096]).await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(b"QUIT\r\n").await.unwrap();
            assert_eq!(read_all(&mut client).await, "");
        }
    }
    let counts = server.drained().await;
    let ended = if after_greeting == AfterGreeting::Hold {
        counts.ended[Outcome::Quit]
    } else {
        counts.ended[Outcome::Closed]
    };
    assert_eq!((counts.accepted, ended), (TIMES, TIMES));
}

#[tokio::test]
async fn a_client_that_talks_first_reads_what_follows_too_much_input() {
    let server = TestServer::open(settings());
    let mut client = server.connect().await;
    client.write_all(&[b'x'; 200_000]).await.unwrap();
    assert_eq!(read_all(&mut client).await, [GREETING, REFUSAL].concat());
    drop(client);
    assert_eq!(server.drained().await.ended[Outcome::Closed], 1);
}

#[rstest]
#[case::idle(Duration::from_millis(50), PATIENCE)]
#[case::session(PATIENCE, Duration::from_millis(50))]
#[tokio::test]
async fn a_timeout_is_announced(#[case] idle_timeout: Duration, #[case] session_timeout: Duration) {
    let server = TestServer::open(Settings {
        idle_timeout,
        session_timeout,
        ..settings()
    });
    let mut client = server.connect().await;
    assert_eq!(read_all(&mut client).await, [GREETING, TIMED_OUT].concat());
    drop(client);
    assert_eq!(server.drained().await.ended[Outcome::TimedOut], 1);
}

#[tokio::test]
async fn dripping_bytes_do_not_extend_the_idle_time() {
    let idle_timeout = Duration::from_millis(100);
    let server = TestServer::open(Settings {
        idle_timeout,
        ..settings()
    });
    let mut client = server.connect().await;
    expect(&mut client, GREETING).await;
    let counts = timeout(PATIENCE, async {
        while client.write_all(b"x").await.is_ok() && server.responder.snapshot().active == 1 {
            sleep(Duration::from_millis(5)).await;
        }
        drop(client);
        server.drained().await
    });
    assert_eq!(counts.await.unwrap().ended[Outcome::TimedOut], 1);
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), LISTEN_BACKLOG, false).unwrap();
    SockRef::from(&listener).set_send_buffer_size(1).unwrap(); // inherited
    let session_timeout = Duration::from_millis(200);
    let server = TestServer::on(
        listener,
        Settings {
            session_timeout,
            ..settings()
        },
    );
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&server.address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut client = TcpStream::from_std(socket.into()).unwrap();
    client.write_all(&b"NOOP\r\n".repeat(900)).await.unwrap();
    server.until(|counts| counts.active == 1).await;
    assert_eq!(server.drained().await.ended[Outcome::TimedOut], 1);
}

#[rstest]
#[case::total(2, 10)]
#[case::per_source(10, 2)]
#[tokio::test]
async fn over_a_limit_connections_are_shed_with_a_greeting(
    #[case] connections_max: usize,
    #[case] connections_per_source_max: usize,
) {
    let limited = Settings {
        connections_max,
        connections_per_source_max,
        ..settings()
    };
    let server = TestServer::open(limited);
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(server.connect().await);
        expect(held.last_mut().unwrap(), GREETING).await;
    }
    for shed in 1..=100 {
        let mut client = server.connect().await;
        client.write_all(b"EHLO early\r\n").await.unwrap();
        assert_eq!(read_all(&mut client).await, GREETING);
        assert_eq!(server.responder.snapshot().ended[Outcome::Shed], shed);
    }
    held.pop();
    server.until(|counts| counts.active == 1).await;
    let mut client = server.connect().await;
    client.write_all(b"QUIT\r\n").await.unwrap();
    assert_eq!(read_all(&mut client).await, [GREETING, GOODBYE].concat());
    drop((client, held));
    let counts = server.drained().await;
    assert_eq!(
        (
            counts.accepted,
            counts.ended[Outcome::Shed],
            counts.ended[Outcome::Quit],
            counts.ended[Outcome::ClosedByPeer]
        ),
        (103, 100, 1, 2)
    );
    let history = server.responder.sources();
    assert_eq!(history.len(), 1);
    assert_eq!(
        (history[0].source, history[0].connections),
        (server.address.ip(), 103)
    );
}

/// Connects from an address of 127.0.0.0/8.
async fn connect_from(server: &TestServer, from: [u8; 4]) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(server.address).await.unwrap()
}

fn full(connections_max: usize) -> Settings {
    Settings {
        refuse_at: Some(RefusalPoint::Rcpt),
        connections_max,
        ..settings()
    }
}

const WELCOME: &str = "220 mailless.example.org ESMTP nomail\r\n";

#[tokio::test]
async fn when_full_the_fullest_network_is_evicted() {
    const PLACES: usize = 6;
    let server = TestServer::open(full(PLACES));
    let mut crowd = Vec::new();
    for host in 1..=5 {
        crowd.push(connect_from(&server, [127, 1, 1, host]).await);
        expect(crowd.last_mut().unwrap(), WELCOME).await;
    }
    let mut other = connect_from(&server, [127, 1, 2, 1]).await;
    expect(&mut other, WELCOME).await;
    // The first of the crowd is no longer idle: the second is.
    crowd[0].write_all(b"NOOP\r\n").await.unwrap();
    expect(&mut crowd[0], "250 2.0.0 done\r\n").await;
    // Its own network makes no room for it.
    let mut shed = connect_from(&server, [127, 1, 1, 9]).await;
    assert_eq!(read_all(&mut shed).await, GREETING);

    // A newcomer from elsewhere has the whole dialog.
    let mut newcomer = connect_from(&server, [127, 1, 3, 1]).await;
    expect(&mut newcomer, WELCOME).await;
    assert_eq!(read_all(&mut crowd[1]).await, REFUSAL);
    let counts = server
        .until(|counts| counts.counters[Counter::Evicted] == 1)
        .await;
    assert_eq!(
        (counts.active, counts.ended[Outcome::Shed]),
        (PLACES as u64, 1)
    );
    newcomer
        .write_all(b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nQUIT\r\n")
        .await
        .unwrap();
    let expected = [
        "250 mailless.example.org\r\n",
        "250 2.1.0 sender noted\r\n",
        REFUSAL,
        GOODBYE,
    ];
    assert_eq!(read_all(&mut newcomer).await, expected.concat());

    // All others are where they were.
    crowd.push(other);
    for client in [0, 2, 5] {
        crowd[client].write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(read_all(&mut crowd[client]).await, GOODBYE);
    }
    drop((crowd, newcomer));
    let counts = server.drained().await;
    assert_eq!(
        (
            counts.counters[Counter::Evicted],
            counts.ended[Outcome::Closed],
            counts.ended[Outcome::Quit]
        ),
        (1, 1, 4)
    );
}

/// A crowd that fills all places repeatedly takes none from other networks, only its own.
#[tokio::test]
async fn a_crowd_that_returns_takes_no_place_of_another_network() {
    let server = TestServer::open(full(8));
    let mut others = Vec::new();
    for network in 1..=3 {
        others.push(connect_from(&server, [127, 2, network, 1]).await);
        expect(others.last_mut().unwrap(), WELCOME).await;
    }
    let mut crowd = Vec::new();
    for host in 1..=50 {
        let mut one = connect_from(&server, [127, 1, 1, host]).await;
        let greeting = if host <= 5 { WELCOME } else { GREETING };
        expect(&mut one, greeting).await;
        crowd.push(one);
    }
    for other in &mut others {
        other.write_all(b"NOOP\r\n").await.unwrap();
        expect(other, "250 2.0.0 done\r\n").await;
    }
    assert_eq!(server.responder.snapshot().counters[Counter::Evicted], 0);
}

/// With one connection for each network, idle ones are evicted and those whose dialog goes on
/// are not.
#[tokio::test]
async fn of_equals_the_idle_one_is_evicted() {
    let server = TestServer::open(full(3));
    let mut clients = Vec::new();
    for network in 1..=3 {
        clients.push(connect_from(&server, [127, 1, network, 1]).await);
        expect(clients.last_mut().unwrap(), WELCOME).await;
    }
    let mut shed = connect_from(&server, [127, 1, 4, 1]).await;
    assert_eq!(read_all(&mut shed).await, GREETING);
    sleep(IDLE_MIN).await;
    for client in &mut clients[..2] {
        client.write_all(b"NOOP\r\n").await.unwrap();
        expect(client, "250 2.0.0 done\r\n").await;
    }
    let mut newcomer = connect_from(&server, [127, 1, 4, 1]).await;
    expect(&mut newcomer, WELCOME).await;
    assert_eq!(read_all(&mut clients[2]).await, REFUSAL);
    assert_eq!(server.responder.snapshot().counters[Counter::Evicted], 1);
}

#[tokio::test]
async fn over_its_own_bound_an_evicted_connection_does_not_linger() {
    let server = TestServer::open(Settings {
        shed_max: 0,
        ..full(2)
    });
    let mut first = connect_from(&server, [127, 1, 1, 1]).await;
    expect(&mut first, WELCOME).await;
    let mut second = connect_from(&server, [127, 1, 1, 2]).await;
    expect(&mut second, WELCOME).await;
    let mut newcomer = connect_from(&server, [127, 1, 2, 1]).await;
    expect(&mut newcomer, WELCOME).await;
    assert_eq!(read_all(&mut first).await, REFUSAL);
    // Its end of the connection is still open.
    let counts = server.responder.snapshot();
    assert_eq!(
        (counts.counters[Counter::Evicted], counts.shed_lingering),
        (1, 0)
    );
    drop((first, second, newcomer));
    server.drained().await;
}

#[tokio::test]
async fn over_its_own_bound_a_shed_connection_does_not_linger() {
    let server = TestServer::open(Settings {
        connections_max: 0,
        ..settings()
    });
    server.responder.stats.lock().counts.shed_lingering = SHED_MAX as u64;
    let mut client = server.connect().await;
    assert_eq!(read_all(&mut client).await, GREETING);
    let counts = server.responder.snapshot();
    assert_eq!(
        (
            counts.ended[Outcome::Shed],
            counts.counters[Counter::ShedWithoutLinger]
        ),
        (1, 1)
    );
    check_sum(&counts);
}

#[tokio::test]
async fn a_shutdown_is_announced_to_all() {
    let mut server = TestServer::open(settings());
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect().await;
        expect(&mut client, GREETING).await;
        client.write_all(b"half a li").await.unwrap();
        clients.push(client);
    }
    let begun = Instant::now();
    server.responder.stop(LINGER_MAX * 2);
    for client in &mut clients {
        assert_eq!(read_all(client).await, SHUTTING_DOWN);
    }
    // The clients keep their side open, and the bound holds.
    assert_eq!(server.drained().await.ended[Outcome::Closed], 20);
    assert!(begun.elapsed() < LINGER_MAX + Duration::from_secs(1));
    server.ended.take().unwrap().await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_socket_closes_and_its_sessions_go_on() {
    let server = TestServer::open(settings());
    let mut client = server.connect().await;
    expect(&mut client, GREETING).await;
    server.responder.close(server.listener);
    while TcpStream::connect(server.address).await.is_ok() {}
    client.write_all(b"QUIT\r\n").await.unwrap();
    assert_eq!(read_all(&mut client).await, GOODBYE);
}

#[tokio::test]
async fn a_reload_holds_for_new_connections() {
    let server = TestServer::open(settings());
    let mut old = server.connect().await;
    expect(&mut old, GREETING).await;
    server.responder.configure(Settings {
        replies: Arc::new(Replies::new("[192.0.2.7]", None).unwrap()),
        refuse_at: Some(RefusalPoint::Greeting),
        after_greeting: AfterGreeting::Close,
        ..settings()
    });
    let received = server.replies_to(b"QUIT\r\n").await;
    assert_eq!(received, "521 [192.0.2.7] does not accept mail\r\n");
    old.write_all(b"QUIT\r\n").await.unwrap();
    assert_eq!(read_all(&mut old).await, GOODBYE);
}

#[test]
fn a_held_connection_is_small() {
    assert!(size_of::<Session>() <= 192, "{}", size_of::<Session>());
}

#[tokio::test]
async fn auto_greets_first_and_refuses_at_rcpt_on_return() {
    let server = TestServer::open(Settings {
        refuse_at: None,
        ..settings()
    });
    assert_eq!(
        server.replies_to(b"QUIT\r\n").await,
        [GREETING, GOODBYE].concat()
    );
    let mail = b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nQUIT\r\n";
    let received = server.replies_to(mail).await;
    let codes: Vec<_> = received.lines().map(|line| &line[..4]).collect();
    let ehlo = ["250-", "250-", "250-", "250 "];
    assert_eq!(
        codes,
        [&["220 "], &ehlo[..], &["250 ", "521 ", "221 "]].concat()
    );
    // A client that leaves after EHLO may have missed TLS, which is not
    // offered: it is refused there, once.
    for codes in [["220 ", "250-"], ["220 ", "521 "], ["220 ", "250-"]] {
        let received = server.replies_to(b"EHLO a\r\nQUIT\r\n").await;
        let mut lines = received.lines();
        assert!(
            codes
                .iter()
                .all(|code| lines.next().unwrap().starts_with(code)),
            "{received}"
        );
        server.drained().await;
    }
    let counts = server.drained().await;
    assert_eq!(
        (
            counts.refused[RefusalPoint::Greeting],
            counts.refused[RefusalPoint::Rcpt],
            counts.refused[RefusalPoint::Ehlo]
        ),
        (1, 1, 1)
    );
    assert_eq!(
        (
            counts.senders,
            counts.counters[Counter::RecipientsElsewhere]
        ),
        (1, 1)
    );
}

/// As `option smtpchk` of HAProxy asks, also where others are greeted with 521.
#[rstest]
#[case(None)]
#[case(Some(RefusalPoint::Greeting))]
#[case(Some(RefusalPoint::Ehlo))]
#[tokio::test]
async fn a_monitor_is_always_refused_at_rcpt_and_leaves_no_trace(
    #[case] refuse_at: Option<RefusalPoint>,
) {
    let checked = Settings {
        refuse_at,
        after_greeting: AfterGreeting::Close,
        monitors: vec!["127.0.0.1/32".parse().unwrap()],
        ..settings()
    };
    let server = TestServer::open(checked.clone());
    for _ in 0..6 {
        let received = server.replies_to(b"EHLO check.example\r\nQUIT\r\n").await;
        let codes: Vec<_> = received.lines().map(|line| &line[..4]).collect();
        assert_eq!(codes, ["220 ", "250-", "250-", "250-", "250 ", "221 "]);
    }
    let received = server
        .replies_to(b"RCPT TO:<a@example.com>\r\nQUIT\r\n")
        .await;
    let expected = [
        "220 mailless.example.org ESMTP nomail\r\n",
        REFUSAL,
        GOODBYE,
    ];
    assert_eq!(received, expected.concat());
    let counts = server.drained().await;
    assert_eq!((counts.ended[Outcome::Quit], counts.senders), (7, 0));
    assert_eq!(counts.counters[Counter::RecipientsElsewhere], 0);
    assert_eq!(server.responder.take_activity(), Activity::default());
    // No other peer is a monitor.
    server.responder.configure(Settings {
        monitors: vec!["127.0.0.2/32".parse().unwrap()],
        ..checked
    });
    assert!(
        !server
            .replies_to(b"EHLO a\r\nQUIT\r\n")
            .await
            .contains("250")
    );
}

#[tokio::test]
async fn a_relay_over_its_limit_says_421() {
    let relay = RefusedDomains::new(RelayCode::Listed, "no mail", [("a.example", None)], None);
    let server = TestServer::open(Settings {
        replies: Arc::new(Replies::new(HOST, Some(Arc::new(relay))).unwrap()),
        refuse_at: Some(RefusalPoint::Rcpt),
        connections_max: 1,
        ..settings()
    });
    let mut held = server.connect().await;
    expect(&mut held, "220 mailless.example.org ESMTP nomail\r\n").await;
    assert!(
        server
            .replies_to(b"QUIT\r\n")
            .await
            .starts_with("421 mailless.example.org ")
    );
    let counts = server.responder.snapshot();
    assert_eq!(
        (
            counts.ended[Outcome::Shed],
            counts.refused[RefusalPoint::Greeting]
        ),
        (1, 0)
    );
}

#[rstest]
#[case::http(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")]
#[case::tls(b"\x16\x03\x01\x02\x00\x01\x00")]
#[case::proxy(b"PROXY UNKNOWN\r\n")]
#[case::garbage(b"\x00\x01\x02")]
#[tokio::test]
async fn other_protocols_are_refused_once_and_closed(#[case] input: &[u8]) {
    let server = TestServer::open(Settings {
        refuse_at: Some(RefusalPoint::Rcpt),
        ..settings()
    });
    let received = server.replies_to(input).await;
    assert_eq!(
        received,
        ["220 mailless.example.org ESMTP nomail\r\n", REFUSAL].concat()
    );
    let counts = server.drained().await;
    assert_eq!(
        (counts.ended[Outcome::Closed], counts.protocols.sum()),
        (1, 1)
    );
    let activity = server.responder.take_activity();
    let tally = activity.of_source.values().next().unwrap();
    assert_eq!(tally.protocols, counts.protocols);
}

#[tokio::test]
async fn pipelined_replies_of_a_transaction_leave_together() {
    let server = TestServer::open(Settings {
        refuse_at: Some(RefusalPoint::Rcpt),
        ..settings()
    });
    let mut client = server.connect().await;
    client.write_all(b"EHLO a\r\n").await.unwrap();
    let mut buffer = [0; 4096];
    let mut text = String::new();
    while !text.ends_with("250 HELP\r\n") {
        let count = client.read(&mut buffer).await.unwrap();
        text.push_str(str::from_utf8(&buffer[..count]).unwrap());
    }
    let rcpt = "RCPT TO:<a@mailless.example.org>\r\n".repeat(3);
    let commands = format!("MAIL FROM:<>\r\n{rcpt}DATA\r\n");
    client.write_all(commands.as_bytes()).await.unwrap();
    let expected = [
        "250 2.1.0 sender noted\r\n",
        &REFUSAL.repeat(3),
        "554 5.5.1 no valid recipients\r\n",
    ];
    // One piece of input, one of output: everything up to DATA, which may not wait.
    let count = client.read(&mut buffer).await.unwrap();
    assert_eq!(str::from_utf8(&buffer[..count]), Ok(&*expected.concat()));
}
