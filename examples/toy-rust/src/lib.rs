//! The toy IOMMU (`../toy-iommu.md`) as a plugin in Rust, outside viommu's workspace.
//!
//! ```text
//!   cargo build --release           ─► target/release/libtoy_plugin.so
//!   viommu plugins check ./target/release/libtoy_plugin.so
//!   viommu trace generate toy --seed 1 --output toy.gtrace.zst
//!   viommu replay --plugin ./target/release/libtoy_plugin.so toy.gtrace.zst
//! ```
#![forbid(unsafe_code)]

mod codec;
mod driver;
mod frontend;
mod model;
mod spec;

use viommu_plugin::{Hardware, ModelConfig, ModelHost, Refusal, Register, Vendor, VendorInfo};

/// The toy IOMMU.
pub struct Toy;

impl Vendor for Toy {
    const INFO: VendorInfo = VendorInfo {
        name: "toy",
        version: "1.0",
        vendor: 0x8001,
        command_words: spec::COMMAND_WORDS as u32,
        entry_words: spec::ENTRY_WORDS as u32,
        event_words: spec::EVENT_WORDS as u32,
        frame_bytes: 0x1000,
        stream_name: "STREAM",
    };
    type Frontend = frontend::ToyFrontend;
    type Codec = codec::ToyCodec;
    type Driver = driver::ToyDriver;
    type Model = model::ToyModel;

    fn frontend(registers: &[Register]) -> Result<Self::Frontend, Refusal> {
        Ok(frontend::ToyFrontend::new(spec::features(registers, spec::DEVICE_CACHE)?))
    }

    fn codec(registers: &[Register]) -> Result<Self::Codec, Refusal> {
        Ok(codec::ToyCodec::new(spec::features(registers, spec::DEVICE_CACHE)?))
    }

    fn driver(hardware: Box<dyn Hardware>) -> Result<Self::Driver, Refusal> {
        driver::ToyDriver::new(hardware)
    }

    fn model(host: Box<dyn ModelHost>, config: ModelConfig<'_>) -> Result<Self::Model, Refusal> {
        let features = spec::features(config.registers, spec::DEVICE_CACHE | spec::STAGE2)?;
        Ok(model::ToyModel::new(host, features, config.atc))
    }

    fn covers(offered: &[Register], shown: &[Register]) -> Result<(), Refusal> {
        let here = spec::features(offered, spec::DEVICE_CACHE)?;
        let lacks = spec::features(shown, spec::DEVICE_CACHE)? & !here;
        if lacks == 0 {
            return Ok(());
        }
        let text = "FEATURES.DEVICE_CACHE: the guest was shown 1, this host has 0";
        Err(Refusal::new(Refusal::EOPNOTSUPP, text))
    }
}

viommu_plugin::export_plugin!(Toy);
