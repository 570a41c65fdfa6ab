//! The CMDQV's registers, as the Tegra241 driver of Linux 7.3.4 names them. No algorithms.
//!
//! There is no public manual: the layout is that driver's (`tegra241-cmdqv`), section numbers are not given. All offsets
//! are from the start of the CMDQV's own frame, which lies behind the SMMU's: [`CMDQV`].
//!
//! ```text
//!   0x00000  config page        EN, PARAM, error maps, CMDQ_ALLOC, one block a VINTF
//!   0x10000  VCMDQ page0        0x80 a queue: PROD, CONS, enable, errors      (all queues of the machine)
//!   0x20000  VCMDQ page1        0x80 a queue: BASE
//!   0x30000  VINTF 0 page0      the same, by the VINTF's own queue numbers
//!   0x40000  VINTF 0 page1
//!   0x50000  VINTF 1 page0      ...
//! ```

mod config;
mod vcmdq;

pub use config::*;
pub use vcmdq::*;

use arm_smmuv3::spec::registers::FRAME_BYTES as SMMU_FRAME_BYTES;

/// Where the CMDQV's frame starts in the vendor's register frame: behind the SMMU's two pages.
pub const CMDQV: u64 = SMMU_FRAME_BYTES;
/// Bytes of a page: what can be given to a guest.
pub const PAGE: u64 = 0x1_0000;
/// Page0 of all queues, by their global number.
pub const VCMDQ_PAGE0: u64 = 0x1_0000;
/// Page1 of all queues, by their global number.
pub const VCMDQ_PAGE1: u64 = 0x2_0000;
/// Where the pages of the VINTFs start.
pub const VINTF_PAGES: u64 = 0x3_0000;
/// Bytes of one VINTF's two pages.
pub const VINTF_STRIDE: u64 = 2 * PAGE;
/// Bytes of one queue's registers in a page.
pub const VCMDQ_STRIDE: u64 = 0x80;
/// Bytes of the frame that a guest sees: config page, global pages, one VINTF.
pub const GUEST_CMDQV_BYTES: u64 = VINTF_PAGES + VINTF_STRIDE;
/// Bytes of the whole frame that a guest sees, SMMU first.
pub const GUEST_FRAME_BYTES: u64 = CMDQV + GUEST_CMDQV_BYTES;
/// Interrupt line of the CMDQV, behind the SMMU's four.
pub const CMDQV_LINE: u32 = 4;
/// StreamIDs that a guest may use in its own queues: SID_MATCH has 20 bits.
pub const VIRT_SID_MAX: u32 = 0xf_ffff;

/// Page0 of VINTF `vintf`.
pub const fn vintf_page0(vintf: u32) -> u64 {
    VINTF_PAGES + vintf as u64 * VINTF_STRIDE
}
/// Page1 of VINTF `vintf`.
pub const fn vintf_page1(vintf: u32) -> u64 {
    vintf_page0(vintf) + PAGE
}
