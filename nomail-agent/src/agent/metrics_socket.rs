//! The socket of the metrics. Any local user can take its port, so a socket that cannot be
//! bound costs the metrics and not the agent: binding is tried again.

use std::{io, net::SocketAddr};

use anyhow::Context as _;
use log::{info, warn};
use tokio::task::JoinHandle;

use super::{listeners::RETRY_INTERVAL, root::Root};
use crate::{
    exit::Failure,
    net::{listening_process, own_vrf},
    status::MetricsStatus,
    status::http::{HttpServer, ProcessFiles},
};

/// The configured socket, bound or not.
#[derive(Default)]
pub(super) struct MetricsSocket {
    wanted: Option<(SocketAddr, ProcessFiles)>,
    /// Bound, and not served yet.
    bound: Option<HttpServer>,
    /// Why it is not bound: the kind of the error, and its text.
    failure: Option<(io::ErrorKind, String)>,
    task: Option<JoinHandle<()>>,
}

impl MetricsSocket {
    /// Binds the address, if one is configured.
    pub(super) fn open(_: &Root, address: Option<SocketAddr>) -> Result<Self, Failure> {
        let Some(address) = address else {
            return Ok(Self::default());
        };
        if !address.ip().to_canonical().is_loopback() {
            info!(
                "anyone who can reach {address} can read the metrics, which contain client addresses"
            );
        }
        let prepared = ProcessFiles::open().context("/proc/self is needed for the metrics")?;
        let mut socket = Self {
            wanted: Some((address, prepared)),
            ..Self::default()
        };
        socket.bind();
        Ok(socket)
    }

    /// Whether it is configured and not bound.
    pub(super) fn is_waiting(&self) -> bool {
        self.failure.is_some() && nomail_common::Mechanism::MetricsRetry.is_on()
    }

    /// Tries again to bind it, if it is not bound.
    pub(super) fn retry(&mut self) {
        if self.is_waiting() {
            self.bind();
        }
    }

    fn bind(&mut self) {
        let Some((address, prepared)) = &self.wanted else {
            return;
        };
        match HttpServer::bind(*address, prepared) {
            Ok(server) => {
                if self.failure.take().is_some() {
                    info!("the metrics are now shown on {address}");
                }
                self.bound = Some(server);
            }
            Err(error) => {
                let kind = error.kind();
                // Logged once: later the sandbox hides the process that holds the port.
                if self
                    .failure
                    .as_ref()
                    .is_some_and(|(before, _)| *before == kind)
                {
                    return;
                }
                let text = remedy(*address, &error);
                warn!(
                    "cannot show metrics on {address}: {text}: {error}; trying again every {} s",
                    RETRY_INTERVAL.as_secs()
                );
                self.failure = Some((kind, text));
            }
        }
    }

    /// Serves it by `serve` if it was bound since the last call.
    pub(super) fn serve<F>(&mut self, serve: impl FnOnce(HttpServer) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(server) = self.bound.take() {
            self.task = Some(tokio::spawn(serve(server)));
        }
    }

    /// The address, and why it is not bound.
    pub(super) fn status(&self) -> MetricsStatus {
        let address = self.wanted.as_ref().map(|(address, _)| address.to_string());
        MetricsStatus {
            listen: address.unwrap_or_default(),
            error: self
                .failure
                .as_ref()
                .map_or_else(String::new, |(_, text)| text.clone()),
        }
    }

    /// Closes it with all of its clients.
    pub(super) fn close(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

fn remedy(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let process =
                listening_process(address).unwrap_or_else(|| "another process".to_owned());
            format!(
                "{process} listens there: stop it, or use --metrics with another address, or with \
                 off"
            )
        }
        // 127.0.0.1 is not in a VRF, unless it was given to the VRF.
        io::ErrorKind::AddrNotAvailable => match own_vrf() {
            Some(vrf) => format!(
                "it is not in the VRF {vrf}, which this process was started in: use --metrics \
                 with an address of the VRF, or with off"
            ),
            None => "no interface has that address: use --metrics with one that `ip address` \
                     lists, or with off"
                .to_owned(),
        },
        _ => "use --metrics with another address, or with off".to_owned(),
    }
}
