//! What a vendor's guests are in the words of Linux's iommufd: the payloads of its commands.
//!
//! ```text
//!   GET_HW_INFO payload ─► registers ─► what a guest is shown      event queue payload ─► event ─► Frontend::event
//!   EntryKey ─► hwpt_data ─► HWPT_ALLOC                            VIOMMU_ALLOC data   ─► interface ─► mmap
//!   checked commands ─► entries ─► HWPT_INVALIDATE
//! ```
//!
//! Pure functions: no state, no I/O, any thread. Numbers and layouts are those of `<linux/iommufd.h>`, in native byte order
//! unless the field is little-endian there.

use crate::{EntryKey, HostInvalidation, NO_DOMAIN, NO_STREAM, Refusal, Register, TranslationMode, VirtualInterface};

/// In the capabilities of GET_HW_INFO: the device, or the IOMMU it is behind, has no ATS. Older kernels never set it.
pub const PCI_ATS_NOT_SUPPORTED: u64 = 1 << 3;

/// How the kernel nests a guest's tables.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Nesting(pub u32);

impl Nesting {
    /// Through a vIOMMU: VIOMMU_ALLOC on a nesting parent, HWPT_ALLOC on the vIOMMU.
    pub const VIOMMU: Self = Self(0);
    /// On the parent: HWPT_ALLOC on a nesting parent. There is no vIOMMU, and so no vdevice and no event queue.
    pub const PARENT: Self = Self(1);
    /// Not at all: guests are served with shadow tables.
    pub const NONE: Self = Self(2);
}

/// The object that an HWPT_INVALIDATE names.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct InvalidateTarget(pub u32);

impl InvalidateTarget {
    /// The guest's vIOMMU.
    pub const VIOMMU: Self = Self(0);
    /// The nested HWPTs of the domain that [`KernelEntries::domain`] says; all of the guest's for [`NO_DOMAIN`].
    pub const NESTED_HWPT: Self = Self(1);
}

/// The types and sizes of a vendor's payloads. A type is the uAPI's number; sizes are in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelFacts {
    /// GET_HW_INFO type.
    pub hw_info_type: u32,
    /// Bytes of that payload.
    pub hw_info_bytes: u32,
    /// A second GET_HW_INFO type, whose payload follows the first; 0 if there is none. A kernel without it: zeros.
    pub hw_info_more_type: u32,
    /// Bytes of the second payload.
    pub hw_info_more_bytes: u32,
    /// VIOMMU_ALLOC type; 0 if there is none.
    pub viommu_type: u32,
    /// Bytes of the data of VIOMMU_ALLOC, all zero going in; 0 if it takes none.
    pub viommu_data_bytes: u32,
    /// HWPT_ALLOC data type of a nested HWPT; 0 if there is none.
    pub hwpt_data_type: u32,
    /// Bytes of that payload.
    pub hwpt_data_bytes: u32,
    /// HWPT_INVALIDATE data type. 0 is one.
    pub invalidate_data_type: u32,
    /// Bytes of the longest invalidation entry; 0 if there is none.
    pub invalidate_entry_bytes: u32,
    /// What most invalidations name; [`KernelEntries::target`] says it of each.
    pub invalidate_target: InvalidateTarget,
    /// How guests are nested.
    pub nesting: Nesting,
    /// VEVENTQ_ALLOC type of the events of a guest's streams; 0 if there is none.
    pub veventq_type: u32,
    /// Bytes of an event's payload, behind the header.
    pub vevent_bytes: u32,
    /// VEVENTQ_ALLOC type of events without a stream (queues that guests drive themselves); 0 if there is none.
    pub interface_veventq_type: u32,
    /// Bytes of such an event's payload, behind the header.
    pub interface_vevent_bytes: u32,
    /// HW_QUEUE_ALLOC type; 0 if there is none.
    pub hw_queue_type: u32,
    /// Zero.
    pub reserved: u32,
}

/// What became of a run of commands.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelEntries {
    /// Words taken, whole commands from the first. What the kernel does by itself is taken and leaves no entry.
    pub taken: u32,
    /// Bytes written, whole entries.
    pub written: u32,
    /// What the entries are to be sent to.
    pub target: InvalidateTarget,
    /// Bytes of an entry (`entry_len`).
    pub entry_bytes: u32,
    /// The guest's own number of the domain that the entries are about; [`NO_DOMAIN`] if they name none.
    pub domain: u32,
    /// 1 if the next command is none that this kernel interface has; else, with words left, there was no room, or the next
    /// needs another target or domain: call again.
    pub refused: u32,
}

impl Default for KernelEntries {
    /// Nothing taken.
    fn default() -> Self {
        let target = InvalidateTarget::VIOMMU;
        Self { taken: 0, written: 0, target, entry_bytes: 0, domain: NO_DOMAIN, refused: 0 }
    }
}

/// An event as [`crate::Frontend::event`] takes it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelEvent {
    /// The guest's ID of the device; [`NO_STREAM`] if it is about none.
    pub virt_id: u32,
    /// Words used in `record`.
    pub words: u32,
    /// The record.
    pub record: [u64; 8],
}

impl Default for KernelEvent {
    /// An empty record about no device.
    fn default() -> Self {
        Self { virt_id: NO_STREAM, words: 0, record: [0; 8] }
    }
}

/// A vendor's payloads of iommufd's commands.
pub trait KernelAbi: Send + Sync + 'static {
    /// Types and sizes.
    fn facts(&self) -> KernelFacts;

    /// The ID registers that a guest served in `mode` may be shown on a host with this GET_HW_INFO payload
    /// ([`KernelFacts::hw_info_bytes`] and [`KernelFacts::hw_info_more_bytes`], one behind the other): what user space may
    /// rely on, and nothing else. `capabilities` is what is in `out_capabilities` of all its devices. Empty if the mode is
    /// not offered.
    ///
    /// # Errors
    /// If the payload is not one, or of hardware that no guest can be shown (`EOPNOTSUPP`, by field).
    fn registers(&self, hw_info: &[u8], capabilities: u64, mode: TranslationMode) -> Result<Vec<Register>, Refusal>;

    /// Writes the payload of HWPT_ALLOC for a nested HWPT of this key; the bytes written, or 0 if there is no such HWPT:
    /// a bypass is then the nesting parent itself, an abort is a device that is detached. 0 too if there is no room.
    fn hwpt_data(&self, key: &EntryKey, data: &mut [u8]) -> usize;

    /// Turns checked commands, in which every ID is the guest's own, into entries of one HWPT_INVALIDATE: as many from the
    /// first as go to one target and fit.
    fn entries(&self, commands: &[u64], entries: &mut [u8]) -> KernelEntries;

    /// Whether the command is one that must be sent twice on hardware with the erratum REPEAT_TLBI_CFGI: TLB and
    /// configuration cache invalidations are, device cache invalidations are not.
    fn repeatable(&self, command: &[u64]) -> bool;

    /// Commands that make the hardware forget what it cached for the guest, every ID in them the guest's own:
    /// [`Scope::STAGE1_ALL`](crate::Scope::STAGE1_ALL) of the guest's domain `tag` ([`NO_DOMAIN`] where guests number none),
    /// [`Scope::CONFIGURATION`](crate::Scope::CONFIGURATION) and [`Scope::DEVICE_CACHE`](crate::Scope::DEVICE_CACHE) of the
    /// device that the guest knows as `stream`. The words written: whole commands that [`KernelAbi::entries`] takes; none if
    /// the kernel does it by itself or has no command for it.
    fn forget(&self, _what: &HostInvalidation, _commands: &mut [u64]) -> usize {
        0
    }

    /// An event of a queue of this type, as the guest's frontend takes it; `None` if it is none.
    fn event(&self, _veventq_type: u32, _payload: &[u8]) -> Option<KernelEvent> {
        None
    }

    /// The registers that a guest may touch directly, from the data that VIOMMU_ALLOC filled in:
    /// [`VirtualInterface::page`] is the offset for mmap. The handle means nothing. `None` if there are none.
    fn interface(&self, _viommu_data: &[u8]) -> Option<VirtualInterface> {
        None
    }
}
