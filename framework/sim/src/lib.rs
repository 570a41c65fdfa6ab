//! Random guests, faults and an oracle on top of viommu's deterministic simulation.
//!
//! ```text
//!   seed ─► Plan (machines, actions, faults) ─► world: one Host over the vendor's model, on one thread
//!                 ▲                               │ every answer to a DMA, every command, every SYNC
//!                 │                               ▼
//!              shrink ◄──── violation ◄──────── oracle: what each guest may get now
//! ```
//! A seed is a whole story: how many machines, what their guests do, what fails, and in which order everything happens.
//! The same seed tells the same story, byte for byte. [`run`] tells one and judges it, [`shrink`] makes a bad one short.
//!
//! ```
//! let plan = viommu_sim::Plan::of(viommu_sim::Vendor::ArmSmmuv3, 7);
//! let outcome = viommu_sim::run(&plan, viommu_sim::Options::default());
//! assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
//! assert!(outcome.counters.get("dma.judged") > 0);
//! ```
#![forbid(unsafe_code)]

mod counters;
mod draw;
mod faults;
mod guest;
mod inject;
mod oracle;
pub mod plan;
mod second;
mod shrink;
mod world;

pub use counters::Counters;
pub use inject::Injection;
pub use oracle::{Clause, Violation};
pub use plan::{Plan, Vendor};
pub use second::{Opinion, Second};
pub use shrink::{shrink, shrink_by};
pub use world::{Options, Outcome, run, run_beside};
