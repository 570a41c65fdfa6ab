//! Hardware for code that only wants an address of it.

use viommu_plugin::{Hardware, Refusal, Unreadable};

/// Hardware whose registers are zero and whose memory is never looked at: what a table is made on whose entries are to be
/// compared.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere {
    /// Where every allocation is.
    pub allocates_at: u64,
}

impl Hardware for Nowhere {
    fn mmio_read(&self, _offset: u64, _size: u32) -> u64 {
        0
    }
    fn mmio_write(&self, _offset: u64, _size: u32, _value: u64) {}
    fn read(&self, _pa: u64, _bytes: &mut [u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
    fn write(&self, _pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
    fn alloc(&self, _len: u64, _align: u64) -> Result<u64, Refusal> {
        Ok(self.allocates_at)
    }
    fn free(&self, _pa: u64, _len: u64) {}
    fn issue(&self, _commands: &[u64]) -> Result<(), Refusal> {
        Ok(())
    }
}
