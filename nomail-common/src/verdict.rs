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
        /// Its source is over its limit: dropped if proven, else answered by XDP.
        LimitedSource "limited_source" "over source's limit";
        /// Its prefix is over its limit: dropped if proven, else answered by XDP.
        LimitedPrefix "limited_prefix" "over prefix's limit";
        /// Not proven, and more than the listener can accept: answered by XDP.
        Flood "flood" "flood";
        /// Dropped: its ticket is spent: it admitted 8 SYNs, or the client reset what it opened.
        Replayed "replayed" "replayed";
    }
}

crate::counted! {
    /// What XDP did beyond the verdict. The order is that of
    /// [`crate::abi::Counters::answers`].
    pub enum Answer {
        /// A SYN was answered with a challenge.
        Challenge "challenge" "challenges sent";
        /// A client proved its address by answering a challenge.
        Proven "proven" "challenges answered";
        /// A SYN that XDP was to answer and could not: the network stack got it.
        Unanswerable "unanswerable" "left to the kernel";
        /// A SYN was answered with a SYN cookie.
        Cookie "cookie" "SYN cookies";
        /// XDP sent a segment of a connection without a socket (responder or fallback = "xdp").
        Stateless "stateless" "stateless segments";
        /// Stateless segments with a greeting; one that is sent again counts again.
        Greeting "greeted" "greetings sent";
        /// Stateless segments with the reply to QUIT.
        Goodbye "quit" "QUITs answered";
        /// Dropped: SYNs that no client sends, beyond a quarter of the cap, and stateless
        /// segments that could not be sent.
        UnanswerableDropped "unanswerable_dropped" "dropped unanswered";
    }
}
