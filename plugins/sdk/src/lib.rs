//! The contract between viommu and a vendor plugin.
//!
//! ```text
//!   guest registers ─► Frontend ─┐                       ┌─► Driver ─► physical IOMMU (tables, queue, events)
//!   guest commands  ─► Codec ────┴─► framework ──────────┤
//!   guest entries   ─► Codec::entry_key                  └─► Model: the same hardware in software
//! ```
//!
//! A vendor implements [`Vendor`] in safe Rust and exports it; the framework takes it linked, or from a `.so` at run
//! time, through the same C table.

pub mod abi;
mod codec;
mod driver;
mod export;
mod frontend;
mod model;
mod vendor;

pub use codec::*;
pub use driver::*;
pub use frontend::*;
pub use model::*;
pub use vendor::*;
