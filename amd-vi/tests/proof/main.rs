//! Proof by exhaustion that the codec lets nothing pass but what the tables of this folder allow, for every set of
//! features that matters; and that the prover finds a codec that is wrong in one bit.

mod command_table;
mod commands;
mod entries;
mod entry_table;
mod mutants;
mod physical;
mod shown;

/// Calls `body` with every number below `sets`, from two threads; the sum of what it gives.
fn in_two_threads(sets: u32, body: impl Fn(u32) -> u64 + Sync) -> u64 {
    let half = |odd: u32| (0..sets).filter(|set| set % 2 == odd).map(&body).sum::<u64>();
    std::thread::scope(|scope| {
        let odd = scope.spawn(|| half(1));
        half(0) + odd.join().expect("the other half is proven too")
    })
}
