//! The responder of the loaded program, by BPF_PROG_TEST_RUN: for each frame that comes
//! the frame that goes out, octet by octet.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader};
use nomail_agent::guard::{Guard, Policy, Rate};
use nomail_common::{
    abi::{Texts, WINDOW},
    guard::tickets::TICKET_SYNS,
    verdict::Answer,
};
use nomail_tests::{
    agent::{GOODBYE, GREETING, REFUSAL},
    frames::{ACK, FIN, RST, SYN},
    poll::until,
    program::{
        self, CLIENT_HARDWARE, HOST_HARDWARE, LOOPBACK_INDEX, XDP_DROP, XDP_PASS, XDP_TX, answers,
        guard, run,
    },
};

const PSH: u8 = 0x08;

const ISN: u32 = 0xffff_fff0;

fn held() -> Texts {
    Texts::new(GREETING.as_bytes(), REFUSAL.as_bytes(), GOODBYE.as_bytes()).unwrap()
}

fn closed() -> Texts {
    Texts::new(GREETING.as_bytes(), b"", b"").unwrap()
}

fn policy(texts: Texts) -> Policy {
    Policy {
        source: Rate {
            rate: 1,
            burst: 1000,
        },
        cap: Some(Rate {
            rate: 1000,
            burst: 4000,
        }),
        responder: Some(texts),
        ..program::policy()
    }
}

/// A client, of which each segment is built by etherparse.
#[derive(Clone, Debug)]
struct Client {
    from: SocketAddr,
    to: SocketAddr,
    options: Vec<u8>,
    /// Behind the hardware addresses, there and back.
    tag: Vec<u8>,
}

/// What came out, each field checked but for those that are here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Out {
    flags: u8,
    sequence: u32,
    acknowledgment: u32,
    text: String,
}

impl Client {
    fn ipv4() -> Self {
        Self {
            from: "198.51.100.1:40000".parse().unwrap(),
            to: "192.0.2.7:25".parse().unwrap(),
            options: Vec::new(),
            tag: Vec::new(),
        }
    }

    fn ipv6() -> Self {
        Self {
            from: "[2001:db8:1::1]:40000".parse().unwrap(),
            to: "[2001:db8::7]:25".parse().unwrap(),
            ..Self::ipv4()
        }
    }

    fn both() -> [Self; 2] {
        [Self::ipv4(), Self::ipv6()]
    }

    fn frame(&self, flags: u8, sequence: u32, acknowledgment: u32, text: &str) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(CLIENT_HARDWARE, HOST_HARDWARE);
        let mut tcp =
            etherparse::TcpHeader::new(self.from.port(), self.to.port(), sequence, 64_000);
        tcp.acknowledgment_number = acknowledgment;
        tcp.fin = flags & FIN != 0;
        tcp.syn = flags & SYN != 0;
        tcp.rst = flags & RST != 0;
        tcp.psh = flags & PSH != 0;
        tcp.ack = flags & ACK != 0;
        tcp.set_options_raw(&self.options).unwrap();
        let mut frame = Vec::new();
        let text = text.as_bytes();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ip = ethernet.ipv4(from.octets(), to.octets(), 61);
                ip.tcp_header(tcp).write(&mut frame, text).unwrap();
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ip = ethernet.ipv6(from.octets(), to.octets(), 61);
                ip.tcp_header(tcp).write(&mut frame, text).unwrap();
            }
            _ => panic!("of one family"),
        }
        frame.splice(12..12, self.tag.iter().copied());
        // As a network card hands over what is shorter.
        frame.resize(frame.len().max(60), 0xaa);
        frame
    }

    fn send(
        &self,
        guard: &mut Guard,
        flags: u8,
        sequence: u32,
        acknowledgment: u32,
        text: &str,
    ) -> Result<Out, u32> {
        let frame = self.frame(flags, sequence, acknowledgment, text);
        let (action, out) = guard.test_answer(&frame).unwrap();
        if action == XDP_TX {
            Ok(self.check(&out))
        } else {
            assert_eq!(out, frame, "what is not answered is as it was");
            Err(action)
        }
    }

    /// Everything that is the same in each answer.
    fn check(&self, frame: &[u8]) -> Out {
        let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
        let link = packet.link.unwrap().ethernet2().unwrap();
        assert_eq!(
            (link.source, link.destination),
            (HOST_HARDWARE, CLIENT_HARDWARE)
        );
        assert!(frame[12..].starts_with(&self.tag));
        let Some(TransportHeader::Tcp(tcp)) = packet.transport else {
            panic!("no TCP in {frame:?}");
        };
        let text = packet.payload.slice();
        let checksum = match packet.net.unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                assert_eq!(IpAddr::from(ip.source), self.to.ip());
                assert_eq!(IpAddr::from(ip.destination), self.from.ip());
                assert_eq!((ip.time_to_live, ip.dont_fragment), (64, true));
                assert_eq!((ip.identification, ip.options.len()), (0, 0));
                tcp.calc_checksum_ipv4(&ip, text).unwrap()
            }
            NetHeaders::Ipv6(ip, _) => {
                assert_eq!(IpAddr::from(ip.source), self.to.ip());
                assert_eq!(IpAddr::from(ip.destination), self.from.ip());
                assert_eq!((ip.hop_limit, ip.flow_label.value()), (64, 0));
                tcp.calc_checksum_ipv6(&ip, text).unwrap()
            }
            NetHeaders::Arp(_) => panic!("an ARP"),
        };
        assert_eq!(tcp.checksum, checksum, "{frame:02x?}");
        assert_eq!(
            (tcp.source_port, tcp.destination_port),
            (self.to.port(), self.from.port())
        );
        assert_eq!(usize::from(tcp.window_size), WINDOW);
        assert!(tcp.options.is_empty() && !tcp.urg && !tcp.ece && !tcp.cwr);
        let flags = [tcp.fin, tcp.syn, tcp.rst, tcp.psh, tcp.ack];
        let flags = flags.into_iter().zip([FIN, SYN, RST, PSH, ACK]);
        Out {
            flags: flags.filter(|(is, _)| *is).map(|(_, flag)| flag).sum(),
            sequence: tcp.sequence_number,
            acknowledgment: tcp.acknowledgment_number,
            text: String::from_utf8(text.to_vec()).unwrap(),
        }
    }

    /// Proves itself, and gives our initial sequence number.
    fn begin(&self, guard: &mut Guard) -> u32 {
        self.begin_with(guard, ISN)
    }

    fn begin_with(&self, guard: &mut Guard, isn: u32) -> u32 {
        self.prove(guard, isn);
        let syn = self.send(guard, SYN, isn, 0, "").unwrap();
        assert_eq!((syn.flags, syn.acknowledgment), (SYN, 0));
        assert_eq!(syn.text, "");
        syn.sequence
    }

    /// Is challenged, and answers.
    fn prove(&self, guard: &mut Guard, isn: u32) {
        let frame = self.frame(SYN, isn, 0, "");
        let (action, challenge) = guard.test_answer(&frame).unwrap();
        assert_eq!(action, XDP_TX);
        let packet = PacketHeaders::from_ethernet_slice(&challenge).unwrap();
        let tcp = packet.transport.unwrap().tcp().unwrap();
        assert!(tcp.syn && tcp.ack && tcp.acknowledgment_number != isn.wrapping_add(1));
        let proof = self.frame(RST, tcp.acknowledgment_number, 0, "");
        assert_eq!(guard.test_answer(&proof).unwrap().0, XDP_DROP);
    }
}

/// A segment with a text.
fn said(flags: u8, sequence: u32, acknowledgment: u32, text: &str) -> Result<Out, u32> {
    Ok(Out {
        flags,
        sequence,
        acknowledgment,
        text: text.to_owned(),
    })
}

#[test]
fn a_held_dialog() {
    for client in Client::both() {
        let mut client = client;
        let mut guard = guard(&policy(held()));
        let cookie = client.begin(&mut guard);
        let one = ISN.wrapping_add(1);
        let here = cookie.wrapping_add(1);
        // The SYN-ACK of a simultaneous open is answered as often as it comes.
        for _ in 0..3 {
            assert_eq!(
                client.send(&mut guard, SYN | ACK, ISN, here, ""),
                said(ACK | PSH, here, one, GREETING)
            );
        }
        let there = here.wrapping_add(GREETING.len() as u32);
        assert_eq!(client.send(&mut guard, ACK, one, there, ""), Err(XDP_DROP));
        // So is a command, and the options of the client are not looked at.
        client.options = vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
        let ehlo = "EHLO client.example.org\r\n";
        let two = one.wrapping_add(ehlo.len() as u32);
        for _ in 0..2 {
            assert_eq!(
                client.send(&mut guard, ACK | PSH, one, there, ehlo),
                said(ACK | PSH, there, two, REFUSAL)
            );
        }
        let then = there.wrapping_add(REFUSAL.len() as u32);
        let three = two.wrapping_add(6);
        for _ in 0..2 {
            assert_eq!(
                client.send(&mut guard, ACK | PSH, two, then, "QUIT\r\n"),
                said(ACK | PSH | FIN, then, three, GOODBYE)
            );
        }
        // It acknowledges our FIN, and sends its own until that is acknowledged.
        let over = then.wrapping_add(GOODBYE.len() as u32 + 1);
        assert_eq!(client.send(&mut guard, ACK, three, over, ""), Err(XDP_DROP));
        for _ in 0..2 {
            assert_eq!(
                client.send(&mut guard, ACK | FIN, three, over, ""),
                said(ACK, over, three.wrapping_add(1), "")
            );
        }
        assert_eq!(answers(&guard, Answer::Greeting), 3);
        assert_eq!(answers(&guard, Answer::Goodbye), 2);
        assert_eq!(answers(&guard, Answer::Stateless), 1 + 3 + 2 + 2 + 2);
        assert_eq!(answers(&guard, Answer::Unanswerable), 0);
    }
}

/// The tag of a priority, which is of no VLAN (IEEE 802.1Q).
#[test]
fn a_tag_stays_around_the_answer() {
    for client in Client::both() {
        let client = Client {
            tag: vec![0x81, 0x00, 0xe0, 0x00],
            ..client
        };
        let mut guard = guard(&policy(held()));
        let here = client.begin(&mut guard).wrapping_add(1);
        let one = ISN.wrapping_add(1);
        assert_eq!(
            client.send(&mut guard, SYN | ACK, ISN, here, ""),
            said(ACK | PSH, here, one, GREETING)
        );
        let there = here.wrapping_add(GREETING.len() as u32);
        assert_eq!(
            client.send(&mut guard, ACK | PSH, one, there, "NOOP\r\nQUIT\r\n"),
            said(
                ACK | PSH | FIN,
                there,
                one.wrapping_add(12),
                &format!("{REFUSAL}{GOODBYE}")
            )
        );
        assert_eq!(answers(&guard, Answer::Unanswerable), 0);
    }
}

#[test]
fn a_greeting_that_closes() {
    for client in Client::both() {
        let mut guard = guard(&policy(closed()));
        let cookie = client.begin(&mut guard);
        let (one, here) = (ISN.wrapping_add(1), cookie.wrapping_add(1));
        assert_eq!(
            client.send(&mut guard, SYN | ACK, ISN, here, ""),
            said(ACK | PSH | FIN, here, one, GREETING)
        );
        let over = here.wrapping_add(GREETING.len() as u32 + 1);
        assert_eq!(
            client.send(&mut guard, ACK | PSH, one, over, "QUIT\r\n"),
            said(ACK, over, one.wrapping_add(6), "")
        );
        assert_eq!(
            client.send(&mut guard, ACK | FIN, one.wrapping_add(6), over, ""),
            said(ACK, over, one.wrapping_add(7), "")
        );
    }
}

#[test]
fn later_syns_of_a_proven_tuple_get_a_syn_ack() {
    for client in Client::both() {
        let mut guard = guard(&policy(held()));
        let cookie = client.begin(&mut guard);
        let one = ISN.wrapping_add(1);
        let syn = |guard: &mut Guard| client.send(guard, SYN, ISN, 0, "");
        assert_eq!(syn(&mut guard), said(SYN, cookie, 0, ""));
        for _ in 0..3 {
            assert_eq!(syn(&mut guard), said(SYN | ACK, cookie, one, ""));
        }
        // The last packet of that handshake, of which there is no other.
        let here = cookie.wrapping_add(1);
        assert_eq!(
            client.send(&mut guard, ACK, one, here, ""),
            said(ACK | PSH, here, one, GREETING)
        );
        // Another connection begins anew.
        client.begin_with(&mut guard, 0x4000_0000);
    }
}

/// What a client has done after the SYN-ACK that its third SYN got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    Acknowledged,
    Greeted,
    Reset,
    ResetAndAcknowledged,
}

/// The greeting is owed to a client that has acknowledged our number and not the greeting,
/// and one SYN-ACK to a client that has not even done that. A RST ends both.
#[test]
fn what_is_owed_is_what_the_client_has_yet_to_acknowledge() {
    for client in Client::both() {
        let mut guard = guard(&policy(held()));
        let fates = [
            Then::Nothing,
            Then::Acknowledged,
            Then::Greeted,
            Then::Reset,
            Then::ResetAndAcknowledged,
        ];
        let one = ISN.wrapping_add(1);
        let mut heres = Vec::new();
        for (port, then) in (40_001..).zip(fates) {
            let client = Client {
                from: SocketAddr::new(client.from.ip(), port),
                ..client.clone()
            };
            let cookie = client.begin(&mut guard);
            for flags in [SYN, SYN | ACK] {
                let answer = client.send(&mut guard, SYN, ISN, 0, "");
                assert_eq!(answer.unwrap().flags, flags);
            }
            let here = cookie.wrapping_add(1);
            heres.push(here);
            let greeting = said(ACK | PSH, here, one, GREETING);
            let there = here.wrapping_add(GREETING.len() as u32);
            let mut send = |flags, sequence, acknowledgment| {
                client.send(&mut guard, flags, sequence, acknowledgment, "")
            };
            match then {
                Then::Nothing => {}
                Then::Acknowledged => assert_eq!(send(ACK, one, here), greeting),
                Then::Greeted => {
                    assert_eq!(send(ACK, one, here), greeting);
                    assert_eq!(send(ACK, one, there), Err(XDP_DROP));
                }
                Then::Reset => {
                    assert_eq!(send(ACK, one, here), greeting);
                    assert_eq!(send(RST, one, 0), Err(XDP_PASS));
                }
                Then::ResetAndAcknowledged => {
                    assert_eq!(send(RST | ACK, 0, here), Err(XDP_PASS));
                }
            }
        }
        let mut owed = Vec::new();
        let begun = std::time::Instant::now();
        until("what is owed is due, twice", || {
            for frame in guard.retransmissions().unwrap() {
                assert_eq!(frame.interface, LOOPBACK_INDEX);
                let sent = PacketHeaders::from_ethernet_slice(&frame.bytes).unwrap();
                let Some(TransportHeader::Tcp(tcp)) = sent.transport else {
                    panic!("no TCP in {frame:?}");
                };
                assert_eq!((tcp.source_port, tcp.acknowledgment_number), (25, one));
                let text = String::from_utf8(sent.payload.slice().to_vec()).unwrap();
                owed.push((tcp.destination_port, tcp.syn, tcp.sequence_number, text));
            }
            // The second is due after 3 s, a third one after 7.
            (begun.elapsed().as_millis() > 3500).then_some(())
        });
        owed.sort();
        let greeting = (40_002, false, heres[1], GREETING.to_owned());
        let syn_ack = (40_001, true, heres[0].wrapping_sub(1), String::new());
        assert_eq!(owed, [syn_ack, greeting.clone(), greeting]);
    }
}

/// It may be another host that greets, and neither would ever have done.
#[test]
fn a_client_that_talks_before_its_greeting_is_not_answered() {
    for client in Client::both() {
        let mut guard = guard(&policy(held()));
        let cookie = client.begin(&mut guard);
        let (one, here) = (ISN.wrapping_add(1), cookie.wrapping_add(1));
        for (flags, sequence) in [(ACK | PSH, one), (SYN | ACK, ISN), (ACK | FIN, one)] {
            let sent = client.send(&mut guard, flags, sequence, here, GREETING);
            assert_eq!(sent, Err(XDP_DROP));
        }
        assert_eq!(answers(&guard, Answer::Greeting), 0);
    }
}

#[test]
fn a_segment_from_one_of_our_ports_is_never_answered() {
    for mut client in Client::both() {
        let mut guard = guard(&policy(held()));
        client.from.set_port(25);
        for flags in [SYN, SYN | ACK, ACK, ACK | PSH, RST, RST | ACK] {
            for acknowledgment in [0, 1, 4711] {
                let sent = client.send(&mut guard, flags, ISN, acknowledgment, "");
                assert_eq!(sent, Err(XDP_PASS), "{flags:x}");
            }
        }
    }
}

#[test]
fn a_third_party_that_was_made_to_prove_itself_is_reset() {
    for client in Client::both() {
        let mut guard = guard(&policy(held()));
        let cookie = client.begin(&mut guard);
        let here = cookie.wrapping_add(1);
        // It listens, and answers the SYN with a sequence number of its own.
        let own = 0x1234_5678;
        assert_eq!(
            client.send(&mut guard, SYN | ACK, own, here, ""),
            said(RST, here, 0, "")
        );
        assert_eq!(answers(&guard, Answer::Greeting), 0);
    }
}

#[test]
fn commands_in_one_segment_are_answered_in_order() {
    let client = Client::ipv4();
    let mut guard = guard(&policy(held()));
    let cookie = client.begin(&mut guard);
    let one = ISN.wrapping_add(1);
    let there = cookie.wrapping_add(1 + GREETING.len() as u32);
    let two_refusals = format!("{REFUSAL}{REFUSAL}");
    let refusal_and_goodbye = format!("{REFUSAL}{GOODBYE}");
    // What does not fit is not acknowledged.
    let all = "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nQUIT\r\nNOOP\r\n";
    let first = "HELO a\r\nMAIL FROM:<>\r\n".len();
    let two = one.wrapping_add(first as u32);
    assert_eq!(
        client.send(&mut guard, ACK | PSH, one, there, all),
        said(ACK | PSH, there, two, &two_refusals)
    );
    let then = there.wrapping_add(two_refusals.len() as u32);
    // What comes after QUIT is swallowed.
    assert_eq!(
        client.send(&mut guard, ACK | PSH, two, then, &all[first..]),
        said(
            ACK | PSH | FIN,
            then,
            one.wrapping_add(all.len() as u32),
            &refusal_and_goodbye
        )
    );
}

#[test]
fn a_line_in_pieces_and_commands_ahead_of_their_replies() {
    let client = Client::ipv6();
    let mut guard = guard(&policy(held()));
    let cookie = client.begin(&mut guard);
    let one = ISN.wrapping_add(1);
    let there = cookie.wrapping_add(1 + GREETING.len() as u32);
    let at = |offset: u32| one.wrapping_add(offset);
    // The second before the first: it is told what is missing.
    assert_eq!(
        client.send(&mut guard, ACK | PSH, at(2), there, "LO a\r\n"),
        said(ACK, there, one, "")
    );
    for _ in 0..2 {
        assert_eq!(
            client.send(&mut guard, ACK | PSH, one, there, "HE"),
            said(ACK, there, at(2), "")
        );
    }
    // The next command is there before the reply to this one has arrived.
    assert_eq!(
        client.send(&mut guard, ACK | PSH, at(2), there, "LO a\r\n"),
        said(ACK | PSH, there, at(8), REFUSAL)
    );
    assert_eq!(
        client.send(&mut guard, ACK | PSH, at(8), there, "QUIT\r\n"),
        said(ACK, there, at(2), "")
    );
    let then = there.wrapping_add(REFUSAL.len() as u32);
    assert_eq!(
        client.send(&mut guard, ACK | PSH, at(8), then, "QU"),
        said(ACK, then, at(10), "")
    );
    assert_eq!(
        client.send(&mut guard, ACK | PSH, at(8), then, "QUIT\r\n"),
        said(ACK | PSH | FIN, then, at(14), GOODBYE)
    );
}

#[test]
fn a_client_that_ends_first() {
    for client in Client::both() {
        let mut guard = guard(&policy(held()));
        let cookie = client.begin(&mut guard);
        let one = ISN.wrapping_add(1);
        let there = cookie.wrapping_add(1 + GREETING.len() as u32);
        for _ in 0..2 {
            assert_eq!(
                client.send(&mut guard, ACK | FIN, one, there, ""),
                said(ACK | FIN, there, one.wrapping_add(1), "")
            );
        }
        let over = there.wrapping_add(1);
        assert_eq!(
            client.send(&mut guard, ACK, one.wrapping_add(1), over, ""),
            Err(XDP_DROP)
        );
        // With a command before it.
        let other = Client {
            from: SocketAddr::new(client.from.ip(), 40_001),
            ..client
        };
        let cookie = other.begin(&mut guard);
        let there = cookie.wrapping_add(1 + GREETING.len() as u32);
        assert_eq!(
            other.send(&mut guard, ACK | PSH | FIN, one, there, "NOOP\r\n"),
            said(ACK | PSH | FIN, there, one.wrapping_add(7), REFUSAL)
        );
    }
}

#[test]
fn what_is_not_of_a_dialog_passes() {
    for client in Client::both() {
        let mut guard = guard(&policy(held()));
        let cookie = client.begin(&mut guard);
        let one = ISN.wrapping_add(1);
        let length = GREETING.len() as u32;
        let beyond = length + REFUSAL.len() as u32 * 2000;
        for offset in [0, length + 5, length + 1 + 1, beyond, 1 << 29, u32::MAX] {
            let acknowledgment = cookie.wrapping_add(1).wrapping_add(offset);
            let acknowledgment = if offset == 0 { cookie } else { acknowledgment };
            let passed = client.send(&mut guard, ACK | PSH, one, acknowledgment, "QUIT\r\n");
            assert_eq!(passed, Err(XDP_PASS), "{offset}");
        }
        // Of another tuple.
        let other = Client {
            from: SocketAddr::new(client.from.ip(), 40_001),
            ..client.clone()
        };
        let here = cookie.wrapping_add(1);
        assert_eq!(other.send(&mut guard, ACK, one, here, ""), Err(XDP_PASS));
        // To another port, and of another generation.
        let elsewhere = Client {
            to: SocketAddr::new(client.to.ip(), 26),
            ..client.clone()
        };
        assert_eq!(
            elsewhere.send(&mut guard, ACK, one, here, ""),
            Err(XDP_PASS)
        );
        let unused = here.wrapping_add(2 << 30);
        assert_eq!(client.send(&mut guard, ACK, one, unused, ""), Err(XDP_PASS));
        // A RST of it ends nothing here.
        assert_eq!(
            client.send(&mut guard, RST | ACK, one, here, ""),
            Err(XDP_PASS)
        );
        // A header that is longer than the segment.
        let mut frame = client.frame(ACK, one, here, "");
        let tcp = if client.from.is_ipv4() { 34 } else { 54 };
        frame[tcp + 12] = 0xf0;
        assert_eq!(run(&guard, &frame), XDP_PASS);
        frame[tcp + 12] = 0x40;
        assert_eq!(run(&guard, &frame), XDP_PASS);
        assert_eq!(answers(&guard, Answer::Greeting), 0);
    }
}

#[test]
fn nobody_is_answered_who_must_not_be() {
    let client = Client::ipv4();
    let mut guard = guard(&policy(held()));
    let cookie = client.begin(&mut guard);
    let frame = client.frame(ACK | PSH, ISN.wrapping_add(1), cookie.wrapping_add(1), "");
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        edit(&mut frame);
        frame
    };
    assert_eq!(run(&guard, &frame), XDP_TX);
    for (what, frame) in [
        ("for another host", edited(&|frame| frame[5] = 9)),
        ("broadcast", edited(&|frame| frame[..6].fill(0xff))),
        ("from a group", edited(&|frame| frame[6] |= 1)),
        (
            "behind a tag that its address is not behind",
            edited(&|frame| drop(frame.splice(12..12, [0x81, 0, 0, 7]))),
        ),
        (
            "with an IP option",
            edited(&|frame| {
                frame[14] = 0x46;
                frame[17] += 4;
                frame.splice(34..34, [1; 4]);
            }),
        ),
    ] {
        assert_eq!(run(&guard, &frame), XDP_PASS, "{what}");
    }
    let observed = Policy {
        observe: true,
        ..policy(held())
    };
    guard.configure(&observed).unwrap();
    assert_eq!(run(&guard, &frame), XDP_PASS);
    let syn = client.frame(SYN, ISN, 0, "");
    assert_eq!(run(&guard, &syn), XDP_PASS);
}

/// Sends a SYN of another client each time, until one is answered as `expected`.
fn until_a_syn(guard: &mut Guard, what: &str, expected: u32) {
    let mut port = 50_000;
    until(what, || {
        port += 1;
        let stranger = Client {
            from: SocketAddr::new("198.51.100.2".parse().unwrap(), port),
            ..Client::ipv4()
        };
        let syn = stranger.frame(SYN, ISN, 0, "");
        (run(guard, &syn) == expected).then_some(())
    });
}

#[test]
fn it_takes_the_place_of_listeners_and_gives_it_back() {
    for client in Client::both() {
        let fallback = Policy {
            fallback: true,
            ..policy(held())
        };
        let mut guard = guard(&fallback);
        let one = ISN.wrapping_add(1);
        let syn = client.frame(SYN, ISN, 0, "");
        assert_eq!(run(&guard, &syn), XDP_PASS);
        assert_eq!(guard.has_taken_over().unwrap(), None);
        // From here on the lease ends by itself.
        guard.renew_lease().unwrap();
        until_a_syn(&mut guard, "XDP takes over", XDP_TX);
        until("that is known", || guard.has_taken_over().unwrap());
        let here = client.begin(&mut guard).wrapping_add(1);
        assert_eq!(
            client.send(&mut guard, SYN | ACK, ISN, here, ""),
            said(ACK | PSH, here, one, GREETING)
        );
        // What began with a listener is none of its business, before and after.
        let with_listener = Client {
            from: SocketAddr::new(client.from.ip(), 40_001),
            ..client.clone()
        };
        let stays = |guard: &mut Guard| {
            for flags in [ACK, ACK | PSH, ACK | FIN] {
                let passed = with_listener.send(guard, flags, one, 0x1234_5678, "QUIT\r\n");
                assert_eq!(passed, Err(XDP_PASS));
            }
        };
        stays(&mut guard);
        let there = here.wrapping_add(GREETING.len() as u32);
        until("it gives back", || {
            guard.renew_lease().unwrap();
            stays(&mut guard);
            assert_eq!(
                client.send(&mut guard, ACK | PSH, one, there, "QUIT\r\n"),
                said(ACK | PSH | FIN, there, one.wrapping_add(6), GOODBYE)
            );
            // Unless the lease has ended since.
            (run(&guard, &syn) == XDP_PASS).then_some(())
        });
    }
}

#[test]
fn lists_and_buckets_come_first() {
    use nomail_agent::guard::Lists;
    let client = Client::ipv4();
    let mut guard = guard(&Policy {
        source: Rate { rate: 1, burst: 3 },
        ..policy(held())
    });
    client.begin(&mut guard);
    let syn = |guard: &mut Guard| client.send(guard, SYN, ISN, 0, "").map(|out| out.flags);
    let got: Vec<_> = (1..10).map(|_| syn(&mut guard)).collect();
    let admitted = TICKET_SYNS as usize - 1;
    assert!(got[..admitted].iter().all(Result::is_ok), "{got:?}");
    let beyond = &got[admitted..];
    assert_eq!(beyond, [Err(XDP_DROP); 2], "its ticket is used up");
    let from_port = |port| Client {
        from: SocketAddr::new(client.from.ip(), port),
        ..client.clone()
    };
    for port in [40_001, 40_002] {
        from_port(port).begin(&mut guard);
    }
    let fourth = from_port(40_003);
    fourth.prove(&mut guard, ISN);
    let syn_of_fourth = fourth.send(&mut guard, SYN, ISN, 0, "");
    assert_eq!(syn_of_fourth, Err(XDP_DROP), "its own bucket is used up");
    let lists = Lists {
        deny: Arc::new(["198.51.100.0/24".parse().unwrap()]),
        ..Lists::default()
    };
    guard
        .configure(&Policy {
            lists: Arc::new(lists),
            ..policy(held())
        })
        .unwrap();
    assert_eq!(syn(&mut guard), Err(XDP_DROP));
}

#[test]
fn a_reload_changes_what_is_said_to_those_that_come_later() {
    let client = Client::ipv4();
    let mut guard = guard(&policy(held()));
    let cookie = client.begin(&mut guard);
    let one = ISN.wrapping_add(1);
    let texts = |host: &str| {
        let greeting = format!("521 {host} does not accept mail\r\n");
        let refusal = format!("521 5.3.2 {host} does not accept mail\r\n");
        let goodbye = format!("221 2.0.0 {host} closing connection\r\n");
        let texts = Texts::new(greeting.as_bytes(), refusal.as_bytes(), goodbye.as_bytes());
        (greeting, texts.unwrap())
    };
    let there = cookie.wrapping_add(1 + GREETING.len() as u32);
    for (reload, host) in ["a.example", "longer.example.org", "b.example"]
        .into_iter()
        .enumerate()
    {
        let (greeting, new) = texts(host);
        // The same again is no change.
        guard.configure(&policy(new)).unwrap();
        guard.configure(&policy(new)).unwrap();
        let later = Client {
            from: SocketAddr::new(client.from.ip(), 50_000 + reload as u16),
            ..client.clone()
        };
        let here = later.begin(&mut guard).wrapping_add(1);
        assert_eq!(
            later.send(&mut guard, SYN | ACK, ISN, here, ""),
            said(ACK | PSH, here, one, &greeting)
        );
        assert_eq!(
            client.send(&mut guard, ACK | PSH, one, there, "QUIT\r\n"),
            said(ACK | PSH | FIN, there, one.wrapping_add(6), GOODBYE)
        );
    }
}

#[test]
fn the_longest_texts_and_segments_fit() {
    for client in Client::both() {
        let refusal = format!("521 5.3.2 {} does not accept mail\r\n", "a".repeat(95));
        assert_eq!(refusal.len(), 128);
        let texts = Texts::new(GREETING.as_bytes(), refusal.as_bytes(), GOODBYE.as_bytes());
        let mut guard = guard(&policy(texts.unwrap()));
        let cookie = client.begin(&mut guard);
        let one = ISN.wrapping_add(1);
        let there = cookie.wrapping_add(1 + GREETING.len() as u32);
        assert_eq!(
            client.send(&mut guard, ACK | PSH, one, there, "NOOP\r\nQUIT\r\n"),
            said(ACK | PSH, there, one.wrapping_add(6), &refusal)
        );
        let long = format!("{}\r\n", "x".repeat(510));
        assert_eq!(
            client.send(&mut guard, ACK | PSH, one, there, &long),
            said(ACK | PSH, there, one.wrapping_add(512), &refusal)
        );
        // More than the window: what is in it.
        let longer = format!("QUIT{}\r\n", " ".repeat(1200));
        assert_eq!(
            client.send(&mut guard, ACK | PSH, one, there, &longer),
            said(ACK, there, one.wrapping_add(512), "")
        );
    }
}
