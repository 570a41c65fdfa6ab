//! What was violated.

use std::fmt;

/// What the oracle insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clause {
    /// After a guest has seen its SYNC, no DMA of it uses what it invalidated.
    Stale,
    /// No machine reaches another's memory.
    Isolation,
    /// A device that was taken out reaches nothing.
    Removed,
    /// A machine that is out of service reaches nothing.
    Quarantine,
    /// What a correct guest mapped, its devices may use: no gap between two configurations.
    Denied,
    /// Every command of a correct guest is carried out once, in order.
    Order,
    /// A correct guest's SYNC completes, whatever the others do.
    Liveness,
    /// A guest hears of its own devices' faults only.
    Events,
    /// What hardware caches for a guest's domain carries a tag that nothing else has, and that was flushed before.
    Domains,
    /// At the end every object is gone.
    Objects,
    /// At the end every tag is free.
    Tags,
    /// At the end all memory of the driver's is given back.
    Memory,
    /// Everybody comes to an end.
    Stuck,
    /// A second IOMMU on the same tables, with nothing cached, answers as the model does.
    Differs,
    /// Nobody panics, but whom the plan says.
    Panic,
}

impl Clause {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Isolation => "isolation",
            Self::Removed => "removed",
            Self::Quarantine => "quarantine",
            Self::Denied => "denied",
            Self::Order => "order",
            Self::Liveness => "liveness",
            Self::Events => "events",
            Self::Domains => "domains",
            Self::Objects => "objects",
            Self::Tags => "tags",
            Self::Memory => "memory",
            Self::Stuck => "stuck",
            Self::Differs => "differs",
            Self::Panic => "panic",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Of which clause.
    pub clause: Clause,
    /// Of which machine.
    pub vm: Option<u32>,
    /// Object, stream, address, what was expected and what came.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(clause: Clause, what: impl Into<String>) -> Self {
        Self { clause, vm: None, what: what.into() }
    }

    pub(crate) fn of_vm(clause: Clause, vm: u32, what: impl Into<String>) -> Self {
        Self { clause, vm: Some(vm), what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.clause.name())?;
        if let Some(vm) = self.vm {
            write!(f, "VM {vm}: ")?;
        }
        f.write_str(&self.what)
    }
}
