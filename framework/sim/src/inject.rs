//! Ways to break the product on purpose, one for each clause of the oracle: a check that never complains checks nothing.

use crate::oracle::Clause;
use crate::plan::Vendor;
use std::str::FromStr;

/// Something broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Injection {
    /// Every third translation cache invalidation is lost on its way to the hardware.
    DropInvalidation,
    /// Invalidations of contexts are lost on their way to the hardware.
    DropConfiguration,
    /// A SYNC is complete before the hardware has finished.
    CompleteEarly,
    /// Invalidations carry another machine's tag.
    WrongTag,
    /// A command disappears before the hardware queue.
    LoseCommand,
    /// Two commands change places.
    SwapCommands,
    /// A device is attached to another machine's tables.
    ForeignTables,
    /// Between two attachments a device is detached.
    Gap,
    /// A device that was taken out stays attached.
    KeepRemoved,
    /// A machine that is out of service stays attached.
    KeepQuarantined,
    /// Memory that the host took stays in the tables.
    KeepMemory,
    /// A wait for the hardware never ends.
    Hang,
    /// An event of one machine's device goes to another's.
    MisrouteEvent,
    /// An object is never destroyed.
    LeakObject,
    /// A tag is never given back.
    LeakTag,
    /// Memory is never given back.
    LeakMemory,
    /// A task never ends.
    LeakTask,
    /// Something panics.
    Panic,
    /// A tag is used again without a flush.
    KeepTag,
    /// All guests' domains carry one tag.
    ShareTag,
    /// The shadow of a page table keeps what its guest took away.
    KeepShadow,
    /// Memory that the host took stays in the shadows.
    KeepShadowMemory,
}

impl Injection {
    /// All there are.
    pub const ALL: [Self; 22] = [
        Self::DropInvalidation,
        Self::DropConfiguration,
        Self::CompleteEarly,
        Self::WrongTag,
        Self::LoseCommand,
        Self::SwapCommands,
        Self::ForeignTables,
        Self::Gap,
        Self::KeepRemoved,
        Self::KeepQuarantined,
        Self::KeepMemory,
        Self::Hang,
        Self::MisrouteEvent,
        Self::LeakObject,
        Self::LeakTag,
        Self::LeakMemory,
        Self::LeakTask,
        Self::Panic,
        Self::KeepTag,
        Self::ShareTag,
        Self::KeepShadow,
        Self::KeepShadowMemory,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DropInvalidation => "drop-invalidation",
            Self::DropConfiguration => "drop-configuration",
            Self::CompleteEarly => "complete-early",
            Self::WrongTag => "wrong-tag",
            Self::LoseCommand => "lose-command",
            Self::SwapCommands => "swap-commands",
            Self::ForeignTables => "foreign-tables",
            Self::Gap => "gap",
            Self::KeepRemoved => "keep-removed",
            Self::KeepQuarantined => "keep-quarantined",
            Self::KeepMemory => "keep-memory",
            Self::Hang => "hang",
            Self::MisrouteEvent => "misroute-event",
            Self::LeakObject => "leak-object",
            Self::LeakTag => "leak-tag",
            Self::LeakMemory => "leak-memory",
            Self::LeakTask => "leak-task",
            Self::Panic => "panic",
            Self::KeepTag => "keep-tag",
            Self::ShareTag => "share-tag",
            Self::KeepShadow => "keep-shadow",
            Self::KeepShadowMemory => "keep-shadow-memory",
        }
    }

    /// Whether there is such a thing to break: the host's queue gets invalidations of contexts from Arm's guests only, and
    /// only Arm's driver leaves no gap between two attachments; Arm's guests have no domains and no shadows.
    pub fn concerns(self, vendor: Vendor) -> bool {
        match self {
            Self::DropConfiguration | Self::Gap => vendor == Vendor::ArmSmmuv3,
            Self::ShareTag | Self::KeepShadow | Self::KeepShadowMemory => vendor != Vendor::ArmSmmuv3,
            _ => true,
        }
    }

    /// The clause that must notice it.
    pub fn clause(self) -> Clause {
        match self {
            Self::DropInvalidation | Self::DropConfiguration | Self::CompleteEarly | Self::WrongTag => Clause::Stale,
            Self::KeepShadow => Clause::Stale,
            Self::KeepMemory | Self::KeepShadowMemory | Self::ForeignTables => Clause::Isolation,
            Self::KeepTag | Self::ShareTag => Clause::Domains,
            Self::LoseCommand | Self::SwapCommands => Clause::Order,
            Self::Gap => Clause::Denied,
            Self::KeepRemoved => Clause::Removed,
            Self::KeepQuarantined => Clause::Quarantine,
            Self::Hang => Clause::Liveness,
            Self::MisrouteEvent => Clause::Events,
            Self::LeakObject => Clause::Objects,
            Self::LeakTag => Clause::Tags,
            Self::LeakMemory => Clause::Memory,
            Self::LeakTask => Clause::Stuck,
            Self::Panic => Clause::Panic,
        }
    }
}

impl FromStr for Injection {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|injection| injection.name() == name);
        found.ok_or_else(|| format!("there is no injection \"{name}\", but {}", names()))
    }
}
