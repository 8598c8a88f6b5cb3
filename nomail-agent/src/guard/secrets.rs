//! Random numbers that an attacker must not know.

use super::error::BpfError;

/// The secrets in the keys of maps: the seed of the hash that chooses a line, and the key of
/// challenges. Without them no source and no tuple is found in a map.
pub(super) type Secrets = [u64; 3];

pub(super) fn random_secrets() -> Result<Secrets, BpfError> {
    Ok([random()?, random()?, random()?])
}

pub(super) fn random() -> Result<u64, BpfError> {
    getrandom::u64().map_err(|error| BpfError::Random(error.into()))
}
