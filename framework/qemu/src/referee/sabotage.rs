//! Ways to break on purpose what the referee compares: a comparison that never complains compares nothing.

use std::str::FromStr;
use viommu_plugin::{Answer, Status};

/// Something broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Every third invalidation of translations never reaches QEMU.
    DropInvalidation,
    /// Invalidations of stream table entries and contexts never reach QEMU.
    DropConfiguration,
    /// QEMU has another stream table than the model.
    OtherTable,
    /// QEMU does not hear of every hundredth command.
    SkipDoorbell,
    /// The model's faults have another number.
    WrongFault,
    /// The model's translations lead to the next page.
    WrongAddress,
    /// The model's event records have another word in them.
    WrongRecord,
    /// A DMA that is refused writes all the same.
    StrayWrite,
}

impl Sabotage {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::DropInvalidation,
        Self::DropConfiguration,
        Self::OtherTable,
        Self::SkipDoorbell,
        Self::WrongFault,
        Self::WrongAddress,
        Self::WrongRecord,
        Self::StrayWrite,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DropInvalidation => "drop-invalidation",
            Self::DropConfiguration => "drop-configuration",
            Self::OtherTable => "other-table",
            Self::SkipDoorbell => "skip-doorbell",
            Self::WrongFault => "wrong-fault",
            Self::WrongAddress => "wrong-address",
            Self::WrongRecord => "wrong-record",
            Self::StrayWrite => "stray-write",
        }
    }

    /// What becomes of an answer of the model.
    pub(super) fn answer(self, answer: &Answer) -> Answer {
        match (self, answer.status) {
            // F_TRANSLATION becomes F_ACCESS.
            (Self::WrongFault, Status::FAULT) => Answer { fault: answer.fault ^ 2, ..*answer },
            (Self::WrongAddress, Status::OK) => Answer { output: answer.output + 0x1000, ..*answer },
            _ => *answer,
        }
    }

    /// What becomes of an event record of the model.
    pub(super) fn record(self, mut record: [u64; 4]) -> [u64; 4] {
        match self {
            Self::WrongFault => record[0] ^= 2,
            // InputAddr.
            Self::WrongRecord => record[2] ^= 0x1000,
            _ => {}
        }
        record
    }
}

impl FromStr for Sabotage {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|sabotage| sabotage.name() == name);
        found.ok_or_else(|| format!("there is no \"{name}\", but {}", Self::ALL.map(Self::name).join(", ")))
    }
}
