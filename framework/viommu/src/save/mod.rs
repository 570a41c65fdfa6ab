//! A guest's IOMMU as it moves to another host: what [`crate::objects::Viommu::save`] gives and
//! [`crate::objects::NestParent::restore_viommu`] takes.
//!
//! ```text
//!   old host                                        new host: other streams, tags, host addresses
//!   ────────                                        ─────────────────────────────────────────────
//!   unsynced commands ── SYNC                       capabilities ≥ what the guest was shown, else refused by name
//!   registers (plugin's bytes) ─┐                 ┌─► registers
//!   entries as last read ───────┼─► SavedViommu ──┼─► vdevices, attached as the entries say
//!   queues, quarantine ─────────┘    to_bytes     └─► commands not consumed yet are consumed
//! ```
//! The guest's memory is the VMM's to move. Caches are not moved: an empty cache is always allowed.

mod encoding;

pub use viommu_plugin::StateError;

use std::sync::Arc;
use viommu_plugin::Register;

/// What a guest's table says about one of its devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum GuestEntry {
    /// Nothing to translate by: DMA aborts. The guest's IOMMU is off and set so, or there is no entry.
    #[default]
    Abort,
    /// No entry was looked at: DMA passes stage 2 only.
    Bypass,
    /// The words of the entry as they were read.
    Words(Arc<[u64]>),
}

/// A vIOMMU's state: version 1 of its encoding is described in docs/saved-state.md.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SavedViommu {
    /// Name of the vendor's plugin.
    pub vendor: String,
    /// ID registers that the guest was shown.
    pub shown: Vec<Register>,
    /// The register frame in the plugin's encoding; `None` if the VMM emulates the registers.
    pub frontend: Option<Vec<u8>>,
    /// Why the guest is out of service, if it is.
    pub quarantined: Option<String>,
    /// Whether it has an event queue.
    pub event_queue: bool,
    /// Its vdevices, by ascending guest ID.
    pub vdevices: Vec<SavedVdevice>,
    /// Its HW queues; the n-th has index n.
    pub hw_queues: Vec<SavedHwQueue>,
}

/// One vdevice. Which device it is on the new host is the VMM's to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedVdevice {
    /// The guest's ID for it.
    pub virt_id: u32,
    /// Its table entry as last read: the new host obeys it until the guest announces another.
    pub entry: GuestEntry,
}

/// One HW queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedHwQueue {
    /// Guest address of the queue.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
}
