//! The AMD-Vi IOMMU as a viommu vendor: what a guest sees, what it may command, what the hardware is told, and the
//! hardware in software.
//!
//! ```text
//!   guest registers ─► frontend ─┐                            ┌─► driver ─► device table, host tables, rings
//!   guest commands  ─► codec ────┴─► ring (framework) ────────┤
//!   guest DTEs      ─► codec (key) ─► driver (physical DTE)   └─► model: TLB, device caches, walks, events
//!                        all of it in the words of spec
//! ```
//!
//! A guest's invalidation becomes one of this guest only, whatever DomainID or DeviceID it names:
//!
//! ```
//! use amd_vi::codec::AmdCodec;
//! use viommu_plugin::{Classes, Codec, HostIds, NO_STREAM, NO_TAG, Stop};
//!
//! let codec = AmdCodec::new(&[])?;
//! let guest = [
//!     0x3000_0002_0000_0001, 0x1004, // INVALIDATE_IOMMU_PAGES, DomainID 2, PASID 1, address 0x1000
//!     0x3000_0001_0000_0000, 0x1000, // INVALIDATE_IOMMU_PAGES of domain 1, which no device of this guest uses
//!     0x1000_0000_0000_0000, 0x0000, // COMPLETION_WAIT
//! ];
//! let ids = HostIds { tag: 7, streams: &[NO_STREAM, 0x310], domains: &[NO_TAG, NO_TAG, 9] };
//! let mut host = [0; 6];
//! let done = codec.rewrite(&guest, Classes::NONE, ids, &mut host);
//!
//! assert_eq!((done.taken, done.written, done.local_domain, done.stop), (2, 1, 1, Stop::SYNC));
//! assert_eq!(host[..2], [0x3000_0009_0000_0001, 0x1004]);
//! # Ok::<(), viommu_plugin::Refusal>(())
//! ```
//!
//! A guest whose EFR offers GTSup and GIoSup, and whose EFR2 offers GCR3TRPMode, is nested: its GCR3 tables are walked by
//! the hardware. Any other has v1 tables, of which the host keeps shadows; that takes a guest that was shown NpCache and so
//! invalidates what it maps. [`features`] says which, and refuses who can have neither.
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
pub struct AmdVi;

impl Vendor for AmdVi {
    const INFO: VendorInfo = VendorInfo {
        name: "amd-vi",
        version: env!("CARGO_PKG_VERSION"),
        vendor: 2,
        command_words: spec::commands::COMMAND_WORDS as u32,
        entry_words: spec::dte::DTE_WORDS as u32,
        event_words: spec::events::EVENT_WORDS as u32,
        frame_bytes: spec::registers::FRAME_BYTES,
        stream_name: "DeviceID",
    };
    const KERNEL: Option<&'static dyn KernelAbi> = Some(&kernel::AmdKernel);
    type Frontend = frontend::AmdFrontend;
    type Codec = codec::AmdCodec;
    type Driver = driver::AmdDriver;
    type Model = model::Iommu;

    fn frontend(registers: &[Register]) -> Result<Self::Frontend, Refusal> {
        frontend::AmdFrontend::new(registers)
    }
    fn codec(registers: &[Register]) -> Result<Self::Codec, Refusal> {
        codec::AmdCodec::new(registers)
    }
    fn driver(hardware: Box<dyn Hardware>) -> Result<Self::Driver, Refusal> {
        driver::AmdDriver::new(hardware)
    }
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self::Model, Refusal> {
        model::Iommu::new(host, config)
    }
    fn covers(offered: &[Register], shown: &[Register]) -> Result<(), Refusal> {
        features::Features::new(offered)?.covers(&features::Features::new(shown)?)
    }
}
