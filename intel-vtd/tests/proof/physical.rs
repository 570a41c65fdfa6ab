//! The physical entry that the driver makes of a key: which bits are the host's, and that they are its.

use intel_vtd::spec::registers::Cap;
use intel_vtd::tables::{Geometry, HostEntry, Physical, SecondStage};
use viommu_plugin::{EntryKey, KeyKind, Refusal};
use viommu_plugin_check::bench::Still;

/// A second stage in numbers: four levels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    /// Where its table is.
    pub(crate) root: u64,
}

/// The second stage of every test.
pub(crate) const STAGE2: Numbers = Numbers { root: 0x7654_3000 };

impl Numbers {
    /// The driver's object for it.
    pub(crate) fn make(self) -> SecondStage {
        let geometry = Geometry::new(Cap::from_bits(0b100 << 8 | 47 << 16)).expect("four levels");
        SecondStage::new(&Still { registers: |_| 0, allocates_at: self.root }, geometry, 1).expect("there is memory")
    }
}

/// What every entry of one guest must hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    /// The guest's second stage.
    pub(crate) stage2: Numbers,
    /// The domain-id that it is attached with.
    pub(crate) tag: u16,
    /// The hardware.
    pub(crate) host: HostEntry,
}

impl Owned {
    /// Whether `made` is what `key` may become.
    ///
    /// # Errors
    /// If not, with what it should be.
    pub(crate) fn check(&self, key: &EntryKey, made: Result<Physical, Refusal>) -> Result<(), String> {
        let made = made.map_err(|refusal| refusal.errno);
        let expected = self.expected(key);
        if made == expected {
            return Ok(());
        }
        Err(format!("{key:x?} on {self:x?}:\n  the driver makes {made:x?},\n  it should be {expected:x?}"))
    }

    fn expected(&self, key: &EntryKey) -> Result<Physical, i32> {
        let HostEntry { nests, five_levels, supervisor, extended_accessed, device_tlb, snoops } = self.host;
        let [word0, _, word2, found] = key.words;
        // P, AW = 2, the table; PGTT 2. DID, and PWSNP.
        let second = self.stage2.root | 1 | 2 << 2 | 2 << 6;
        let word1 = u64::from(self.tag) | u64::from(snoops) << 23;
        let alone = |more: u64, device_tlb| Physical { entry: [second | more, word1, 0, 0, 0, 0, 0, 0], device_tlb };
        match key.kind {
            KeyKind::BYPASS => Ok(alone(0, false)),
            KeyKind::TRANSLATE => {
                let (scalable, fpd) = (found & 1 != 0, word0 & 2);
                let ats = device_tlb && if scalable { found >> 2 & 1 != 0 } else { word0 >> 2 & 3 == 1 };
                if !scalable || word0 >> 6 & 7 != 1 {
                    return Ok(alone(fpd, ats));
                }
                if !nests {
                    return Err(95);
                }
                let (levels, privileged, eafe) = (word2 >> 2 & 3, word2 & 1 != 0, word2 >> 7 & 1 != 0);
                if levels > u64::from(five_levels) || privileged && !supervisor || eafe && !extended_accessed {
                    return Err(22);
                }
                // FSPTPTR, FSPM, NXE, EAFE; SRE, and with it WPE and SMEP.
                let own = if privileged { 0b1111_1101 } else { 0b1010_1100 } & !0b10;
                let entry = [second & !(7 << 6) | 3 << 6 | fpd, word1, word2 & (!0xfff | own), 0, 0, 0, 0, 0];
                Ok(Physical { entry, device_tlb: ats })
            }
            _ => Ok(Physical { entry: [0; 8], device_tlb: false }),
        }
    }
}
