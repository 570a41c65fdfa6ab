//! Memory of this process that rows and sequences map, aligned alike in every process.

use std::sync::Arc;
use viommu::uapi::Errno;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

/// Automatic IOVAs follow the alignment of the address that is mapped, so that must be the same in two processes.
pub(crate) const ALIGNMENT: u64 = 128 << 20;

/// Zeroed memory. No page is there before it is touched.
pub struct Memory {
    mapped: Arc<GuestMemoryMmap<()>>,
    /// The aligned start, as an offset in `mapped`.
    start: u64,
    length: u64,
}

impl Memory {
    /// That many bytes, rounded up to the alignment.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(length: u64) -> Result<Self, Errno> {
        let length = length.next_multiple_of(ALIGNMENT);
        let bytes = usize::try_from(length + ALIGNMENT).map_err(|_| Errno::NOMEM)?;
        let mapped = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).map_err(|_| Errno::NOMEM)?;
        let base = mapped.get_host_address(GuestAddress(0)).map_err(|_| Errno::NOMEM)? as u64;
        Ok(Self { mapped: Arc::new(mapped), start: base.next_multiple_of(ALIGNMENT) - base, length })
    }

    /// The whole of it, to be lent to a kernel for good.
    pub(crate) fn shared(&self) -> Arc<GuestMemoryMmap<()>> {
        self.mapped.clone()
    }

    /// The address of a byte, for arguments; 0 behind the end.
    pub fn address(&self, offset: u64) -> u64 {
        let at = GuestAddress(self.start + offset.min(self.length));
        self.mapped.get_host_address(at).map_or(0, |pointer| pointer as u64)
    }

    /// Bytes at an offset.
    pub fn load(&self, offset: u64, bytes: &mut [u8]) -> bool {
        self.mapped.read_slice(bytes, GuestAddress(self.start + offset)).is_ok()
    }

    /// Puts bytes there.
    pub fn store(&self, offset: u64, bytes: &[u8]) -> bool {
        self.mapped.write_slice(bytes, GuestAddress(self.start + offset)).is_ok()
    }
}
