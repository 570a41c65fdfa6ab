//! QEMU's SMMUv3 as the referee: each thread has a QEMU, each seed is a story on it and on the model.

use crate::sim::{quietly, silence, worker};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use viommu_qemu::{DEATHS, EXCEPTIONS, Options, QemuError, QemuHardware, Referee, Sabotage, Teller};
use viommu_sim::{Counters, Outcome, Plan, Violation};

/// Exit status of a run that could not take place.
const NO_REFEREE: u8 = 2;

/// Run random guests on the software SMMUv3 and on QEMU's emulated SMMUv3 at once.
///
/// Both are programmed by the same driver, below the same host, on the same memory; QEMU executes each command when
/// the model has. Some of the devices' DMA is done by QEMU's `edu` devices too: where it lands, or which event record
/// comes, must be what the guests may get (as in `viommu sim`), and with nothing cached it must be what the model says,
/// bit by bit. Differences that are QEMU's are known by name. See docs/qemu-referee.md.
///
/// Exit status: 0 if every seed passed, or if there is no QEMU (the last line then begins with SKIPPED); 1 if one
/// failed; 2 if QEMU cannot be used. The last line of standard output is the verdict.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// Seeds to run
    #[arg(long, value_name = "N")]
    seeds: NonZeroU64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Threads, each with a QEMU of its own; default: one for each processor
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: Option<u32>,
    /// Show a failed seed's whole story instead of the shortest one that fails alike
    #[arg(long)]
    no_shrink: bool,
    /// Break something on purpose between the model and QEMU, to see the referee complain: drop-invalidation,
    /// drop-configuration, other-table, skip-doorbell, wrong-fault, wrong-address, wrong-record, stray-write
    #[arg(long, value_name = "NAME")]
    inject: Option<Sabotage>,
    /// Print the verdict as one JSON object
    #[arg(long)]
    json: bool,
}

/// A story that ended badly.
struct Failed {
    seed: u64,
    violation: Violation,
    /// How far it had come: things that had happened.
    step: u64,
}

/// What all threads add to.
#[derive(Default)]
struct Sum {
    counters: Counters,
    failed: Vec<Failed>,
    told: u64,
    version: String,
    /// Why a thread has no QEMU.
    broken: Option<QemuError>,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let processors = || thread::available_parallelism().map_or(1, usize::from) as u32;
    let threads = u64::from(args.threads.unwrap_or_else(processors)).min(args.seeds.get());
    let (start, sum) = (Instant::now(), Mutex::new(Sum::default()));
    silence();
    let bar = ProgressBar::new(args.seeds.get());
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds {eta}").ok();
    let bar = if let Some(style) = style { bar.with_style(style) } else { bar };
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            let work = || {
                if let Err(error) = judge(args, &next, &sum, &bar) {
                    add(&sum, |sum| sum.broken = Some(error));
                }
            };
            if let Err(error) = worker().spawn_scoped(scope, work) {
                tracing::error!(%error, "a thread less");
            }
        }
    });
    bar.finish_and_clear();
    let mut sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    sum.failed.sort_by_key(|failed| failed.seed);
    match &sum.broken {
        Some(QemuError::Missing(program)) => {
            println!("SKIPPED: {program} is not installed: nothing was compared");
            return ExitCode::SUCCESS;
        }
        Some(error) => {
            eprintln!("viommu referee qemu: {error}");
            return ExitCode::from(NO_REFEREE);
        }
        None => {}
    }
    sum.show(args, start.elapsed().as_secs_f64());
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One thread: seeds, as long as there are any.
fn judge(args: &Args, next: &AtomicU64, sum: &Mutex<Sum>, bar: &ProgressBar) -> Result<(), QemuError> {
    let teller = teller(args.inject)?;
    add(sum, |sum| sum.version = teller.version());
    while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < args.seeds.get()) {
        let seed = args.seed.wrapping_add(at);
        let outcome = teller.tell(&Teller::plan(seed));
        bar.inc(1);
        add(sum, |sum| {
            sum.told += 1;
            sum.counters.merge(&outcome.counters);
            let step = outcome.steps;
            sum.failed.extend(outcome.violation.map(|violation| Failed { seed, violation, step }));
        });
    }
    Ok(())
}

fn teller(inject: Option<Sabotage>) -> Result<Teller, QemuError> {
    Teller::new(move || {
        let referee = Referee::new(QemuHardware::start(Options::default())?)?;
        Ok(match inject {
            Some(sabotage) => referee.sabotaged(sabotage),
            None => referee,
        })
    })
}

fn add(sum: &Mutex<Sum>, change: impl FnOnce(&mut Sum)) {
    change(&mut sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

impl Sum {
    fn show(&self, args: &Args, seconds: f64) {
        let story = self.failed.first().map(|failed| tell(failed, args));
        if args.json {
            // Whoever reads this reads no story.
            story.iter().for_each(|story| eprint!("{story}"));
            println!("{}", self.json(args, seconds));
            return;
        }
        for exception in EXCEPTIONS {
            println!("{:<22} {:>6} times: {}", exception.name, self.counters.get(exception.counter), exception.why);
        }
        for death in DEATHS {
            println!("{:<22} {:>6} times: {}", death.name, self.counters.get(death.counter), death.why);
        }
        story.iter().for_each(|story| print!("{story}"));
        for Failed { seed, violation, step } in self.failed.iter().skip(1) {
            let what = violation.what.lines().next().unwrap_or_default();
            println!("seed {seed} failed at step {step} ({}): {what}", violation.clause.name());
        }
        println!("{}", self.verdict(args, seconds));
    }

    fn verdict(&self, args: &Args, seconds: f64) -> String {
        let Self { told, failed, version, .. } = self;
        let [dma, cold, cached] =
            ["second.dma", "second.cold", "second.differs-by-cache"].map(|name| self.counters.get(name));
        let end = match failed.first() {
            None => format!("{told} seeds passed"),
            Some(Failed { seed, violation, .. }) => {
                format!("{} of {told} seeds failed, the first is {seed} ({})", failed.len(), violation.clause.name())
            }
        };
        format!(
            "referee: {end} ({}.., QEMU {version}), {dma} DMA by QEMU, {cached} apart by what was cached, {cold} compared bit \
             by bit, {seconds:.1} s",
            args.seed
        )
    }

    fn json(&self, args: &Args, seconds: f64) -> serde_json::Value {
        let failed = self.failed.iter().map(|Failed { seed, violation, step }| {
            let Violation { clause, vm, what, .. } = violation;
            json!({ "seed": seed, "step": step, "clause": clause.name(), "vm": vm, "what": what })
        });
        json!({
            "first": args.seed,
            "seeds": self.told,
            "qemu": self.version,
            "passed": self.failed.is_empty(),
            "failed": failed.collect::<Vec<_>>(),
            "seconds": seconds,
            "counters": self.counters,
        })
    }
}

/// The story of a failed seed, as short as it gets.
fn tell(failed: &Failed, args: &Args) -> String {
    let Failed { seed, violation, step } = failed;
    let whole = Teller::plan(*seed);
    let shortened = || {
        let teller = teller(args.inject).ok()?;
        Some(quietly(|| teller.shorten(&whole, violation.clause)))
    };
    let shorter = if args.no_shrink { None } else { shortened() };
    let ended = |(plan, outcome): (Plan, Outcome)| Some((plan, outcome.violation?, outcome.steps));
    let (plan, violation, step) = shorter.and_then(ended).unwrap_or_else(|| (whole.clone(), violation.clone(), *step));
    let inject = args.inject.map(|inject| format!(" --inject {}", inject.name())).unwrap_or_default();
    format!(
        "seed {seed} failed at step {step}: {violation}\nits story ({} of {} parts):\n{plan}\
         to repeat it: viommu referee qemu --seed {seed} --seeds 1{inject}\n",
        plan.size(),
        whole.size(),
    )
}
