//! The BPF object: loading its programs, and finding programs and maps in it.

use std::{collections::HashSet, path::PathBuf, thread};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, ProgramArray},
    programs::{Xdp, loaded_programs},
};
use landlock::{AccessFs, Ruleset, RulesetAttr as _};
use log::debug;
use nomail_common::abi::{self, MAX_PORTS};

use super::{error::BpfError, secrets::Secrets};

/// The object, aligned as the ELF reader requires; empty where the agent was built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nomail.o"));

/// The object, if the agent was built with one.
pub(super) fn object() -> Result<&'static [u8], BpfError> {
    match OBJECT {
        [] => Err(BpfError::NoObject),
        object => Ok(object),
    }
}

/// A loaded object.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    /// To be held for as long as the program is to find the stateless refusal in it.
    pub(super) responders: ProgramArray<MapData>,
    /// Instructions that the verifier processed, by program. Empty on kernels that do not
    /// report them.
    pub(super) verified: Vec<(&'static str, u32)>,
}

/// Loads the programs for these ports, the stateless refusal only if `responder`. Each of
/// `maps` is opened at its path if it is pinned there, and pinned there if not.
pub(super) fn load(
    ports: &HashSet<u16>,
    responder: bool,
    [seed, key @ ..]: Secrets,
    maps: &[(String, PathBuf)],
) -> Result<Loaded, BpfError> {
    let object = object()?;
    let mut port_slots = [0; MAX_PORTS];
    if ports.len() > MAX_PORTS {
        return Err(BpfError::TooManyPorts(ports.len()));
    }
    for (slot, port) in port_slots.iter_mut().zip(ports) {
        *slot = *port;
    }
    let mut loader = loader();
    for (name, path) in maps {
        loader.map_pin_path(name, path.as_path());
    }
    #[cfg(feature = "trace")]
    super::trace::Trace::set_level(&mut loader);
    let mut ebpf = loader
        .override_global(abi::PORTS_GLOBAL, &port_slots, true)
        .override_global(abi::RESPONDER_GLOBAL, &u32::from(responder), true)
        .override_global(abi::SEED_GLOBAL, &seed, true)
        .override_global(abi::KEY_GLOBAL, &key, true)
        .load(object)
        .map_err(|error| BpfError::load(&error))?;
    let mut responders: ProgramArray<_> = take_map(&mut ebpf, abi::RESPONDERS_MAP)?.try_into()?;
    for name in programs(responder) {
        load_program(&mut ebpf, name)?;
    }
    if responder {
        let program = program(&mut ebpf, abi::RESPONDER_PROGRAM)?;
        responders.set(0, program.fd()?, 0)?;
    }
    let mut verified = Vec::new();
    for name in programs(responder) {
        let info = program(&mut ebpf, name)?.info()?;
        verified.extend(info.verified_instruction_count().map(|count| (name, count)));
    }
    Ok(Loaded {
        ebpf,
        responders,
        verified,
    })
}

/// A loader without the kernel's type information (BTF): 5 to 17 MB, which [`EbpfLoader::new`]
/// reads and parses for an object with CO-RE relocations, and this one has none. So it is
/// called in a thread that may read no file. Where Landlock is missing it reads for nothing.
fn loader() -> EbpfLoader<'static> {
    let made = thread::Builder::new().spawn(|| {
        let rules = Ruleset::default().handle_access(AccessFs::ReadFile);
        let restricted = rules
            .and_then(Ruleset::create)
            .and_then(|none| none.restrict_self());
        if let Err(error) = restricted {
            debug!("the kernel's BTF is read for nothing: {error}");
        }
        EbpfLoader::new()
    });
    let made = made.ok().and_then(|thread| thread.join().ok());
    let mut loader = made.unwrap_or_default();
    loader.btf(None);
    loader
}

/// The programs to load.
fn programs(responder: bool) -> impl Iterator<Item = &'static str> {
    let responder = responder.then_some(abi::RESPONDER_PROGRAM);
    [abi::PROGRAM, abi::CLOCK_PROGRAM]
        .into_iter()
        .chain(responder)
}

/// Loads the object for its clock alone, which uses no map.
pub(super) fn load_clock() -> Result<Ebpf, BpfError> {
    let mut ebpf = loader()
        .load(object()?)
        .map_err(|error| BpfError::load(&error))?;
    load_program(&mut ebpf, abi::CLOCK_PROGRAM)?;
    Ok(ebpf)
}

fn load_program(ebpf: &mut Ebpf, name: &'static str) -> Result<(), BpfError> {
    program(ebpf, name)?
        .load()
        .map_err(|error| BpfError::load(&error.into()))
}

/// A program of the object.
pub(super) fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, BpfError> {
    let program = ebpf.program_mut(name).ok_or(BpfError::Missing(name))?;
    Ok(program.try_into()?)
}

/// Takes a map out of the object.
pub(super) fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing(name))
}

/// The name of the program with this id, if it is loaded. The kernel cuts names to 15 bytes.
pub fn program_name(id: u32) -> Option<String> {
    let found = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id);
    let name = found.as_ref().and_then(|info| info.name_as_str());
    debug!("program {id} is {name:?}");
    name.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Built without an object, as cargo alone does, the agent has nothing to relocate.
    #[test]
    fn the_object_has_no_relocations_by_the_kernels_types() {
        let Ok(object) = object() else { return };
        let parsed = aya_obj::Object::parse(object).unwrap();
        assert!(!parsed.has_btf_relocations());
        for name in programs(true) {
            assert!(parsed.programs.contains_key(name), "{name}");
        }
    }
}
