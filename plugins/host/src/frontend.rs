//! Stub.
#![allow(unused_variables)]
use crate::CallError;
#[allow(unused_imports)]
use viommu_plugin::*;
/// See [`viommu_plugin::Frontend`].
#[derive(Debug)]
pub struct Frontend {}
/// See [`viommu_plugin::Frontend`].
impl Frontend {
    /// See [`viommu_plugin::Frontend::read`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn read(&self, offset: u64, size: u32) -> Result<u64, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::write`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn write(&mut self, offset: u64, size: u32, value: u64) -> Result<Effects, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::queue`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn queue(&self) -> Result<GuestQueue, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::advance`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn advance(&mut self, commands: u32) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::fault`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn fault(&mut self, fault: GuestFault) -> Result<Effects, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::sync_done`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn sync_done(&mut self, command: &[u64]) -> Result<Effects, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::event`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn event(&mut self, virt_id: u32, record: &[u64]) -> Result<Effects, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::event_lost`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn event_lost(&mut self) -> Result<Effects, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::mode`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn mode(&self) -> Result<Mode, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::entry`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Result<Lookup, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::reset`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn reset(&mut self) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::register_name`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn register_name(&self, offset: u64) -> Result<Option<&'static str>, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Frontend::trouble`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn trouble(&self, text: &mut Message) -> Result<(), CallError> {
        unimplemented!()
    }
}
