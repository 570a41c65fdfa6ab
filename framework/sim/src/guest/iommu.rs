//! What a guest operating system must know of a vendor's IOMMU.

use super::format::Format;
use super::system::System;
use super::{Machine, Stopped};
use crate::oracle::{Command, Context, Entry, Leaf, Mode};
use crate::plan::{Attack, By, ContextScope, Scope, Signal, VmPlan};

/// Where a command queue is, and how its indexes count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ring {
    pub(super) base: u64,
    /// log2 of its entries.
    pub(super) log2: u8,
    /// Words of 8 bytes in a command.
    pub(super) words: usize,
    /// Indexes have a wrap bit; if not, one entry always stays unused.
    pub(super) wraps: bool,
}

/// What the registers say of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Index of the next command that the IOMMU takes.
    pub(super) consumer: u64,
    /// It stopped at an error; whether the command is illegal.
    pub(super) error: Option<bool>,
}

/// How a guest learns that a SYNC is complete.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// The consumer index passes it.
    Index,
    /// These 32 bits appear at this address.
    Store { address: u64, data: u32 },
    /// An interrupt comes.
    Interrupt,
}

/// Who owns a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// An address space: devices share it.
    Space(usize),
    /// A device, by its number in the machine.
    Device(u32),
}

/// What a device's table entry is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Abort,
    Bypass,
    /// Not a valid entry.
    Invalid,
    /// Translated by the context at this address.
    Context(u64, Context),
}

/// A guest's half of an IOMMU: registers, table entries, commands, attacks.
pub(super) trait Iommu: Sized {
    /// As the plan has it.
    fn new(plan: &VmPlan) -> Self;
    /// How its page tables are written.
    fn format(&self) -> Format;
    /// The guest must announce what it maps, as it does what it unmaps: until it has, a device may be refused. A leaf that
    /// changes may be refused meanwhile too.
    fn announces_maps(&self) -> bool {
        false
    }

    /// Its command queue.
    fn ring(&self) -> Ring;
    /// Rings the doorbell: offset, size and value of the register write.
    fn doorbell(&self, index: u64) -> (u64, u32, u64);
    /// Looks at the queue.
    fn look(&self, machine: &Machine) -> Result<Look, Stopped>;
    /// Lets a queue that stopped at an error go on.
    fn acknowledge(&self, machine: &Machine) -> Result<(), Stopped>;
    /// A SYNC that signals so, and how that is seen; `number` tells it from others.
    fn sync(&self, signal: Signal, number: u32) -> (Command, Wait);
    /// Before a SYNC with an interrupt.
    fn expect_interrupt(&self, _machine: &Machine) -> Result<(), Stopped> {
        Ok(())
    }
    /// Interrupts of the kind that SYNCs send, so far.
    fn interrupts(machine: &Machine) -> u32;

    /// Where the context is. If contexts are no memory of their own, a number that stands for it.
    fn context(&self, holder: Holder) -> u64;
    /// The tag of what is cached through the holder's context while it leads to a space.
    fn tag(&self, holder: Holder, space: usize) -> u16;
    /// Contexts are written apart from table entries. If not, table entries hold what is in them.
    fn has_contexts(&self) -> bool;
    /// Writes a context.
    fn store_context(&self, machine: &Machine, address: u64, context: Context);
    /// Writes a device's table entry; what it means.
    fn store_entry(&self, machine: &Machine, virt_id: u32, wanted: Wanted) -> Entry;

    /// From reset to translating, with all devices aborting.
    fn boot(system: &mut System<Self>) -> Result<(), Stopped>;
    /// Translation off, into this mode, or on.
    fn switch(system: &mut System<Self>, mode: Mode) -> Result<(), Stopped>;
    /// What DMA does while translation is off, if the guest would like it to abort.
    fn off(&self, abort: bool) -> Mode;
    /// Reads reported faults; each must be of a fault that a device of this guest had.
    fn read_events(system: &mut System<Self>) -> Result<(), Stopped>;

    /// Commands for leaves of a tag that went away or, where that is wanted, came.
    fn invalidate(system: &mut System<Self>, tag: u16, leaves: &[Leaf], by: By) -> Result<(), Stopped>;
    /// Commands for everything of a tag, or of all: what leads to leaves included.
    fn flush(system: &mut System<Self>, tag: Option<u16>) -> Result<(), Stopped>;
    /// Commands for a changed table entry that led to a context with tag `left`.
    fn announce(system: &mut System<Self>, virt_id: u32, scope: Scope, left: Option<u16>) -> Result<(), Stopped>;
    /// Commands for a changed context with this tag that the device's table entry may lead to.
    fn announce_context(system: &mut System<Self>, virt_id: u32, tag: u16, scope: ContextScope) -> Result<(), Stopped>;
    /// Commands for a device that is none, and hints.
    fn strangers(&self, stream: u32, own: u32) -> Vec<Command>;
    /// A command that is refused.
    fn illegal(&self, kind: u8) -> Command;
    /// What no guest may do. The oracle promises such a guest nothing; the others, everything.
    fn attack(system: &mut System<Self>, what: Attack, word: u64) -> Result<(), Stopped>;
}
