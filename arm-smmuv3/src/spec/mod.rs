//! The bits of the Arm SMMUv3, as the manual (IHI 0070) names them. No algorithms.
//!
//! Each file is one chapter: commands (§4), stream table and context descriptors (§5), registers (§6), events (§7),
//! and the VMSAv8-64 translation table descriptors they lead to. All structures are little-endian 64-bit words.

pub mod cd;
pub mod commands;
pub mod events;
pub mod pte;
pub mod registers;
pub mod ste;
