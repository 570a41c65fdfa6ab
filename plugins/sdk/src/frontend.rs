//! The register frame a guest sees.

use crate::{GuestFault, HwQueueRequest, Message, Refusal};

/// One register with its value: how ID registers are handed in.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Register {
    /// Byte offset in the register frame.
    pub offset: u64,
    /// Value as a read of the register's natural size returns it.
    pub value: u64,
}

/// What the framework has to do after a register write; a bit set.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Actions(pub u32);

impl Actions {
    /// The command queue may have work (doorbell, queue enabled, error acknowledged).
    pub const KICK: u32 = 1;
    /// [`Frontend::mode`] or the table base may have changed: every vdevice's entry must be read again.
    pub const RECONFIGURE: u32 = 2;
    /// [`Frontend::hw_queues`] may have changed.
    pub const HW_QUEUES: u32 = 4;
    /// Whether any of `bits` is set.
    pub fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

/// A message-signalled interrupt of the guest's IOMMU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Msi {
    /// Guest physical doorbell address.
    pub address: u64,
    /// Payload.
    pub data: u32,
    /// Keeps the layout free of padding; zero.
    pub reserved: u32,
}

/// Bytes to store in guest memory (an event record, a completion word).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestStore {
    /// Guest physical address.
    pub gpa: u64,
    /// Bytes used of `bytes`.
    pub len: u32,
    /// Keeps the layout free of padding; zero.
    pub reserved: u32,
    /// The bytes.
    pub bytes: [u8; 32],
}

impl GuestStore {
    /// Bytes one store holds at most: an event record of any vendor. Small, because a frontend answers every register
    /// write with it.
    pub const ROOM: usize = size_of::<Self>() - 16;
}

impl Default for GuestStore {
    fn default() -> Self {
        Self { gpa: 0, len: 0, reserved: 0, bytes: [0; Self::ROOM] }
    }
}

/// What a frontend call asks the framework to do, in this order: stores, then interrupts, then actions.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects {
    /// See [`Actions`].
    pub actions: Actions,
    /// Wired interrupt lines to pulse, by the vendor's number (Arm: 0 EVTQ, 1 PRIQ, 2 CMD_SYNC, 3 GERROR).
    pub lines: u32,
    /// How many of `stores` are used.
    pub store_count: u32,
    /// How many of `msis` are used.
    pub msi_count: u32,
    /// Stores into guest memory.
    pub stores: [GuestStore; 1],
    /// Messages to send.
    pub msis: [Msi; 2],
}

impl Effects {
    /// Adds a store; what does not fit is not stored, and `false` says so.
    pub fn store(&mut self, gpa: u64, bytes: &[u8]) -> bool {
        let slot = self.store_count as usize;
        if slot >= self.stores.len() || bytes.len() > GuestStore::ROOM {
            return false;
        }
        self.stores[slot].gpa = gpa;
        self.stores[slot].len = bytes.len() as u32;
        self.stores[slot].bytes[..bytes.len()].copy_from_slice(bytes);
        self.store_count += 1;
        true
    }
    /// Adds a message; `false` if there is no room.
    pub fn msi(&mut self, address: u64, data: u32) -> bool {
        let slot = self.msi_count as usize;
        if slot >= self.msis.len() {
            return false;
        }
        self.msis[slot] = Msi { address, data, reserved: 0 };
        self.msi_count += 1;
        true
    }
}

/// Whether the guest's command queue runs.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueState(pub u32);

impl QueueState {
    /// Not enabled by the guest.
    pub const DISABLED: Self = Self(0);
    /// Enabled; `pending` commands wait.
    pub const RUNNING: Self = Self(1);
    /// Stopped by an error the guest has not acknowledged.
    pub const STOPPED: Self = Self(2);
}

/// The guest's command queue as its registers describe it now.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestQueue {
    /// Guest physical address of entry 0.
    pub base: u64,
    /// Size in commands.
    pub capacity: u32,
    /// Next command to fetch, `0..capacity`.
    pub head: u32,
    /// Commands between head and tail, at most `capacity`.
    pub pending: u32,
    /// Words of 8 bytes a command.
    pub command_words: u32,
    /// Enabled, disabled, stopped.
    pub state: QueueState,
    /// If the registers make no sense: what to report to the guest instead of fetching.
    pub fault: GuestFault,
}

/// What DMA does while no table entry is looked at.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode(pub u32);

impl Mode {
    /// The guest's IOMMU is off: DMA passes untranslated.
    pub const BYPASS: Self = Self(0);
    /// The guest's IOMMU is off: DMA is aborted (Arm GBPA.ABORT).
    pub const ABORT: Self = Self(1);
    /// The guest's tables decide.
    pub const TRANSLATE: Self = Self(2);
}

/// Reads guest memory for a frontend. `Err` means the address is not the guest's memory.
pub trait GuestMemory {
    /// Fills `bytes` from guest physical `gpa`.
    ///
    /// # Errors
    /// [`Unreadable`] if any byte lies outside the guest's memory.
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable>;

    /// Reads one little-endian word.
    ///
    /// # Errors
    /// As [`GuestMemory::read`].
    fn read_u64(&self, gpa: u64) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// The address is not memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// Outcome of looking up a guest ID's table entry.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lookup(pub u32);

impl Lookup {
    /// The entry was read.
    pub const FOUND: Self = Self(0);
    /// The guest's table has no entry for this ID (Arm C_BAD_STREAMID).
    pub const NO_ENTRY: Self = Self(1);
    /// The guest's table is not in its memory (Arm F_STE_FETCH).
    pub const UNREADABLE: Self = Self(2);
}

/// The register frame a guest sees, and the guest-visible half of its queues.
///
/// Pure state: it owns registers and nothing else. Guest memory is read through the argument; whatever must
/// happen outside comes back as [`Effects`]. Calls are serialised by the host.
pub trait Frontend: Send + 'static {
    /// A guest read of `size` bytes (4 or 8) at `offset`. Other sizes and unknown registers read as zero.
    fn read(&self, offset: u64, size: u32) -> u64;
    /// A guest write of `size` bytes (4 or 8) at `offset`. Other sizes and read-only registers are ignored.
    fn write(&mut self, offset: u64, size: u32, value: u64) -> Effects;
    /// The command queue.
    fn queue(&self) -> GuestQueue;
    /// `commands` commands from the head are done; at most [`GuestQueue::pending`].
    fn advance(&mut self, commands: u32);
    /// Stops the command queue at its head with the error that hardware reports for `fault`. Only
    /// [`GuestFault::EVENT_ABORT`] stops nothing: it is the event queue's.
    fn fault(&mut self, fault: GuestFault) -> Effects;
    /// The SYNC at the head is complete: advances past it and signals as it asks (IRQ, MSI, store).
    fn sync_done(&mut self, command: &[u64]) -> Effects;
    /// Delivers an event record of a device to the guest, with the guest's ID in it. [`crate::NO_STREAM`]: it is about the
    /// queues that the guest drives itself.
    fn event(&mut self, virt_id: u32, record: &[u64]) -> Effects;
    /// Events were lost before they reached the guest: shows what hardware shows on overflow.
    fn event_lost(&mut self) -> Effects;
    /// What DMA does while no table entry is looked at.
    fn mode(&self) -> Mode;
    /// Reads the guest's table entry of `virt_id` into `entry` ([`crate::VendorInfo::entry_words`] words).
    fn entry(&self, memory: &dyn GuestMemory, virt_id: u32, entry: &mut [u64]) -> Lookup;
    /// Guest physical pages (4 KiB) of tables on the way to the entries of the guest IDs `streams`, ascending and each
    /// once: what the guest writes there may make an entry valid without any command to say so (VT-d without Caching
    /// Mode). Leaves out the first `from`; how many it wrote. None where every change is announced.
    fn watched(&self, _memory: &dyn GuestMemory, _streams: &[u32], _from: u32, _out: &mut [u64]) -> u32 {
        0
    }
    /// All registers to their reset values; the ID registers stay.
    fn reset(&mut self);
    /// Names the register at `offset`, for people and for comparison rules.
    fn register_name(&self, offset: u64) -> Option<&'static str>;
    /// Says in words why this guest cannot be served, if something it set asks for more than a vIOMMU offers.
    fn trouble(&self, _text: &mut Message) {}
    /// Everything a guest can read or that decides what this frontend does next, the ID registers too, in the vendor's own
    /// encoding: a version first, then little-endian fields, each of a size that does not depend on the machine (see
    /// [`crate::StateWriter`]). The same state gives the same bytes.
    fn save(&self) -> Vec<u8>;
    /// Becomes the frontend that was saved. A refused state has changed nothing.
    ///
    /// # Errors
    /// If the bytes are cut short, go on behind the end, are of an unknown version or hold what no frontend can be in. If
    /// the guest was shown other ID registers than this frontend shows: by register and field.
    fn restore(&mut self, state: &[u8]) -> Result<(), Refusal>;
    /// The queues that the guest's registers ask hardware to use itself, in the order in which they are to be made; how
    /// many there are. Those that do not fit in `queues` are not written.
    fn hw_queues(&self, _queues: &mut [HwQueueRequest]) -> usize {
        0
    }
}
