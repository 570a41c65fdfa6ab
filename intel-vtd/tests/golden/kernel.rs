//! Payloads of Linux's iommufd, byte by byte, by the names of `<linux/iommufd.h>`.

use intel_vtd::features::Features;
use intel_vtd::kernel::VtdKernel;
use viommu_plugin::{
    EntryKey, InvalidateTarget, KernelAbi, KeyKind, NO_DOMAIN, Nesting, PCI_ATS_NOT_SUPPORTED, TranslationMode,
};

/// ECAP of a host that nests: QI, DT, NEST, PT, SMTS, SSTS, FSTS, SMPWCS, SRS, EAFS.
const ECAP: u64 = 1 << 1 | 1 << 2 | 1 << 26 | 1 << 6 | 1 << 43 | 1 << 46 | 1 << 47 | 1 << 48 | 1 << 31 | 1 << 34;
const CAP: u64 = 0x80d2_008c_222f_0606 | 1 << 60;

/// `struct iommu_hw_info_vtd`: flags (here: the erratum that the driver always reports), __reserved, cap_reg, ecap_reg.
fn hw_info(cap: u64, ecap: u64) -> Vec<u8> {
    [1, cap, ecap].map(u64::to_ne_bytes).concat()
}

fn shown(ecap: u64, capabilities: u64, mode: TranslationMode) -> Option<Features> {
    let registers = VtdKernel.registers(&hw_info(CAP, ecap), capabilities, mode).expect("it can be shown");
    (!registers.is_empty()).then(|| Features::new(&registers).expect("the codec takes it"))
}

#[test]
fn types_and_sizes() {
    let facts = VtdKernel.facts();
    assert_eq!((facts.hw_info_type, facts.hw_info_bytes, facts.nesting), (1, 24, Nesting::PARENT));
    assert_eq!((facts.hwpt_data_type, facts.hwpt_data_bytes), (1, 24));
    assert_eq!((facts.invalidate_data_type, facts.invalidate_entry_bytes), (0, 24));
    assert_eq!((facts.viommu_type, facts.veventq_type, facts.hw_queue_type), (0, 0, 0));
}

#[test]
fn guests_are_nested_where_hardware_nests_and_else_shadowed() {
    let nested = shown(ECAP, 0, TranslationMode::NESTED).expect("it nests");
    assert!(nested.ecap.device_tlb() && nested.ecap.supervisor_request() && nested.ecap.extended_accessed());
    assert!(nested.cap.first_stage_5_levels() && !nested.ecap.nested() && !nested.ecap.interrupt_remapping());
    let without = shown(ECAP, PCI_ATS_NOT_SUPPORTED, TranslationMode::NESTED).expect("it nests");
    assert!(!without.ecap.device_tlb());
    for lacking in [26, 43, 47] {
        assert_eq!(shown(ECAP & !(1 << lacking), 0, TranslationMode::NESTED), None, "ECAP bit {lacking}");
        let shadowed = shown(ECAP & !(1 << lacking), 0, TranslationMode::SHADOW).expect("tables are mappings");
        assert!(shadowed.cap.caching_mode() && !shadowed.ecap.scalable_mode());
    }
    let short = VtdKernel.registers(&[0; 23], 0, TranslationMode::NESTED).expect_err("a byte is missing");
    assert!(short.text.contains("hw_info_vtd"), "{short}");
}

/// `struct iommu_hwpt_vtd_s1`: flags, pgtbl_addr, addr_width, __reserved.
#[test]
fn nested_tables() {
    // Word 2 of the PASID table entry: SRE 0, FLPM 3:2, WPE 4, EAFE 7, FLPTPTR 63:12.
    for (word2, flags, width) in [(0, 0, 48), (1 << 2, 0, 57), (1 | 1 << 4, 1 | 4, 48), (1 << 7, 2, 48)] {
        let key = EntryKey {
            kind: KeyKind::TRANSLATE,
            domain: 5,
            words: [0x41, 5, 0x1_2345_6000 | word2, 1],
            ..EntryKey::default()
        };
        let mut data = [0xa5; 32];
        assert_eq!(VtdKernel.hwpt_data(&key, &mut data), 24);
        let right =
            [[flags, 0x1_2345_6000].map(u64::to_ne_bytes).concat(), [width, 0_u32].map(u32::to_ne_bytes).concat()];
        assert_eq!((&data[..24], &data[24..]), (&right.concat()[..], &[0xa5; 8][..]), "{word2:#x}");
        assert_eq!(VtdKernel.hwpt_data(&key, &mut data[..23]), 0);
    }
    // A bypass is the parent, an abort is a device that is detached.
    for kind in [KeyKind::BYPASS, KeyKind::ABORT] {
        assert_eq!(VtdKernel.hwpt_data(&EntryKey { kind, ..EntryKey::default() }, &mut [0; 24]), 0);
    }
}

/// `struct iommu_hwpt_vtd_s1_invalidate`: addr, npages, flags, __reserved.
fn entry(addr: u64, npages: u64, flags: u64) -> Vec<u8> {
    [addr, npages, flags.to_le()].map(u64::to_ne_bytes).concat()
}

#[test]
fn descriptors_become_entries_of_one_domain() {
    let did = |did: u64| did << 16;
    #[rustfmt::skip]
    let queue = [
        [0x36 | did(5), 0x7_0000 << 12, 0, 0],             // PIOTLB, one page
        [0x36 | did(5), 0x7_0003 << 12 | 1 << 6 | 3, 0, 0], // PIOTLB, 8 pages, IH; the low bits of the address do not count
        [0x3 | 0x100 << 32, 0x7000 | 1, 0, 0],              // device-TLB: the kernel flushes it with the IOTLB
        [0x26 | did(5), 0, 0, 0],                           // PIOTLB, all of the PASID
        [0x32 | did(5), 0x1000 | 52, 0, 0],                 // IOTLB, more pages than there are
        [0x22 | did(6), 0, 0, 0],                           // IOTLB, all of another domain
        [0x12, 0, 0, 0],                                    // IOTLB, global: not of one domain
    ];
    let mut room = [0xa5; 240];
    let done = VtdKernel.entries(queue.as_flattened(), &mut room);
    assert_eq!((done.taken, done.written, done.domain, done.refused), (20, 96, 5, 0));
    assert_eq!((done.target, done.entry_bytes), (InvalidateTarget::NESTED_HWPT, 24));
    let everything = entry(0, u64::MAX, 0);
    let right = [entry(0x7000_0000, 1, 0), entry(0x7000_0000, 8, 1), everything.clone(), everything.clone()].concat();
    assert_eq!((&room[..96], room[96..].iter().all(|byte| *byte == 0xa5)), (&right[..], true));

    let done = VtdKernel.entries(queue[5..].as_flattened(), &mut room);
    assert_eq!((done.taken, done.written, done.domain, done.refused), (4, 24, 6, 1));
    assert_eq!(room[..24], everything);
    let done = VtdKernel.entries(queue[6..].as_flattened(), &mut room);
    assert_eq!((done.taken, done.written, done.domain, done.refused), (0, 0, NO_DOMAIN, 1));
    let done = VtdKernel.entries(queue.as_flattened(), &mut room[..47]);
    assert_eq!((done.taken, done.written, done.refused), (4, 24, 0), "no room is no refusal");
}
