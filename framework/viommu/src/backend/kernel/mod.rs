//! The backend that runs on Linux's iommufd.
//!
//! ```text
//!   Iommufd (the commands, typed) ─► Calls ─► RawIommufd (sys: the system calls)
//!   VfioDevice ─────────────────► DeviceCalls ─► RawDevice
//! ```

mod calls;
mod errors;
mod handle;
mod iommufd;
mod pointers;
pub mod replay;
pub mod sys;
mod vfio;

pub use calls::{Calls, DeviceCalls, Lent, Mapped};
pub use handle::Owned;
pub use iommufd::{HardwareInfo, HwptRequest, InvalidateReply, Iommufd, MapRequest};
pub use vfio::VfioDevice;
