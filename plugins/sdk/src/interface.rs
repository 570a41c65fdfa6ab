//! Virtual interfaces: parts of a physical IOMMU that a guest drives itself (Tegra's VINTF, AMD's virtual function), and
//! the queues in them.

/// A part of the physical IOMMU that belongs to one guest.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VirtualInterface {
    /// The driver's number for it.
    pub handle: u32,
    /// See [`VirtualInterface::PHYSICAL_QUEUES`].
    pub flags: u32,
    /// Where the registers are that the guest may touch directly: offset in the hardware's register frame.
    pub page: u64,
    /// Bytes of them; 0 if there are none.
    pub page_length: u64,
    /// Where the guest expects them: offset in the register frame that it sees.
    pub guest_page: u64,
}

impl VirtualInterface {
    /// `flags`: hardware reads the queues by physical address, so each must be contiguous there. Without, it translates
    /// their addresses itself.
    pub const PHYSICAL_QUEUES: u32 = 1;
}

/// What a queue is for.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HwQueueKind(pub u32);

impl HwQueueKind {
    /// Commands of the guest.
    pub const COMMAND: Self = Self(0);
    /// Events for the guest.
    pub const EVENT: Self = Self(1);
    /// Page requests for the guest.
    pub const PAGE_REQUEST: Self = Self(2);
}

/// A queue in guest memory that hardware is to use itself.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HwQueueRequest {
    /// What it is for.
    pub kind: HwQueueKind,
    /// Its number among those of its kind, from 0.
    pub index: u32,
    /// Guest physical address of its first entry.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
}
