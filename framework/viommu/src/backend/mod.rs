//! What carries out the objects' operations and takes the rewritten commands.
//!
//! Control and data are two traits: [`Objects`] allocates, attaches and destroys, [`Sink`] moves commands. Holding one
//! does not grant the other.

pub mod direct;
pub mod kernel;
mod shadow;
mod sink;

pub(crate) use sink::Numbers;
pub use sink::{Batch, Checked, Guest, Host, Owner, Position, Routed, Sink, SinkError, SinkOf, Words};

use crate::Cause;
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use viommu_plugin::{EntryKey, GuestMapping, HwQueueRequest, Register, TranslationMode};

/// Kinds of objects, with the uAPI's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ObjectKind {
    Host,
    Ioas,
    NestParent,
    Viommu,
    NestedHwpt,
    Device,
    Vdevice,
    HwQueue,
    EventQueue,
    FaultQueue,
    GuestPage,
}

impl ObjectKind {
    /// The uAPI's name, as in metric labels.
    pub fn uapi_name(self) -> &'static str {
        match self {
            Self::Host => "HOST",
            Self::Ioas => "IOAS",
            Self::NestParent => "HWPT_PAGING",
            Self::Viommu => "VIOMMU",
            Self::NestedHwpt => "HWPT_NESTED",
            Self::Device => "DEVICE",
            Self::Vdevice => "VDEVICE",
            Self::HwQueue => "HW_QUEUE",
            Self::EventQueue => "VEVENTQ",
            Self::FaultQueue => "FAULT",
            Self::GuestPage => "MMAP",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Ioas => "IOAS",
            Self::NestParent => "nesting parent",
            Self::Viommu => "vIOMMU",
            Self::NestedHwpt => "nested HWPT",
            Self::Device => "device",
            Self::Vdevice => "vdevice",
            Self::HwQueue => "HW queue",
            Self::EventQueue => "event queue",
            Self::FaultQueue => "fault queue",
            Self::GuestPage => "mapping",
        })
    }
}

/// What an IOVA range of an IOAS is backed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Host physical memory or a device page (the MSI doorbell): for backends that own the IOMMU.
    Physical(u64),
    /// Memory of this process: for the kernel, which pins it.
    UserVa(u64),
}

/// One mapping of an IOAS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// First IOVA (guest physical address).
    pub iova: u64,
    /// Bytes.
    pub length: u64,
    /// What backs it.
    pub backing: Backing,
    /// Whether devices may write.
    pub writable: bool,
}

/// What a vIOMMU allocation gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViommuAlloc {
    /// The vIOMMU.
    pub id: u32,
    /// Tag that the guest's invalidations are rewritten to (VMID).
    pub tag: u32,
    /// HWPT that lets no DMA pass, allocated with the vIOMMU.
    pub abort: u32,
    /// HWPT with stage 2 only, allocated with the vIOMMU.
    pub bypass: u32,
}

/// What a nested HWPT's allocation gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NestedAlloc {
    /// The nested HWPT.
    pub id: u32,
    /// The tag of its key's domain, which the guest's invalidations of that domain are rewritten to; `None` if the key
    /// names no domain.
    pub tag: Option<u32>,
}

/// What a backend is, for people and labels.
#[derive(Debug, Clone)]
pub struct BackendInfo {
    /// "direct" or "kernel".
    pub name: &'static str,
    /// The vendor's name.
    pub vendor: String,
    /// How guests' tables can reach the hardware: [`TranslationMode::bit`] of each mode.
    pub modes: u32,
    /// Streams `0..streams` exist.
    pub streams: u32,
    /// Tags there are.
    pub tags: u32,
}

/// Something the hardware reported.
#[derive(Debug, Clone, Copy)]
pub enum BackendEvent {
    /// A fault of a guest's device: the record, its stream's field zero, for the guest's event queue.
    Guest {
        /// Host stream.
        stream: u32,
        /// Vendor's record.
        record: [u64; 8],
        /// Words of it.
        words: u32,
    },
    /// A fault that is the host's affair (stage 2, physical tables).
    Host {
        /// Host stream.
        stream: u32,
        /// Vendor's event number.
        code: u32,
    },
    /// Something about the queues that this vIOMMU's guest drives itself.
    Queues {
        /// The vIOMMU.
        viommu: u32,
        /// Vendor's record.
        record: [u64; 8],
        /// Words of it.
        words: u32,
    },
    /// Records were lost in hardware; every guest must be told.
    Lost,
    /// Records of this vIOMMU's guest were lost; it must be told.
    GuestLost {
        /// The vIOMMU.
        viommu: u32,
        /// How many.
        records: u64,
    },
    /// A device waits for a page: [`Objects::page_response`] answers.
    PageRequest(PageRequest),
    /// The physical queue stopped on a command of `owner`, was repaired, and `owner` is to be quarantined.
    QueueError {
        /// Whose command it was.
        owner: Owner,
        /// Why.
        fault: viommu_plugin::GuestFault,
    },
}

/// A device's request for a page, from a fault queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// The fault queue.
    pub queue: u32,
    /// Host stream; `None` if the device has left.
    pub stream: Option<u32>,
    /// The PASID, if it is about one.
    pub pasid: Option<u32>,
    /// The device's number of the group that is answered together.
    pub group: u32,
    /// The last of its group.
    pub last: bool,
    /// Bit 0: read, 1: write, 2: execute, 3: privileged.
    pub permissions: u32,
    /// The address.
    pub address: u64,
    /// Names the group in the answer.
    pub cookie: u32,
}

/// Registers of the hardware that belong to one guest. Whoever has them talks to the hardware, and nobody else sees it.
pub trait GuestPage: Send + Sync + 'static {
    /// Where they are.
    fn place(&self) -> PagePlace;
    /// Reads `size` bytes (4 or 8), `offset` bytes into them.
    fn read(&self, offset: u64, size: u32) -> u64;
    /// Writes `size` bytes (4 or 8).
    fn write(&self, offset: u64, size: u32, value: u64);
    /// A caller waits for the hardware and found that it is not there yet: a model makes progress here.
    fn relax(&self);
}

/// Where a guest's registers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagePlace {
    /// What to ask for to have them mapped (mmap's offset).
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Where in the register frame of the guest they belong.
    pub guest_offset: u64,
}

/// Control plane of a backend. IDs come from one namespace and are never given twice.
///
/// Every method may block (ioctls, waits for hardware): callers run it where that is allowed. An operation that fails
/// has changed nothing.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// What this backend is.
    fn describe(&self) -> BackendInfo;
    /// IOAS_ALLOC.
    async fn ioas_alloc(&self) -> Result<u32, Cause>;
    /// IOAS_MAP. Reaches every nesting parent on it.
    async fn ioas_map(&self, ioas: u32, mapping: Mapping) -> Result<(), Cause>;
    /// IOAS_UNMAP; bytes unmapped. Returns after the hardware forgot them, device caches included.
    async fn ioas_unmap(&self, ioas: u32, iova: u64, length: u64) -> Result<u64, Cause>;
    /// HWPT_ALLOC with NEST_PARENT.
    async fn nest_parent_alloc(&self, ioas: u32) -> Result<u32, Cause>;
    /// VIOMMU_ALLOC. A parent carries one vIOMMU.
    async fn viommu_alloc(&self, parent: u32) -> Result<ViommuAlloc, Cause>;
    /// Binds the device with this host stream.
    async fn device_bind(&self, stream: u32) -> Result<u32, Cause>;
    /// VDEVICE_ALLOC.
    async fn vdevice_alloc(&self, viommu: u32, device: u32, virt_id: u32) -> Result<u32, Cause>;
    /// HWPT_ALLOC of a nested HWPT on a vIOMMU. All those of one vIOMMU whose keys name the same domain of the guest share
    /// a tag; nobody else has it, and nothing that carried it before is cached.
    async fn nested_hwpt_alloc(&self, viommu: u32, key: &EntryKey) -> Result<NestedAlloc, Cause>;
    /// HWPT_ALLOC of a paging HWPT of its own, empty, for the page table that `key` of this vIOMMU's guest leads to and that
    /// the hardware cannot nest.
    async fn shadow_hwpt_alloc(&self, viommu: u32, key: &EntryKey) -> Result<u32, Cause> {
        Err(Cause::Unsupported(format!("this backend makes no shadow tables for vIOMMU {viommu}, {key:x?}")))
    }
    /// The leaves of the guest's page table that this shadow holds and that map any of `first..=last`, ascending.
    fn shadow_leaves(&self, hwpt: u32, first: u64, last: u64) -> Result<Vec<GuestMapping>, Cause> {
        Err(Cause::Unsupported(format!("this backend has no leaves of HWPT {hwpt} in {first:#x}..={last:#x}")))
    }
    /// Takes the leaves `gone` out of the shadow and out of all translation caches, then puts `new` in, each as far as the
    /// vIOMMU's IOAS backs it. Leaves of `gone` are among those of [`Objects::shadow_leaves`]; leaves of `new` overlap
    /// none that stays. If it fails, nobody may rely on what the shadow holds.
    fn shadow_change(&self, hwpt: u32, gone: &[GuestMapping], new: &[GuestMapping]) -> Result<(), Cause> {
        Err(Cause::Unsupported(format!("HWPT {hwpt}: {} leaves to {}, but no shadow here", gone.len(), new.len())))
    }
    /// Attaches or replaces: a device is never between two HWPTs. `hwpt` is a nested HWPT, or a vIOMMU's abort or
    /// bypass HWPT.
    async fn attach(&self, device: u32, hwpt: u32) -> Result<(), Cause>;
    /// The guest said that the table entry of this device changed, and it asks for the HWPT that the device is attached
    /// to: makes the hardware forget what it cached of the tables that the entry leads to (CDs, PASID entries). The same
    /// as detaching and attaching, without the moment in between.
    async fn reload(&self, device: u32) -> Result<(), Cause>;
    /// Detaches: the device's DMA aborts.
    async fn detach(&self, device: u32) -> Result<(), Cause>;
    /// VEVENTQ_ALLOC.
    async fn event_queue_alloc(&self, viommu: u32) -> Result<u32, Cause>;
    /// FAULT_QUEUE_ALLOC.
    async fn fault_queue_alloc(&self) -> Result<u32, Cause>;
    /// Answers a group of page requests: try again, or give up.
    ///
    /// # Errors
    /// EINVAL if nothing with this cookie waits: its device left, or it was answered.
    fn page_response(&self, queue: u32, cookie: u32, success: bool) -> Result<(), Cause> {
        let what = if success { "success" } else { "failure" };
        Err(Cause::Unsupported(format!("no page requests here: {what} for cookie {cookie} of queue {queue}")))
    }
    /// HW_QUEUE_ALLOC. The memory cannot be unmapped as long as hardware reads it.
    async fn hw_queue_alloc(&self, viommu: u32, queue: &HwQueueRequest) -> Result<u32, Cause>;
    /// Gives the vIOMMU's guest a part of the hardware to drive itself, if there are such; freed with the vIOMMU.
    ///
    /// # Errors
    /// ENOSPC if all are given.
    async fn interface_give(&self, viommu: u32) -> Result<(), Cause> {
        let _ = viommu;
        Ok(())
    }
    /// The registers of the hardware that this vIOMMU's guest may touch directly; `None` if there are none.
    ///
    /// # Errors
    /// If there is no such vIOMMU.
    fn guest_page(&self, viommu: u32) -> Result<Option<Arc<dyn GuestPage>>, Cause> {
        let _ = viommu;
        Ok(None)
    }
    /// Makes the hardware forget everything it cached for this vIOMMU's guest, device caches included: the guest's
    /// machine was reset.
    async fn flush(&self, viommu: u32) -> Result<(), Cause> {
        Err(Cause::Unsupported(format!("this backend cannot flush vIOMMU {viommu}")))
    }
    /// DESTROY of whatever has this ID. EBUSY while something uses it.
    async fn destroy(&self, id: u32) -> Result<(), Cause>;
    /// Objects alive, oldest first.
    fn live(&self) -> Vec<(u32, ObjectKind)>;
    /// ID registers that a guest may be shown in this mode, so that a guest of another host is not given less than it
    /// knows. `None`: not known, and no guest can be restored here.
    fn guest_registers(&self, mode: TranslationMode) -> Option<Vec<Register>> {
        let _ = mode;
        None
    }
    /// The queue that takes this vIOMMU's invalidations.
    fn sink(&self, viommu: u32) -> Result<SinkOf, Cause>;
    /// What the hardware reports, in order. One receiver for the whole backend.
    fn events(&self) -> flume::Receiver<BackendEvent>;
}
