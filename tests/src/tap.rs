//! The end of a tap interface that a virtual machine would have.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
};

use crate::lab::Namespace;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TAP: libc::c_short = 0x2;
const IFF_NO_PI: libc::c_short = 0x1000;

/// The head of `struct ifreq`, and room for the rest.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// The machine's end; the interface is there until it is dropped.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes the interface in the namespace.
    ///
    /// # Panics
    /// Without root, or without /dev/net/tun.
    pub fn create(namespace: &Namespace, interface: &str) -> Self {
        let mut request = Request {
            name: [0; libc::IFNAMSIZ],
            flags: IFF_TAP | IFF_NO_PI,
            rest: [0; 22],
        };
        request.name[..interface.len()].copy_from_slice(interface.as_bytes());
        namespace.within(move || {
            // Not blocking: else the kernel does not run native XDP on what is written.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")
                .expect("the kernel has tap interfaces");
            // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which this is.
            let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF as _, &raw mut request) };
            assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
            Self(file)
        })
    }

    /// Sends a frame to the host.
    ///
    /// # Panics
    /// When the interface is gone or down.
    pub fn write(&self, frame: &[u8]) {
        let written = (&self.0).write(frame).expect("the interface is up");
        assert_eq!(written, frame.len());
    }

    /// Takes all that the host has sent; how many frames.
    pub fn drain(&self) -> usize {
        let mut room = [0; 2048];
        std::iter::from_fn(|| (&self.0).read(&mut room).ok()).count()
    }
}
