//! The Intel VT-d IOMMU as a viommu vendor: what a guest sees, what it may command, what the hardware is told, and the
//! hardware in software.
//!
//! ```text
//!   guest registers ─► frontend ─┐                            ┌─► driver ─► root, context, PASID tables, second stage
//!   guest commands  ─► codec ────┴─► queue (framework) ───────┤
//!   guest entries   ─► codec (key) ─► driver (PASID entry)    └─► model: IOTLB, device-TLBs, walks, faults
//!                        all of it in the words of spec (D51397)
//! ```
//!
//! A guest that is shown first-stage tables (ECAP.SMTS, FSTS) is served nested: the hardware walks its tables on top of
//! the host's second stage. One that is not, but was shown caching mode (CAP.CM), is shadowed: its second-stage tables
//! are followed in software. Any other is refused by the names of these fields.
//!
//! A guest's invalidation becomes one of this guest only, whatever domain-id or source-id it names:
//!
//! ```
//! use intel_vtd::codec::VtdCodec;
//! use viommu_plugin::{Classes, Codec, HostIds, NO_TAG, Stop};
//!
//! let codec = VtdCodec::new(&[])?;
//! let guest = [
//!     0x0001_0036, 0x7000_0040, 0, 0, // PIOTLB, DID 1, PASID 0, one page at 0x70000000
//!     0x0002_0026, 0, 0, 0,           // PIOTLB, DID 2, all of PASID 0
//!     0x0000_0025, 0x5000, 0, 0,      // WAIT
//! ];
//! let ids = HostIds { tag: 7, streams: &[], domains: &[NO_TAG, 0x310] };
//! let mut host = [0; 12];
//! let done = codec.rewrite(&guest, Classes::NONE, ids, &mut host);
//!
//! assert_eq!((done.taken, done.written, done.local_domain, done.stop), (2, 1, 1, Stop::SYNC));
//! assert_eq!(host[..4], [0x0310_0036, 0x7000_0040, 0, 0]);
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
pub struct IntelVtd;

impl Vendor for IntelVtd {
    const INFO: VendorInfo = VendorInfo {
        name: "intel-vtd",
        version: env!("CARGO_PKG_VERSION"),
        vendor: 3,
        command_words: spec::descriptors::WIDE_WORDS as u32,
        entry_words: codec::ENTRY_WORDS as u32,
        event_words: (spec::registers::FAULT_RECORD_BYTES / 8) as u32,
        frame_bytes: spec::registers::FRAME_BYTES,
        stream_name: "source-id",
    };
    const KERNEL: Option<&'static dyn KernelAbi> = Some(&kernel::VtdKernel);
    type Frontend = frontend::VtdFrontend;
    type Codec = codec::VtdCodec;
    type Driver = driver::VtdDriver;
    type Model = model::RemappingUnit;

    fn frontend(registers: &[Register]) -> Result<Self::Frontend, Refusal> {
        frontend::VtdFrontend::new(registers)
    }
    fn codec(registers: &[Register]) -> Result<Self::Codec, Refusal> {
        codec::VtdCodec::new(registers)
    }
    fn driver(hardware: Box<dyn Hardware>) -> Result<Self::Driver, Refusal> {
        driver::VtdDriver::new(hardware)
    }
    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self::Model, Refusal> {
        model::RemappingUnit::new(host, config)
    }
    fn covers(offered: &[Register], shown: &[Register]) -> Result<(), Refusal> {
        features::Features::new(offered)?.covers(&features::Features::new(shown)?)
    }
}
