//! How AMD's commands and PCI's ATS say which range is meant: bit 0 (S) and the lowest zero of the address.

/// Address and S of an invalidation.
#[derive(Clone, Copy)]
pub(super) struct Size(u64);

impl Size {
    /// The word's address and S.
    pub(super) fn word(self) -> u64 {
        self.0
    }

    /// Everything.
    pub(super) const ALL: Self = Self(0x7fff_ffff_ffff_f001);

    /// The smallest range there is that covers these addresses. A range of 2^n bytes has ones from bit 12 to bit n - 2
    /// and a zero at bit n - 1.
    pub(super) fn covering(first: u64, last: u64) -> Self {
        match (12..52).find(|log2| first >> log2 == last >> log2) {
            None => Self::ALL,
            Some(12) => Self(first & !0xfff),
            Some(log2) => Self(first >> log2 << log2 | ((1 << (log2 - 1)) - (1 << 12)) | 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_by_the_lowest_zero() {
        for (first, last, word) in [
            (0x5000, 0x5fff, 0x5000),
            (0x4000, 0x5fff, 0x4001),
            (0x5000, 0x6fff, 0x5001 & !0x1000 | 0x1001),
            (0x20_0000, 0x3f_ffff, 0x2f_f001),
            (0, u64::MAX >> 1, 0x7fff_ffff_ffff_f001),
        ] {
            assert_eq!(Size::covering(first, last).0, word, "{first:#x}..={last:#x}");
        }
    }
}
