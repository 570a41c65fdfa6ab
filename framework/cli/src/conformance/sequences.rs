//! Random sequences, on one iommufd or compared between two.

use super::{Args, opened};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::process::ExitCode;
use viommu_conformance::{Memory, Software, compare, errno_name, hash, plan, replay, shrink};

/// Differences of as many kinds are shrunk and shown; the others are counted.
const SHOWN: usize = 10;

pub(super) fn run(args: &Args, count: u64, memory: &Memory) -> Result<ExitCode, String> {
    let end = args.first.checked_add(count).ok_or("there are not that many sequences")?;
    let open = opened(args, memory)?;
    let refused = |errno| format!("open: {}", errno_name(errno));
    let mut log = match &args.log {
        Some(path) => Some(BufWriter::new(File::create(path).map_err(|error| format!("{}: {error}", path.display()))?)),
        None => None,
    };
    let known = args.against.as_deref().map(read).transpose()?;
    let (mut steps, mut differing) = (0, 0);
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for number in args.first..end {
        let plan = plan(args.seed, number);
        steps += plan.len();
        // A comparison replays by itself.
        if args.kernel.is_none() || log.is_some() || known.is_some() || args.steps {
            let lines = replay(&plan, &*open, memory).map_err(refused)?;
            let got = hash(&lines);
            if let Some(log) = &mut log {
                writeln!(log, "{} {number} {got:016x}", args.seed).map_err(|error| format!("the log: {error}"))?;
            }
            if args.steps {
                println!("sequence {number} of seed {}", args.seed);
                plan.iter().zip(&lines).for_each(|(step, line)| println!("  {step}\n    {line}"));
            }
            if let Some(known) = &known {
                let wanted = known.get(&(args.seed, number)).ok_or(format!("sequence {number} is not in the file"))?;
                if *wanted != got {
                    differing += 1;
                    let again = format!("--seed {} --first {number} --sequences 1", args.seed);
                    println!("sequence {number} differs; on a kernel: viommu conformance --kernel /dev/iommu {again}");
                }
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
    for (kind, count) in &kinds {
        println!("{count:6} {kind}");
    }
    println!("conformance: {count} sequences of seed {}, {steps} steps, {differing} differ", args.seed);
    Ok(if differing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The hashes in a file, by seed and sequence.
fn read(path: &std::path::Path) -> Result<BTreeMap<(u64, u64), u64>, String> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut known = BTreeMap::new();
    for line in BufReader::new(File::open(path).map_err(|error| named(&error))?).lines() {
        let line = line.map_err(|error| named(&error))?;
        let words: Vec<_> = line.split(' ').collect();
        let [seed, number, hash] = words[..] else { return Err(named(&"not a log of sequences")) };
        let parsed = (seed.parse(), number.parse(), u64::from_str_radix(hash, 16));
        let (Ok(seed), Ok(number), Ok(hash)) = parsed else { return Err(named(&"not a log of sequences")) };
        known.insert((seed, number), hash);
    }
    Ok(known)
}
