//! The refusal without a socket: which segment answers a segment that arrived.
//!
//! **The client's acknowledgment number is the session.** Our initial sequence number is a
//! *cookie*, a keyed hash of the 4-tuple and a time slot ([`cookie`]). A number less the
//! cookie is how much of our text the client has, and so which reply is due:
//!
//! ```text
//! 0 … L-1      the greeting, of L bytes, (again)
//! L + k*R      k commands were refused with R bytes each: the next one
//! beyond that  the FIN has arrived: the dialog is over
//! ```
//!
//! Each reply carries the acknowledgment of what it answers, so the client has both or
//! neither; until then it retransmits, and is answered again. The client owns every
//! retransmission, also that of the handshake: its SYN is answered by a bare SYN
//! (simultaneous open, RFC 9293 section 3.5), so it goes on sending its SYN-ACK until it has
//! the greeting, which acknowledges it. A client whose firewall drops that SYN sends its own
//! again, and then gets a SYN-ACK ([`retransmit`] has what that costs).
//!
//! Only proven tuples get a bare SYN ([`crate::guard::challenge`]), and its answer must have
//! the proven sequence number: a third party that was made to prove itself answers with a
//! number of its own, and is reset.
//!
//! No acknowledgment number says how far the client is in *its* stream: a command may be
//! spread over segments, and the next one sent before the reply to the last has arrived. A
//! [`dialog_state`] remembers that, in a table of fixed size. Where another dialog has
//! overwritten it, the segment is taken to begin at the first byte that is not answered,
//! which is so for every client that waits for replies.

pub mod cookie;
pub mod dialog;
pub mod dialog_state;
pub mod line_scan;
pub mod retransmit;
pub(crate) mod texts;
