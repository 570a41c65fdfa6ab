//! A small vendor in the manner of the kernel's mock driver (four IOTLB slots, four cache slots a device), which can
//! be told to misbehave.
//!
//! ```text
//!   registers (spec) ─► Frontend      commands: INVALIDATE_IOTLB  INVALIDATE_CACHE  CONFIG  PREFETCH  SYNC
//!   words     (spec) ─► Codec         entry:    { flags, offset, stage-2 ranges, tag }
//!                       Driver ─► registers, table, ranges ─► Model
//!                       kernel: the payloads of the kernel's mock driver
//! ```
//!
//! ```
//! use viommu_plugin::{Codec, KeyKind, Vendor};
//! let codec = mock_plugin::Mock::codec(&[])?;
//! assert_eq!(codec.entry_key(&[0b11, 0, 0, 0]).kind, KeyKind::BYPASS);
//! # Ok::<(), viommu_plugin::Refusal>(())
//! ```

#![forbid(unsafe_code)]

mod behaviour;
mod codec;
mod driver;
mod frontend;
pub mod kernel;
mod model;
pub mod spec;

pub use behaviour::{LIES, SLOTS, lie_in, panic_in};
pub use codec::MockCodec;
pub use driver::MockDriver;
pub use frontend::MockFrontend;
pub use model::MockModel;

use behaviour::Behaviour;
use viommu_plugin::{Hardware, KernelAbi, ModelConfig, ModelHost, Refusal, Register, Vendor, VendorInfo};

/// The mock vendor.
#[derive(Debug)]
pub struct Mock;

impl Vendor for Mock {
    const INFO: VendorInfo = VendorInfo {
        name: "mock",
        version: env!("CARGO_PKG_VERSION"),
        vendor: 0x8000,
        command_words: spec::COMMAND_WORDS as u32,
        entry_words: spec::ENTRY_WORDS as u32,
        event_words: spec::EVENT_WORDS as u32,
        frame_bytes: 0x10000,
        stream_name: "virt_id",
    };
    const KERNEL: Option<&'static dyn KernelAbi> = Some(&kernel::MockKernel::<0>);
    type Frontend = MockFrontend;
    type Codec = MockCodec;
    type Driver = MockDriver;
    type Model = MockModel;

    fn frontend(registers: &[Register]) -> Result<MockFrontend, Refusal> {
        let behaviour = Behaviour::of(registers);
        behaviour.enter("frontend_create");
        behaviour.refuse("frontend_create")?;
        Ok(MockFrontend::new(spec::features(registers), behaviour))
    }

    fn codec(registers: &[Register]) -> Result<MockCodec, Refusal> {
        let behaviour = Behaviour::of(registers);
        behaviour.enter("codec_create");
        Ok(MockCodec::new(behaviour))
    }

    fn driver(hardware: Box<dyn Hardware>) -> Result<MockDriver, Refusal> {
        let value = hardware.mmio_read(spec::BEHAVIOUR, 8);
        let behaviour = Behaviour::of(&[Register { offset: spec::BEHAVIOUR, value }]);
        behaviour.enter("driver_create");
        MockDriver::new(hardware, behaviour)
    }

    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<MockModel, Refusal> {
        let behaviour = Behaviour::of(config.registers);
        behaviour.enter("model_create");
        Ok(MockModel::new(host, config.atc, behaviour))
    }

    fn covers(offered: &[Register], shown: &[Register]) -> Result<(), Refusal> {
        let behaviour = Behaviour::of(offered);
        behaviour.enter("frontend_covers");
        if behaviour.lies("covers-anything") {
            return Ok(());
        }
        spec::covers(spec::features(offered), spec::features(shown))
    }
}

viommu_plugin::export_plugin!(Mock);
