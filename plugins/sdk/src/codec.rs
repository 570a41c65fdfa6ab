//! Check and rewrite of guest command words, and what a guest table entry asks for.

use crate::{GuestMemory, Message};

/// In [`HostIds::streams`]: this guest ID has no device.
pub const NO_STREAM: u32 = u32::MAX;
/// In [`HostIds::domains`]: no nested HWPT of this guest has this domain.
pub const NO_TAG: u32 = u32::MAX;
/// In [`EntryKey::domain`]: the entry names no domain of the guest's own.
pub const NO_DOMAIN: u32 = u32::MAX;

/// The host IDs that one guest's commands may be rewritten to. Nothing else may appear in host words.
#[derive(Debug, Clone, Copy)]
pub struct HostIds<'a> {
    /// The translation tag of this guest's nesting parent: VMID on Arm, a domain-ID elsewhere.
    pub tag: u32,
    /// Host stream (StreamID, DeviceID, RID) by guest ID; [`NO_STREAM`] where no vdevice is. A guest ID beyond
    /// the end has no device either.
    pub streams: &'a [u32],
    /// Host tag by the guest's own domain number (AMD DomainID, VT-d DID), for vendors whose guests number their
    /// domains: [`NO_TAG`] where no nested HWPT has that domain, and nothing of it can be cached. Beyond the end there is
    /// none either. Empty where the tag says it all (Arm).
    pub domains: &'a [u32],
}

impl HostIds<'_> {
    /// The host tag of the guest's domain `domain`, if a nested HWPT has it.
    #[inline]
    pub fn domain(&self, domain: u32) -> Option<u32> {
        match self.domains.get(domain as usize) {
            Some(&NO_TAG) | None => None,
            Some(&tag) => Some(tag),
        }
    }

    /// The host stream of guest ID `virt_id`, if it has a vdevice.
    #[inline]
    pub fn stream(&self, virt_id: u32) -> Option<u32> {
        match self.streams.get(virt_id as usize) {
            Some(&NO_STREAM) | None => None,
            Some(&stream) => Some(stream),
        }
    }
}

/// Kinds of invalidation, as a bit set: what a run of commands holds, or what is on the ring without a SYNC.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Classes(pub u32);

impl Classes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Translation cache (TLB) invalidations.
    pub const TLB: Self = Self(1);
    /// Configuration cache invalidations (CD, PASID entry).
    pub const CONFIG: Self = Self(2);
    /// Device cache (ATC) invalidations: may only follow *synced* TLB invalidations, and may time out.
    pub const ATC: Self = Self(4);

    /// Whether any class of `other` is in `self`.
    #[inline]
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// Both sets together.
    #[inline]
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why [`Codec::rewrite`] stopped. An open set: a host treats values it does not know as [`Stop::FAULT`].
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stop(pub u32);

impl Stop {
    /// All guest words were taken.
    pub const END: Self = Self(0);
    /// The next command waits for completion of all before it (CMD_SYNC, COMPLETION_WAIT, wait descriptor).
    pub const SYNC: Self = Self(1);
    /// The next command tells of a changed table entry: see [`Codec::configuration`].
    pub const CONFIGURATION: Self = Self(2);
    /// The next command may only go out after what was taken so far (or what `before` named) is synced by the
    /// hardware: put a SYNC on the ring and continue.
    pub const ORDER: Self = Self(3);
    /// The next command is one the guest may not send: [`Rewritten::fault`] says why.
    pub const FAULT: Self = Self(4);
    /// No room in `out` for the next command.
    pub const ROOM: Self = Self(5);
    /// The next command says that page tables of the guest changed of which the hardware has copies: see
    /// [`Codec::shadow_range`]. Only of a codec in [`TranslationMode::SHADOW`].
    pub const SHADOW: Self = Self(6);
}

/// What a guest did wrong. It is data: it becomes what hardware would do to this guest, and a counter.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct GuestFault(pub u32);

impl GuestFault {
    /// No fault.
    pub const NONE: Self = Self(0);
    /// An opcode that does not exist or that this guest may not use.
    pub const ILLEGAL_OPCODE: Self = Self(1);
    /// A reserved bit set, or a field with a value the features shown to this guest do not allow.
    pub const RESERVED_BITS: Self = Self(2);
    /// The queue, or an address it needs, is outside the guest's memory (fetch abort).
    pub const FETCH_ABORT: Self = Self(3);
    /// A device of this guest did not answer an ATC invalidation in time.
    pub const ATC_TIMEOUT: Self = Self(4);
    /// The queue registers contradict each other (size, PROD beyond the queue).
    pub const QUEUE_CONFIG: Self = Self(5);
    /// The host refused or lost the command's effect; the guest must assume nothing.
    pub const HOST_ERROR: Self = Self(6);
    /// An event record could not be stored: the event queue is outside the guest's memory. Not the command queue's.
    pub const EVENT_ABORT: Self = Self(7);

    /// The fault's name as in metrics and summaries; `other` for values this version does not know.
    pub fn name(self) -> &'static str {
        match self {
            Self::NONE => "none",
            Self::ILLEGAL_OPCODE => "illegal_opcode",
            Self::RESERVED_BITS => "reserved_bits",
            Self::FETCH_ABORT => "fetch_abort",
            Self::ATC_TIMEOUT => "atc_timeout",
            Self::QUEUE_CONFIG => "queue_config",
            Self::HOST_ERROR => "host_error",
            Self::EVENT_ABORT => "event_abort",
            _ => "other",
        }
    }
}

/// How far a rewrite got, and why it stopped there.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewritten {
    /// Guest commands consumed, from the first. Includes the local ones.
    pub taken: u32,
    /// Host commands written to `out`.
    pub written: u32,
    /// Why it stopped.
    pub stop: Stop,
    /// Set if `stop` is [`Stop::FAULT`].
    pub fault: GuestFault,
    /// Classes among the host commands written.
    pub classes: Classes,
    /// Of `taken`: commands naming a stream without a vdevice, complete without hardware.
    pub local_stream: u32,
    /// Of `taken`: commands naming a domain that no nested HWPT has, complete without hardware.
    pub local_domain: u32,
    /// Of `taken`: hints (prefetch) and what the VMM itself emulates (interrupt tables), complete without hardware.
    pub hints: u32,
    /// Of `written`: TLB invalidations.
    pub tlb: u32,
    /// Of `written`: configuration cache invalidations.
    pub config: u32,
    /// Of `written`: device cache invalidations.
    pub atc: u32,
    /// Zero.
    pub reserved: u32,
}

/// Which guest IDs' table entries a configuration command says have changed: `first..=last`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Configuration {
    /// First guest ID.
    pub first: u32,
    /// Last guest ID, inclusive; `0..=u32::MAX` is "all", `1..=0` is none.
    pub last: u32,
    /// 1 if the hardware is also to forget all that it cached of this guest's translations, its devices' caches too.
    pub flush: u32,
    /// Zero.
    pub reserved: u32,
}

impl Configuration {
    /// These guest IDs' entries, and no translation beside.
    pub const fn entries(first: u32, last: u32) -> Self {
        Self { first, last, flush: 0, reserved: 0 }
    }
    /// No entry, but all translations of this guest.
    pub const FLUSH: Self = Self { first: 1, last: 0, flush: 1, reserved: 0 };
    /// All entries, and all translations of this guest.
    pub const EVERYTHING: Self = Self { first: 0, last: u32::MAX, flush: 1, reserved: 0 };
}

/// What a guest table entry asks for.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct KeyKind(pub u32);

impl KeyKind {
    /// No DMA: entry not valid, configured to abort, or illegal.
    pub const ABORT: Self = Self(0);
    /// DMA untranslated by the guest: stage 2 only.
    pub const BYPASS: Self = Self(1);
    /// Translated by the guest's tables, nested in stage 2.
    pub const TRANSLATE: Self = Self(2);
}

/// The canonical form of a guest table entry: equal keys share one nested HWPT.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryKey {
    /// Abort, bypass or translate. Anything unknown counts as abort.
    pub kind: KeyKind,
    /// If the entry is illegal: the event number the guest's IOMMU records on use of it (Arm C_BAD_STE); else 0.
    pub event: u32,
    /// For [`KeyKind::TRANSLATE`]: the guest's own number of the domain that its invalidations will name, at most 65535
    /// (AMD DomainID, VT-d DID). All of a guest's nested HWPTs with one number share a host tag, which no other guest
    /// has. [`NO_DOMAIN`] otherwise, and where the nesting parent's tag is all there is (Arm).
    pub domain: u32,
    /// Zero.
    pub reserved: u32,
    /// For [`KeyKind::TRANSLATE`]: the entry's allowed bits, every other bit zero. Zero otherwise.
    pub words: [u64; 4],
}

impl Default for EntryKey {
    /// No DMA.
    fn default() -> Self {
        Self { kind: KeyKind::ABORT, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] }
    }
}

/// How the framework treats a guest beside its [`TranslationMode`]; a bit set.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestTraits(pub u32);

impl GuestTraits {
    /// It is given a virtual interface ([`crate::Driver::interface_create`]), if the hardware has one.
    pub const INTERFACE: u32 = 1;
    /// No command of it comes by that would announce a changed table entry: a write to a page of
    /// [`crate::Frontend::watched`] counts as the announcement of all entries in it.
    pub const WRITES_CONFIGURE: u32 = 2;
    /// Whether any of `bits` is set.
    pub fn any(self, bits: u32) -> bool {
        self.0 & bits != 0
    }
}

/// How a guest's page tables reach the hardware.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TranslationMode(pub u32);

impl TranslationMode {
    /// The hardware walks them itself, nested in stage 2.
    pub const NESTED: Self = Self(0);
    /// The hardware walks a copy that the host composes with stage 2, at each invalidation of the guest. Needs a guest
    /// that invalidates what it maps too (AMD NpCache, VT-d Caching Mode).
    pub const SHADOW: Self = Self(1);

    /// Its bit in [`crate::DriverInfo::modes`].
    pub const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }
    /// The mode's name in reports and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::NESTED => "nested",
            Self::SHADOW => "shadow",
            _ => "other",
        }
    }
}

/// Which translations a command at which a rewrite stopped with [`Stop::SHADOW`] says have changed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShadowRange {
    /// The guest's own number of the domain; not looked at with `all_domains`.
    pub domain: u32,
    /// 1 if it is about every domain.
    pub all_domains: u32,
    /// First input address.
    pub first: u64,
    /// Last input address, inclusive.
    pub last: u64,
}

/// One leaf of a guest's page table.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuestMapping {
    /// First input address.
    pub iova: u64,
    /// First guest physical address.
    pub gpa: u64,
    /// Bytes, a power of two to which `iova` is aligned.
    pub length: u64,
    /// Bit 0: read, bit 1: write; both from all levels together.
    pub permissions: u32,
    /// Zero.
    pub reserved: u32,
}

/// How far a walk of a guest's page table got.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walked {
    /// Leaves written.
    pub written: u32,
    /// 1 if there is nothing left up to the last address.
    pub done: u32,
    /// Where to go on if not: beyond every leaf written, and beyond the first address given.
    pub next: u64,
}

/// Entries of page tables that one [`Codec::walk`] reads at most: whoever holds a lock around it holds it no longer.
pub const WALK_READS: u32 = 4096;

/// Check and rewrite of command words for one guest, fixed by the ID registers the guest was shown.
///
/// Pure: no state changes between calls, no I/O, no clock. Called from any thread, several at a time.
pub trait Codec: Send + Sync + 'static {
    /// Rewrites a run of guest commands into host IDs, up to the first that is not a plain invalidation.
    ///
    /// Every bit of each command is checked against what its opcode allows. `before` tells the classes that are on
    /// the ring without a SYNC. Reads each guest word once. `guest` and `out` hold whole commands
    /// ([`crate::VendorInfo::command_words`] each).
    fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten;

    /// The scope of a command at which a rewrite stopped with [`Stop::CONFIGURATION`].
    fn configuration(&self, command: &[u64]) -> Configuration;

    /// What a guest table entry (as [`crate::Frontend::entry`] read it) asks for.
    fn entry_key(&self, entry: &[u64]) -> EntryKey;

    /// How a guest with these ID registers is served.
    fn mode(&self) -> TranslationMode {
        TranslationMode::NESTED
    }
    /// What else follows from them.
    fn traits(&self) -> GuestTraits {
        GuestTraits(GuestTraits::INTERFACE)
    }

    /// The scope of a command at which a rewrite stopped with [`Stop::SHADOW`].
    fn shadow_range(&self, _command: &[u64]) -> ShadowRange {
        ShadowRange { domain: 0, all_domains: 1, first: 0, last: u64::MAX }
    }

    /// The leaves of the guest's page table of `key` that map any of `first..=last`, ascending, each whole. Entries that
    /// cannot be read or mean nothing map nothing. Reads at most [`WALK_READS`] entries and then says where to go on.
    fn walk(
        &self,
        _key: &EntryKey,
        _memory: &dyn GuestMemory,
        _first: u64,
        _last: u64,
        _out: &mut [GuestMapping],
    ) -> Walked {
        Walked { written: 0, done: 1, next: 0 }
    }

    /// The opcode of a command, for tallies.
    fn opcode(&self, command: &[u64]) -> u8;

    /// The manual's name of an opcode; `None` if it is not one.
    fn opcode_name(&self, opcode: u8) -> Option<&'static str>;

    /// A command in words, with its fields, for people.
    fn describe(&self, command: &[u64], text: &mut Message);
}
