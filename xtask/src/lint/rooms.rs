//! Who may use whom. "Dependencies" in ARCHITECTURE.md has the same table.

/// A package whose sources are checked.
pub(super) struct Package {
    pub(super) name: &'static str,
    /// The crates of the package: name in other crates' paths, top file.
    pub(super) crates: &'static [(&'static str, &'static str)],
    /// Packages of the workspace that it may use.
    pub(super) uses: &'static [&'static str],
    /// The files and folders below `src`; empty if they may use each other freely.
    pub(super) rooms: &'static [Room],
    /// Whether its files have a greatest length.
    pub(super) is_bounded: bool,
}

/// A file or folder below `src`, and which others it may use.
pub(super) type Room = (&'static str, Uses);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uses {
    /// Every room may use it; it uses ground alone.
    Ground,
    /// The ground, and these rooms.
    Only(&'static [&'static str]),
    /// All rooms except these.
    AllBut(&'static [&'static str]),
}

/// Crates that one folder of a package wraps: crate, package, folder.
pub(super) const WRAPPED: &[(&str, &str, &str)] = &[
    ("aya", "nomail-agent", "nomail-agent/src/guard/"),
    ("aya_obj", "nomail-agent", "nomail-agent/src/guard/"),
];

/// The packages that make the program.
pub(super) const SHIPPED: [&str; 3] = ["nomail-common", "nomail-ebpf", "nomail-agent"];

pub(super) const PACKAGES: &[Package] = &[
    Package {
        name: "nomail-common",
        crates: &[("nomail_common", "src/lib.rs")],
        uses: &[],
        rooms: &[
            ("bounds", Uses::Ground),
            ("counted", Uses::Ground),
            ("mechanisms", Uses::Ground),
            ("siphash", Uses::Ground),
            ("source", Uses::Ground),
            ("verdict", Uses::Ground),
            ("verifier", Uses::Ground),
            ("wire", Uses::Only(&[])),
            ("guard", Uses::Only(&["wire"])),
            ("stateless", Uses::Only(&["wire", "guard"])),
            ("abi", Uses::AllBut(&["reach"])),
            ("reach", Uses::AllBut(&[])),
        ],
        is_bounded: true,
    },
    Package {
        name: "nomail-ebpf",
        crates: &[("nomail_ebpf", "src/main.rs")],
        uses: &["nomail-common"],
        rooms: &[],
        is_bounded: true,
    },
    Package {
        name: "nomail-agent",
        crates: &[
            ("nomail_agent", "src/lib.rs"),
            ("nomail_agent_program", "src/main.rs"),
        ],
        uses: &["nomail-common"],
        rooms: &[
            ("counts", Uses::Ground),
            ("line_limit", Uses::Ground),
            ("mechanisms", Uses::Ground),
            ("refusal", Uses::Ground),
            ("text", Uses::Ground),
            ("walk", Uses::Ground),
            ("config", Uses::Only(&[])),
            ("smtp", Uses::Only(&[])),
            ("guard", Uses::Only(&[])),
            ("net", Uses::Only(&[])),
            ("cli", Uses::Only(&["config"])),
            ("host", Uses::Only(&["config", "smtp"])),
            ("exit", Uses::Only(&["config", "guard", "net", "host"])),
            ("status", Uses::Only(&["config", "smtp", "exit"])),
            (
                "logging",
                Uses::Only(&["config", "smtp", "guard", "status"]),
            ),
            ("agent", Uses::AllBut(&["commands"])),
            ("commands", Uses::AllBut(&[])),
            ("main", Uses::AllBut(&[])),
        ],
        is_bounded: true,
    },
    Package {
        name: "fuzz",
        crates: &[("nomail_fuzz", "src/lib.rs")],
        uses: &["nomail-agent", "nomail-common"],
        rooms: &[],
        is_bounded: false,
    },
    Package {
        name: "tests",
        crates: &[("nomail_tests", "src/lib.rs")],
        uses: &["nomail-agent", "nomail-common"],
        rooms: &[],
        is_bounded: false,
    },
    Package {
        name: "xtask",
        crates: &[("xtask", "src/main.rs")],
        uses: &["nomail-common"],
        rooms: &[],
        is_bounded: true,
    },
];

impl Package {
    /// Whether one of its rooms may use another; `None` for a room that is not in the table.
    pub(super) fn may_use(&self, from: &str, to: &str) -> Option<bool> {
        let uses = |name: &str| {
            let room = self.rooms.iter().find(|(room, _)| *room == name);
            room.map(|(_, uses)| *uses)
        };
        let (from, is_ground) = (uses(from)?, uses(to)? == Uses::Ground);
        Some(match from {
            Uses::Ground => is_ground,
            Uses::Only(rooms) => is_ground || rooms.contains(&to),
            Uses::AllBut(rooms) => !rooms.contains(&to),
        })
    }
}

/// The package of a file, and its room: `smtp` of `nomail-agent/src/smtp/dialog.rs`.
pub(super) fn room_of<'a>(
    path: &'a str,
    packages: &'a [Package],
) -> Option<(&'a Package, &'a str)> {
    let (name, rest) = path.split_once("/src/")?;
    let package = packages.iter().find(|package| package.name == name)?;
    let room = rest.split('/').next()?;
    Some((package, room.strip_suffix(".rs").unwrap_or(room)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::shell;

    /// The table as ARCHITECTURE.md has it.
    fn table() -> String {
        let quoted = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        };
        let of_package = |package: &Package| match package.uses {
            [] => "no other package".to_owned(),
            uses => quoted(uses),
        };
        let of_room = |uses: Uses| match uses {
            Uses::Ground => "each other: the ground".to_owned(),
            Uses::Only([]) => "the ground".to_owned(),
            Uses::Only(rooms) => format!("the ground, {}", quoted(rooms)),
            Uses::AllBut([]) => "all".to_owned(),
            Uses::AllBut(rooms) => format!("all except {}", quoted(rooms)),
        };
        let mut rows = Vec::new();
        for package in PACKAGES {
            rows.push(("the workspace", package.name, of_package(package)));
        }
        for package in PACKAGES {
            for (name, uses) in package.rooms {
                rows.push((package.name, *name, of_room(*uses)));
            }
        }
        let mut table = "| in | these | may use |\n|---|---|---|\n".to_owned();
        for rows in rows.chunk_by(|one, other| (one.0, &one.2) == (other.0, &other.2)) {
            let (place, _, uses) = &rows[0];
            let names: Vec<_> = rows.iter().map(|(_, name, _)| *name).collect();
            let place = match *place {
                "the workspace" => (*place).to_owned(),
                package => format!("`{package}`"),
            };
            table += &format!("| {place} | {} | {uses} |\n", quoted(&names));
        }
        for (name, package, folder) in WRAPPED {
            table += &format!("| `{package}` | only `{folder}` | `{name}` |\n");
        }
        table
    }

    #[test]
    fn the_architecture_states_the_table() {
        let file = shell::workspace().join("ARCHITECTURE.md");
        let (text, table) = (fs::read_to_string(file).unwrap(), table());
        assert!(
            text.contains(&format!("\n\n{table}\n")),
            "ARCHITECTURE.md is to have this below \"Dependencies\":\n{table}"
        );
    }

    #[test]
    fn each_room_is_named_once_and_uses_rooms_of_the_table() {
        for package in PACKAGES {
            let names: Vec<_> = package.rooms.iter().map(|(name, _)| *name).collect();
            for (place, (name, uses)) in package.rooms.iter().enumerate() {
                assert!(!names[..place].contains(name), "{name} is there twice");
                if let Uses::Only(rooms) | Uses::AllBut(rooms) = uses {
                    assert!(rooms.iter().all(|room| names.contains(room)), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_room_uses_the_ground_and_what_the_table_says() {
        let agent = PACKAGES
            .iter()
            .find(|package| package.name == "nomail-agent");
        let may_use = |from, to| agent.unwrap().may_use(from, to);
        assert_eq!(may_use("smtp", "text"), Some(true));
        assert_eq!(may_use("smtp", "config"), Some(false));
        assert_eq!(may_use("text", "smtp"), Some(false));
        assert_eq!(may_use("status", "smtp"), Some(true));
        assert_eq!(may_use("agent", "commands"), Some(false));
        assert_eq!(may_use("commands", "agent"), Some(true));
        assert_eq!(may_use("smtp", "nowhere"), None);
    }

    #[test]
    fn a_file_is_in_the_room_of_its_folder() {
        let room = |path| room_of(path, PACKAGES).map(|(package, room)| (package.name, room));
        assert_eq!(
            room("nomail-agent/src/smtp/a/b.rs"),
            Some(("nomail-agent", "smtp"))
        );
        assert_eq!(
            room("nomail-agent/src/cli.rs"),
            Some(("nomail-agent", "cli"))
        );
        assert_eq!(room("nomail-agent/tests/docs.rs"), None);
    }
}
