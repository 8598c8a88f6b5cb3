//! The verdicts on SYNs for guarded pairs, and the answers of XDP.

crate::counted! {
    /// What became of a SYN; each has exactly one. The order is that of
    /// [`crate::abi::Counters::verdicts`].
    pub enum Verdict {
        /// Given to the network stack.
        Passed "passed" "passed";
        /// Dropped: the stack would not take it as a SYN either, or it is the
        /// first fragment of one.
        Malformed "malformed" "malformed";
        /// Dropped: its source is on the deny list.
        Denied "denied" "denied";
        /// Its source is over its bucket: dropped if proven, else answered.
        LimitedSource "limited_source" "over source's limit";
        /// Its prefix is over its bucket: dropped if proven, else answered.
        LimitedPrefix "limited_prefix" "over prefix's limit";
        /// Not proven, and more than the listener can take: answered.
        Flood "flood" "flood";
        /// Dropped: the ticket of its tuple is used up ([`crate::guard::tickets`]).
        Replayed "replayed" "replayed";
    }
}

crate::counted! {
    /// What XDP did beyond the verdict. The order is that of
    /// [`crate::abi::Counters::answers`].
    pub enum Answer {
        /// A SYN was answered with a challenge.
        Challenge "challenge" "challenges sent";
        /// A RST has answered one: its tuple has a ticket.
        Proven "proven" "challenges answered";
        /// A SYN that was to be answered could not be, and was given to the network stack.
        Unanswerable "unanswerable" "left to the kernel";
        /// A SYN was answered with a SYN cookie.
        Cookie "cookie" "SYN cookies";
        /// The responder sent a segment, of a handshake or of a dialog.
        Stateless "stateless" "stateless segments";
        /// One of these had a greeting in it. One that was lost is sent again.
        Greeting "greeted" "greetings sent";
        /// One of these had the reply to QUIT in it.
        Goodbye "quit" "QUITs answered";
        /// A SYN, or a segment of the responder's, that could not be answered was dropped.
        UnanswerableDropped "unanswerable_dropped" "dropped unanswered";
    }
}
