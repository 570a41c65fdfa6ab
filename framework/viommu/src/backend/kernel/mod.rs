//! The backend that runs on Linux's iommufd.
//!
//! ```text
//!   Objects ─► graph: the framework's numbers ─► Iommufd, VfioDevice: typed commands, owned objects ─┐
//!   guests' batches ─► KernelSink ─► replay ─────────────────────────────────────────────────────────┼─► Calls ─► sys
//!   BackendEvent channel ◄── events thread ◄── VEVENTQ and FAULT fds ◄───────────────────────────────┘
//! ```
//! The kernel owns tables, tags and the hardware's queue. It puts in the host's numbers itself, so that its sinks take
//! checked words with the guest's.
//!
//! Locks, outermost first: graph, targets of a vIOMMU, state of the events thread. A sink's own lock is taken before its
//! targets and with neither of the others.

mod adopt;
mod backend;
mod bucket;
mod calls;
mod counters;
mod errors;
mod events;
mod graph;
mod handle;
mod hwpts;
mod iommufd;
mod memory;
mod objects;
mod options;
mod page;
mod pointers;
mod registers;
pub mod replay;
mod saved;
mod shadow;
mod sink;
mod software;
pub mod sys;
mod targets;
mod vfio;
mod viommus;

pub use adopt::NotAdopted;
pub use backend::KernelBackend;
pub use bucket::Rate;
pub use calls::{Calls, DeviceCalls, Lent, Mapped};
pub use counters::KernelCounters;
pub use handle::Owned;
pub use iommufd::{HardwareInfo, HwptRequest, InvalidateReply, Iommufd, MapRequest};
pub use options::{DeviceSource, IommuSource, KernelOptions};
pub use software::{SoftwareDevice, SoftwareIommufd};
pub use vfio::VfioDevice;
