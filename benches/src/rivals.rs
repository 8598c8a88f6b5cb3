//! Programs in C to compare the guard with, by Debian's clang.

use std::{fs, panic::catch_unwind, sync::OnceLock};

use aya::{Ebpf, programs::Xdp};
use nomail_agent::guard::Guard;
use nomail_tests::{foreign::Program, lab::Lab, program, root::Root};

use crate::guards::reason;

/// Its sources, by their names in the script that compiles them.
const SOURCES: [(&str, &str); 3] = [
    ("bpf.h", include_str!("rivals/bpf.h")),
    ("cookies.c", include_str!("rivals/cookies.c")),
    ("challenges.c", include_str!("rivals/challenges.c")),
];

/// A program in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// SYN cookies, as the kernel's example `xdp_synproxy` sends them.
    Cookies,
    /// nomail's own algorithm.
    Challenges,
}

impl Rival {
    const fn name(self) -> &'static str {
        match self {
            Self::Cookies => "cookies",
            Self::Challenges => "challenges",
        }
    }

    /// Loads it, with empty maps.
    ///
    /// # Errors
    /// Why it is not to be had, in one line.
    pub fn load(self) -> Result<Program, String> {
        let [cookies, challenges] = objects()?;
        let object = match self {
            Self::Cookies => cookies,
            Self::Challenges => challenges,
        };
        let load = || -> Result<Program, Box<dyn std::error::Error>> {
            let mut ebpf = Ebpf::load(object)?;
            let program = ebpf.program_mut(self.name()).ok_or("no such program")?;
            let program: &mut Xdp = program.try_into()?;
            program.load()?;
            Ok(Program::of_id(program.info()?.id()))
        };
        load().map_err(|error| format!("{}: {error}", self.name()))
    }
}

/// Both objects, compiled once.
fn objects() -> Result<&'static [Vec<u8>; 2], String> {
    static OBJECTS: OnceLock<Result<[Vec<u8>; 2], String>> = OnceLock::new();
    let compiled = OBJECTS.get_or_init(|| catch_unwind(compile).map_err(|panic| reason(&*panic)));
    compiled.as_ref().map_err(Clone::clone)
}

fn compile() -> [Vec<u8>; 2] {
    let root = Root::install("clang", &["clang"]);
    let lab = Lab::new();
    let guard: Guard = program::guard(&program::policy());
    let mut script = "mkdir -p /root/rivals\ncd /root/rivals\n".to_owned();
    for (name, text) in SOURCES {
        script += &format!("cat > {name} <<'END'\n{text}\nEND\n");
    }
    let rivals = [Rival::Cookies, Rival::Challenges].map(Rival::name);
    for name in rivals {
        let hz = guard.clock().hz();
        script += &format!(
            "clang -O2 -Wall -Werror -target bpf -mcpu=v3 -DHZ={hz}ULL -c {name}.c -o {name}.o\n"
        );
    }
    script += "echo done > done\n";
    let mut compiler = root.start(&lab.host, &script);
    compiler.line("/root/rivals/done", &["done"]);
    rivals.map(|name| {
        let object = compiler.file(&format!("/root/rivals/{name}.o"));
        fs::read(object).expect("clang has written it")
    })
}
