//! Hardware that does nothing.

use viommu_plugin::{Hardware, Refusal, Unreadable};

/// Hardware that stands still: registers never follow what is written, memory is zero and keeps nothing. For bring-up that
/// has to be given up, and for tables of which only the entries are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Still {
    /// What the register at an offset reads, whatever the size of the access.
    pub registers: fn(u64) -> u64,
    /// Where every allocation is.
    pub allocates_at: u64,
}

impl Hardware for Still {
    fn mmio_read(&self, offset: u64, _size: u32) -> u64 {
        (self.registers)(offset)
    }
    fn mmio_write(&self, _offset: u64, _size: u32, _value: u64) {}
    fn read(&self, _pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        bytes.fill(0);
        Ok(())
    }
    fn write(&self, _pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        Ok(())
    }
    fn alloc(&self, _len: u64, _align: u64) -> Result<u64, Refusal> {
        Ok(self.allocates_at)
    }
    fn free(&self, _pa: u64, _len: u64) {}
    fn issue(&self, _commands: &[u64]) -> Result<(), Refusal> {
        Ok(())
    }
}
