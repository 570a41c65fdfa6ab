//! Vendors' kernel drivers, as far as their rules reach a caller of the iommufd: what they accept, in which order they
//! look, which errno they answer, and how many entries of an invalidation they say they handled.
//!
//! They translate nothing. What reaches the hardware's command queue can be watched ([`CommandQueue`]).

mod amd_nested;
mod amd_vi;
mod arm_commands;
mod arm_events;
mod arm_smmuv3;
mod intel_vtd;
mod mock;
mod tegra241;
mod tegra_events;

pub use amd_nested::AmdNested;
pub use amd_vi::AmdVi;
pub use arm_events::report_arm_event;
pub use arm_smmuv3::{ArmSmmuv3, CommandQueue, Counting};
pub use intel_vtd::IntelVtd;
pub use mock::Mock;
pub(super) use mock::{MockDevice, MockNested};
pub use tegra_events::{GuestQueue, run_tegra_command};
pub use tegra241::Tegra241;
