//! Where a guest keeps what: its tables, queues and pages, by guest physical address.

/// The machine's memory.
pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_SIZE: u64 = 8 << 20;
/// Memory that the host lends and takes back.
pub(crate) const LOAN: u64 = 0x8000_0000;
pub(crate) const LOAN_SIZE: u64 = 2 << 20;

/// Table entries of devices: 16 KiB.
pub(super) const DEVICE_TABLE: u64 = RAM;
/// Numbers of devices are below.
pub(super) const DEVICES: u32 = 256;
pub(super) const COMMANDS: u64 = RAM + 0x4000;
pub(super) const EVENTS: u64 = RAM + 0x5000;
pub(super) const CONTEXTS: u64 = RAM + 0x6000;
pub(super) const MESSAGE: u64 = RAM + 0x7000;
/// Whole pages of contexts, for vendors whose contexts are tables.
pub(super) const CONTEXT_PAGES: u64 = RAM + 0x8000;
/// Pages for tables.
const TABLES: u64 = RAM + 0x2_0000;
const DATA: u64 = RAM + DATA_OFFSET;
/// Where in a machine's memory its guest keeps no tables.
pub(crate) const DATA_OFFSET: u64 = 0x20_0000;
/// A page that is never mapped: freed tables lead here.
const POISON: u64 = RAM + RAM_SIZE - 0x1000;
/// Pages of data.
const FRAMES: u64 = 1500;

pub(super) const PAGE: u64 = 0x1000;
pub(super) const BLOCK: u64 = 0x20_0000;

/// Where groups of pages are mapped: each has a table of the lowest level of its own.
pub(crate) const GROUPS: [u64; 4] = [0x20_0000, 0x4000_0000, 0x4020_0000, 0x7f_c000_0000];
/// Pages of a group that may be mapped.
pub(crate) const PAGES: [u64; 8] = [0, 1, 2, 3, 31, 32, 255, 511];

/// The address of a slot.
pub(crate) fn slot(slot: usize) -> u64 {
    GROUPS[slot / PAGES.len() % GROUPS.len()] + PAGE * PAGES[slot % PAGES.len()]
}

/// The slots.
pub(crate) const SLOTS: usize = GROUPS.len() * PAGES.len();

/// A page of data: the guest's own, or lent.
pub(super) fn frame(frame: u64) -> u64 {
    match frame.checked_sub(FRAMES) {
        Some(lent) => LOAN + PAGE * (lent % (LOAN_SIZE / PAGE)),
        None => DATA + PAGE * frame,
    }
}

/// A block of data.
pub(super) fn block(block: u64) -> u64 {
    DATA + BLOCK * (block % 3)
}

/// Table pages: free, and those that hardware may still read.
pub(super) struct Pages {
    free: Vec<u64>,
    /// With the place in the command queue from which on nobody reads them.
    limbo: Vec<(u64, u64)>,
}

impl Pages {
    pub(super) fn new() -> Self {
        Self { free: (TABLES / PAGE..DATA / PAGE).rev().map(|page| page * PAGE).collect(), limbo: Vec::new() }
    }

    pub(super) fn take(&mut self) -> Option<u64> {
        self.free.pop()
    }

    /// The page is in no table any more; commands up to place `until` say so.
    pub(super) fn release(&mut self, page: u64, until: u64) {
        self.limbo.push((page, until));
    }

    /// Pages that nobody reads now that everything before `synced` is complete.
    pub(super) fn freed(&mut self, synced: u64) -> Vec<u64> {
        let freed: Vec<_> = self.limbo.extract_if(.., |(_, until)| *until <= synced).map(|(page, _)| page).collect();
        self.free.extend(&freed);
        freed
    }

    pub(super) fn poison() -> u64 {
        POISON
    }
}
