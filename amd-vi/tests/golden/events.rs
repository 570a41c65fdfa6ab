//! Event log entries.

use crate::words;
use amd_vi::spec::events::{EventCode, EventWord0, flags};

#[test]
fn page_fault_of_a_pasid() {
    // A write of device 0x118 with PASID 0x12345 to a page that may only be read.
    let bytes = [0x18, 0x01, 0x01, 0, 0x45, 0x23, 0x71, 0x20, 0x00, 0x10, 0x56, 0x34, 0x12, 0, 0, 0];
    let [word0, address] = words(&bytes);
    let event = EventWord0::from(word0);
    assert_eq!((event.device_id(), event.pasid_high(), event.domain_id()), (0x118, 1, 0x2345));
    assert_eq!(EventCode(event.code()), EventCode::IO_PAGE_FAULT);
    assert_eq!((event.flags(), address), (flags::GN | flags::PR | flags::RW | flags::PE, 0x12_3456_1000));
    let built = EventWord0::new()
        .with_device_id(0x118)
        .with_pasid_high(1)
        .with_domain_id(0x2345)
        .with_flags(0x071)
        .with_code(2);
    assert_eq!(u64::from(built), word0);
}

#[test]
fn every_code_has_a_name() {
    let named: Vec<u8> = (0..16).filter(|&code| EventCode(code).name().is_some()).collect();
    assert_eq!(named, (1..=12).collect::<Vec<_>>());
}
