//! What one seed tells: machines, what their guests do, and what goes wrong. Data, so that a failing story can be made
//! shorter by leaving parts of it out.

mod generate;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use viommu::backend::ObjectKind;

/// Host streams from one machine's first to the next one's.
pub(crate) const STREAMS: u32 = 0x60;

/// Who made the IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Vendor {
    /// Arm SMMUv3: guests are nested.
    ArmSmmuv3,
    /// AMD-Vi: guests with GCR3 tables are nested, guests with v1 tables shadowed.
    AmdVi,
    /// Intel VT-d: guests in scalable mode are nested, guests in legacy mode shadowed.
    IntelVtd,
}

impl Vendor {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::ArmSmmuv3, Self::AmdVi, Self::IntelVtd];

    /// Its name: that of its plugin.
    pub fn name(self) -> &'static str {
        match self {
            Self::ArmSmmuv3 => "arm-smmuv3",
            Self::AmdVi => "amd-vi",
            Self::IntelVtd => "intel-vtd",
        }
    }

    /// Whose IOMMU a seed tells of, if nobody says: each in turn.
    pub fn of(seed: u64) -> Self {
        Self::ALL[(seed % Self::ALL.len() as u64) as usize]
    }
}

impl FromStr for Vendor {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|vendor| vendor.name() == name);
        found.ok_or_else(|| format!("there is no vendor \"{name}\", but {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// A whole world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Of the one IOMMU in it.
    pub vendor: Vendor,
    /// The seed of the schedule, and the name of all this.
    pub seed: u64,
    /// The machine below.
    pub host: HostPlan,
    /// The machines on it.
    pub vms: Vec<VmPlan>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// The physical machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlan {
    /// Shards of the data plane.
    pub shards: u32,
    /// Everything through the mailbox.
    pub mailbox: bool,
    /// How long hardware may take for a SYNC.
    pub sync_limit: Duration,
    /// log2 of the physical command ring.
    pub ring_log2: u8,
    /// Translation tags there are.
    pub tags: u32,
    /// A command takes the hardware up to so many microseconds.
    pub pace: u32,
    /// Between two commands, so often in a hundred, the hardware translates ahead of the devices.
    pub speculation: u32,
}

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmPlan {
    /// Its number in the seed's whole story.
    pub number: u32,
    /// Whether its guest keeps the rules. One that does not is promised nothing but that it reaches only itself.
    pub correct: bool,
    /// The hardware cannot walk its guest's page tables: copies of them are kept.
    pub shadowed: bool,
    /// Its IOMMU sends messages (MSI).
    pub messages: bool,
    /// Its IOMMU takes invalidations of ranges.
    pub ranges: bool,
    /// log2 of its command queue.
    pub queue_log2: u8,
    /// Its devices.
    pub devices: Vec<DevicePlan>,
    /// What its guest does, in order.
    pub actions: Vec<Action>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// Its number in its machine's whole story.
    pub number: u32,
    /// Host stream.
    pub stream: u32,
    /// The guest's number for it.
    pub virt_id: u32,
    /// Seed of its DMA.
    pub seed: u64,
    /// In the machine from the start.
    pub present: bool,
}

/// How a guest tells of changed translations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Address by address.
    Address,
    /// Address by address, for every address space.
    AnySpace,
    /// Ranges of addresses.
    Range,
    /// The address space.
    Space,
    /// Everything.
    All,
}

/// How a guest wants to hear that a SYNC is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It polls the consumer index.
    Poll,
    /// By an interrupt or a message.
    Interrupt,
    /// Not now: the next one will do for both.
    Later,
}

/// What a guest's table entry says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Translated by an address space, through the space's own context or the device's.
    Space {
        /// Which.
        space: u8,
        /// Through a context that other devices may share.
        shared: bool,
    },
    /// Not translated.
    Bypass,
    /// No DMA.
    Abort,
    /// Not a valid entry.
    Invalid,
}

/// How a guest tells of a changed table entry or context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One entry.
    One,
    /// A range of entries.
    Range,
    /// All entries.
    All,
}

/// What a guest, or whoever runs it, does next. Numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    /// Pages where nothing is mapped.
    Map { space: u8, slot: u8, count: u8, frame: u16, writable: bool },
    /// A large leaf, instead of whatever is there.
    MapBlock { space: u8, group: u8, block: u8, writable: bool },
    /// Takes pages out, from the next one on that is there.
    Unmap { space: u8, slot: u8, count: u8, by: By, sync: Signal },
    /// Other memory behind a page: out, invalidated, in.
    Remap { space: u8, slot: u8, frame: u16, by: By },
    /// A page becomes read-only.
    Protect { space: u8, slot: u8, by: By, sync: Signal },
    /// A table of the lowest level is replaced by a copy.
    ReplaceTable { space: u8, group: u8, by: By },
    /// The whole tree of a space is replaced by a copy with a page less.
    ReplaceTree { space: u8, by: By, scope: Scope },
    /// Changes a device's table entry.
    Assign { device: u8, to: Target, scope: Scope, sync: Signal },
    /// Changes a device's own context in place.
    ChangeContext { device: u8, space: u8, announce: ContextScope },
    /// Invalidations that nothing asked for.
    Needless { space: u8, count: u8, by: By },
    /// A SYNC.
    Sync { signal: Signal },
    /// Commands for a device that is none, and hints.
    Strangers { stream: u16 },
    /// Two processors ring the doorbell at once.
    TwoDoorbells { space: u8, count: u8 },
    /// A command that does not exist, or with a reserved bit.
    Illegal { kind: u8 },
    /// The IOMMU off, and on again.
    Switch { abort: bool, pause: u16 },
    /// A reset of the machine, and a new start.
    Reset,
    /// A device is taken out of the machine.
    Remove { device: u8 },
    /// A device is put into the machine.
    Add { device: u8 },
    /// The host takes memory from the guest.
    TakeMemory,
    /// The host gives the guest memory.
    GiveMemory,
    /// Reads its event queue.
    ReadEvents,
    /// Nothing, for so many microseconds.
    Idle { micros: u16 },
    /// What no guest may do.
    Attack { what: Attack, word: u64 },
}

/// How a guest tells of a context changed in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextScope {
    /// The context.
    One,
    /// All contexts of the device.
    Device,
    /// The device's table entry, and so its contexts.
    Entry,
}

/// What a malicious guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Commands that name other machines' streams and tags.
    Foreign,
    /// Ranges beyond everything.
    Absurd,
    /// Words without sense.
    Noise,
    /// A command queue that is not in memory.
    QueueNowhere,
    /// A producer index beyond the queue.
    BeyondQueue,
    /// Tables that are not in memory, or the host's.
    TablesNowhere,
    /// A table entry without sense.
    EntryNoise,
    /// Writes to any register.
    RegisterNoise,
    /// An error that is never acknowledged.
    NeverAcknowledge,
    /// A SYNC whose message goes anywhere.
    MessageAnywhere,
}

/// A call of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Call {
    IoasAlloc,
    Map,
    Unmap,
    ParentAlloc,
    ViommuAlloc,
    Bind,
    VdeviceAlloc,
    NestedAlloc,
    Attach,
    Reload,
    Detach,
    Flush,
    Destroy,
    ShadowChange,
}

/// Why a call of the backend failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Errno {
    NoMemory,
    Busy,
    TimedOut,
}

/// A part of the vendor's plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Part {
    Frontend,
    Codec,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The `nth` call of a kind fails, and changes nothing.
    Backend {
        /// Which call.
        call: Call,
        /// From 1.
        nth: u32,
        /// Why.
        errno: Errno,
    },
    /// The handler of the `nth` message of a name panics.
    Actor {
        /// To which kind of object.
        kind: ObjectKind,
        /// The message.
        operation: &'static str,
        /// From 1.
        nth: u64,
    },
    /// The plugin panics in the `nth` call for this machine.
    Plugin {
        /// The machine.
        vm: u32,
        /// In which part.
        part: Part,
        /// From 1.
        nth: u32,
    },
    /// The hardware stands still.
    Stall {
        /// After so many commands.
        after: u32,
        /// For so long.
        time: Duration,
    },
}

impl Plan {
    /// How much it tells: what makes a story long.
    pub fn size(&self) -> usize {
        let vms = self.vms.iter().map(|vm| 1 + vm.devices.len() + vm.actions.len());
        self.faults.len() + vms.sum::<usize>()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPlan { shards, mailbox, sync_limit, ring_log2, tags, pace, speculation } = &self.host;
        writeln!(
            f,
            "host: {}, {shards} shard(s){}, SYNC limit {sync_limit:?}, ring of 2^{ring_log2}, {tags} tags, up to {pace} us a \
             command, {speculation}% speculation",
            self.vendor.name(),
            if *mailbox { " by mailbox" } else { "" }
        )?;
        for vm in &self.vms {
            let manners = if vm.correct { "correct" } else { "malicious" };
            let manners = if vm.shadowed { format!("{manners}, shadowed") } else { manners.to_owned() };
            writeln!(f, "VM {}: {manners}, queue of 2^{}", vm.number, vm.queue_log2)?;
            for device in &vm.devices {
                let DevicePlan { number, stream, virt_id, present, .. } = device;
                let later = if *present { "" } else { ", not there at first" };
                writeln!(f, "  device {number}: stream {stream:#x}, the guest's {virt_id:#x}{later}")?;
            }
            for action in &vm.actions {
                writeln!(f, "  {action:?}")?;
            }
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "fault: {fault:?}"))
    }
}
