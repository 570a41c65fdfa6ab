//! NVIDIA's Tegra241 CMDQV as a viommu vendor: the Arm SMMUv3 with command queues that a guest fills itself.
//!
//! ```text
//!   guest ─► SMMU registers, commands ─► arm-smmuv3 (frontend, codec) ─► framework ─► SMMU's queue ─┐
//!     │                                                                                             ├─► TLB, ATC
//!     └────► VINTF page0 (mapped) ─────────────────────────► LVCMDQ: VINTF's VMID, replaced SIDs ───┘
//!            CMDQV config page, page1 (trapped) ─► frontend ─► driver: VINTF, slots, queues
//! ```
//!
//! A guest has one VINTF with the VMID of its nesting parent. In its queues it may say TLBI_NH_VA, TLBI_NH_ASID, ATC_INV
//! and a SYNC that is only polled; hardware puts in the VMID and the physical StreamID, and no software sees the command.
//! Everything else goes through the SMMU's own queue, as with `arm-smmuv3`.
//!
//! ```
//! use tegra_vcmdq::model::Tegra;
//! use tegra_vcmdq::spec::{CMDQV, Param, offset};
//! use viommu_plugin::{Model, ModelConfig, ModelHost, Unreadable};
//!
//! struct Nothing;
//! impl ModelHost for Nothing {
//!     fn read(&self, _: u64, _: &mut [u8]) -> Result<(), Unreadable> { Err(Unreadable) }
//!     fn write(&self, _: u64, _: &[u8]) -> Result<(), Unreadable> { Err(Unreadable) }
//!     fn irq(&self, _: u32) {}
//! }
//! let mut tegra = Tegra::new(Box::new(Nothing), ModelConfig::default())?;
//! let param = Param::from_bits(tegra.mmio_read(CMDQV + offset::PARAM, 4) as u32);
//! assert_eq!((param.vintfs(), param.per_vintf(), param.slots()), (64, 2, 16));
//! # Ok::<(), viommu_plugin::Refusal>(())
//! ```
#![forbid(unsafe_code)]

pub mod driver;
pub mod frontend;
pub mod kernel;
pub mod model;
pub mod spec;

use arm_smmuv3::ArmSmmuv3;
use arm_smmuv3::codec::ArmCodec;
use viommu_plugin::{Hardware, KernelAbi, ModelConfig, ModelHost, Refusal, Register, Vendor, VendorInfo};

/// The vendor: what the plugin exports. Its recordings are those of the Arm SMMUv3.
#[derive(Debug, Clone, Copy)]
pub struct TegraVcmdq;

impl Vendor for TegraVcmdq {
    const INFO: VendorInfo = VendorInfo {
        name: "tegra-vcmdq",
        version: env!("CARGO_PKG_VERSION"),
        frame_bytes: spec::GUEST_FRAME_BYTES,
        ..ArmSmmuv3::INFO
    };
    const KERNEL: Option<&'static dyn KernelAbi> = Some(&kernel::TegraKernel);
    type Frontend = frontend::TegraFrontend;
    type Codec = ArmCodec;
    type Driver = driver::TegraDriver;
    type Model = model::Tegra;

    fn frontend(registers: &[Register]) -> Result<Self::Frontend, Refusal> {
        frontend::TegraFrontend::new(registers)
    }
    fn codec(registers: &[Register]) -> Result<Self::Codec, Refusal> {
        frontend::shown(registers)?;
        ArmCodec::new(registers)
    }
    fn driver(hardware: Box<dyn Hardware>) -> Result<Self::Driver, Refusal> {
        driver::TegraDriver::new(hardware)
    }
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self::Model, Refusal> {
        model::Tegra::new(host, config)
    }
    fn covers(offered: &[Register], shown: &[Register]) -> Result<(), Refusal> {
        ArmSmmuv3::covers(offered, shown)?;
        frontend::covers(frontend::shown(offered)?, frontend::shown(shown)?)
    }
}
