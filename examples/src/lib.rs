//! What the examples share: a recorded guest to embed, a machine to embed it in, and a judge of every DMA.
//!
//! ```text
//!   recorded_guest ─► Step: register write, register read, DMA, reset ─► the example (a VMM)
//!                                                   │ DMA                    │ viommu
//!   score ◄─ recorded answer, physical answer ◄─────┴─ physical_machine ◄────┘
//! ```
//!
//! ```
//! use viommu_examples::RecordedGuest;
//!
//! let recorded = RecordedGuest::named("arm73-boot")?;
//! assert_eq!(recorded.plugin_name()?, "arm-smmuv3");
//! assert!(recorded.id_registers().iter().any(|register| register.offset == 0));
//! # viommu_examples::Story::Ok(())
//! ```
#![forbid(unsafe_code)]

mod physical_machine;
mod recorded_guest;
mod score;

pub use physical_machine::{GuestRam, PhysicalMachine};
pub use recorded_guest::{Playback, RecordedGuest, Step};
pub use score::Score;

/// How a story ends.
pub type Story<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
