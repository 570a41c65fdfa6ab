//! `viommu sim`: random guests and faults in a deterministic simulation, judged by an oracle.

mod log;
mod run;

pub(crate) use run::{quietly, silence, worker};

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use viommu_sim::{Counters, Injection, Options, Outcome, Plan, Vendor, Violation, shrink};

/// Exit status of a command line that cannot be carried out.
const BAD_USE: u8 = 2;

/// Run whole hosts with random guests and faults, one after the other, each told by its seed.
///
/// A seed draws one IOMMU (each vendor's in turn, unless --vendor says which), one to four virtual machines, what their guests do (maps, unmaps, table changes, invalidations in batches
/// with and without SYNC, resets, devices that come and go, attacks), what fails, and the order in which everything
/// happens. Every DMA is judged: nothing that a guest invalidated is used after the guest has seen its SYNC, nothing
/// reaches another machine, and at the end every object, tag and byte is back. The same seed is the same story, byte for
/// byte. See docs/simulation.md.
///
/// Exit status: 0 if every seed passed, 1 if one failed, 2 if the command line is wrong. The last line of standard output
/// is the verdict.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Seeds to run
    #[arg(long, value_name = "N")]
    seeds: NonZeroU64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    first: u64,
    /// The IOMMU of every seed (arm-smmuv3, amd-vi, intel-vtd); default: each in turn, by the seed
    #[arg(long, value_name = "NAME")]
    vendor: Option<Vendor>,
    /// Threads, each with worlds of its own; default: one for each processor
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Write everything that happened, seed by seed; - for standard output
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Break something on purpose, to see the oracle complain
    #[arg(long, value_name = "NAME", long_help = injections())]
    inject: Option<Injection>,
    /// Show a failed seed's whole story instead of the shortest one that fails alike
    #[arg(long)]
    no_shrink: bool,
    /// Print the verdict as one JSON object
    #[arg(long)]
    json: bool,
}

fn injections() -> String {
    let line = |injection: &Injection| format!("{} ({})", injection.name(), injection.clause().name());
    let all: Vec<_> = Injection::ALL.iter().map(line).collect();
    format!("Break something on purpose, to see the oracle complain (by which clause): {}", all.join(", "))
}

impl Args {
    /// Whose IOMMU a seed tells of.
    fn vendor_of(&self, seed: u64) -> Vendor {
        self.vendor.unwrap_or_else(|| Vendor::of(seed))
    }
}

/// What a run of seeds came to.
struct Summary {
    first: u64,
    seeds: u64,
    /// Seeds of each vendor.
    vendors: BTreeMap<Vendor, u64>,
    /// In the order of the seeds.
    failed: Vec<(u64, Violation)>,
    steps: u64,
    counters: Counters,
    seconds: f64,
}

pub(crate) fn run(args: Args) -> ExitCode {
    let Some(end) = args.first.checked_add(args.seeds.get()) else {
        eprintln!("viommu sim: there is no seed {} + {}", args.first, args.seeds);
        return ExitCode::from(BAD_USE);
    };
    let mut log = match args.log.as_deref().map(log::Log::create).transpose() {
        Ok(log) => log,
        Err(error) => {
            eprintln!("viommu sim: {error}");
            return ExitCode::from(BAD_USE);
        }
    };
    let threads =
        args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |t| t as usize);
    let options = Options { log: log.is_some(), injection: args.inject };
    let start = Instant::now();
    let (mut failed, mut steps, mut counters) = (Vec::new(), 0, Counters::default());
    let mut broken = None;
    let chosen = args.vendor;
    let vendor = move |seed| chosen.unwrap_or_else(|| Vendor::of(seed));
    let mut vendors = BTreeMap::new();
    run::seeds(args.first..end, vendor, threads, options, |seed, outcome: Outcome| {
        *vendors.entry(vendor(seed)).or_default() += 1;
        steps += outcome.steps;
        counters.merge(&outcome.counters);
        if let Some(log) = &mut log
            && let Err(error) = log.seed(vendor(seed), seed, &outcome)
        {
            broken.get_or_insert(error);
        }
        failed.extend(outcome.violation.map(|violation| (seed, violation)));
    });
    if let Some(error) = broken {
        eprintln!("viommu sim: the log cannot be written: {error}");
        return ExitCode::from(BAD_USE);
    }
    let seconds = start.elapsed().as_secs_f64();
    let summary = Summary { first: args.first, seeds: args.seeds.get(), vendors, failed, steps, counters, seconds };
    summary.show(&args);
    if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Summary {
    fn show(&self, args: &Args) {
        let story = self.failed.first().map(|(seed, violation)| tell(*seed, violation, args));
        if args.json {
            // Whoever reads this reads no story.
            story.iter().for_each(|story| eprint!("{story}"));
            println!("{}", self.json());
            return;
        }
        println!("{}", self.happened());
        story.iter().for_each(|story| print!("{story}"));
        println!("{}", self.verdict());
    }

    /// What happened how often, a line for each kind of thing.
    fn happened(&self) -> String {
        let mut lines: Vec<(&str, String)> = Vec::new();
        for (name, n) in self.counters.iter() {
            let (kind, what) = name.split_once('.').unwrap_or((name, ""));
            match lines.last_mut() {
                Some((last, line)) if *last == kind => line.push_str(&format!(", {what} {n}")),
                _ => lines.push((kind, format!("{what} {n}"))),
            }
        }
        let lines: Vec<_> = lines.into_iter().map(|(kind, line)| format!("{kind:<11} {line}")).collect();
        lines.join("\n")
    }

    fn verdict(&self) -> String {
        let Self { first, seeds, vendors, failed, steps, counters, seconds } = self;
        let vendors: Vec<_> = vendors.iter().map(|(vendor, seeds)| format!("{} {seeds}", vendor.name())).collect();
        let vendors = vendors.join(", ");
        let end = first + seeds;
        let (judged, seen) = (counters.get("dma.judged"), counters.get("sync.seen"));
        let work = format!("{steps} steps, {judged} DMA judged, {seen} SYNCs seen, {seconds:.1} s");
        match failed.first() {
            None => format!("sim: {seeds} seeds passed ({first}..{end}: {vendors}), {work}"),
            Some((seed, violation)) => {
                let count = failed.len();
                let clause = violation.clause.name();
                format!(
                    "sim: {count} of {seeds} seeds failed ({first}..{end}: {vendors}), the first is {seed} ({clause}), {work}"
                )
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        let vendors: BTreeMap<_, _> = self.vendors.iter().map(|(vendor, seeds)| (vendor.name(), seeds)).collect();
        let failed = self.failed.iter().map(|(seed, violation)| {
            serde_json::json!({ "seed": seed, "clause": violation.clause.name(), "vm": violation.vm, "what": violation.what })
        });
        serde_json::json!({
            "first": self.first,
            "seeds": self.seeds,
            "vendors": vendors,
            "passed": self.failed.is_empty(),
            "failed": failed.collect::<Vec<_>>(),
            "steps": self.steps,
            "seconds": self.seconds,
            "counters": self.counters,
        })
    }
}

/// The story of a failed seed, as short as it gets.
fn tell(seed: u64, violation: &Violation, args: &Args) -> String {
    let options = Options { log: false, injection: args.inject };
    let vendor = args.vendor_of(seed);
    let whole = Plan::of(vendor, seed);
    let (plan, violation) = if args.no_shrink {
        (whole.clone(), violation.clone())
    } else {
        let short = run::quietly(|| shrink(&whole, violation.clause, options));
        let found = short.1.violation.unwrap_or_else(|| violation.clone());
        (short.0, found)
    };
    let inject = args.inject.map_or_else(String::new, |injection| format!(" --inject {}", injection.name()));
    format!(
        "seed {seed} failed: {violation}\nits story ({} of {} parts):\n{plan}to repeat it: viommu sim --vendor {} --first {seed} --seeds 1{inject} --log -\n",
        plan.size(),
        whole.size(),
        vendor.name()
    )
}
