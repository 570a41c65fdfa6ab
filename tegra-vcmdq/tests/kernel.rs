//! Payloads of Linux's iommufd, byte by byte, by the names of `<linux/iommufd.h>`: what is not the SMMU's.

#![forbid(unsafe_code)]

use tegra_vcmdq::frontend::shown;
use tegra_vcmdq::kernel::TegraKernel;
use tegra_vcmdq::spec::{CMDQV, Param, offset};
use viommu_plugin::{KernelAbi, NO_STREAM, TranslationMode, VirtualInterface};

/// `struct iommu_hw_info_arm_smmuv3`, then `struct iommu_hw_info_tegra241_cmdqv`: flags, version, log2vcmdqs, log2vsids.
fn hw_info(cmdqv: &[u8]) -> Vec<u8> {
    let smmu: [u32; 10] = [0, 0, 0x0d44_101b, 0x0273_0010, 0, 0x1404, 0, 0x74, 0, 0];
    [&smmu.map(u32::to_ne_bytes).concat()[..], cmdqv].concat()
}

fn param(cmdqv: &[u8]) -> Param {
    let registers = TegraKernel.registers(&hw_info(cmdqv), 0, TranslationMode::NESTED).expect("it can be shown");
    shown(&registers).expect("the frontend takes it")
}

#[test]
fn types_and_sizes() {
    let facts = TegraKernel.facts();
    assert_eq!((facts.hw_info_type, facts.hw_info_bytes), (2, 40));
    assert_eq!((facts.hw_info_more_type, facts.hw_info_more_bytes), (3, 8));
    assert_eq!((facts.viommu_type, facts.viommu_data_bytes), (2, 16));
    assert_eq!((facts.veventq_type, facts.vevent_bytes), (1, 32));
    assert_eq!((facts.interface_veventq_type, facts.interface_vevent_bytes), (2, 16));
    assert_eq!((facts.hw_queue_type, facts.hwpt_data_type, facts.invalidate_data_type), (1, 2, 1));
}

#[test]
fn param_is_one_vintf() {
    let shown = param(&[0, 0, 0, 0, 1, 1, 4, 0]);
    assert_eq!((shown.ver(), shown.vintfs(), shown.per_vintf(), shown.slots()), (1, 1, 2, 16));
    // A kernel, or an SMMU, without a CMDQV.
    assert_eq!((param(&[0; 8]), param(&[])), (Param::new(), Param::new()));
    let wide = TegraKernel.registers(&hw_info(&[0, 0, 0, 0, 1, 16, 4, 0]), 0, TranslationMode::NESTED);
    assert!(wide.is_err_and(|refusal| refusal.text.contains("hw_info_tegra241_cmdqv")));
    let many = TegraKernel.registers(&hw_info(&[0, 0, 0, 0, 1, 8, 4, 0]), 0, TranslationMode::NESTED);
    assert!(many.is_err_and(|refusal| refusal.text.contains("NUM_VCMDQ_LOG2")));
    let registers = TegraKernel.registers(&hw_info(&[0, 0, 0, 0, 1, 1, 4, 0]), 0, TranslationMode::NESTED);
    let listed = registers.expect("as above").pop().expect("PARAM");
    assert_eq!((listed.offset, listed.value), (CMDQV + offset::PARAM, 0x4011));
}

/// `struct iommu_viommu_tegra241_cmdqv`: out_vintf_mmap_offset, out_vintf_mmap_length.
#[test]
fn the_page_is_where_mmap_says() {
    let data = [0x1_0000_u64, 0x1_0000].map(u64::to_ne_bytes).concat();
    let right = VirtualInterface {
        handle: 0,
        flags: VirtualInterface::PHYSICAL_QUEUES,
        page: 0x1_0000,
        page_length: 0x1_0000,
        guest_page: CMDQV + 0x3_0000,
    };
    assert_eq!(TegraKernel.interface(&data), Some(right));
    assert_eq!((TegraKernel.interface(&[0; 16]), TegraKernel.interface(&data[..15])), (None, None));
}

/// `struct iommu_vevent_tegra241_cmdqv`: lvcmdq_err_map\[2\].
#[test]
fn an_error_map_is_an_event_without_a_stream() {
    let map = [2_u64, 1 << 63].map(u64::to_le_bytes).concat();
    let event = TegraKernel.event(2, &map).expect("an event");
    assert_eq!((event.virt_id, event.words, event.record[0], event.record[1]), (NO_STREAM, 2, 2, 1 << 63));
    assert_eq!(TegraKernel.event(2, &map[..15]), None);
    // The events of streams come in the SMMU's own queue.
    assert_eq!(TegraKernel.event(1, &[0; 32]).map(|event| event.words), Some(4));
}
