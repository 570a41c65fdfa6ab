//! The physical DTE that the driver makes of a key: which bits are the host's, and that they are its.

use crate::entry_table::NESTED;
use amd_vi::spec::registers::Efr;
use amd_vi::tables::{Dte, Geometry, HostTable};
use viommu_plugin::{EntryKey, KeyKind};
use viommu_plugin_check::bench::Still;

/// What every DTE of one guest must hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owned {
    /// EFR.HATS.
    pub(crate) hats: u8,
    /// Where the host's table is.
    pub(crate) root: u64,
    /// The tag it is attached with.
    pub(crate) tag: u16,
    /// IotlbSup.
    pub(crate) ats: bool,
}

impl Owned {
    /// The driver's object for the host's table.
    pub(crate) fn make(self) -> HostTable {
        HostTable::new(
            &Still { registers: |_| 0, allocates_at: self.root },
            Geometry::new(Efr::new().with_hats(self.hats)),
            3,
        )
        .expect("there is memory")
    }

    /// Whether a DTE made of `key` holds the host's bits, of the guest's only what it may decide, and lets nothing pass
    /// that should not.
    ///
    /// # Errors
    /// The bits that are wrong.
    pub(crate) fn check(self, key: &EntryKey, dte: &Dte) -> Result<(), String> {
        // V, TV, the levels and the root; IR and IW beside.
        let host0 = 3 | (4 + u64::from(self.hats)) << 9 | self.root;
        let both = 3 << 61;
        let i = if self.ats { key.words[1] & 1 << 32 } else { 0 };
        let right: Dte = match key.kind {
            KeyKind::BYPASS => [host0 | both, self.tag.into(), 0, 0],
            KeyKind::TRANSLATE if key.words[0] >> 55 & 1 == 1 => [
                host0 | key.words[0] & NESTED[0],
                key.words[1] & NESTED[1] & !(0xffff | 1 << 32) | i | u64::from(self.tag),
                key.words[2] & NESTED[2],
                0,
            ],
            KeyKind::TRANSLATE => [host0 | both, i | u64::from(self.tag), 0, 0],
            // V without TV: everything stops.
            _ => [1, 0, 0, 0],
        };
        if *dte == right { Ok(()) } else { Err(format!("{key:x?} becomes {dte:x?} and should become {right:x?}")) }
    }
}
