//! What outlives the agent: links and maps, pinned in a directory of a BPF file system that
//! only its user can write to.
//!
//! `pin_dir/vN/` has the pins of agents with ABI version N: a link for each interface, every
//! map, and the secrets with which the maps were filled.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
};

use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::links::{FdLink, LinkInfo, PinnedLink},
};
use aya_obj::EbpfSectionKind;
use log::{debug, info, warn};
use nix::{
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::Uid,
};
use nomail_common::abi::{self, ABI_VERSION, Active, Config, MAX_INTERFACES};

use super::{error::BpfError, secrets::Secrets};

/// The name of a link's pin: this, and the index of its interface. An interface's name may
/// change, and may have a dot, which is not allowed here.
const LINK: &str = "link_";
/// The name of the pin of the [`Secrets`].
const SECRETS: &str = "secrets";

/// The pins, locked: one agent or one `detach` uses them at a time.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _lock: File,
    links: Vec<LinkPin>,
    /// Whether the pins that exist are those that are to stay.
    settled: bool,
}

/// A link that an earlier agent pinned.
#[derive(Debug)]
struct LinkPin {
    path: PathBuf,
    /// None once it was taken over.
    link: Option<FdLink>,
    /// 0: the interface is gone.
    interface: u32,
    program: u32,
}

/// How to load the maps.
pub(super) struct Prepared {
    /// The secrets of the maps, if those that are pinned can be used.
    pub(super) secrets: Option<Secrets>,
    /// Where each map is pinned, or is to be pinned.
    pub(super) maps: Vec<(String, PathBuf)>,
}

/// What must be equal for a program to use the map of another.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

impl Pins {
    /// Opens the directory, and creates it if it does not exist.
    pub fn create(directory: &Path) -> Result<Self, BpfError> {
        let parent = directory.parent().unwrap_or(directory);
        if !in_bpf_file_system(parent) {
            return Err(BpfError::NoBpfFileSystem(directory.to_owned()));
        }
        make(directory)?;
        Self::open(directory)?.ok_or_else(|| BpfError::NoBpfFileSystem(directory.to_owned()))
    }

    /// Opens the directory; none if it does not exist.
    pub fn open(directory: &Path) -> Result<Option<Self>, BpfError> {
        match fs::symlink_metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(denied(directory, error)),
            Ok(_) if !in_bpf_file_system(directory) => {
                return Err(BpfError::NoBpfFileSystem(directory.to_owned()));
            }
            Ok(_) => is_ours(directory)?,
        }
        let lock = File::open(directory).map_err(|error| denied(directory, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(BpfError::PinsInUse(directory.to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(denied(directory, error)),
        }
        let mut pins = Self {
            directory: directory.to_owned(),
            _lock: lock,
            links: Vec::new(),
            // Until `prepare`.
            settled: true,
        };
        for version in pins.versions()? {
            is_ours(&version)?;
            for path in entries(&version)? {
                if name_of(&path).starts_with(LINK) {
                    pins.links.push(LinkPin::from_pin(path)?);
                }
            }
        }
        Ok(Some(pins))
    }

    /// The interfaces of the links, and the ids of their programs.
    pub fn live(&self) -> impl Iterator<Item = (u32, u32)> {
        let live = self.links.iter().filter(|pin| pin.interface != 0);
        live.map(|pin| (pin.interface, pin.program))
    }

    /// Whether one of the links has that program on that interface.
    pub fn hold(&self, interface: u32, program: u32) -> bool {
        self.live().any(|live| live == (interface, program))
    }

    /// Removes the links of one interface, or all of them; with the last link everything else
    /// is removed. Returns the interfaces, 0 for each that is gone.
    pub fn remove(mut self, interface: Option<u32>) -> Result<Vec<u32>, BpfError> {
        let mut removed = Vec::new();
        self.links.retain(|pin| {
            let wanted = interface.is_none_or(|interface| pin.interface == interface);
            if wanted {
                removed.push((pin.interface, pin.path.clone()));
            }
            !wanted
        });
        for (_, path) in &removed {
            fs::remove_file(path).map_err(|error| denied(path, error))?;
        }
        if self.links.iter().all(|pin| pin.interface == 0) {
            self.remove_all()?;
        }
        Ok(removed
            .into_iter()
            .map(|(interface, _)| interface)
            .collect())
    }

    /// Finds the maps that an earlier agent pinned, if the programs of `object` can use them;
    /// with `keep` all others are to be pinned.
    pub(super) fn prepare(
        &mut self,
        object: &[u8],
        interfaces: &[u32],
        keep: bool,
    ) -> Result<Prepared, BpfError> {
        self.settled = false;
        let version = self.version();
        let wanted = shapes(object)?;
        let secrets = reusable(&version, &wanted);
        if secrets.is_none() && version.exists() {
            info!("the pinned counters and sources cannot be used: they start again at zero");
            for path in entries(&version)? {
                if !name_of(&path).starts_with(LINK) {
                    fs::remove_file(&path).map_err(|error| denied(&path, error))?;
                }
            }
        }
        if secrets.is_some() && !are_counters_of(&version, interfaces) {
            info!("other interfaces than before are guarded: the counters start again at zero");
            let path = version.join(abi::COUNTERS_MAP);
            fs::remove_file(&path).map_err(|error| denied(&path, error))?;
        }
        if keep {
            make(&version)?;
        }
        let pinned = keep || secrets.is_some();
        let maps = wanted.into_iter().filter(|_| pinned);
        Ok(Prepared {
            secrets,
            maps: maps
                .map(|(name, _)| {
                    let path = version.join(&name);
                    (name, path)
                })
                .collect(),
        })
    }

    /// Pins the secrets of new maps.
    pub(super) fn pin_secrets(&self, secrets: Secrets) -> Result<(), BpfError> {
        let mut map = Array::<MapData, Secrets>::create(1, 0)?;
        map.set(0, secrets, 0)?;
        Ok(map.pin(self.version().join(SECRETS))?)
    }

    /// Takes the link to the interface.
    pub(super) fn take(&mut self, interface: u32) -> Option<FdLink> {
        let on_it = |pin: &&mut LinkPin| pin.interface == interface;
        self.links.iter_mut().find(on_it)?.link.take()
    }

    /// Removes the links to the interface.
    pub(super) fn release(&mut self, interface: u32) -> Result<(), BpfError> {
        for pin in self.links.iter().filter(|pin| pin.interface == interface) {
            fs::remove_file(&pin.path).map_err(|error| denied(&pin.path, error))?;
        }
        self.links.retain(|pin| pin.interface != interface);
        Ok(())
    }

    /// Pins the agent's links in the directory of its version, and removes all others.
    pub(super) fn settle(
        &mut self,
        links: Vec<(u32, FdLink)>,
    ) -> Result<Vec<(u32, FdLink)>, BpfError> {
        let version = self.version();
        for pin in self.links.drain(..) {
            let name = format!("{LINK}{}", pin.interface);
            let stays = pin.link.is_none() && pin.path == version.join(name);
            if stays {
                debug!("{} stays", pin.path.display());
            } else if pin.path.parent() == Some(&version) {
                info!("removing {}, which is no longer used", pin.path.display());
                fs::remove_file(&pin.path).map_err(|error| denied(&pin.path, error))?;
            }
        }
        let mut pinned = Vec::new();
        for (interface, link) in links {
            let path = version.join(format!("{LINK}{interface}"));
            let link = match path.exists() {
                true => link,
                false => link.pin(path)?.into(),
            };
            pinned.push((interface, link));
        }
        // Only now: links that were taken over may be pinned there.
        for other in self.versions()? {
            if other != version {
                info!("removing {}, which is of another version", other.display());
                remove_version(&other)?;
            }
        }
        self.settled = true;
        Ok(pinned)
    }

    /// Removes all pins. Objects with an open descriptor live until it is closed.
    pub(super) fn remove_all(mut self) -> Result<(), BpfError> {
        for version in self.versions()? {
            remove_version(&version)?;
        }
        self.links.clear();
        // Fails if it has other files.
        if let Err(error) = fs::remove_dir(&self.directory) {
            warn!("cannot remove {}: {error}", self.directory.display());
        }
        self.settled = true;
        Ok(())
    }

    fn version(&self) -> PathBuf {
        version_in(&self.directory)
    }

    /// The directories of all versions.
    fn versions(&self) -> Result<Vec<PathBuf>, BpfError> {
        let mut versions = entries(&self.directory)?;
        versions.retain(|path| {
            let number = name_of(path).strip_prefix('v');
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        });
        Ok(versions)
    }
}

impl Drop for Pins {
    /// After a start that failed, removes what it made. Without root, which the agent drops
    /// later, this does nothing.
    fn drop(&mut self) {
        if !self.settled && self.links.is_empty() {
            let _ = remove_version(&self.version());
        }
        // Succeeds only if they are empty.
        let _ = fs::remove_dir(self.version());
        let _ = fs::remove_dir(&self.directory);
    }
}

impl LinkPin {
    fn from_pin(path: PathBuf) -> Result<Self, BpfError> {
        let link = FdLink::from(PinnedLink::from_pin(&path)?);
        let info = link.info()?;
        let interface = interface_of(&info).map_err(|error| denied(&path, error))?;
        debug!("{} is on interface {interface}", path.display());
        Ok(Self {
            path,
            link: Some(link),
            interface,
            program: info.program_id(),
        })
    }
}

/// The index of the interface of an open link, 0 if it is gone. Read from /proc, because aya
/// does not offer it.
fn interface_of(link: &LinkInfo) -> io::Result<u32> {
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // The descriptor of the directory itself is listed, too.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<u32>().ok())
        };
        if number("link_id:") == Some(link.id()) {
            return number("ifindex:").ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "not a link to an interface")
            });
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "/proc/self/fdinfo does not show its interface",
    ))
}

/// The maps of the object, but for those of its globals.
fn shapes(object: &[u8]) -> Result<Vec<(String, Shape)>, BpfError> {
    let object = aya_obj::Object::parse(object)?;
    let maps = object.maps.into_iter().filter(|(_, map)| {
        matches!(
            map.section_kind(),
            EbpfSectionKind::Maps | EbpfSectionKind::BtfMaps
        )
    });
    let mut shapes: Vec<_> = maps
        .map(|(name, map)| {
            let shape = Shape {
                kind: map.map_type(),
                key: map.key_size(),
                value: map.value_size(),
                entries: map.max_entries(),
                flags: map.map_flags(),
            };
            (name, shape)
        })
        .collect();
    shapes.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(shapes)
}

/// The secrets of the maps in the directory, if all `wanted` maps are there.
fn reusable(version: &Path, wanted: &[(String, Shape)]) -> Option<Secrets> {
    for (name, wanted) in wanted {
        let found = shape_of(&version.join(name));
        if found.as_ref() != Some(wanted) {
            debug!("{name} is pinned as {found:?}, but needed as {wanted:?}");
            return None;
        }
    }
    read::<Secrets>(&version.join(SECRETS), 0).ok()
}

fn shape_of(path: &Path) -> Option<Shape> {
    let info = MapInfo::from_pin(path).ok()?;
    Some(Shape {
        kind: info.map_type().ok()? as u32,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
        flags: info.map_flags(),
    })
}

fn version_in(directory: &Path) -> PathBuf {
    directory.join(format!("v{ABI_VERSION}"))
}

/// The directory of this version, if it has the maps of `object`.
pub(super) fn version_to_read(
    directory: &Path,
    object: &[u8],
) -> Result<Option<PathBuf>, BpfError> {
    let version = version_in(directory);
    match fs::symlink_metadata(&version) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(denied(&version, error)),
        Ok(_) => {}
    }
    is_ours(directory)?;
    is_ours(&version)?;
    if is_locked(directory)? {
        return Err(BpfError::PinsInUse(directory.to_owned()));
    }
    let reusable = reusable(&version, &shapes(object)?).is_some();
    Ok(reusable.then_some(version))
}

/// Whether an agent or `detach` holds the lock. Read from /proc, because taking the lock would
/// make an agent that starts fail.
fn is_locked(directory: &Path) -> Result<bool, BpfError> {
    let found = fs::metadata(directory).map_err(|error| denied(directory, error))?;
    let (major, minor) = (
        nix::sys::stat::major(found.dev()),
        nix::sys::stat::minor(found.dev()),
    );
    let file = format!(" {major:02x}:{minor:02x}:{} ", found.ino());
    let locks = Path::new("/proc/locks");
    let text = fs::read_to_string(locks).map_err(|error| denied(locks, error))?;
    // A line with "->" waits for a lock.
    let mut held = text.lines().filter(|line| !line.contains("->"));
    Ok(held.any(|line| line.contains(" FLOCK ") && line.contains(&file)))
}

/// The interfaces of the links in the directory, and the ids of their programs. The links are
/// not held open, so that removing a pin detaches the program.
pub(super) fn links_of(version: &Path) -> Result<Vec<(u32, u32)>, BpfError> {
    let mut links = Vec::new();
    for path in entries(version)? {
        if name_of(&path).starts_with(LINK) {
            let pin = LinkPin::from_pin(path)?;
            if pin.interface != 0 {
                links.push((pin.interface, pin.program));
            }
        }
    }
    Ok(links)
}

/// Bytes of stack of the thread that reads a configuration: aya copies it on the stack.
const CONFIG_STACK: usize = 32 * size_of::<Config>();

/// The configuration in use.
pub(super) fn config_in(version: &Path) -> Result<Box<Config>, BpfError> {
    let active = Active::from_word(read(&version.join(abi::ACTIVE_MAP), 0)?);
    thread::scope(|scope| {
        let reader = thread::Builder::new()
            .stack_size(CONFIG_STACK)
            .spawn_scoped(scope, || {
                read(&version.join(abi::CONFIG_MAP), active.config).map(Box::new)
            })
            .map_err(BpfError::Thread)?;
        reader.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Whether the counters in the directory belong to these interfaces.
fn are_counters_of(version: &Path, interfaces: &[u32]) -> bool {
    let mut wanted = [0; MAX_INTERFACES];
    for (slot, &interface) in wanted.iter_mut().zip(interfaces) {
        *slot = interface;
    }
    config_in(version).is_ok_and(|config| config.interfaces == wanted)
}

fn read<V: aya::Pod>(path: &Path, index: u32) -> Result<V, BpfError> {
    let map = Map::from_map_data(MapData::from_pin(path)?)?;
    Ok(Array::<MapData, V>::try_from(map)?.get(&index, 0)?)
}

fn in_bpf_file_system(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// An error if others can write to the directory.
fn is_ours(directory: &Path) -> Result<(), BpfError> {
    let found = fs::symlink_metadata(directory).map_err(|error| denied(directory, error))?;
    let ours = found.is_dir() && found.uid() == Uid::effective().as_raw();
    match ours && found.mode() & 0o022 == 0 {
        true => Ok(()),
        false => Err(BpfError::PinsNotOurs(directory.to_owned())),
    }
}

fn make(directory: &Path) -> Result<(), BpfError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(denied(directory, error)),
        _ => is_ours(directory),
    }
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    let entries = fs::read_dir(directory).and_then(|entries| {
        entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    });
    entries.map_err(|error| denied(directory, error))
}

/// Removes all pins of a version, links first, which detaches their programs.
fn remove_version(version: &Path) -> Result<(), BpfError> {
    let mut paths = entries(version)?;
    paths.sort_by_key(|path| !name_of(path).starts_with(LINK));
    for path in paths {
        fs::remove_file(&path).map_err(|error| denied(&path, error))?;
    }
    fs::remove_dir(version).map_err(|error| denied(version, error))
}

/// The name of a pin; empty if it is not UTF-8, as all of ours are.
fn name_of(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.unwrap_or_default()
}

fn denied(path: &Path, error: io::Error) -> BpfError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => BpfError::Permission(error),
        _ => BpfError::PinDirectory(path.to_owned(), error),
    }
}
