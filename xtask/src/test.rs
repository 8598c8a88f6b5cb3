//! Runs the tests, in tiers by what they need.

mod leftovers;
mod root;

use std::ffi::OsString;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::build::{self, Built, Profile};
use crate::tier::Tier;
use crate::{dist, mechanisms, shell, vm};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to run; by default host, bpf and netns
    #[arg(value_enum)]
    tiers: Vec<TierName>,
    /// The tier bpf with an XDP object that logs each step of a segment; `-- --nocapture`
    /// shows it
    #[arg(long)]
    trace: bool,
    /// Arguments of the test programs: a filter, --nocapture, …
    #[arg(last = true, value_name = "TEST ARGS")]
    test_args: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TierName {
    /// Unit, property and documentation tests; as the caller
    Host,
    /// Single packets through the XDP program in the kernel; as root
    Bpf,
    /// Agent and peers in network namespaces; as root
    Netns,
    /// The matrix of real senders; as root, on Debian. `-- --write` puts it into
    /// docs/senders.md, `-- NAME` selects senders
    Senders,
    /// The tiers bpf and netns on Debian's kernels 6.1 and 6.12, in virtual
    /// machines; as root, on Debian 12. `-- NAME` selects tests, `-- --kernel 6.1` a
    /// kernel
    Vm,
    /// Install, upgrade, remove and purge the packages; as root, on Debian
    Package,
    /// Switch off one mechanism after another in a copy of the sources, and check that
    /// its tests fail; as root, half an hour. `-- WORD` selects mechanisms. Not in `all`
    Mechanisms,
    /// All of these but `mechanisms`
    All,
}

/// The tiers with these names, each once, in order of cost.
fn tiers_of(names: &[TierName]) -> Vec<Tier> {
    let all = names.contains(&TierName::All);
    [
        (TierName::Host, Tier::Host),
        (TierName::Bpf, Tier::Bpf),
        (TierName::Netns, Tier::Netns),
        (TierName::Senders, Tier::Senders),
        (TierName::Vm, Tier::Vm),
        (TierName::Package, Tier::Package),
        (TierName::Mechanisms, Tier::Mechanisms),
    ]
    .into_iter()
    .filter(|(name, tier)| {
        // They take many minutes, and install packages into roots of their own.
        let extra = [Tier::Senders, Tier::Vm, Tier::Package].contains(tier);
        let mechanisms = *tier == Tier::Mechanisms;
        let default = names.is_empty() && !extra;
        ((all || default) && !mechanisms) || names.contains(name)
    })
    .map(|(_, tier)| tier)
    .collect()
}

/// Builds what the tests need and runs them; a failing tier does not stop the next.
///
/// # Errors
/// When something cannot be built, or any tier fails.
pub(crate) fn test(args: &Args) -> Result<()> {
    let tiers = tiers_of(&args.tiers);
    let built = if !args.trace {
        build::build(Profile::Debug)?
    } else if tiers == [Tier::Bpf] {
        build::build_traced(Profile::Debug)?
    } else {
        bail!("--trace is of the tier bpf alone: cargo xtask test bpf --trace");
    };
    let mut results = Vec::new();
    for tier in tiers {
        shell::say(format!("testing tier {tier}"));
        let start = Instant::now();
        let verdict = match tier {
            Tier::Host => host(&built, &args.test_args),
            Tier::Bpf | Tier::Netns | Tier::Senders => with_root(tier, &built, &args.test_args),
            Tier::Vm => vm::test(&built, &args.test_args).map(|()| Verdict::Passed),
            Tier::Mechanisms => mechanisms::test(&args.test_args).map(|()| Verdict::Passed),
            Tier::Package => {
                dist::dist_all().and_then(|()| with_root(tier, &built, &args.test_args))
            }
        };
        let verdict = verdict.unwrap_or_else(|err| {
            shell::report(&err);
            Verdict::Failed
        });
        results.push((tier, verdict, start.elapsed().as_secs()));
    }
    let summary = summary(&results);
    let all = |verdict| results.iter().all(|(_, of_tier, _)| *of_tier == verdict);
    if all(Verdict::NothingToRun) {
        bail!("{summary}: no test has that name");
    }
    if results
        .iter()
        .any(|(_, of_tier, _)| *of_tier == Verdict::Failed)
    {
        bail!("{summary}");
    }
    shell::say(summary);
    Ok(())
}

/// The result of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// No test was selected. It must not look as if it had passed.
    NothingToRun,
}

fn summary(results: &[(Tier, Verdict, u64)]) -> String {
    let tiers: Vec<_> = results
        .iter()
        .map(|(tier, verdict, secs)| {
            let verdict = match verdict {
                Verdict::Passed => "passed",
                Verdict::Failed => "FAILED",
                Verdict::NothingToRun => "has NOTHING TO RUN",
            };
            format!("{tier} {verdict} ({secs} s)")
        })
        .collect();
    format!("tests: {}", tiers.join(", "))
}

fn host(built: &Built, test_args: &[OsString]) -> Result<Verdict> {
    let mut cargo = shell::cargo()?;
    cargo
        .args(["test", "--locked", "--no-fail-fast", "--"])
        .args(test_args)
        .env(build::OBJECT, &built.object);
    shell::check(&mut cargo)?;
    Ok(Verdict::Passed)
}

fn with_root(tier: Tier, built: &Built, test_args: &[OsString]) -> Result<Verdict> {
    let any = root::run(tier, built, test_args)?;
    Ok(if any {
        Verdict::Passed
    } else {
        Verdict::NothingToRun
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_tiers() {
        let all = vec![
            Tier::Host,
            Tier::Bpf,
            Tier::Netns,
            Tier::Senders,
            Tier::Vm,
            Tier::Package,
        ];
        assert_eq!(tiers_of(&[]), all[..3]);
        assert_eq!(tiers_of(&[TierName::Senders]), [Tier::Senders]);
        assert_eq!(tiers_of(&[TierName::Bpf, TierName::All]), all);
        assert_eq!(tiers_of(&[TierName::Mechanisms]), [Tier::Mechanisms]);
        assert_eq!(
            tiers_of(&[TierName::Netns, TierName::Host, TierName::Host]),
            [Tier::Host, Tier::Netns]
        );
    }

    #[test]
    fn one_line_tells_all() {
        let line = summary(&[
            (Tier::Host, Verdict::Passed, 3),
            (Tier::Bpf, Verdict::Failed, 1),
            (Tier::Netns, Verdict::NothingToRun, 0),
        ]);
        assert_eq!(
            line,
            "tests: host passed (3 s), bpf FAILED (1 s), netns has NOTHING TO RUN (0 s)"
        );
    }
}
