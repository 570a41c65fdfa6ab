//! What a doorbell costs: from the guest's register write to commands on the ring and the SYNC complete, on a device
//! that needs no time. Printed as ratios to the floor (`floor.rs`) in one run, medians of interleaved rounds; criterion
//! reports follow.
//!
//! `cargo bench -p viommu --bench doorbell` (add `-- --quick` for a short run).

mod alloc_count;
mod floor;
mod guest;

use criterion::{Criterion, Throughput};
use floor::{Ids, Ring};
use guest::{Guest, recorded_doorbells};
use std::hint::black_box;
use std::time::Instant;

/// Interleaved rounds of which the median counts.
const ROUNDS: usize = 41;

/// Batch sizes, SYNC included.
const BATCHES: [usize; 3] = [64, 8, 2];

fn main() {
    ratios();
    let mut criterion = Criterion::default().configure_from_args();
    for batch in BATCHES {
        let mut guest = Guest::repeating(batch);
        let mut group = criterion.benchmark_group(format!("batch-{batch}"));
        group.throughput(Throughput::Elements(batch as u64));
        let words = guest.batch_words();
        let (mut ring, ids) = (Ring::new(13), floor_ids());
        group.bench_function("floor", |bench| bench.iter(|| ring.submit(black_box(&words), &ids)));
        group.bench_function("doorbell", |bench| bench.iter(|| guest.ring_doorbell()));
        group.finish();
    }
    criterion.final_summary();
}

fn floor_ids() -> Ids {
    Ids { vmid: 7, streams: (0..1024).map(|stream| stream + 0x400).collect() }
}

fn ratios() {
    println!("{:<34} {:>10} {:>10} {:>8}", "", "ns", "floor ns", "of floor");
    for batch in BATCHES {
        let mut guest = Guest::repeating(batch);
        let words = guest.batch_words();
        // The floor adds the SYNC itself.
        let words = &words[..words.len() - 2];
        let (mut ring, ids) = (Ring::new(13), floor_ids());
        let repeat = 200_000 / batch;
        let (mut ours, mut floors) = (Vec::new(), Vec::new());
        let allocations = alloc_count::count(|| {
            for _ in 0..4 * batch {
                guest.ring_doorbell();
            }
        });
        for _ in 0..ROUNDS {
            floors.push(per_call(repeat, || {
                black_box(ring.submit(black_box(words), &ids));
            }));
            ours.push(per_call(repeat, || guest.ring_doorbell()));
        }
        let (ours, floor) = (median(&mut ours), median(&mut floors));
        let name = format!("doorbell to ring, batch {batch}");
        println!("{name:<34} {ours:>10.1} {floor:>10.1} {:>8.2}", floor / ours);
        println!("{:<34} {allocations:>10}", format!("allocations in {} batches", 4 * batch));
    }
    let doorbells = recorded_doorbells();
    let mut guest = Guest::recorded(&doorbells);
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| guest.ring_recorded()).collect();
    let commands: usize = doorbells.iter().map(|words| words.len() / 2).sum();
    println!(
        "{:<34} {:>10.1}   ({} doorbells of a recorded guest, {:.2} commands each)",
        "recorded mix, a doorbell",
        median(&mut rounds),
        doorbells.len(),
        commands as f64 / doorbells.len() as f64,
    );
}

fn per_call(repeat: usize, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..repeat {
        call();
    }
    start.elapsed().as_nanos() as f64 / repeat as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
