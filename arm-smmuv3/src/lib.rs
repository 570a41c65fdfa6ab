//! The Arm SMMUv3 as a viommu vendor: what a guest sees, what it may command, what the hardware is told, and the
//! hardware in software.
//!
//! ```text
//!   guest registers ─► frontend ─┐                            ┌─► driver ─► stream table, stage 2, queues
//!   guest commands  ─► codec ────┴─► ring (framework) ────────┤
//!   guest STEs      ─► codec (key) ─► driver (physical STE)   └─► model: TLB, ATC, walks, events
//!                        all of it in the words of spec (IHI 0070)
//! ```
//!
//! A guest's invalidation becomes one of this guest only, whatever VMID or StreamID it names:
//!
//! ```
//! use arm_smmuv3::codec::ArmCodec;
//! use viommu_plugin::{Classes, Codec, HostIds, NO_STREAM, Stop};
//!
//! let codec = ArmCodec::new(&[])?;
//! let guest = [
//!     0x0001_0042_0000_0012, 0x1000, // TLBI_NH_VA, ASID 1, VMID 0x42, VA 0x1000
//!     0x0000_0001_0000_0005, 0x0001, // CFGI_CD of StreamID 1
//!     0x0000_0000_0000_2046, 0x0000, // SYNC
//! ];
//! let ids = HostIds { tag: 7, streams: &[NO_STREAM, 0x310], domains: &[] };
//! let mut host = [0; 6];
//! let done = codec.rewrite(&guest, Classes::NONE, ids, &mut host);
//!
//! assert_eq!((done.taken, done.written, done.stop), (2, 2, Stop::SYNC));
//! assert_eq!(host[..4], [0x0001_0007_0000_0012, 0x1000, 0x0000_0310_0000_0005, 0x0001]);
//! # Ok::<(), viommu_plugin::Refusal>(())
//! ```
#![forbid(unsafe_code)]

pub mod codec;
pub mod driver;
pub mod features;
pub mod frontend;
pub mod kernel;
pub mod model;
pub mod spec;
pub mod tables;

use viommu_plugin::{Hardware, KernelAbi, ModelConfig, ModelHost, Refusal, Register, Vendor, VendorInfo};

/// The vendor: what the plugin exports.
#[derive(Debug, Clone, Copy)]
pub struct ArmSmmuv3;

impl Vendor for ArmSmmuv3 {
    const INFO: VendorInfo = VendorInfo {
        name: "arm-smmuv3",
        version: env!("CARGO_PKG_VERSION"),
        vendor: 1,
        command_words: spec::commands::COMMAND_WORDS as u32,
        entry_words: spec::ste::STE_WORDS as u32,
        event_words: spec::events::EVENT_WORDS as u32,
        frame_bytes: spec::registers::FRAME_BYTES,
        stream_name: "StreamID",
    };
    const KERNEL: Option<&'static dyn KernelAbi> = Some(&kernel::ArmKernel);
    type Frontend = frontend::ArmFrontend;
    type Codec = codec::ArmCodec;
    type Driver = driver::ArmDriver;
    type Model = model::Smmu;

    fn frontend(registers: &[Register]) -> Result<Self::Frontend, Refusal> {
        frontend::ArmFrontend::new(registers)
    }
    fn codec(registers: &[Register]) -> Result<Self::Codec, Refusal> {
        codec::ArmCodec::new(registers)
    }
    fn driver(hardware: Box<dyn Hardware>) -> Result<Self::Driver, Refusal> {
        driver::ArmDriver::new(hardware)
    }
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self::Model, Refusal> {
        model::Smmu::new(host, config)
    }
    fn covers(offered: &[Register], shown: &[Register]) -> Result<(), Refusal> {
        features::Features::new(offered)?.covers(&features::Features::new(shown)?)
    }
}
