//! The bits of the AMD IOMMU, named as AMD's manual (document 48882) names them. No algorithms.
//!
//! The manual itself is not readable here: layouts are those that Linux 7.3.4 reads and writes (its AMD driver's
//! definitions), and what Linux does not use is said to be from elsewhere, or left out. All structures are little-endian
//! 64-bit words; commands and log entries are two of them.

pub mod commands;
pub mod dte;
pub mod events;
pub mod pte;
pub mod registers;
pub mod size;
pub mod viommu;
