//! The physical IOMMU, for backends that program it themselves.

use crate::{EntryKey, HwQueueRequest, Refusal, Register, TranslationMode, VirtualInterface};

/// What a driver may use of the machine. Implemented by the host; no call may be made outside a driver call.
pub trait Hardware: Send {
    /// Reads `size` bytes (4 or 8) of the IOMMU's register frame.
    fn mmio_read(&self, offset: u64, size: u32) -> u64;
    /// Writes `size` bytes (4 or 8) of the IOMMU's register frame.
    fn mmio_write(&self, offset: u64, size: u32, value: u64);
    /// Reads host memory that this driver allocated (or stage-2 tables live in).
    ///
    /// # Errors
    /// If the address is not memory.
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), crate::Unreadable>;
    /// Writes host memory. Aligned words of 8 bytes are written as one.
    ///
    /// # Errors
    /// If the address is not memory.
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), crate::Unreadable>;
    /// Allocates zeroed DMA memory, aligned to `align` (a power of two); its physical address.
    ///
    /// # Errors
    /// If there is none.
    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal>;
    /// Frees what [`Hardware::alloc`] gave.
    fn free(&self, pa: u64, len: u64);
    /// Puts commands and a SYNC on the physical queue and waits until the hardware is done with them.
    ///
    /// # Errors
    /// If the queue failed or did not answer in time.
    fn issue(&self, commands: &[u64]) -> Result<(), Refusal>;
}

/// Geometry of the physical command ring. Indices run on without bound; the register holds them as below.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingGeometry {
    /// Host physical address of entry 0.
    pub base: u64,
    /// log2 of the size in commands.
    pub log2_commands: u32,
    /// Words of 8 bytes a command.
    pub command_words: u32,
    /// Register that takes the producer index (a 4-byte write is the doorbell).
    pub producer: u64,
    /// Register that shows the consumer index.
    pub consumer: u64,
    /// Bits of the consumer register that are not index; the index field starts at bit `index_shift`.
    pub index_shift: u32,
    /// 1 if the index field has one bit more than needed (the wrap bit), else 0.
    pub wrap_bit: u32,
    /// Bits of the consumer register that, when not zero, may mean that the queue stopped:
    /// [`Driver::queue_fault`] tells.
    pub error_mask: u32,
    /// Register that also tells of a stopped queue, read while waiting; 0 if `error_mask` is enough.
    pub error_register: u32,
    /// Bits of `error_register` that, when not zero, may mean that the queue stopped.
    pub error_bits: u32,
    /// Bits of `error_register` that are not zero as long as the queue runs.
    pub running_bits: u32,
}

/// What the physical IOMMU offers.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DriverInfo {
    /// The command ring.
    pub ring: RingGeometry,
    /// First usable tag.
    pub first_tag: u32,
    /// Last usable tag (VMID 255 or 65535 on Arm).
    pub last_tag: u32,
    /// Streams `0..streams` can be programmed.
    pub streams: u32,
    /// log2 of the smallest stage-2 page.
    pub page_log2: u32,
    /// Log2 of the largest input address of stage 2, in bits.
    pub ipa_bits: u32,
    /// 1 if the IOMMU can serve device caches (ATS).
    pub ats: u32,
    /// How guests can be served here: [`TranslationMode::bit`] of each mode.
    pub modes: u32,
}

/// What a host-side invalidation is about.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scope(pub u32);

impl Scope {
    /// Wait for everything before (a SYNC).
    pub const SYNC: Self = Self(0);
    /// All stage-1 translations of `tag` (Arm TLBI_NH_ALL).
    pub const STAGE1_ALL: Self = Self(1);
    /// Stage-2 translations of `tag` for `address..address+length` (Arm TLBI_S2_IPA).
    pub const STAGE2_RANGE: Self = Self(2);
    /// All translations of `tag`, both stages (Arm TLBI_S12_VMALL).
    pub const TAG: Self = Self(3);
    /// Everything in the device cache of `stream` (Arm ATC_INV size 52).
    pub const DEVICE_CACHE: Self = Self(4);
    /// What is cached of the configuration of `stream`: its table entry and everything found through it (Arm CFGI_STE).
    /// No words if this IOMMU caches nothing of the kind.
    pub const CONFIGURATION: Self = Self(5);
}

/// One host-side invalidation.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostInvalidation {
    /// What it is about.
    pub scope: Scope,
    /// The tag, where the scope has one.
    pub tag: u32,
    /// The stream, where the scope has one.
    pub stream: u32,
    /// Zero.
    pub reserved: u32,
    /// First byte, where the scope has a range.
    pub address: u64,
    /// Length in bytes, where the scope has a range.
    pub length: u64,
}

/// Why a physical queue stopped.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueFaultKind(pub u32);

impl QueueFaultKind {
    /// The command at the index is illegal. Replace it by a SYNC, then resume.
    pub const ILLEGAL: Self = Self(1);
    /// The queue's memory could not be read. Resume retries.
    pub const FETCH: Self = Self(2);
    /// A device cache invalidation before the SYNC at the index timed out. Resume goes on after it.
    pub const ATC_TIMEOUT: Self = Self(3);
}

/// A stopped physical queue.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueFault {
    /// Why.
    pub kind: QueueFaultKind,
    /// The consumer register's index field (with wrap bit) at which it stopped.
    pub index: u32,
}

/// Whose affair a hardware event is.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventOwner(pub u32);

impl EventOwner {
    /// The guest whose device it names: goes to its event queue with the guest's ID.
    pub const GUEST: Self = Self(0);
    /// The host (a stage-2 fault, a bad physical table): logged and counted, no guest sees it.
    pub const HOST: Self = Self(1);
    /// Records were lost in the hardware's queue before this point; it names no stream.
    pub const LOST: Self = Self(2);
    /// The guest of the virtual interface whose handle is in [`HostEvent::stream`]: something about the queues that it
    /// drives itself. Goes to its frontend with [`crate::NO_STREAM`] as the guest's ID.
    pub const INTERFACE: Self = Self(3);
}

/// One record of the physical event queue.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostEvent {
    /// Guest's or host's.
    pub owner: EventOwner,
    /// Host stream it names, or the virtual interface.
    pub stream: u32,
    /// The vendor's event number.
    pub code: u32,
    /// Words of `record` used.
    pub words: u32,
    /// The record as hardware wrote it, with the stream's field zero.
    pub record: [u64; 8],
}

/// Programs one physical IOMMU: tables, queues, events. Not in any data path except [`Driver::encode`].
///
/// Calls are serialised by the host; they come from threads that may wait.
pub trait Driver: Send + 'static {
    /// What the hardware offers. Fixed after creation.
    fn info(&self) -> DriverInfo;
    /// ID registers that a guest of this IOMMU may be shown in this mode, masked to what a vIOMMU can carry. None in a
    /// mode that is not one of [`DriverInfo::modes`].
    fn guest_registers(&self, mode: TranslationMode) -> Vec<Register>;
    /// Creates an empty stage-2 table with this tag; its handle.
    ///
    /// # Errors
    /// If there is no memory.
    fn stage2_create(&mut self, tag: u32) -> Result<u32, Refusal>;
    /// Maps `ipa..ipa+len` to `pa` for `access` (bit 0 reads, bit 1 writes; never neither). Uses the largest blocks that
    /// fit.
    ///
    /// # Errors
    /// If part of it is mapped already, misaligned, or beyond the address size.
    fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal>;
    /// Removes a mapping from the tables. The caller invalidates (see `facts` in docs/architecture: S2_IPA, SYNC,
    /// NH_ALL, SYNC, ATC).
    ///
    /// # Errors
    /// If the range cuts a block that it does not cover.
    fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), Refusal>;
    /// Frees the tables. The caller has flushed the tag.
    fn stage2_destroy(&mut self, stage2: u32);
    /// Makes host stream `stream` do what `key` says, nested in `stage2`. Replaces what was there with no moment in
    /// which DMA sees a mix; issues the configuration invalidations itself. What is translated is cached under `tag`: that
    /// of the key's domain, or without one that of `stage2`. Of a guest in [`TranslationMode::SHADOW`], `stage2` is the copy
    /// of the table that the key leads to, and all that is walked: what is missing in it is the guest's fault.
    ///
    /// # Errors
    /// If the stream is out of range or the queue failed. If the hardware lacks what the key asks for (`EINVAL`,
    /// `EOPNOTSUPP`): the stream then does what it did before.
    fn attach(&mut self, stream: u32, stage2: u32, tag: u32, key: &EntryKey) -> Result<(), Refusal>;
    /// Makes host stream `stream` abort all DMA, owned by nobody.
    ///
    /// # Errors
    /// As [`Driver::attach`].
    fn detach(&mut self, stream: u32) -> Result<(), Refusal>;
    /// Writes the command(s) for a host-side invalidation to `out`; words written. Pure.
    fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> usize;
    /// Why the physical queue stopped, if it did.
    fn queue_fault(&mut self) -> Option<QueueFault>;
    /// Acknowledges the queue error: the hardware goes on.
    fn queue_resume(&mut self);
    /// Takes the oldest record of the physical event queue.
    fn event(&mut self) -> Option<HostEvent>;
    /// An interrupt came in on this line since the last call of [`Driver::event`], which is called next.
    fn interrupt(&mut self, _line: u32) {}
    /// Gives a part of the IOMMU to the guest of this stage 2: asked for each vIOMMU.
    ///
    /// # Errors
    /// EOPNOTSUPP if there are no such parts: the guest's commands go the usual way then. ENOSPC if all are given.
    fn interface_create(&mut self, _stage2: u32) -> Result<VirtualInterface, Refusal> {
        Err(no_interfaces())
    }
    /// Takes it back. Its queues and streams are gone.
    ///
    /// # Errors
    /// If the hardware does not answer; it is not given to anybody else then.
    fn interface_destroy(&mut self, _interface: u32) -> Result<(), Refusal> {
        Err(no_interfaces())
    }
    /// Commands in the interface's queues that name `virt_id` are about host stream `stream` from now on.
    ///
    /// # Errors
    /// EINVAL if hardware cannot hold `virt_id`, EEXIST if it is set, ENOSPC if there is no room for one more.
    fn interface_stream_set(&mut self, _interface: u32, _virt_id: u32, _stream: u32) -> Result<(), Refusal> {
        Err(no_interfaces())
    }
    /// Commands that name `virt_id` are about nothing from now on.
    ///
    /// # Errors
    /// ENOENT if it is not set.
    fn interface_stream_clear(&mut self, _interface: u32, _virt_id: u32) -> Result<(), Refusal> {
        Err(no_interfaces())
    }
    /// Commands in the interface's queues that name the guest's domain `domain` are about `tag` from now on. Only for
    /// hardware in which guests' commands name domains.
    ///
    /// # Errors
    /// EINVAL if hardware cannot hold `domain`.
    fn interface_domain_set(&mut self, _interface: u32, _domain: u32, _tag: u32) -> Result<(), Refusal> {
        Ok(())
    }
    /// Commands that name the guest's domain `domain` are about nothing but the nesting parent's own tag.
    ///
    /// # Errors
    /// If the hardware does not answer.
    fn interface_domain_clear(&mut self, _interface: u32, _domain: u32) -> Result<(), Refusal> {
        Ok(())
    }
    /// Lets hardware use a queue in the guest's memory; its handle. `pa` is where it is, if the interface has
    /// [`VirtualInterface::PHYSICAL_QUEUES`], else 0. Whether it runs is the guest's affair.
    ///
    /// # Errors
    /// EINVAL if it cannot be like this, EEXIST if there is one with this kind and index, EIO if another comes first.
    fn hw_queue_create(&mut self, _interface: u32, _queue: &HwQueueRequest, _pa: u64) -> Result<u32, Refusal> {
        Err(no_interfaces())
    }
    /// Hardware touches the queue no more, and nothing of it is left for the next.
    ///
    /// # Errors
    /// If the hardware does not answer.
    fn hw_queue_destroy(&mut self, _queue: u32) -> Result<(), Refusal> {
        Err(no_interfaces())
    }
}

fn no_interfaces() -> Refusal {
    Refusal::new(Refusal::EOPNOTSUPP, "this IOMMU has no parts that a guest could drive itself")
}
