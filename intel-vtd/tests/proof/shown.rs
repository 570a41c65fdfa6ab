//! Sets of ID registers that a guest may be shown.

use intel_vtd::codec::VtdCodec;
use viommu_plugin::Register;

/// Which tables of its own a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tables {
    /// Scalable mode with first stage.
    FirstStage,
    /// Legacy mode, which has second stage only.
    Legacy,
    /// Scalable mode without first stage.
    SecondStage,
}

/// What a guest is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) tables: Tables,
    /// ECAP.DT.
    pub(crate) device_tlb: bool,
    /// ECAP.IR.
    pub(crate) interrupts: bool,
    /// ECAP.PRS and PDS.
    pub(crate) page_requests: bool,
    /// ECAP.PASID.
    pub(crate) pasid: bool,
    /// CAP.PSI.
    pub(crate) page_selective: bool,
    /// CAP.MAMV.
    pub(crate) max_mask: u8,
    /// CAP.ND.
    pub(crate) domains: u8,
    /// CAP.FS5LP.
    pub(crate) five_levels: bool,
    /// ECAP.SRS.
    pub(crate) supervisor: bool,
    /// ECAP.EAFS.
    pub(crate) extended_accessed: bool,
    /// ECAP.PT.
    pub(crate) pass_through: bool,
}

const CAP: u64 = 0x08;
const ECAP: u64 = 0x10;

impl Shown {
    /// Everything, with first-stage tables.
    pub(crate) const MOST: Self = Self {
        tables: Tables::FirstStage,
        device_tlb: true,
        interrupts: true,
        page_requests: true,
        pasid: true,
        page_selective: true,
        max_mask: 18,
        domains: 6,
        five_levels: true,
        supervisor: true,
        extended_accessed: true,
        pass_through: true,
    };

    fn tables(number: u32) -> Tables {
        [Tables::FirstStage, Tables::Legacy, Tables::SecondStage][number as usize % 3]
    }

    /// The sets that a command's legality depends on, by number below 48.
    pub(crate) fn of_commands(number: u32) -> Self {
        let bit = |at: u32| (number / 3) >> at & 1 != 0;
        Self {
            tables: Self::tables(number),
            device_tlb: bit(0),
            interrupts: bit(1),
            page_requests: bit(2),
            pasid: bit(3),
            page_selective: !bit(1),
            max_mask: if bit(2) { 9 } else { 18 },
            ..Self::MOST
        }
    }

    /// The sets that an entry's legality depends on, by number below 24.
    pub(crate) fn of_entries(number: u32) -> Self {
        let bit = |at: u32| (number / 3) >> at & 1 != 0;
        Self {
            tables: Self::tables(number),
            five_levels: bit(0),
            supervisor: bit(1),
            extended_accessed: !bit(1),
            device_tlb: bit(2),
            pass_through: !bit(0),
            domains: if bit(2) { 2 } else { 6 },
            ..Self::MOST
        }
    }

    /// The ID registers that say so.
    pub(crate) fn registers(self) -> [Register; 2] {
        let bit = |set: bool, at: u32| u64::from(set) << at;
        let register = |offset, value| Register { offset, value };
        let scalable = self.tables != Tables::Legacy;
        // Three and four levels of second stage, 48 bits, fault records at 0x220; CM where tables are followed.
        let cap = u64::from(self.domains)
            | bit(self.tables != Tables::FirstStage, 7)
            | 0b110 << 8
            | 47 << 16
            | 0x22 << 24
            | bit(self.page_selective, 39)
            | u64::from(self.max_mask) << 48
            | bit(self.five_levels, 60);
        // C, QI; IOTLB registers at 0xf0.
        let ecap = 0b11
            | bit(self.device_tlb, 2)
            | bit(self.interrupts, 3)
            | bit(self.pass_through, 6)
            | 0xf << 8
            | bit(self.page_requests, 29)
            | bit(self.supervisor, 31)
            | bit(self.extended_accessed, 34)
            | bit(self.pasid, 40)
            | bit(self.page_requests, 42)
            | bit(scalable, 43)
            | bit(self.tables == Tables::SecondStage, 46)
            | bit(self.tables == Tables::FirstStage, 47);
        [register(CAP, cap), register(ECAP, ecap)]
    }

    /// A codec whose guest is shown this.
    pub(crate) fn codec(self) -> VtdCodec {
        VtdCodec::new(&self.registers()).expect("a set of ID registers that a vIOMMU can be")
    }
}
