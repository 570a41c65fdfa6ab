//! Stub.
#![allow(unused_variables)]
use crate::CallError;
#[allow(unused_imports)]
use viommu_plugin::*;
/// See [`viommu_plugin::Driver`].
#[derive(Debug)]
pub struct Driver {}
/// See [`viommu_plugin::Driver`].
impl Driver {
    /// See [`viommu_plugin::Driver::info`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn info(&self) -> Result<DriverInfo, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::guest_registers`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn guest_registers(&self) -> Result<Vec<Register>, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::stage2_create`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn stage2_create(&mut self, tag: u32) -> Result<u32, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::stage2_map`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, write: bool) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::stage2_unmap`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::stage2_destroy`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn stage2_destroy(&mut self, stage2: u32) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::attach`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn attach(&mut self, stream: u32, stage2: u32, key: &EntryKey) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::detach`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn detach(&mut self, stream: u32) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::encode`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> Result<usize, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::queue_fault`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn queue_fault(&mut self) -> Result<Option<QueueFault>, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::queue_resume`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn queue_resume(&mut self) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Driver::event`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn event(&mut self) -> Result<Option<HostEvent>, CallError> {
        unimplemented!()
    }
}
