//! Commands.

use crate::words;
use amd_vi::spec::commands::{
    CompletePprRequest, CompletionWait, InvalidateDevice, InvalidateIommuAll, InvalidateIommuPages,
    InvalidateIotlbPages, Opcode, encode_span, span,
};

struct Golden {
    name: &'static str,
    bytes: [u8; 16],
    opcode: Opcode,
    /// Takes the words apart and compares every field.
    apart: fn([u64; 2]) -> bool,
    /// Builds the words from fields.
    build: fn() -> [u64; 2],
}

const GOLDEN: &[Golden] = &[
    Golden {
        name: "COMPLETION_WAIT with store (recorded)",
        bytes: [0x01, 0x80, 0x23, 0x01, 0, 0, 0, 0x10, 0x03, 0, 0, 0, 0, 0, 0, 0],
        opcode: Opcode::COMPLETION_WAIT,
        apart: |w| {
            let c = CompletionWait::from_words(w);
            (c.s(), c.i(), c.f(), c.store_address(), c.data()) == (true, false, false, 0x123_8000, 3)
        },
        build: || {
            let c = CompletionWait::new().with_opcode(Opcode::COMPLETION_WAIT.0);
            c.with_s(true).with_store_address(0x123_8000).with_data(3).words()
        },
    },
    Golden {
        name: "COMPLETION_WAIT with interrupt and flush, store address with all its bits",
        bytes: [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x10, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01],
        opcode: Opcode::COMPLETION_WAIT,
        apart: |w| {
            let c = CompletionWait::from_words(w);
            (c.s(), c.i(), c.f(), c.store_address(), c.data())
                == (false, true, true, 0x000f_ffff_ffff_fff8, 0x0123_4567_89ab_cdef)
        },
        build: || {
            let c = CompletionWait::new().with_opcode(Opcode::COMPLETION_WAIT.0).with_i(true).with_f(true);
            c.with_store_address(u64::MAX).with_data(0x0123_4567_89ab_cdef).words()
        },
    },
    Golden {
        name: "INVALIDATE_DEVTAB_ENTRY",
        bytes: [0x34, 0x12, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0],
        opcode: Opcode::INVALIDATE_DEVTAB_ENTRY,
        apart: |w| InvalidateDevice::from_words(w).device_id() == 0x1234,
        build: || {
            let opcode = Opcode::INVALIDATE_DEVTAB_ENTRY.0;
            InvalidateDevice::new().with_opcode(opcode).with_device_id(0x1234).words()
        },
    },
    Golden {
        name: "INVALIDATE_INTERRUPT_TABLE",
        bytes: [0xa0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0],
        opcode: Opcode::INVALIDATE_INTERRUPT_TABLE,
        apart: |w| InvalidateDevice::from_words(w).device_id() == 0xa0,
        build: || {
            let opcode = Opcode::INVALIDATE_INTERRUPT_TABLE.0;
            InvalidateDevice::new().with_opcode(opcode).with_device_id(0xa0).words()
        },
    },
    Golden {
        name: "INVALIDATE_IOMMU_PAGES, everything of domain 2 (as Linux does)",
        bytes: [0, 0, 0, 0, 0x02, 0, 0, 0x30, 0x03, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        opcode: Opcode::INVALIDATE_IOMMU_PAGES,
        apart: |w| {
            let c = InvalidateIommuPages::from_words(w);
            (c.domain_id(), c.s(), c.pde(), c.gn(), c.pasid()) == (2, true, true, false, 0)
                && span(c.s(), c.address()) == (0, 64)
        },
        build: || {
            let (s, address) = encode_span(0, 64);
            let c = InvalidateIommuPages::new().with_opcode(Opcode::INVALIDATE_IOMMU_PAGES.0).with_domain_id(2);
            c.with_s(s).with_pde(true).with_address(address).words()
        },
    },
    Golden {
        name: "INVALIDATE_IOMMU_PAGES, 64 KiB of a PASID",
        bytes: [0x45, 0x23, 0x01, 0, 0xcd, 0xab, 0, 0x30, 0x05, 0x70, 0x56, 0x34, 0x12, 0, 0, 0],
        opcode: Opcode::INVALIDATE_IOMMU_PAGES,
        apart: |w| {
            let c = InvalidateIommuPages::from_words(w);
            (c.domain_id(), c.s(), c.pde(), c.gn(), c.pasid()) == (0xabcd, true, false, true, 0x1_2345)
                && span(c.s(), c.address()) == (0x12_3456_0000, 16)
        },
        build: || {
            let (s, address) = encode_span(0x12_3456_0000, 16);
            let c = InvalidateIommuPages::new().with_opcode(Opcode::INVALIDATE_IOMMU_PAGES.0).with_domain_id(0xabcd);
            c.with_pasid(0x1_2345).with_gn(true).with_s(s).with_address(address).words()
        },
    },
    Golden {
        name: "INVALIDATE_IOTLB_PAGES, a page of a PASID",
        bytes: [0x18, 0x01, 0xbe, 0x20, 0x18, 0x01, 0xef, 0x40, 0x04, 0xc0, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01],
        opcode: Opcode::INVALIDATE_IOTLB_PAGES,
        apart: |w| {
            let c = InvalidateIotlbPages::from_words(w);
            (c.device_id(), c.queue_id(), c.max_pend(), c.pasid(), c.gn(), c.s())
                == (0x118, 0x118, 0x20, 0xbeef, true, false)
                && span(c.s(), c.address()) == (0x0123_4567_89ab_c000, 12)
        },
        build: || {
            let (s, address) = encode_span(0x0123_4567_89ab_c000, 12);
            let c = InvalidateIotlbPages::new().with_opcode(Opcode::INVALIDATE_IOTLB_PAGES.0).with_device_id(0x118);
            let c = c.with_queue_id(0x118).with_max_pend(0x20).with_pasid(0xbeef).with_gn(true);
            c.with_s(s).with_address(address).words()
        },
    },
    Golden {
        name: "COMPLETE_PPR_REQUEST",
        bytes: [0x18, 0x01, 0, 0, 0x45, 0x23, 0x01, 0x70, 0x04, 0, 0, 0, 0xff, 0xf1, 0, 0],
        opcode: Opcode::COMPLETE_PPR_REQUEST,
        apart: |w| {
            let c = CompletePprRequest::from_words(w);
            (c.device_id(), c.pasid(), c.gn(), c.tag(), c.status()) == (0x118, 0x1_2345, true, 0x1ff, 0xf)
        },
        build: || {
            let c = CompletePprRequest::new().with_opcode(Opcode::COMPLETE_PPR_REQUEST.0).with_device_id(0x118);
            c.with_pasid(0x1_2345).with_gn(true).with_tag(0x1ff).with_status(0xf).words()
        },
    },
    Golden {
        name: "INVALIDATE_IOMMU_ALL",
        bytes: [0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0],
        opcode: Opcode::INVALIDATE_IOMMU_ALL,
        apart: |w| InvalidateIommuAll::from_words(w).opcode() == 8,
        build: || InvalidateIommuAll::new().with_opcode(Opcode::INVALIDATE_IOMMU_ALL.0).words(),
    },
];

#[test]
fn taken_apart() {
    for golden in GOLDEN {
        let words = words(&golden.bytes);
        assert_eq!(Opcode::of(words[0]), golden.opcode, "{}", golden.name);
        assert!(golden.name.starts_with(golden.opcode.name().unwrap()), "{}", golden.name);
        assert!((golden.apart)(words), "{}", golden.name);
    }
}

#[test]
fn built() {
    for golden in GOLDEN {
        assert_eq!((golden.build)(), words(&golden.bytes), "{}", golden.name);
    }
}

#[test]
fn every_opcode_has_a_name() {
    let named: Vec<u8> = (0..=u8::MAX).filter(|&opcode| Opcode(opcode).name().is_some()).collect();
    assert_eq!(named, (1..=10).collect::<Vec<_>>());
}
