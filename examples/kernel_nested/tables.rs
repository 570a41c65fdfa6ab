//! What an Arm guest keeps in its memory for its IOMMU's walker: table entries, context descriptors, page tables. The bits
//! are those of Arm IHI 0070 (chapter 5) and DDI 0487 (VMSAv8-64).

use std::cell::Cell;
use std::fs::File;
use std::sync::Arc;
use viommu::vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
};

/// Guest RAM: first address and bytes.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_BYTES: u64 = 8 << 20;
/// Where the last part of it begins: mapped by itself, and used for nothing that the guest needs.
pub(crate) const TAIL: u64 = RAM + 6 * (1 << 20);
pub(crate) const TAIL_BYTES: u64 = RAM + RAM_BYTES - TAIL;
/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Pages below this are the guest's queues and stream table.
const FIRST_FREE: u64 = RAM + 0x10_0000;

/// A stream table entry's first two words.
pub(crate) type Entry = [u64; 2];
/// STE with V clear: DMA aborts, with an event.
pub(crate) const INVALID: Entry = [0, 0];
/// STE.Config = 0: DMA aborts.
pub(crate) const ABORT: Entry = [1, 0];
/// STE.Config = 4: no stage 1.
pub(crate) const BYPASS: Entry = [1 | 4 << 1, 0];

/// STE.Config = 5: stage 1, through the context descriptor at `cd`. Walks are cacheable, inner shareable.
pub(crate) fn translate(cd: u64) -> Entry {
    [1 | 5 << 1 | cd, 1 << 2 | 1 << 4 | 3 << 6]
}

/// What a leaf lets devices do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    ReadOnly,
}

/// Guest memory, handed out by pages.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    memory: Arc<GuestMemoryMmap>,
    next: Cell<u64>,
}

impl Memory {
    pub(crate) fn new(memory: Arc<GuestMemoryMmap>) -> Self {
        Self { memory, next: Cell::new(FIRST_FREE) }
    }

    pub(crate) fn shared(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// As it was in another process: `next` is its next free page.
    pub(crate) fn recalled(memory: Arc<GuestMemoryMmap>, next: u64) -> Self {
        Self { memory, next: Cell::new(next) }
    }

    /// The next free page.
    pub(crate) fn next(&self) -> u64 {
        self.next.get()
    }

    /// The file that it is.
    pub(crate) fn file(&self) -> Option<&File> {
        Some(self.memory.find_region(GuestAddress(RAM))?.file_offset()?.file())
    }

    /// A page that nobody else has, zero.
    pub(crate) fn page(&self) -> u64 {
        let page = self.next.get();
        assert!(page < TAIL, "the guest has no page left");
        self.next.set(page + PAGE);
        page
    }

    pub(crate) fn load(&self, gpa: u64) -> Result<u64, GuestMemoryError> {
        self.memory.read_obj(GuestAddress(gpa)).map(u64::from_le)
    }

    pub(crate) fn store(&self, gpa: u64, word: u64) -> Result<(), GuestMemoryError> {
        self.memory.store(word.to_le(), GuestAddress(gpa), std::sync::atomic::Ordering::SeqCst)
    }
}

/// A context descriptor of this guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) gpa: u64,
}

impl Descriptor {
    pub(crate) fn new(memory: &Memory) -> Self {
        Self { gpa: memory.page() }
    }

    /// Writes it: `tables` of `asid`.
    pub(crate) fn write(self, memory: &Memory, tables: &Tables, asid: u16) -> Result<(), GuestMemoryError> {
        memory.store(self.gpa + 8, tables.root)?;
        // Attribute 0: normal memory, write-back.
        memory.store(self.gpa + 24, 0xff)?;
        // T0SZ 16, walks write-back and inner shareable, EPD1, V, IPS 44 bits, AA64, R, A, ASET, ASID.
        let walks = 1 << 8 | 1 << 10 | 3 << 12;
        let flags = 1 << 30 | 1 << 31 | 4 << 32 | 1 << 41 | 1 << 45 | 1 << 46 | 1 << 47;
        memory.store(self.gpa, 16 | walks | flags | u64::from(asid) << 48)
    }

    /// Clears V.
    pub(crate) fn break_it(self, memory: &Memory) -> Result<(), GuestMemoryError> {
        memory.store(self.gpa, memory.load(self.gpa)? & !(1 << 31))
    }
}

/// A stage-1 page table with four levels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables {
    pub(crate) root: u64,
}

impl Tables {
    pub(crate) fn new(memory: &Memory) -> Self {
        Self { root: memory.page() }
    }

    /// Maps a page, or changes it; tells the IOMMU nothing.
    pub(crate) fn map(&self, memory: &Memory, iova: u64, gpa: u64, access: Access) -> Result<(), GuestMemoryError> {
        // EL0, inner shareable, accessed, not global; AP[2] forbids writes.
        let read_only = if access == Access::ReadOnly { 1 << 7 } else { 0 };
        self.set(memory, iova, gpa | 3 | 1 << 6 | read_only | 3 << 8 | 1 << 10 | 1 << 11)
    }

    /// Clears a page's leaf; tells the IOMMU nothing.
    pub(crate) fn unmap(&self, memory: &Memory, iova: u64) -> Result<(), GuestMemoryError> {
        self.set(memory, iova, 0)
    }

    fn set(&self, memory: &Memory, iova: u64, leaf: u64) -> Result<(), GuestMemoryError> {
        let slot = |table: u64, level: u32| table + 8 * (iova >> (39 - 9 * level) & 511);
        let mut table = self.root;
        for level in 0..3 {
            let at = slot(table, level);
            if memory.load(at)? & 1 == 0 {
                memory.store(at, memory.page() | 3)?;
            }
            table = memory.load(at)? & !0xfff;
        }
        memory.store(slot(table, 3), leaf)
    }
}
