//! Stub.
#![allow(unused_variables)]
use crate::CallError;
#[allow(unused_imports)]
use viommu_plugin::*;
/// See [`viommu_plugin::Model`].
#[derive(Debug)]
pub struct Model {}
/// See [`viommu_plugin::Model`].
impl Model {
    /// See [`viommu_plugin::Model::mmio_read`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn mmio_read(&mut self, offset: u64, size: u32) -> Result<u64, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Model::mmio_write`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn mmio_write(&mut self, offset: u64, size: u32, value: u64) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Model::step`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn step(&mut self, budget: u32) -> Result<u32, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Model::translate`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> Result<usize, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Model::explain`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn explain(&mut self, request: &Request, text: &mut Message) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Model::stats`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn stats(&self) -> Result<CacheStats, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Model::atc_unresponsive`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn atc_unresponsive(&mut self, stream: u32, unresponsive: bool) -> Result<(), CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Model::reset`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn reset(&mut self) -> Result<(), CallError> {
        unimplemented!()
    }
}
