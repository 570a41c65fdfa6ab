//! Stub.
#![allow(unused_variables)]
use crate::CallError;
#[allow(unused_imports)]
use viommu_plugin::*;
/// See [`viommu_plugin::Codec`].
#[derive(Debug)]
pub struct Codec {}
/// See [`viommu_plugin::Codec`].
impl Codec {
    /// See [`viommu_plugin::Codec::rewrite`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn rewrite(
        &self,
        guest: &[u64],
        before: Classes,
        ids: HostIds<'_>,
        out: &mut [u64],
    ) -> Result<Rewritten, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Codec::configuration`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn configuration(&self, command: &[u64]) -> Result<Configuration, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Codec::entry_key`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn entry_key(&self, entry: &[u64]) -> Result<EntryKey, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Codec::opcode`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn opcode(&self, command: &[u64]) -> Result<u8, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Codec::opcode_name`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn opcode_name(&self, opcode: u8) -> Result<Option<&'static str>, CallError> {
        unimplemented!()
    }
    /// See [`viommu_plugin::Codec::describe`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn describe(&self, command: &[u64], text: &mut Message) -> Result<(), CallError> {
        unimplemented!()
    }
}
