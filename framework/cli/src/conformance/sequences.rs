//! Random sequences, on one iommufd or compared between two.

use super::{Args, opened};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use viommu_conformance::{Log, Logged, Memory, Software, compare, errno_name, plan, replay, shrink};

/// Differences of as many kinds are shrunk and shown; the others are counted.
const SHOWN: usize = 10;

pub(super) fn run(args: &Args, count: u64, memory: &Memory) -> Result<ExitCode, String> {
    let end = args.first.checked_add(count).ok_or("there are not that many sequences")?;
    let open = opened(args, memory)?;
    let refused = |errno| format!("open: {}", errno_name(errno));
    let mut log = args.log.as_ref().map(|_| Log::new(args.seed, &whose(args)));
    let known = args.against.as_deref().map(read).transpose()?;
    let (mut steps, mut differing) = (0, 0);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for number in args.first..end {
        let plan = plan(args.seed, number);
        steps += plan.len();
        // A comparison replays by itself.
        if args.kernel.is_none() || log.is_some() || known.is_some() || args.steps {
            let lines = replay(&plan, &*open, memory).map_err(refused)?;
            let now = Logged::of(&plan, &lines);
            if let Some(log) = &mut log {
                log.sequences.insert(number, now);
            }
            if args.steps {
                println!("sequence {number} of seed {}", args.seed);
                plan.iter().zip(&lines).for_each(|(step, line)| println!("  {step}\n    {line}"));
            }
            if let Some(known) = &known
                && !known.agrees(args.seed, number, now).map_err(|stale| stale.to_string())?
            {
                differing += 1;
                let again = format!("--seed {} --first {number} --sequences 1", args.seed);
                println!("sequence {number} differs; on a kernel: viommu conformance --kernel /dev/iommu {again}");
            }
        }
        if args.kernel.is_some()
            && let Some(found) = compare(&plan, [&*open, &Software], memory).map_err(refused)?
        {
            differing += 1;
            let kind = found.kind();
            let seen = kinds.entry(kind).or_default();
            *seen += 1;
            if *seen == 1 && kinds.len() <= SHOWN {
                let short = shrink(found, [&*open, &Software], memory).map_err(refused)?;
                println!("sequence {number} differs (1: kernel, 2: software):\n{short}\n");
            }
        }
    }
    if let (Some(log), Some(path)) = (&log, &args.log) {
        fs::write(path, log.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for (kind, count) in &kinds {
        println!("{count:6} {kind}");
    }
    println!("conformance: {count} sequences of seed {}, {steps} steps, {differing} differ", args.seed);
    Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A log that was kept.
fn read(path: &Path) -> Result<Log, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Log::parse(&text).map_err(|stale| format!("{}: {stale}", path.display()))
}

/// Whose answers a log has.
fn whose(args: &Args) -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match args.kernel {
        Some(_) => format!("Linux {} {}", release.trim(), std::env::consts::ARCH),
        None => "the software iommufd".into(),
    }
}
