//! Synthetic guests: seeded drivers that never ran anywhere write recordings in the format of the real ones, and an
//! oracle that is as simple as can be says what every DMA must see.
//!
//! ```text
//!   seed ─► guest (domains, maps, DMA) ─► driver of a vendor ─► memory, commands, registers ──► Writer ─► .gtrace.zst
//!                    │                                              │                             ▲
//!                    └────────── DMA to settled addresses ──► translate (no cache) ─► TRANSLATION ┘
//! ```
//!
//! No recorded guest uses guest (GCR3) tables of AMD, two devices in one domain number, tables of five levels, or pages
//! of 16 KiB in the middle of a table. These do. What a replay of one shows has the evidence letter **M**: the guest is
//! made up, and so is its answer. The answer's arithmetic is apart from that of the vendors' models: no code is shared.
//!
//! The same recipe gives the same bytes.
#![forbid(unsafe_code)]

mod draw;
mod guest;
mod kind;
mod memory;
mod recorder;
mod tables;
mod toy;
mod translate;

pub use kind::Kind;

use recorder::Recorder;
use serde_json::json;
use std::io::{self, Write};
use viommu_trace::Header;

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Which IOMMU, in which mode.
    pub kind: Kind,
    /// What the guest does, and what its hardware offers.
    pub seed: u64,
    /// How long it lives: a step is one thing of maps, unmaps, DMA, flushes, changes of devices and domains.
    pub steps: u32,
    /// Zstandard, or plain.
    pub compressed: bool,
}

/// Writes the recording of a guest that never ran, and gives the output back.
///
/// # Errors
/// Those of the output.
pub fn generate<W: Write>(recipe: &Recipe, output: W) -> io::Result<W> {
    let mut plan = kind::plan(recipe.kind, recipe.seed);
    describe(&mut plan.header, &recipe.kind.to_string(), recipe.seed, recipe.steps);
    let mut recorder = Recorder::new(output, &plan.header, recipe.compressed)?;
    plan.live(&mut recorder, recipe.steps);
    recorder.finish()
}

/// As [`generate`], of a guest of the toy IOMMU (`examples/toy-iommu.md`), of which nothing is like the others'.
///
/// # Errors
/// Those of the output.
pub fn generate_toy<W: Write>(seed: u64, steps: u32, compressed: bool, output: W) -> io::Result<W> {
    let mut header = toy::header();
    describe(&mut header, "toy", seed, steps);
    let mut recorder = Recorder::new(output, &header, compressed)?;
    toy::Toy::new(seed).live(&mut recorder, steps);
    recorder.finish()
}

/// Writes into a header what it is the recording of.
fn describe(header: &mut Header, kind: &str, seed: u64, steps: u32) {
    header.name = format!("synthetic-{kind}-{seed}");
    let json = &mut header.json;
    json.insert("synthetic".into(), json!(true));
    json.insert("kind".into(), json!(kind));
    json.insert("seed".into(), json!(seed));
    json.insert("steps".into(), json!(steps));
}
