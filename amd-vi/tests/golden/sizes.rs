//! Sizes inside addresses.

use amd_vi::spec::size;

#[test]
fn examples() {
    for (field, first, log2) in [
        (0x0000_0000_0000_0000, 0, 13),
        (0x0000_0000_0000_2000, 0x2000, 13),
        (0x0000_0000_0000_1000, 0, 14),
        (0x0000_0000_0000_7000, 0, 16),
        (0x0000_0012_3456_7000, 0x12_3456_0000, 16),
        (0x0000_0000_000f_f000, 0, 21),
        (0x0000_0000_1fff_f000, 0, 30),
        (0x000f_ffff_ffff_f000, 0, 53),
        (size::ALL, 0, 64),
        (u64::MAX, 0, 64),
    ] {
        assert_eq!(size::decode(field), (first, log2), "{field:#x}");
        if field != u64::MAX {
            assert_eq!(size::encode(first, log2), field, "2^{log2} at {first:#x}");
        }
    }
}

#[test]
fn every_size_comes_back() {
    for log2 in size::SMALLEST_LOG2..=size::ALL_LOG2 {
        let address = if log2 == 64 { 0 } else { 0xdead_beef_dead_beef & (u64::MAX << log2) };
        assert_eq!(size::decode(size::encode(address, log2)), (address, log2));
        assert_eq!(size::decode(size::encode(address, log2) | 0xfff), (address, log2), "the low bits do not count");
    }
}
