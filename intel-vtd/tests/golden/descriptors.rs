//! Invalidation descriptors.

use crate::words;
use intel_vtd::spec::descriptors::*;

struct Golden {
    section: &'static str,
    bytes: [u8; 16],
    kind: DescriptorType,
    build: fn() -> [u64; 2],
}

const GOLDEN: &[Golden] = &[
    Golden {
        section: "6.5.2.1 context cache, device 02:03.4, domain 0x1234, functions 4 to 7",
        bytes: [0x31, 0, 0x34, 0x12, 0x1c, 0x02, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        kind: DescriptorType::CONTEXT_CACHE,
        build: || {
            let command = ContextCacheInv::new().with_granularity(Granularity::SELECTIVE.0).with_domain_id(0x1234);
            command.with_source_id(0x021c).with_function_mask(2).words()
        },
    },
    Golden {
        section: "6.5.2.3 IOTLB, four pages at 0x1_2345_4000 of domain 7, hint, both drains",
        bytes: [0xf2, 0, 7, 0, 0, 0, 0, 0, 0x42, 0x40, 0x45, 0x23, 0x01, 0, 0, 0],
        kind: DescriptorType::IOTLB,
        build: || {
            let command = IotlbInv::new().with_granularity(3).with_drain_writes(true).with_drain_reads(true);
            command.with_domain_id(7).with_address_mask(2).with_hint(true).with_address(0x12_3454).words()
        },
    },
    Golden {
        section: "6.5.2.5 device-TLB of 00:10.0, two pages, PFSID 0x0abc, 5 pending",
        bytes: [0x03, 0xc0, 0x05, 0, 0x80, 0x00, 0xb0, 0x0a, 0x01, 0x20, 0, 0, 0, 0, 0, 0],
        kind: DescriptorType::DEVICE_TLB,
        build: || {
            let command = DeviceTlbInv::new().with_pfsid_low(0xc).with_pfsid_high(0xab).with_max_pending(5);
            command.with_source_id(0x80).with_size(true).with_address(2).words()
        },
    },
    Golden {
        section: "6.5.2.7 interrupt entries 0x100 to 0x103",
        bytes: [0x14, 0, 0, 0x10, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        kind: DescriptorType::INTERRUPT_ENTRY_CACHE,
        build: || InterruptEntryCacheInv::new().with_selective(true).with_index_mask(2).with_index(0x100).words(),
    },
    Golden {
        section: "6.5.2.8 wait, status 0xdeadbeef to 0x1_0000_0044, fence, interrupt",
        bytes: [0x75, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde, 0x44, 0, 0, 0, 0x01, 0, 0, 0],
        kind: DescriptorType::WAIT,
        build: || {
            let command = Wait::new().with_interrupt(true).with_status_write(true).with_fence(true);
            command.with_status_data(0xdead_beef).with_status_address(0x1_0000_0044 >> 2).words()
        },
    },
    Golden {
        section: "6.5.2.4 PASID-based IOTLB, PASID 0xabcde of domain 0x42, one page at 0xffff_8000_0000_1000",
        bytes: [0x36, 0, 0x42, 0, 0xde, 0xbc, 0x0a, 0, 0x40, 0x10, 0, 0, 0, 0x80, 0xff, 0xff],
        kind: DescriptorType::PASID_IOTLB,
        build: || {
            let command = PasidIotlbInv::new().with_granularity(PasidIotlbGranularity::PAGES.0).with_domain_id(0x42);
            command.with_pasid(0xa_bcde).with_hint(true).with_address(0x000f_fff8_0000_0001).words()
        },
    },
    Golden {
        section: "6.5.2.2 PASID cache, PASID 1 of domain 0x42",
        bytes: [0x17, 0, 0x42, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        kind: DescriptorType::PASID_CACHE,
        build: || {
            let command = PasidCacheInv::new().with_granularity(PasidCacheGranularity::PASID.0);
            command.with_domain_id(0x42).with_pasid(1).words()
        },
    },
    Golden {
        section: "6.5.2.6 PASID-based device-TLB of 00:10.0, PASID 3, two pages, PFSID 0x0abc, 5 pending",
        bytes: [0x58, 0xc0, 0x80, 0x00, 3, 0, 0xb0, 0x0a, 0x00, 0x28, 0, 0, 0, 0, 0, 0],
        kind: DescriptorType::PASID_DEVICE_TLB,
        build: || {
            let command = PasidDeviceTlbInv::new().with_pfsid_low(0xc).with_pfsid_high(0xab).with_max_pending(5);
            command.with_source_id(0x80).with_pasid(3).with_size(true).with_address(2).words()
        },
    },
    Golden {
        section: "7.7.1 page group response to 00:10.0, PASID 3, invalid request, group 0x1ff",
        bytes: [0x19, 0x10, 0x80, 0x00, 3, 0, 0, 0, 0xf8, 0x0f, 0, 0, 0, 0, 0, 0],
        kind: DescriptorType::PAGE_GROUP_RESPONSE,
        build: || {
            let command = PageGroupResponse::new().with_pasid_present(true).with_response_code(1);
            command.with_requester_id(0x80).with_pasid(3).with_group_index(0x1ff).words()
        },
    },
];

#[test]
fn built_as_the_figures_say() {
    for Golden { section, bytes, kind, build } in GOLDEN {
        assert_eq!(build(), words(bytes), "{section}");
        assert_eq!(DescriptorType::of(build()[0]), *kind, "{section}");
        assert!(kind.name().is_some());
    }
}

/// No vector sets a reserved bit, and the type, in both its places, is never one.
#[test]
fn reserved_bits_leave_the_fields_alone() {
    for Golden { section, bytes, kind, .. } in GOLDEN {
        let [low, high] = kind.reserved().unwrap();
        let [w0, w1] = words(bytes);
        assert_eq!((w0 & low, w1 & high), (0, 0), "{section}");
        assert_eq!(low & 0xe0f, 0, "{section}");
    }
    assert_eq!(DescriptorType(0).reserved(), None);
    assert_eq!(DescriptorType::of(0xe05), DescriptorType(0x75), "the upper bits of the type are 11:9");
}

#[test]
fn sizes_in_addresses() {
    for (address, log2) in
        [(0u64, 13), (1, 14), (2, 13), (3, 15), (0x7ffff, 32), (u64::MAX >> 13, 64), (u64::MAX >> 12, 64)]
    {
        assert_eq!(sized_range_log2(address), log2, "{address:#x}");
    }
}
