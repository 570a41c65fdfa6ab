//! Linux's object rules of iommufd, a row each, run against whatever takes an iommufd's calls.
//!
//! ```text
//!   rows/ ── stimulus, expectation ──► Session ──► trait Iommufd ──┬─► software iommufd (viommu::uapi::Dispatcher)
//!                                                                  └─► /dev/iommu with the kernel's mock driver
//! ```
//!
//! A row does its stimulus on a fresh iommufd and notes what it sees in words; it passes if these are the expected ones.
//! The kernel is the oracle: what it does not satisfy is a wrong row. Rows have the numbers of the table in
//! `docs/conformance.md`. Those about vendors' drivers ([`vendors`]) run on the software iommufd alone.
#![forbid(unsafe_code)]

mod iommufd;
mod kernel;
mod log;
mod memory;
mod row;
mod rows;
mod sequences;
mod session;
mod software;
mod table;
mod vendors;

pub use iommufd::{Iommufd, Lent, Mapped, Open, Ready, errno_name};
pub use kernel::Kernel;
pub use log::{Log, Logged, Stale};
pub use memory::Memory;
pub use row::{Row, Verdict, run};
pub use rows::all;
pub use sequences::{Difference, Plan, Step, compare, plan, replay, shrink};
pub use session::{Failed, Said, Session};
pub use software::Software;
pub use table::{Seen, kernel_column, table, vendor_table, with_table};
pub use vendors::vendors;
