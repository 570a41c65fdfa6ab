//! vIOMMU: a guest's IOMMU, as a slice of a physical one.

mod alloc;
mod bind;
mod configure;
mod queues;
mod restore;
mod save;
mod state;

pub(crate) use alloc::AllocViommu;
pub(crate) use bind::Unbind;
pub(crate) use configure::Quarantine;
pub use restore::{RestoreConfig, RestoredViommu};
pub use state::NestedCounters;
pub(crate) use state::{ViommuFacts, ViommuState};

use super::event_queue::AllocEventQueue;
use super::hw_queue::AllocHwQueue;
use super::{Device, EventQueue, HwQueue, Link, NestParent, NestedHwpt, Vdevice};
use crate::pipeline::{CommandTap, Interrupts, Invalidated, NoInterrupts, Pipeline};
use crate::save::GuestEntry;
use crate::{Cause, Error};
use bind::BindVdevice;
use configure::{AttachLate, InstallEntry};
use std::sync::Arc;
use viommu_plugin::{Classes, EntryKey, GuestFault, HostIds, Register, Stop, TranslationMode};
use vm_memory::GuestMemoryMmap;

/// Guest IDs are below this: the map from guest ID to host stream is a dense array.
pub const VIRT_ID_LIMIT: u32 = 1 << 20;

/// Pages that a VMM is asked to watch at most: 64 MiB of tables.
const WATCHED_LIMIT: usize = 1 << 14;

/// What a vIOMMU is made of.
pub struct ViommuConfig {
    /// ID registers that the guest is shown: they set what its commands may say.
    pub registers: Vec<Register>,
    /// The guest's memory, by guest physical address.
    pub memory: Arc<GuestMemoryMmap>,
    /// The guest's interrupts.
    pub interrupts: Arc<dyn Interrupts>,
    /// `true`: viommu emulates the registers. `false`: the VMM does, uses [`Viommu::install_entry`] and
    /// [`Viommu::invalidate`], and takes [`Interrupts::event`].
    pub frontend: bool,
    /// Sees the guest's commands as they are fetched.
    pub tap: Option<Arc<dyn CommandTap>>,
}

impl ViommuConfig {
    /// A vIOMMU with viommu's own register frame, no interrupts and no tap.
    pub fn new(registers: Vec<Register>, memory: Arc<GuestMemoryMmap>) -> Self {
        Self { registers, memory, interrupts: Arc::new(NoInterrupts), frontend: true, tap: None }
    }
}

impl std::fmt::Debug for ViommuConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ViommuConfig").field("registers", &self.registers).field("frontend", &self.frontend).finish()
    }
}

/// Fixed facts of a vIOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViommuInfo {
    /// Its ID.
    pub id: u32,
    /// The tag (VMID) that its guest's invalidations carry in hardware.
    pub tag: u32,
    /// HWPT that lets no DMA pass.
    pub abort: u32,
    /// HWPT with stage 2 only.
    pub bypass: u32,
    /// The number under which the hardware queue knows it.
    pub owner: u32,
    /// Whether viommu emulates the registers.
    pub frontend: bool,
    /// How the guest's page tables reach the hardware.
    pub mode: TranslationMode,
}

/// A guest's IOMMU. Dropping the last handle destroys it, after its vdevices and queues.
#[doc(alias = "virtual function")]
#[doc(alias = "VINTF")]
#[doc(alias = "virtual interface")]
#[derive(Debug, Clone)]
pub struct Viommu(pub(crate) Arc<Link<ViommuState>>);

impl Viommu {
    /// Its ID.
    pub fn id(&self) -> u32 {
        self.0.node.id
    }

    /// Fixed facts.
    pub fn info(&self) -> ViommuInfo {
        self.0.facts.info
    }

    /// The nesting parent it is welded to.
    pub fn parent(&self) -> &NestParent {
        &self.0.keeps
    }

    /// The data path: registers, doorbells, counters, without a message.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.0.facts.pipeline
    }

    /// VDEVICE_ALLOC: names a device to the guest. Returns when the device does what the guest's current table entry
    /// says.
    ///
    /// # Errors
    /// If `virt_id` is [`VIRT_ID_LIMIT`] or more (EINVAL), names another device, or the device has a vdevice (EEXIST).
    pub async fn vdevice(&self, device: &Device, virt_id: u32) -> Result<Vdevice, Error> {
        let bind = BindVdevice { viommu: self.clone(), device: device.clone(), virt_id, entry: None };
        self.0.ask(bind).await.map(Vdevice)
    }

    /// VEVENTQ_ALLOC.
    ///
    /// # Errors
    /// If it has one (EEXIST).
    pub async fn event_queue(&self) -> Result<EventQueue, Error> {
        self.0.ask(AllocEventQueue(self.clone())).await.map(EventQueue)
    }

    /// HW_QUEUE_ALLOC: a queue of `length` bytes at guest address `iova` that hardware reads itself.
    ///
    /// # Errors
    /// If the backend has none (EOPNOTSUPP), the index is taken (EEXIST), or the one before it is missing (EIO).
    pub async fn hw_queue(&self, index: u32, iova: u64, length: u64) -> Result<HwQueue, Error> {
        self.0.ask(AllocHwQueue { viommu: self.clone(), index, iova, length }).await.map(HwQueue)
    }

    /// Without a frontend: the guest's table entry of `virt_id` is now `words`. Returns when the device obeys it.
    ///
    /// # Errors
    /// If there is a frontend (EINVAL), no such vdevice (ENOENT), or the wrong number of words (EINVAL).
    pub async fn install_entry(&self, virt_id: u32, words: &[u64]) -> Result<(), Error> {
        self.0.ask(InstallEntry { virt_id, entry: GuestEntry::Words(words.into()) }).await
    }

    /// Without a frontend: the device's DMA passes stage 2 only.
    ///
    /// # Errors
    /// As [`Viommu::install_entry`].
    pub async fn set_passthrough(&self, virt_id: u32) -> Result<(), Error> {
        self.0.ask(InstallEntry { virt_id, entry: GuestEntry::Bypass }).await
    }

    /// Without a frontend: the device's DMA aborts.
    ///
    /// # Errors
    /// As [`Viommu::install_entry`].
    pub async fn set_blocking(&self, virt_id: u32) -> Result<(), Error> {
        self.0.ask(InstallEntry { virt_id, entry: GuestEntry::Abort }).await
    }

    /// HWPT_INVALIDATE on this vIOMMU: guest command words, complete in hardware when this returns.
    ///
    /// # Errors
    /// If the words are not whole commands (EINVAL), or the hardware failed. What the guest did wrong is in the `Ok`.
    pub async fn invalidate(&self, words: &[u64]) -> Result<Invalidated, Error> {
        let (pipeline, words) = (self.pipeline().clone(), words.to_vec());
        self.0.off_thread("invalidate", move || pipeline.invalidate(&words)).await
    }

    /// A guest read of the register frame.
    ///
    /// # Errors
    /// If there is no frontend.
    pub async fn mmio_read(&self, offset: u64, size: u32) -> Result<u64, Error> {
        self.0.alive("mmio_read")?;
        self.pipeline().mmio_read(offset, size).map_err(|cause| self.0.error("mmio_read", cause))
    }

    /// A guest write of the register frame. A doorbell returns when the guest's commands are where hardware fetches
    /// them, SYNCs among them when hardware has finished.
    ///
    /// # Errors
    /// As [`Pipeline::mmio_write`].
    pub async fn mmio_write(&self, offset: u64, size: u32, value: u64) -> Result<(), Error> {
        let pipeline = self.pipeline().clone();
        self.0.off_thread("mmio_write", move || pipeline.mmio_write(offset, size, value)).await
    }

    /// Machine reset.
    ///
    /// # Errors
    /// As [`Pipeline::reset`].
    pub async fn reset(&self) -> Result<(), Error> {
        let pipeline = self.pipeline().clone();
        self.0.off_thread("reset", move || pipeline.reset()).await
    }

    /// Guest physical pages (4 KiB), ascending, whose writes the VMM has to trap and to tell by
    /// [`Viommu::memory_written`]: in them the guest can make a table entry valid without a command that says so (VT-d
    /// without Caching Mode). To be asked again after each register write, command and write told: tables grow. Empty where
    /// guests announce everything.
    ///
    /// # Errors
    /// If there is no frontend.
    pub fn watched_pages(&self) -> Result<Vec<u64>, Error> {
        self.0.alive("watched_pages")?;
        let virt_ids: Vec<u32> = self.0.facts.view.load().keys.keys().copied().collect();
        let pages = self.pipeline().watched_pages(&virt_ids, WATCHED_LIMIT);
        pages.map_err(|cause| self.0.error("watched_pages", cause))
    }

    /// The guest wrote to watched pages, and the write is in memory: streams that were not attached and whose entry is
    /// valid now are attached when this returns. How many. Nothing else happens: entries that were valid before change by
    /// the guest's commands alone. Except for a guest whose commands go past the framework
    /// ([`viommu_plugin::GuestTraits::WRITES_CONFIGURE`]): each stream with an entry in the pages does what it says now.
    ///
    /// # Errors
    /// If there is no frontend, or the hardware refused.
    pub async fn memory_written(&self, gpa: u64, length: u64) -> Result<u32, Error> {
        self.0.ask(AttachLate { gpa, length }).await
    }

    /// Nested HWPTs alive, oldest first.
    pub fn nested_hwpts(&self) -> Vec<NestedHwpt> {
        let view = self.0.facts.view.load();
        let nested = view.nested.iter();
        nested.map(|(link, users)| NestedHwpt { link: link.clone(), users: *users, viommu: self.clone() }).collect()
    }

    /// How many nested HWPTs were created and shared so far. Guest counters are in [`Pipeline::counters`].
    pub fn counters(&self) -> NestedCounters {
        self.0.facts.view.load().counters
    }

    /// What the guest's table entry of `virt_id` asked for when it was last read; `None` without a vdevice.
    pub fn key_of(&self, virt_id: u32) -> Option<EntryKey> {
        self.0.facts.view.load().keys.get(&virt_id).copied()
    }

    /// Destroys it.
    ///
    /// # Errors
    /// EBUSY while a vdevice or a queue uses it.
    pub async fn destroy(self) -> Result<(), Error> {
        self.0.destroy().await
    }

    /// [`Viommu::invalidate`] with every stream the commands name replaced by `virt_id`.
    pub(crate) async fn invalidate_as(&self, virt_id: u32, words: &[u64]) -> Result<Invalidated, Error> {
        let (facts, words) = (self.0.facts.clone(), words.to_vec());
        self.0.off_thread("invalidate", move || facts.invalidate_as(virt_id, &words)).await
    }
}

impl ViommuFacts {
    /// Rewrites to guest numbers first, every stream to `virt_id`, then goes the usual way.
    fn invalidate_as(&self, virt_id: u32, words: &[u64]) -> Result<Invalidated, Cause> {
        let streams = vec![virt_id; VIRT_ID_LIMIT as usize];
        let ids = HostIds { tag: 0, streams: &streams, domains: &[] };
        let size = self.command_words;
        let mut forced = vec![0; words.len()];
        let (mut taken, mut written, mut fault) = (0, 0, GuestFault::NONE);
        while taken * size < words.len() && fault == GuestFault::NONE {
            let (guest, out) = (&words[taken * size..], &mut forced[written * size..]);
            let run = self.pipeline.codec().rewrite(guest, Classes::NONE, ids, out)?;
            if run.local_stream > 0 {
                return Err(Cause::Invalid(format!("a command names a stream of {VIRT_ID_LIMIT} or more")));
            }
            taken += run.taken as usize;
            written += run.written as usize;
            fault = match run.stop {
                Stop::END => break,
                Stop::ORDER if run.taken > 0 => GuestFault::NONE,
                Stop::FAULT => run.fault,
                _ => GuestFault::ILLEGAL_OPCODE,
            };
        }
        let done = self.pipeline.invalidate(&forced[..written * size])?;
        let complete = done.handled == written && done.fault == GuestFault::NONE;
        Ok(if complete { Invalidated { handled: taken, fault } } else { done })
    }
}
