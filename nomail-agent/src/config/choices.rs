//! Values that are one of some names.

pub use nomail_common::guard::policy::FloodAnswer;

pub use crate::refusal::{AfterGreeting, RelayCode};

/// Makes an enum of rows: a doc comment, the variant, and its name in the file.
macro_rules! choices {
    (
        $(#[$meta:meta])*
        pub enum $of:ident { $($(#[$variant_meta:meta])+ $variant:ident = $name:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $of {
            $($(#[$variant_meta])+ $variant,)+
        }

        impl $of {
            pub(super) const CHOICES: &[(&str, Self)] = &[$(($name, Self::$variant)),+];
        }
    };
}

choices! {
    /// What speaks the refusal.
    pub enum Responder {
        /// Sockets of the agent.
        #[default]
        Listener = "listener",
        /// XDP, without a socket, in the greeting only.
        Xdp = "xdp",
    }
}

choices! {
    /// What speaks the refusal while the listener takes no connections.
    pub enum Fallback {
        /// Nothing.
        #[default]
        None = "none",
        /// XDP, as with [`Responder::Xdp`].
        Xdp = "xdp",
    }
}

choices! {
    /// Where the refusal is spoken.
    pub enum RefuseAt {
        /// In the greeting (RFC 1846 section 4).
        Greeting = "greeting",
        /// At EHLO and HELO.
        Ehlo = "ehlo",
        /// At MAIL.
        Mail = "mail",
        /// At RCPT.
        Rcpt = "rcpt",
        /// In the greeting on the first contact of a network, at RCPT when it returns.
        #[default]
        Auto = "auto",
    }
}

choices! {
    /// How XDP attaches.
    pub enum XdpMode {
        /// Native, or generic where the driver has no native mode.
        #[default]
        Auto = "auto",
        /// In the driver.
        Native = "native",
        /// In the network stack.
        Generic = "generic",
        /// Not at all.
        Off = "off",
    }
}

choices! {
    /// What happens to the guard when the agent exits.
    pub enum OnExit {
        /// It is removed.
        #[default]
        Detach = "detach",
        /// It stays, and the next agent takes it over.
        Keep = "keep",
    }
}

choices! {
    /// The format of the log.
    pub enum LogFormat {
        /// For people and journald.
        #[default]
        Text = "text",
        /// For machines: one JSON object a line.
        Json = "json",
    }
}

/// Names of [`FloodAnswer`].
pub(super) const FLOOD_ANSWERS: &[(&str, FloodAnswer)] = &[
    ("challenge", FloodAnswer::Challenge),
    ("cookie", FloodAnswer::Cookie),
    ("drop", FloodAnswer::Drop),
];

/// Names of [`AfterGreeting`].
pub(super) const AFTER_GREETINGS: &[(&str, AfterGreeting)] = &[
    ("hold", AfterGreeting::Hold),
    ("close", AfterGreeting::Close),
];

/// The enhanced codes of 556.
pub(super) const CODES_OF_556: &[(&str, RelayCode)] =
    &[("5.1.2", RelayCode::Listed), ("5.1.10", RelayCode::NullMx)];
