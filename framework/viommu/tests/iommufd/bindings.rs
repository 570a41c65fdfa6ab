//! `uapi`'s layouts are the C headers', as bindgen read them for the crate iommufd-bindings: size, and each field's offset
//! and bytes.
//!
//! The bindings are of an older header: IOAS_NOIOMMU_GET_PA, the mock driver and the VFIO devices are not in them.

use iommufd_bindings as c;
use std::mem::offset_of;
use viommu::uapi::{Command, layout, payload};

/// What differs between structs of ours and the header's, in words.
macro_rules! unlike {
    (@field $theirs:ty, $bindings:ident, $field:ident $named:ident) => {
        (offset_of!($theirs, $named), size_of_val(&$bindings.$named))
    };
    (@field $theirs:ty, $bindings:ident, $field:ident) => {
        (offset_of!($theirs, $field), size_of_val(&$bindings.$field))
    };
    ($($ours:ty, $theirs:ty { $($field:ident $(= $named:ident)?),* };)*) => {{
        let mut unlike: Vec<String> = Vec::new();
        $({
            let (ours, bindings) = (<$ours>::default(), <$theirs>::default());
            let name = stringify!($ours);
            let mut seen = 0;
            $({
                let here = (offset_of!($ours, $field), size_of_val(&ours.$field));
                let there = unlike!(@field $theirs, bindings, $field $($named)?);
                seen += here.1;
                if here != there {
                    unlike.push(format!("{name}.{}: {here:?}, not {there:?}", stringify!($field)));
                }
            })*
            // No struct of the uAPI has padding, so a field that is not named above is missing here.
            let sizes = [seen, size_of_val(&ours), size_of_val(&bindings)];
            if sizes != [sizes[0]; 3] {
                unlike.push(format!("{name}: fields, ours and the header's have {sizes:?} bytes"));
            }
        })*
        unlike
    }};
}

#[test]
fn layouts_are_the_headers() {
    let unlike = unlike! {
        layout::Destroy, c::iommu_destroy { size, id };
        layout::IoasAlloc, c::iommu_ioas_alloc { size, flags, out_ioas_id };
        layout::IoasAllowIovas, c::iommu_ioas_allow_iovas { size, ioas_id, num_iovas, __reserved, allowed_iovas };
        layout::IoasCopy, c::iommu_ioas_copy { size, flags, dst_ioas_id, src_ioas_id, length, dst_iova, src_iova };
        layout::IoasIovaRanges, c::iommu_ioas_iova_ranges { size, ioas_id, num_iovas, __reserved, allowed_iovas, out_iova_alignment };
        layout::IoasMap, c::iommu_ioas_map { size, flags, ioas_id, __reserved, user_va, length, iova };
        layout::IoasUnmap, c::iommu_ioas_unmap { size, ioas_id, iova, length };
        layout::OptionArgument, c::iommu_option { size, option_id, op, __reserved, object_id, val64 };
        layout::VfioIoas, c::iommu_vfio_ioas { size, ioas_id, op, __reserved };
        layout::HwptAlloc, c::iommu_hwpt_alloc { size, flags, dev_id, pt_id, out_hwpt_id, __reserved, data_type, data_len, data_uptr, fault_id, __reserved2 };
        layout::HwInfo, c::iommu_hw_info { size, flags, dev_id, data_len, data_uptr, data_type = __bindgen_anon_1, out_max_pasid_log2, __reserved, out_capabilities };
        layout::HwptSetDirtyTracking, c::iommu_hwpt_set_dirty_tracking { size, flags, hwpt_id, __reserved };
        layout::HwptGetDirtyBitmap, c::iommu_hwpt_get_dirty_bitmap { size, hwpt_id, flags, __reserved, iova, length, page_size, data };
        layout::HwptInvalidate, c::iommu_hwpt_invalidate { size, hwpt_id, data_uptr, data_type, entry_len, entry_num, __reserved };
        layout::FaultAlloc, c::iommu_fault_alloc { size, flags, out_fault_id, out_fault_fd };
        layout::IoasMapFile, c::iommu_ioas_map_file { size, flags, ioas_id, fd, start, length, iova };
        layout::ViommuAlloc, c::iommu_viommu_alloc { size, flags, r#type = type_, dev_id, hwpt_id, out_viommu_id, data_len, __reserved, data_uptr };
        layout::VdeviceAlloc, c::iommu_vdevice_alloc { size, viommu_id, dev_id, out_vdevice_id, virt_id };
        layout::IoasChangeProcess, c::iommu_ioas_change_process { size, __reserved };
        layout::VeventqAlloc, c::iommu_veventq_alloc { size, flags, viommu_id, r#type = type_, veventq_depth, out_veventq_id, out_veventq_fd, __reserved };
        layout::HwQueueAlloc, c::iommu_hw_queue_alloc { size, flags, viommu_id, r#type = type_, index, out_hw_queue_id, nesting_parent_iova, length };
        layout::IovaRange, c::iommu_iova_range { start, last };
        payload::HwptVtdS1, c::iommu_hwpt_vtd_s1 { flags, pgtbl_addr, addr_width, __reserved };
        payload::HwptArmSmmuv3, c::iommu_hwpt_arm_smmuv3 { ste };
        payload::HwptAmdGuest, c::iommu_hwpt_amd_guest { dte };
        payload::HwInfoVtd, c::iommu_hw_info_vtd { flags, __reserved, cap_reg, ecap_reg };
        payload::HwInfoArmSmmuv3, c::iommu_hw_info_arm_smmuv3 { flags, __reserved, idr, iidr, aidr };
        payload::HwInfoTegra241Cmdqv, c::iommu_hw_info_tegra241_cmdqv { flags, version, log2vcmdqs, log2vsids, __reserved };
        payload::HwInfoAmd, c::iommu_hw_info_amd { efr, efr2 };
        payload::HwptVtdS1Invalidate, c::iommu_hwpt_vtd_s1_invalidate { addr, npages, flags, __reserved };
        payload::ViommuArmSmmuv3Invalidate, c::iommu_viommu_arm_smmuv3_invalidate { cmd };
        payload::ViommuTegra241Cmdqv, c::iommu_viommu_tegra241_cmdqv { out_vintf_mmap_offset, out_vintf_mmap_length };
        payload::HwptPgfault, c::iommu_hwpt_pgfault { flags, dev_id, pasid, grpid, perm, __reserved, addr, length, cookie };
        payload::HwptPageResponse, c::iommu_hwpt_page_response { cookie, code };
        payload::VeventHeader, c::iommufd_vevent_header { flags, sequence };
        payload::VeventArmSmmuv3, c::iommu_vevent_arm_smmuv3 { evt };
        payload::VeventTegra241Cmdqv, c::iommu_vevent_tegra241_cmdqv { lvcmdq_err_map };
    };
    assert!(unlike.is_empty(), "{unlike:#?}");
}

#[test]
fn commands_are_the_headers() {
    // The last two are not in the bindings.
    let ours: Vec<_> = Command::ALL[..21].iter().map(|command| command.code()).collect();
    let theirs = c::IOMMUFD_CMD_DESTROY..=c::IOMMUFD_CMD_HW_QUEUE_ALLOC;
    assert_eq!(ours, theirs.map(|number| u32::from(c::IOMMUFD_TYPE) << 8 | number).collect::<Vec<_>>());
    let named = [
        (Command::HwptAlloc, c::IOMMUFD_CMD_HWPT_ALLOC),
        (Command::GetHwInfo, c::IOMMUFD_CMD_GET_HW_INFO),
        (Command::HwptInvalidate, c::IOMMUFD_CMD_HWPT_INVALIDATE),
        (Command::FaultQueueAlloc, c::IOMMUFD_CMD_FAULT_QUEUE_ALLOC),
        (Command::ViommuAlloc, c::IOMMUFD_CMD_VIOMMU_ALLOC),
        (Command::VdeviceAlloc, c::IOMMUFD_CMD_VDEVICE_ALLOC),
        (Command::VeventqAlloc, c::IOMMUFD_CMD_VEVENTQ_ALLOC),
    ];
    for (command, number) in named {
        assert_eq!(command.code() & 0xff, number, "{}", command.name());
    }
}

/// A struct that somebody got wrong: two fields the wrong way round, one forgotten.
#[derive(Default)]
#[repr(C)]
struct Wrong {
    size: u32,
    dev_id: u32,
    viommu_id: u32,
    virt_id: u64,
}

#[test]
fn a_field_in_the_wrong_place_and_a_missing_one_are_noticed() {
    let unlike = unlike! { Wrong, c::iommu_vdevice_alloc { size, viommu_id, dev_id, virt_id }; };
    assert_eq!(
        unlike,
        [
            "Wrong.viommu_id: (8, 4), not (4, 4)",
            "Wrong.dev_id: (4, 4), not (8, 4)",
            "Wrong: fields, ours and the header's have [20, 24, 24] bytes"
        ]
    );
}
