//! Values that are one of some names.

pub use nomail_common::guard::policy::FloodAnswer;

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
    /// What follows the greeting (RFC 1846 section 4.2).
    pub enum AfterGreeting {
        /// Option b: 521 to everything except QUIT.
        #[default]
        Hold = "hold",
        /// Option a: close.
        Close = "close",
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

/// How a relay refuses mail for its domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayCode {
    /// 556 5.1.2: a list says that the domain takes no mail (RFC 7504 section 4).
    #[default]
    Listed,
    /// 556 5.1.10: the domain has a null MX (RFC 7505 section 4.1).
    NullMx,
    /// 521 5.3.2: to the letter of RFC 1846 section 3.
    Rfc1846,
}

impl RelayCode {
    /// The enhanced codes of 556.
    pub(super) const OF_556: &[(&str, Self)] = &[("5.1.2", Self::Listed), ("5.1.10", Self::NullMx)];

    /// The reply code.
    pub const fn code(self) -> u16 {
        match self {
            Self::Listed | Self::NullMx => 556,
            Self::Rfc1846 => 521,
        }
    }

    /// The enhanced code behind it.
    pub const fn enhanced_code(self) -> &'static str {
        match self {
            Self::Listed => "5.1.2",
            Self::NullMx => "5.1.10",
            Self::Rfc1846 => "5.3.2",
        }
    }
}
