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
//!
//! The heart of a vendor is [`Codec::rewrite`]: every bit checked, every ID replaced by one that the host gave. For a toy
//! format of one word a command, it is this:
//!
//! ```
//! use viommu_plugin::{Classes, GuestFault, HostIds, NO_STREAM, Rewritten, Stop};
//!
//! /// Opcode in bits 7:0 (1: forget what the device of a stream cached, 2: SYNC), stream in bits 63:32.
//! fn rewrite(guest: &[u64], ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
//!     let mut done = Rewritten::default();
//!     for &command in guest {
//!         match (command as u32, ids.stream((command >> 32) as u32)) {
//!             (1, _) if done.written as usize == out.len() => return Rewritten { stop: Stop::ROOM, ..done },
//!             (1, Some(stream)) => {
//!                 out[done.written as usize] = u64::from(stream) << 32 | 1;
//!                 done.written += 1;
//!                 done.atc += 1;
//!                 done.classes = Classes::ATC;
//!             }
//!             (1, None) => done.local_stream += 1,
//!             (2, _) => return Rewritten { stop: Stop::SYNC, ..done },
//!             _ => return Rewritten { stop: Stop::FAULT, fault: GuestFault::ILLEGAL_OPCODE, ..done },
//!         }
//!         done.taken += 1;
//!     }
//!     done
//! }
//!
//! // The guest knows its devices as 0 and 2; there is no device 1.
//! let ids = HostIds { tag: 5, streams: &[0x300, NO_STREAM, 0x308], domains: &[] };
//! let mut host = [0; 8];
//! let done = rewrite(&[2 << 32 | 1, 1 << 32 | 1, 2, 1], ids, &mut host);
//! assert_eq!((done.stop, done.taken, done.written, done.local_stream), (Stop::SYNC, 2, 1, 1));
//! assert_eq!(host[0], 0x308 << 32 | 1);
//! ```

// UNSAFETY: export.rs alone, the inside of the C boundary.
#![deny(unsafe_code)]

pub mod abi;
mod codec;
mod driver;
mod export;
mod frontend;
mod interface;
mod kernel;
mod model;
mod state;
mod vendor;

pub use codec::*;
pub use driver::*;
pub use frontend::*;
pub use interface::*;
pub use kernel::*;
pub use model::*;
pub use state::*;
pub use vendor::*;
