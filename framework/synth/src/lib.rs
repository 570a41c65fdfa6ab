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
mod translate;

pub use kind::Kind;

use recorder::Recorder;
use serde_json::json;
use std::io::{self, Write};

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
    plan.header.name = format!("synthetic-{}-{}", recipe.kind, recipe.seed);
    let json = &mut plan.header.json;
    json.insert("synthetic".into(), json!(true));
    json.insert("kind".into(), json!(recipe.kind.to_string()));
    json.insert("seed".into(), json!(recipe.seed));
    json.insert("steps".into(), json!(recipe.steps));
    let mut recorder = Recorder::new(output, &plan.header, recipe.compressed)?;
    plan.live(&mut recorder, recipe.steps);
    recorder.finish()
}
