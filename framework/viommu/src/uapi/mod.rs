//! Linux's iommufd user API as Rust types: command numbers, argument layouts, constants of Linux 7.3.4.
//!
//! ```text
//!   command.rs   which commands there are, their ioctl codes and sizes
//!   layout.rs    the arguments: what is behind an ioctl's pointer
//!   payload.rs   what an argument's own pointers lead to, by vendor, and event records
//!   selftest.rs  the kernel's mock driver (CONFIG_IOMMUFD_TEST)
//!   flags.rs     constants
//!   memory.rs    what pointers lead to
//!   dispatcher/  a software iommufd: the kernel's answers without a kernel
//! ```
//!
//! Names are the C header's, without `iommu_`, `iommufd_`, `IOMMU_` and `IOMMUFD_`. Integers are native endian, but for
//! the words of vendors' tables and commands, which are little-endian everywhere.
//!
//! ```
//! use viommu::uapi::{Command, layout::HwptAlloc};
//! assert_eq!(Command::HwptAlloc.code(), 0x3b89);
//! assert_eq!(size_of::<HwptAlloc>(), Command::HwptAlloc.size());
//! ```

mod command;
pub mod dispatcher;
pub mod flags;
pub mod layout;
mod memory;
pub mod payload;
pub mod selftest;

pub use command::Command;
pub use dispatcher::Dispatcher;
pub use memory::{ProcessMemory, UserMemory};
/// An error number of Linux.
pub use rustix::io::Errno;
