//! Payloads of Linux's iommufd, byte by byte, by the names of `<linux/iommufd.h>`.

use amd_vi::features::Features;
use amd_vi::kernel::AmdKernel;
use viommu_plugin::{EntryKey, KernelAbi, KeyKind, Nesting, PCI_ATS_NOT_SUPPORTED, TranslationMode};

/// EFR with GTSup, IASup, HATS 2 (six levels), GIoSup; EFR2 with GCR3TRPMode: hardware that could nest.
const EFR: u64 = 1 << 4 | 1 << 6 | 2 << 10 | 1 << 48;
const EFR2: u64 = 1 << 3;

/// `struct iommu_hw_info_amd`: efr, efr2.
fn hw_info(efr: u64, efr2: u64) -> Vec<u8> {
    [efr, efr2].map(u64::to_ne_bytes).concat()
}

#[test]
fn types_and_sizes_and_no_nesting() {
    let facts = AmdKernel.facts();
    assert_eq!((facts.hw_info_type, facts.hw_info_bytes, facts.nesting), (4, 16, Nesting::NONE));
    assert_eq!((facts.hwpt_data_type, facts.viommu_type, facts.invalidate_entry_bytes), (0, 0, 0));
}

#[test]
fn guests_are_shadowed_whatever_the_hardware_could() {
    let registers = |info: &[u8], capabilities, mode| AmdKernel.registers(info, capabilities, mode);
    let info = hw_info(EFR, EFR2);
    assert_eq!(registers(&info, 0, TranslationMode::NESTED), Ok(Vec::new()));
    let shown = Features::new(&registers(&info, 0, TranslationMode::SHADOW).expect("v1 tables")).expect("taken");
    assert_eq!((shown.mode(), shown.host_levels()), (TranslationMode::SHADOW, 6));
    assert!(shown.header.np_cache() && !shown.efr.gt_sup() && !shown.efr2.gcr3_trp_mode());
    let without = registers(&info, PCI_ATS_NOT_SUPPORTED, TranslationMode::SHADOW).expect("v1 tables");
    assert!(!Features::new(&without).expect("taken").header.iotlb_sup());
    let short = registers(&info[..15], 0, TranslationMode::SHADOW).expect_err("a byte is missing");
    assert!(short.text.contains("hw_info_amd"), "{short}");
}

#[test]
fn there_is_no_nested_hwpt_and_nothing_to_invalidate_but_device_caches() {
    for kind in [KeyKind::ABORT, KeyKind::BYPASS, KeyKind::TRANSLATE] {
        assert_eq!(AmdKernel.hwpt_data(&EntryKey { kind, ..EntryKey::default() }, &mut [0; 64]), 0);
    }
    // INVALIDATE_IOTLB_PAGES, which the kernel does with its own; INVALIDATE_IOMMU_PAGES.
    let done = AmdKernel.entries(&[4 << 60 | 0x10, 0x1000, 3 << 60, 0x1000], &mut [0; 64]);
    assert_eq!((done.taken, done.written, done.refused), (2, 0, 1));
}
