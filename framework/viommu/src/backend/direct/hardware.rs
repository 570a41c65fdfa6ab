//! What this backend needs of an IOMMU, and what the driver in the plugin gets to see of it.

use super::memory::PhysicalMemory;
use super::ring::RingSink;
use crate::backend::SinkError;
use std::sync::{Arc, OnceLock, Weak};
use viommu_plugin::{Refusal, RingGeometry, Unreadable};

/// Called with the number of an interrupt line. Must not block, and must not call the hardware.
pub type InterruptHandler = Box<dyn Fn(u32) + Send + Sync>;

/// An IOMMU that this process owns: its register frame, the memory it reads, its interrupts.
pub trait Hardware: Send + Sync + 'static {
    /// Reads `size` bytes (4 or 8) of the register frame. All ones if the IOMMU is gone.
    fn mmio_read(&self, offset: u64, size: u32) -> u64;
    /// Writes `size` bytes (4 or 8) of the register frame.
    fn mmio_write(&self, offset: u64, size: u32, value: u64);
    /// The memory that the IOMMU reads and writes.
    fn memory(&self) -> &PhysicalMemory;
    /// A caller waits for the command queue and found that it is not there yet. A model makes progress here; real
    /// hardware does so by itself.
    fn relax(&self);
    /// Sets who is told of interrupts. Replaces who was.
    fn on_interrupt(&self, handler: InterruptHandler);
    /// The driver brought the command queue up: this is its ring. Called once.
    fn ring_ready(&self, ring: &RingGeometry) {
        let _ = ring;
    }
}

/// [`Hardware`] as the driver sees it.
pub(super) struct Port {
    pub(super) hardware: Arc<dyn Hardware>,
    /// Set when the ring is up. Weak: the ring holds the driver, which holds this.
    pub(super) ring: Arc<OnceLock<Weak<RingSink>>>,
}

impl viommu_plugin::Hardware for Port {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        self.hardware.mmio_read(offset, size)
    }

    fn mmio_write(&self, offset: u64, size: u32, value: u64) {
        self.hardware.mmio_write(offset, size, value);
    }

    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.hardware.memory().read(pa, bytes)
    }

    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.hardware.memory().write(pa, bytes)
    }

    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        self.hardware.memory().alloc(len, align).map_err(|cause| Refusal::new(Refusal::ENOMEM, cause.to_string()))
    }

    fn free(&self, pa: u64, len: u64) {
        if let Err(cause) = self.hardware.memory().free(pa, len) {
            tracing::error!(%cause, "the driver freed memory that is not its own");
        }
    }

    fn issue(&self, commands: &[u64]) -> Result<(), Refusal> {
        let Some(ring) = self.ring.get().and_then(Weak::upgrade) else {
            let text = "the command ring is not handed over yet: a driver brings its queue up by itself";
            return Err(Refusal::new(Refusal::EIO, text));
        };
        ring.issue(commands).map_err(|error| {
            let errno = if matches!(error, SinkError::TimedOut(_)) { Refusal::ETIMEDOUT } else { Refusal::EIO };
            Refusal::new(errno, error.to_string())
        })
    }
}
