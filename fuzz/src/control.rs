//! Requests to the control socket.

use nomail_agent::status::{client::SOURCES_MAX, control::parse};

/// The octets of one request: only `status NUMBER` is one, and no answer gets
/// longer than its bound.
pub fn control(request: &[u8]) {
    let number = str::from_utf8(request)
        .ok()
        .and_then(|text| text.strip_prefix("status ")?.strip_suffix('\n'))
        .and_then(|number| number.parse::<usize>().ok());
    let sources = parse(request);
    assert_eq!(sources, number.map(|number| number.min(SOURCES_MAX)));
}
