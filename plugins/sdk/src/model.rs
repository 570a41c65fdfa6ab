//! The software IOMMU of a vendor.

use crate::{Message, Register, Unreadable};

/// What a model may use: the memory it reads tables from, and its interrupt lines. Implemented by the host.
pub trait ModelHost: Send {
    /// Reads physical memory.
    ///
    /// # Errors
    /// If the address is not memory: the model reports what hardware reports.
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable>;
    /// Writes physical memory (event records, MSIs, completion words).
    ///
    /// # Errors
    /// If the address is not memory.
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable>;
    /// Pulses a wired interrupt line (vendor's number; Arm: 0 EVTQ, 1 PRIQ, 2 CMD_SYNC, 3 GERROR).
    fn irq(&self, line: u32);
}

/// How a model is to be built.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelConfig<'a> {
    /// ID registers; an offset not listed has the model's own value.
    pub registers: &'a [Register],
    /// Whether devices have a cache of their own (ATC). Without, every access is looked up in the IOMMU.
    pub atc: bool,
    /// TLB entries kept per tag before the oldest is evicted; 0 for the model's own (65 536 or more).
    pub tlb_capacity: u32,
}

/// A device's request.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request {
    /// Stream (StreamID, DeviceID, source-id).
    pub stream: u32,
    /// PASID / SubstreamID, `u32::MAX` for none.
    pub pasid: u32,
    /// Address the device put on the bus.
    pub iova: u64,
    /// Access: 0 none (only asks), 1 read, 2 write.
    pub access: u32,
    /// Bit 0: speculative (fills caches, records no event, counts no hit or miss, caches no fault).
    pub flags: u32,
}

impl Request {
    /// `flags` bit: speculative.
    pub const SPECULATIVE: u32 = 1;
}

/// Outcome of a translation. The numbers are those of the trace format.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status(pub u32);

impl Status {
    /// Translated.
    pub const OK: Self = Self(0);
    /// Refused with a fault.
    pub const FAULT: Self = Self(1);
    /// The stream is configured for identity.
    pub const BYPASS: Self = Self(2);
    /// The stream is configured to abort; no event.
    pub const ABORT: Self = Self(3);
    /// Translation is not enabled: identity.
    pub const DISABLED: Self = Self(4);
}

/// The answer to a [`Request`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// What happened.
    pub status: Status,
    /// Deciding stage of an OK or FAULT: 1, 2; 0 if neither.
    pub stage: u32,
    /// Output address (OK, BYPASS, DISABLED).
    pub output: u64,
    /// For a stage-2 fault: the intermediate address that has no mapping. Else 0.
    pub ipa: u64,
    /// Permissions granted: bit 0 read, bit 1 write.
    pub permissions: u32,
    /// Vendor's fault code (Arm event number).
    pub fault: u32,
    /// log2 of the size of the translation that answered.
    pub leaf_log2: u32,
    /// Bit 0: answered from the TLB. Bit 1: answered from the device's ATC.
    pub flags: u32,
}

/// Counters of a model's caches. Lookups of streams that translate in stage 1 are hits or misses; lookups of streams
/// that only have stage 2 count in `stage2_hits`/`stage2_misses`; speculative ones nowhere.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// TLB hits.
    pub hits: u64,
    /// TLB misses.
    pub misses: u64,
    /// Entries thrown out for lack of room.
    pub evictions: u64,
    /// Hits of stage-2-only streams.
    pub stage2_hits: u64,
    /// Misses of stage-2-only streams.
    pub stage2_misses: u64,
    /// Lookups answered by a device's own cache.
    pub atc_hits: u64,
    /// Lookups that a device's own cache could not answer.
    pub atc_misses: u64,
}

/// A software IOMMU: registers, queues, table walkers, TLB, device caches. Deterministic: no clock, no thread.
pub trait Model: Send + 'static {
    /// A read of `size` bytes (4 or 8) of the register frame.
    fn mmio_read(&mut self, offset: u64, size: u32) -> u64;
    /// A write of `size` bytes (4 or 8) of the register frame. A doorbell only records the index: [`Model::step`] runs.
    fn mmio_write(&mut self, offset: u64, size: u32, value: u64);
    /// Executes at most `budget` commands of the command queue; how many it consumed.
    fn step(&mut self, budget: u32) -> u32;
    /// Answers device requests; how many of them (all, unless `answers` is shorter).
    fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> usize;
    /// Walks for `request` without caches or side effects and says each step in words.
    fn explain(&mut self, request: &Request, text: &mut Message);
    /// Cache counters since creation.
    fn stats(&self) -> CacheStats;
    /// Test hook of the model: the devices of `stream` answer no ATC invalidation from now on (`false`: they do).
    fn atc_unresponsive(&mut self, stream: u32, unresponsive: bool);
    /// All registers, queues and caches as after power-on.
    fn reset(&mut self);
}
