//! The control socket, which is read-only. A client sends one line, `status N`, and gets one
//! JSON document with at most N sources.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use log::debug;
use nix::unistd::Gid;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use crate::{
    status::Status,
    status::{
        client::{self, SOURCES_MAX},
        clients::{Asked, Clients},
    },
};

/// Longest request.
const REQUEST_MAX: usize = 64;
/// Longest that a client may take for its request, and for reading the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);
/// Clients at a time.
const CLIENTS_MAX: usize = 8;
/// Longest wait for another agent's answer.
const OTHER_TIMEOUT: Duration = Duration::from_secs(1);

/// A bound control socket, removed when dropped.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Control {
    /// Binds `path` with mode 0660 for root and `group`. Replaces the socket of an agent that
    /// is gone, and no other.
    ///
    /// # Errors
    /// When another agent answers there, when the path is no socket, or as of bind(2).
    pub fn bind(path: &Path, group: Option<Gid>) -> Result<Self> {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                bail!(
                    "{} is there and not a socket: remove it, or choose another --control",
                    path.display()
                );
            }
            // One that takes no more connections is there all the same.
            let other = client::connect(path, OTHER_TIMEOUT);
            let full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
            if other.as_ref().err().is_none_or(full) {
                bail!(
                    "another nomail-agent answers on {}: stop it, or give this one another \
                     --control",
                    path.display()
                );
            }
            fs::remove_file(path).with_context(|| format!("{} is stale", path.display()))?;
        }
        // No other account may connect in the moment before the mode is set.
        let listener = {
            let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
            let listener = UnixListener::bind(path);
            nix::sys::stat::umask(old);
            listener.with_context(|| format!("cannot bind {}", path.display()))?
        };
        let control = Self {
            listener,
            path: path.to_owned(),
        };
        if let Some(group) = group {
            chown(path, None, Some(group.as_raw()))
                .with_context(|| format!("cannot give {} to its group", path.display()))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        Ok(control)
    }

    /// Answers until dropped. `status` gets the number of sources that a client asks for.
    pub async fn serve<F>(&self, status: impl Fn(usize) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Status>> + Send,
    {
        let status = Arc::new(status);
        let mut clients = Clients::new(CLIENTS_MAX);
        loop {
            let (stream, _) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!("control socket: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let status = Arc::clone(&status);
            let serve = |asked| async move {
                if let Err(error) = answer(stream, &*status, asked).await {
                    debug!("control client: {error:#}");
                }
            };
            clients.admit(serve).await;
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            debug!("{}: {error}", self.path.display());
        }
    }
}

async fn answer<F>(
    mut stream: UnixStream,
    status: &(impl Fn(usize) -> F + Sync),
    asked: Asked,
) -> Result<()>
where
    F: Future<Output = Result<Status>>,
{
    let mut request = [0; REQUEST_MAX];
    let mut length = 0;
    timeout(CLIENT_TIMEOUT, async {
        while !request[..length].contains(&b'\n') && length < REQUEST_MAX {
            match stream.read(&mut request[length..]).await? {
                0 => break,
                read => length += read,
            }
        }
        io::Result::Ok(())
    })
    .await
    .context("no request in time")??;
    asked.set();
    let reply = match parse(&request[..length]) {
        Some(sources) => match status(sources).await {
            Ok(status) => serde_json::to_vec(&status)?,
            Err(error) => error_reply(&format!("{error:#}"))?,
        },
        None => error_reply("the only request is: status NUMBER-OF-SOURCES")?,
    };
    timeout(CLIENT_TIMEOUT, async {
        stream.write_all(&reply).await?;
        stream.write_all(b"\n").await?;
        stream.shutdown().await
    })
    .await
    .context("the answer was not read in time")??;
    Ok(())
}

fn error_reply(error: &str) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::json!({ "error": error }))?)
}

/// Returns how many sources a request asks for, at most [`SOURCES_MAX`], if it is valid.
pub fn parse(request: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(request).ok()?.strip_suffix('\n')?;
    let sources: usize = line.strip_prefix("status ")?.parse().ok()?;
    Some(sources.min(SOURCES_MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net as blocking;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("status 20\n", Some(20))]
    #[case("status 99999999\n", Some(SOURCES_MAX))]
    #[case("status 20", None)]
    #[case("status -1\n", None)]
    #[case("detach\n", None)]
    #[case("", None)]
    fn requests(#[case] request: &str, #[case] sources: Option<usize>) {
        assert_eq!(parse(request.as_bytes()), sources);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_living_one_and_a_file_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(blocking::UnixListener::bind(&path).unwrap());
        let control = Control::bind(&path, None).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let error = Control::bind(&path, None).err().unwrap().to_string();
        assert!(error.contains("another nomail-agent answers"), "{error}");
        drop(control);
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert!(Control::bind(&path, None).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
