//! A plugin and its fixed facts.
use crate::{CallError, Codec, Driver, Frontend, LoadError, Model, SearchPath};
use std::path::{Path, PathBuf};
use viommu_plugin::{Hardware, ModelConfig, ModelHost, Register, Vendor};

/// A plugin's fixed facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// As `--plugin` takes it: `arm-smmuv3`.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// Vendor code of recordings.
    pub vendor: u32,
    /// The plugin's ABI version.
    pub abi_major: u32,
    /// The plugin's ABI version.
    pub abi_minor: u32,
    /// Where it was loaded from; `None` if linked.
    pub path: Option<PathBuf>,
    /// Words of 8 bytes a command.
    pub command_words: usize,
    /// Words of a guest table entry.
    pub entry_words: usize,
    /// Words of an event record.
    pub event_words: usize,
    /// Bytes of the register frame.
    pub frame_bytes: u64,
    /// What the vendor calls a guest's stream ID.
    pub stream_name: String,
}

/// A vendor's plugin.
#[derive(Debug, Clone)]
pub struct Plugin {}

impl Plugin {
    /// A vendor linked into this program.
    pub fn linked<V: Vendor>() -> Self {
        unimplemented!()
    }
    /// Loads a `.so`.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(_path: &Path) -> Result<Self, LoadError> {
        unimplemented!()
    }
    /// Finds a plugin by name on the search path; a value with '/' is a path.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn find(_name_or_path: &str, _search: &SearchPath) -> Result<Self, LoadError> {
        unimplemented!()
    }
    /// Fixed facts.
    pub fn info(&self) -> &PluginInfo {
        unimplemented!()
    }
    /// A frontend that shows these ID registers.
    ///
    /// # Errors
    /// [`CallError::Refused`] if a vIOMMU cannot be what they promise.
    pub fn frontend(&self, _registers: &[Register]) -> Result<Frontend, CallError> {
        unimplemented!()
    }
    /// A codec that accepts what these ID registers promise.
    ///
    /// # Errors
    /// As [`Plugin::frontend`].
    pub fn codec(&self, _registers: &[Register]) -> Result<Codec, CallError> {
        unimplemented!()
    }
    /// Takes over a physical IOMMU.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the hardware lacks what nesting needs.
    pub fn driver(&self, _hardware: Box<dyn Hardware>) -> Result<Driver, CallError> {
        unimplemented!()
    }
    /// A software IOMMU.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the registers ask for what it does not model.
    pub fn model(&self, _host: Box<dyn ModelHost>, _config: ModelConfig<'_>) -> Result<Model, CallError> {
        unimplemented!()
    }
}
