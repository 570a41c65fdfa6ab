//! The physical STE that the driver makes of a key: which bits are the host's, and that they are its.

use crate::entry_table::{GUEST0, GUEST1};
use arm_smmuv3::tables::{Geometry, HostSte, Stage2, Ste};
use viommu_plugin::{EntryKey, KeyKind};
use viommu_plugin_check::bench::Still;

/// A stage 2 in numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// IDR5.OAS.
    pub(crate) oas: u8,
    /// Its VMID.
    pub(crate) vmid: u16,
    /// Where its table is.
    pub(crate) root: u64,
}

/// The stage 2 of most tests: 44 bits, so T0SZ is 20 and the walk starts at level 0.
pub(crate) const STAGE2: Numbers = Numbers { oas: 4, vmid: 0x5a3c, root: 0x7654_3000 };

impl Numbers {
    /// The driver's object for it.
    pub(crate) fn make(self) -> Stage2 {
        Stage2::new(&Still { registers: |_| 0, allocates_at: self.root }, Geometry::new(self.oas), self.vmid, true)
            .expect("there is memory")
    }

    /// Words 2 and 3 of every STE on it: VMID, the shape of the walk (write-back, inner shareable, 4 KiB), AA64, PTW
    /// and R; and the table.
    fn words(self) -> [u64; 2] {
        let (t0sz, start) = match self.oas {
            0 => (32, 1),
            1 => (28, 1),
            2 => (24, 1),
            3 => (22, 1),
            4 => (20, 2),
            _ => (16, 2),
        };
        let walk = t0sz | start << 6 | 1 << 8 | 1 << 10 | 3 << 12 | u64::from(self.oas.min(5)) << 16;
        [u64::from(self.vmid) | walk << 32 | 1 << 51 | 1 << 54 | 1 << 58, self.root]
    }
}

/// What every STE of one guest must hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    /// The guest's stage 2.
    pub(crate) stage2: Numbers,
    /// The SMMU.
    pub(crate) host: HostSte,
}

impl Owned {
    /// Whether `ste` is what `key` may become.
    ///
    /// # Errors
    /// If not, with what it should be.
    pub(crate) fn check(&self, key: &EntryKey, ste: &Ste) -> Result<(), String> {
        let HostSte { ats, fwb, stalls, attr_types_ovr } = self.host;
        let bit = |set: bool, at: u32| u64::from(set) << at;
        let [word2, word3] = self.stage2.words();
        // S2FWB, and SHCFG = 1 where it has an effect.
        let host1 = bit(fwb, 25) | bit(attr_types_ovr, 44);
        let expected = match key.kind {
            KeyKind::TRANSLATE => {
                let guest1 = key.words[1] & GUEST1;
                let eats = bit(ats && guest1 >> 28 & 3 == 1, 28);
                // V, Config = 7; MEV always; S1STALLD where stalls exist, which nobody here would resume, and there only.
                let word0 = key.words[0] & GUEST0 & !0xf | 0xf;
                let word1 = guest1 & !(7 << 27) | eats | host1 | 1 << 19 | bit(stalls, 27);
                [word0, word1, word2, word3, 0, 0, 0, 0]
            }
            KeyKind::BYPASS => [1 | 6 << 1, host1, word2, word3, 0, 0, 0, 0],
            _ => [1, 0, 0, 0, 0, 0, 0, 0],
        };
        if *ste == expected {
            return Ok(());
        }
        Err(format!("{key:x?} on {self:x?}:\n  the driver writes {ste:#x?},\n  it should be {expected:#x?}"))
    }
}
