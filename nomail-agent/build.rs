//! Embeds the BPF object that `NOMAIL_BPF_OBJECT` names; `cargo xtask build`
//! makes it and sets the variable. Without it the agent still builds, so that
//! cargo and editors work on a machine without the BPF toolchain, and says at
//! start what to run. And tells the commit that is built: `NOMAIL_COMMIT`, else
//! what git says, else `unknown`.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=NOMAIL_BPF_OBJECT");
    let out = env::var("OUT_DIR").map(|dir| Path::new(&dir).join("nomail.o"));
    let result = match (out, env::var_os("NOMAIL_BPF_OBJECT")) {
        (Ok(out), Some(object)) => {
            println!("cargo::rerun-if-changed={}", Path::new(&object).display());
            fs::read(&object)
                .and_then(|elf| fs::write(out, without_debug(&elf).unwrap_or(elf)))
                .map_err(|error| format!("NOMAIL_BPF_OBJECT={}: {error}", object.display()))
        }
        (Ok(out), None) => fs::write(out, []).map_err(|error| error.to_string()),
        (Err(error), _) => Err(error.to_string()),
    };
    if let Err(error) = result {
        println!("cargo::error={error}");
    }
    println!("cargo::rerun-if-env-changed=NOMAIL_COMMIT");
    let commit = env::var("NOMAIL_COMMIT")
        .ok()
        .or_else(commit)
        .unwrap_or("unknown".to_owned());
    println!("cargo::rustc-env=NOMAIL_COMMIT={commit}");
}

/// The object without its debug sections, which are four fifths of it: neither aya nor the
/// kernel needs them, and aya would copy them at each start. Their headers stay, empty, so that
/// all sections keep their numbers. None: it is no ELF file of 64 bits.
fn without_debug(elf: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 64;
    // Offsets in the header of the file.
    const SECTIONS: usize = 0x28;
    const COUNT: usize = 0x3c;
    // Offsets in the header of a section.
    const KIND: usize = 4;
    const OFFSET: usize = 24;
    const SIZE: usize = 32;
    const NOBITS: u64 = 8;
    let number = |bytes: &[u8], at: usize, length: usize| {
        let found = bytes.get(at..at + length)?.iter().rev();
        Some(found.fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let content = |header: &[u8]| {
        let begin = number(header, OFFSET, 8)? as usize;
        elf.get(begin..begin + number(header, SIZE, 8)? as usize)
    };
    let (at, count) = (number(elf, SECTIONS, 8)?, number(elf, COUNT, 2)?);
    let table = elf.get(at as usize..)?.get(..count as usize * HEADER)?;
    let mut headers: Vec<_> = table.chunks(HEADER).map(<[u8]>::to_vec).collect();
    let names = content(headers.get(number(elf, COUNT + 2, 2)? as usize)?)?;
    let mut smaller = elf.get(..HEADER)?.to_vec();
    for header in &mut headers {
        let name = names.get(number(header, 0, 4)? as usize..)?;
        if name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") {
            header[KIND..].fill(0);
        } else if number(header, KIND, 4)? != NOBITS {
            let content = content(header)?;
            smaller.resize(smaller.len().next_multiple_of(8), 0);
            header[OFFSET..SIZE].copy_from_slice(&(smaller.len() as u64).to_le_bytes());
            smaller.extend(content);
        }
    }
    smaller.resize(smaller.len().next_multiple_of(8), 0);
    let table = smaller.len() as u64;
    smaller[SECTIONS..SECTIONS + 8].copy_from_slice(&table.to_le_bytes());
    smaller.extend(headers.concat());
    Some(smaller)
}

/// The commit that is checked out.
fn commit() -> Option<String> {
    // It grows with every commit and every checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
