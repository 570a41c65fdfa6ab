//! The bits of page table entries, as drivers write them.

use super::Page;
use crate::translate::ADDRESS;

/// Formats of page tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// AMD host tables: Next Level 11:9, FC 60, IR 61, IW 62.
    AmdHost,
    /// AMD guest tables: P, R/W, U/S, PS as a processor's, A 5, D 6.
    AmdGuest,
    /// VT-d first stage: the same bits.
    VtdFirst,
    /// VT-d second stage: R 0, W 1, PS 7.
    VtdSecond,
    /// Arm stage 1, 4 KiB granule: valid 0, table 1, AP[2] 7, SH 9:8, AF 10, nG 11.
    Arm,
}

impl Format {
    /// log2 of the sizes of pages there are.
    pub(crate) fn sizes(self) -> &'static [u8] {
        match self {
            Self::AmdHost => &[12, 12, 12, 12, 13, 14, 15, 16, 18, 20, 21, 21, 22, 25, 27, 29, 30],
            _ => &[12, 12, 12, 12, 12, 21, 21, 30],
        }
    }

    /// Permissions a page can have: bit 0 read, bit 1 write.
    pub(crate) fn permissions(self) -> &'static [u8] {
        match self {
            Self::AmdHost | Self::VtdSecond => &[3, 3, 3, 1, 2],
            Self::AmdGuest | Self::VtdFirst | Self::Arm => &[3, 3, 1],
        }
    }

    /// Whether levels can be left out.
    pub(crate) fn skips(self) -> bool {
        self == Self::AmdHost
    }

    /// Whether an entry leads anywhere.
    pub(crate) fn present(self, word: u64) -> bool {
        match self {
            Self::VtdSecond => word & 3 != 0,
            _ => word & 1 != 0,
        }
    }

    /// The table that an entry of this level names, and its level; `None` if it is a page, or leads nowhere.
    pub(crate) fn next(self, word: u64, level: u8) -> Option<(u64, u8)> {
        let table = match self {
            Self::AmdHost => (1..7).contains(&(word >> 9 & 7)),
            Self::AmdGuest | Self::VtdFirst | Self::VtdSecond => level > 1 && word & 0x80 == 0,
            Self::Arm => level > 1 && word & 2 != 0,
        };
        let below = if self == Self::AmdHost { (word >> 9 & 7) as u8 } else { level.saturating_sub(1) };
        (table && self.present(word)).then_some((word & ADDRESS, below))
    }

    /// An entry that names a table of level `below`.
    pub(crate) fn table(self, gpa: u64, below: u8) -> u64 {
        gpa | match self {
            Self::AmdHost => 1 | u64::from(below) << 9 | 3 << 61,
            Self::AmdGuest | Self::VtdFirst => 0b10_0111,
            Self::VtdSecond | Self::Arm => 3,
        }
    }

    /// An entry that maps `page`, in a table of this level.
    pub(crate) fn leaf(self, page: Page, level: u8) -> u64 {
        let Page { gpa, log2, permissions } = page;
        let (read, write) = (u64::from(permissions & 1), u64::from(permissions >> 1));
        match self {
            Self::AmdHost => {
                let own_size = (log2 - 12).is_multiple_of(9);
                let size = if own_size { 0 } else { 7 << 9 | ((1 << (log2 - 1)) - (1 << 12)) };
                gpa | size | 1 | 1 << 60 | read << 61 | write << 62
            }
            Self::AmdGuest | Self::VtdFirst => gpa | 0b110_0101 | write << 1 | u64::from(level > 1) << 7,
            Self::VtdSecond => gpa | read | write << 1 | u64::from(level > 1) << 7,
            Self::Arm => gpa | 1 | u64::from(level == 1) << 1 | (1 - write) << 7 | 0xf << 8 | 1 << 6 | 1 << 53,
        }
    }
}
