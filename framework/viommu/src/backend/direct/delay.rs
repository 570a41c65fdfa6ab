//! Replay time of [`ModelMode::Delayed`](super::ModelMode::Delayed): when each command on the ring may execute.

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use viommu_plugin::RingGeometry;

/// Delays are drawn from `0..=LONGEST` events.
const LONGEST: u32 = 64;

/// Clock and schedule. Pure: the same calls give the same answers.
pub(super) struct Delay {
    draw: Pcg32,
    now: u64,
    /// By command on the ring, oldest first: the time before which it does not execute.
    turns: VecDeque<u64>,
    producer: u32,
    shift: u32,
    mask: u32,
}

impl Delay {
    /// Starts at time 0 with an empty ring whose producer register holds `producer`.
    pub(super) fn new(seed: u64, ring: &RingGeometry, producer: u64) -> Self {
        let mask = ((1u64 << (ring.log2_commands + ring.wrap_bit)) - 1) as u32;
        let producer = (producer >> ring.index_shift) as u32 & mask;
        let turns = VecDeque::with_capacity(1 << ring.log2_commands.min(20));
        Self { draw: Pcg32::seed_from_u64(seed), now: 0, turns, producer, shift: ring.index_shift, mask }
    }

    /// The producer register was written: each command behind the old index is an event, and draws its delay.
    pub(super) fn put(&mut self, register: u64) {
        let producer = (register >> self.shift) as u32 & self.mask;
        let commands = producer.wrapping_sub(self.producer) & self.mask;
        self.producer = producer;
        for _ in 0..commands {
            self.now += 1;
            let delay = (u64::from(self.draw.next_u32()) * u64::from(LONGEST + 1)) >> 32;
            self.turns.push_back(self.now + delay);
        }
    }

    /// One event that puts no command on the ring.
    pub(super) fn tick(&mut self) {
        self.now += 1;
    }

    /// Somebody waits for the queue: time goes on to the turn of the oldest command.
    pub(super) fn skip(&mut self) {
        if let Some(&turn) = self.turns.front() {
            self.now = self.now.max(turn);
        }
    }

    /// How many commands, from the oldest, may execute now: those up to the first whose turn has not come.
    pub(super) fn due(&self) -> u32 {
        self.turns.iter().take_while(|&&turn| turn <= self.now).count() as u32
    }

    /// Whether every command put on the ring was executed.
    pub(super) fn is_idle(&self) -> bool {
        self.turns.is_empty()
    }

    /// The oldest `commands` were executed.
    pub(super) fn executed(&mut self, commands: u32) {
        let known = self.turns.len().min(commands as usize);
        self.turns.drain(..known);
    }
}
