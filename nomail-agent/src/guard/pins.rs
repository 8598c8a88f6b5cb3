//! What outlives the agent: links and maps, pinned in a directory of a BPF file
//! system that nobody else can write to.
//!
//! `pin_dir/vN/` has what agents of ABI version N pinned: a link for each
//! interface, every map, and the secrets with which the maps were filled.

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

use super::BpfError;

/// Pin of a link: this, and the number of its interface. A name may have a dot,
/// which is not allowed here, and change.
const LINK: &str = "link_";
/// Pin of the [`Secrets`].
const SECRETS: &str = "secrets";

/// What the keys of maps are made with: the seed of the hash that chooses a line,
/// and the key of challenges. Sources and tuples are found by nobody else.
pub(super) type Secrets = [u64; 3];

/// The pins, locked: one agent, or one `detach`, at a time.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _lock: File,
    links: Vec<Kept>,
    /// What is there now is what is to stay.
    settled: bool,
}

/// A link that an earlier agent pinned.
#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// None once it was taken over.
    link: Option<FdLink>,
    /// 0: the interface is gone.
    interface: u32,
    program: u32,
}

/// How maps are to be loaded.
pub(super) struct Prepared {
    pub(super) secrets: Option<Secrets>,
    /// Where each map is pinned, or is to be.
    pub(super) maps: Vec<(String, PathBuf)>,
}

/// What must be the same for a map to be used by another program.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

impl Pins {
    /// Makes the directory, if it is not there.
    pub fn create(directory: &Path) -> Result<Self, BpfError> {
        let parent = directory.parent().unwrap_or(directory);
        if !in_bpf_file_system(parent) {
            return Err(BpfError::NoBpfFileSystem(directory.to_owned()));
        }
        make(directory)?;
        Self::open(directory)?.ok_or_else(|| BpfError::NoBpfFileSystem(directory.to_owned()))
    }

    /// What is there, if the directory is.
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
            // Until it is made ready for an agent.
            settled: true,
        };
        for version in pins.versions()? {
            is_ours(&version)?;
            for path in entries(&version)? {
                if name_of(&path).starts_with(LINK) {
                    pins.links.push(Kept::from_pin(path)?);
                }
            }
        }
        Ok(Some(pins))
    }

    /// The interfaces that links are on, and the programs that they have there.
    pub fn live(&self) -> impl Iterator<Item = (u32, u32)> {
        let live = self.links.iter().filter(|kept| kept.interface != 0);
        live.map(|kept| (kept.interface, kept.program))
    }

    /// Whether that program is on that interface by one of these links.
    pub fn hold(&self, interface: u32, program: u32) -> bool {
        self.live().any(|kept| kept == (interface, program))
    }

    /// Removes the links of one interface, or all of them; without a link nothing
    /// else stays. Gives the interfaces, 0 for each that is gone.
    pub fn remove(mut self, interface: Option<u32>) -> Result<Vec<u32>, BpfError> {
        let mut removed = Vec::new();
        self.links.retain(|kept| {
            let wanted = interface.is_none_or(|interface| kept.interface == interface);
            if wanted {
                removed.push((kept.interface, kept.path.clone()));
            }
            !wanted
        });
        for (_, path) in &removed {
            fs::remove_file(path).map_err(|error| denied(path, error))?;
        }
        if self.links.iter().all(|kept| kept.interface == 0) {
            self.remove_all()?;
        }
        Ok(removed
            .into_iter()
            .map(|(interface, _)| interface)
            .collect())
    }

    /// Finds the maps that an earlier agent left, if a program with `object`'s
    /// maps can go on with them; with `keep` the others are made to be pinned.
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
            info!("the counters and sources that were pinned cannot be used: they begin anew");
            for path in entries(&version)? {
                if !name_of(&path).starts_with(LINK) {
                    fs::remove_file(&path).map_err(|error| denied(&path, error))?;
                }
            }
        }
        if secrets.is_some() && !are_places(&version, interfaces) {
            info!("other interfaces than before are guarded: the counters begin anew");
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

    /// Pins the secrets of maps that were made just now.
    pub(super) fn pin_secrets(&self, secrets: Secrets) -> Result<(), BpfError> {
        let mut map = Array::<MapData, Secrets>::create(1, 0)?;
        map.set(0, secrets, 0)?;
        Ok(map.pin(self.version().join(SECRETS))?)
    }

    /// The link that holds a program on the interface, to be taken over.
    pub(super) fn take(&mut self, interface: u32) -> Option<FdLink> {
        let on_it = |kept: &&mut Kept| kept.interface == interface;
        self.links.iter_mut().find(on_it)?.link.take()
    }

    /// Gives up the link that holds a program on the interface.
    pub(super) fn release(&mut self, interface: u32) -> Result<(), BpfError> {
        for kept in self.links.iter().filter(|kept| kept.interface == interface) {
            fs::remove_file(&kept.path).map_err(|error| denied(&kept.path, error))?;
        }
        self.links.retain(|kept| kept.interface != interface);
        Ok(())
    }

    /// Pins the links of the agent in the directory of its version, and removes
    /// all others.
    pub(super) fn keep(
        &mut self,
        links: Vec<(u32, FdLink)>,
    ) -> Result<Vec<(u32, FdLink)>, BpfError> {
        let version = self.version();
        let mut left = Vec::new();
        for kept in self.links.drain(..) {
            let name = format!("{LINK}{}", kept.interface);
            let stays = kept.link.is_none() && kept.path == version.join(name);
            if stays {
                debug!("{} stays", kept.path.display());
            } else if kept.path.parent() == Some(&version) {
                info!("{} is no longer of use", kept.path.display());
                fs::remove_file(&kept.path).map_err(|error| denied(&kept.path, error))?;
            } else {
                left.push(kept.path);
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
        // Only now: a link that was taken over was pinned there.
        for other in self.versions()? {
            if other != version {
                info!("{} was another version's", other.display());
                remove_version(&other)?;
            }
        }
        self.settled = true;
        Ok(pinned)
    }

    /// Removes everything. What an open descriptor holds goes with that.
    pub(super) fn remove_all(mut self) -> Result<(), BpfError> {
        for version in self.versions()? {
            remove_version(&version)?;
        }
        self.links.clear();
        // Not if somebody else has put something there.
        if let Err(error) = fs::remove_dir(&self.directory) {
            warn!("{} stays: {error}", self.directory.display());
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
    /// A start that failed leaves no more than it found. Without root, which is
    /// given up later, nothing of this can be done.
    fn drop(&mut self) {
        if !self.settled && self.links.is_empty() {
            let _ = remove_version(&self.version());
        }
        // Only if they are empty.
        let _ = fs::remove_dir(self.version());
        let _ = fs::remove_dir(&self.directory);
    }
}

impl Kept {
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

/// The interface of an open link, 0 if it is gone: aya does not tell, but the
/// kernel does, beside the descriptor.
fn interface_of(link: &LinkInfo) -> io::Result<u32> {
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // The directory's own descriptor is listed, too.
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
        "/proc/self/fdinfo does not tell its interface",
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

/// The secrets of the maps in the directory, if all that are `wanted` are there.
fn reusable(version: &Path, wanted: &[(String, Shape)]) -> Option<Secrets> {
    for (name, wanted) in wanted {
        let found = shape_of(&version.join(name));
        if found.as_ref() != Some(wanted) {
            debug!("{name} is pinned as {found:?}, and wanted as {wanted:?}");
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

/// What an agent of this version has pinned, if `object`'s maps are there.
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

/// Whether an agent, or `detach`, holds the lock: asked without taking it, which
/// would be in the way of one that starts.
fn is_locked(directory: &Path) -> Result<bool, BpfError> {
    let found = fs::metadata(directory).map_err(|error| denied(directory, error))?;
    let (major, minor) = (
        nix::sys::stat::major(found.dev()),
        nix::sys::stat::minor(found.dev()),
    );
    let file = format!(" {major:02x}:{minor:02x}:{} ", found.ino());
    let locks = Path::new("/proc/locks");
    let text = fs::read_to_string(locks).map_err(|error| denied(locks, error))?;
    // One that waits for a lock, "->", does not hold it.
    let mut held = text.lines().filter(|line| !line.contains("->"));
    Ok(held.any(|line| line.contains(" FLOCK ") && line.contains(&file)))
}

/// The interfaces that links in the directory are on, and their programs there.
/// The links are not held: whoever removes a pin is to detach with it.
pub(super) fn links_of(version: &Path) -> Result<Vec<(u32, u32)>, BpfError> {
    let mut links = Vec::new();
    for path in entries(version)? {
        if name_of(&path).starts_with(LINK) {
            let kept = Kept::from_pin(path)?;
            if kept.interface != 0 {
                links.push((kept.interface, kept.program));
            }
        }
    }
    Ok(links)
}

/// Of the thread that reads a configuration, of which aya makes copies on the stack.
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

/// Whether the counters in the directory are those of these interfaces.
fn are_places(version: &Path, interfaces: &[u32]) -> bool {
    let mut places = [0; MAX_INTERFACES];
    for (place, &interface) in places.iter_mut().zip(interfaces) {
        *place = interface;
    }
    config_in(version).is_ok_and(|config| config.interfaces == places)
}

fn read<V: aya::Pod>(path: &Path, index: u32) -> Result<V, BpfError> {
    let map = Map::from_map_data(MapData::from_pin(path)?)?;
    Ok(Array::<MapData, V>::try_from(map)?.get(&index, 0)?)
}

fn in_bpf_file_system(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Refuses a directory that others can write to.
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

/// Removes what is pinned in there, links first: with them the program goes.
fn remove_version(version: &Path) -> Result<(), BpfError> {
    let mut paths = entries(version)?;
    paths.sort_by_key(|path| !name_of(path).starts_with(LINK));
    for path in paths {
        fs::remove_file(&path).map_err(|error| denied(&path, error))?;
    }
    fs::remove_dir(version).map_err(|error| denied(version, error))
}

/// The name of a pin; ours are ASCII.
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
