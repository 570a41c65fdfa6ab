//! Seeds on threads, outcomes in order.

use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use viommu_sim::{Options, Outcome, Plan, Vendor};

/// Threads with this name tell worlds; a panic in one is a finding, and found by whoever runs it.
const NAME: &str = "viommu-sim";

/// Runs these seeds, each on the IOMMU that `vendor` says, and hands on each outcome, in the order of the seeds.
pub(super) fn seeds(
    seeds: Range<u64>,
    vendor: impl Fn(u64) -> Vendor + Copy + Send,
    threads: usize,
    options: Options,
    mut done: impl FnMut(u64, Outcome),
) {
    silence();
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} seeds {eta}").ok();
    let bar = ProgressBar::new(seeds.end - seeds.start);
    let bar = if let Some(style) = style { bar.with_style(style) } else { bar };
    let next = AtomicU64::new(seeds.start);
    let (sender, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next, end) = (sender.clone(), &next, seeds.end);
            let work = move || {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < end) {
                    if sender.send((seed, viommu_sim::run(&Plan::of(vendor(seed), seed), options))).is_err() {
                        return;
                    }
                }
            };
            if let Err(error) = worker().spawn_scoped(scope, work) {
                tracing::error!(%error, "a thread less");
            }
        }
        drop(sender);
        let (mut early, mut expected) = (BTreeMap::new(), seeds.start);
        for (seed, outcome) in outcomes {
            bar.inc(1);
            early.insert(seed, outcome);
            while let Some(outcome) = early.remove(&expected) {
                done(expected, outcome);
                expected += 1;
            }
        }
    });
    bar.finish_and_clear();
}

/// A thread that tells worlds.
pub(crate) fn worker() -> thread::Builder {
    thread::Builder::new().name(NAME.into())
}

/// Does something that tells worlds.
pub(crate) fn quietly<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match worker().spawn_scoped(scope, work) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
        Err(error) => panic!("{error}"),
    })
}

/// Planned panics are part of the story: nobody wants a backtrace of each.
pub(crate) fn silence() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() != Some(NAME) {
            before(info);
        }
    }));
}
