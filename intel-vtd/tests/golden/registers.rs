//! Registers, with the values that recorded guests read and wrote.

use intel_vtd::spec::registers::*;

#[test]
fn the_recorded_capabilities() {
    // vtd73-ats-strict: 11.4.2 and 11.4.3.
    let cap = Cap::from(0x81d2_008c_222f_0606);
    assert_eq!((cap.domains(), cap.second_stage_levels(), cap.address_width()), (6, 0b0110, 47));
    assert_eq!((cap.fault_register(0), cap.fault_registers(), cap.max_address_mask()), (0x220, 0, 18));
    assert_eq!((cap.second_stage_leaves(), cap.page_selective()), (3, true));
    assert!(cap.drain_writes() && cap.drain_reads() && cap.first_stage_1g() && cap.set_root_table_invalidates());
    assert!(!cap.caching_mode() && !cap.first_stage_5_levels() && !cap.set_interrupt_table_invalidates());
    assert!(!cap.write_buffer_flush() && !cap.protected_low_memory() && !cap.zero_length_read());
    let ecap = Ecap::from(0x8800_00f0_0f4e);
    assert!(ecap.queued_invalidation() && ecap.device_tlb() && ecap.interrupt_remapping() && ecap.pass_through());
    assert!(ecap.scalable_mode() && ecap.first_stage() && !ecap.second_stage() && !ecap.nested() && !ecap.pasid());
    assert_eq!((ecap.iva(), ecap.iotlb(), ecap.max_handle_mask()), (0xf0, 0xf8, 15));
    let legacy = Ecap::from(0xf0_0f4a);
    assert!(!legacy.scalable_mode() && !legacy.first_stage() && !legacy.device_tlb());
}

#[test]
fn every_capability_at_its_bit() {
    let ecap = Ecap::new().with_coherent(true).with_nested(true).with_page_request(true).with_supervisor_request(true);
    let ecap = ecap.with_extended_accessed(true).with_pasid(true).with_second_stage_ad(true).with_second_stage(true);
    let ecap = ecap.with_scalable_coherent(true).with_rid_pasid(true).with_pasid_size(19);
    let bits = [0, 26, 29, 31, 34, 40, 45, 46, 48, 49];
    assert_eq!(u64::from(ecap), bits.iter().fold(19 << 35, |word, bit| word | 1 << bit));
    let cap = Cap::new().with_caching_mode(true).with_first_stage_5_levels(true).with_enhanced_commands(true);
    assert_eq!(u64::from(cap.with_posted_interrupts(true)), 1 << 7 | 1 << 60 | 1 << 61 | 1 << 59);
}

#[test]
fn the_recorded_bring_up() {
    for (command, value) in [
        (Global::new().with_queued_invalidation(true), 0x0400_0000u32),
        (Global::new().with_queued_invalidation(true).with_interrupt_table(true), 0x0500_0000),
        (Global::new().with_queued_invalidation(true).with_interrupt_remapping(true), 0x0600_0000),
        (Global::from(0x0600_0000).with_root_table(true), 0x4600_0000),
        (Global::from(0x0600_0000).with_translation(true), 0x8600_0000),
    ] {
        assert_eq!(u32::from(command), value);
    }
    let root = RootTable::from(0x286_c400);
    assert_eq!((TableMode(root.mode()), root.address()), (TableMode::SCALABLE, 0x286_c000));
    let queue = QueueAddress::from(0x124_8801);
    assert_eq!((queue.address(), queue.bytes(), queue.wide(), queue.descriptor_log2()), (0x124_8000, 0x2000, true, 5));
    let table = InterruptTable::from(0x130_000f);
    assert_eq!((table.table() << 12, table.size(), table.extended()), (0x130_0000, 15, false));
}

#[test]
fn faults_and_events() {
    // FRCD as read in vtd73-ats-strict: high half's words at 0x228 and 0x22c.
    let record = FaultRecord1::from(0xc000_0071_0000_0008);
    assert_eq!((record.source_id(), record.reason(), record.read(), record.fault()), (8, 0x71, true, true));
    let record = FaultRecord1::new().with_pasid(0xf_ffff).with_pasid_present(true).with_privileged(true);
    assert_eq!(u64::from(record.with_execute(true).with_type_2(true).with_address_type(2)), 0x2fff_ff00_f000_0000);
    assert_eq!(u64::from(FaultRecord0::new().with_page(0x7654)), 0x765_4000);
    let status = FaultStatus::from(0x0000_03f3);
    assert!(status.overflow() && status.pending() && status.queue_error() && status.completion_error());
    assert!(status.time_out() && status.page_request_overflow() && status.first_register() == 3);
    assert_eq!(u32::from(EventControl::new().with_mask(true)), 1 << 31);
    assert_eq!(u32::from(EventControl::new().with_pending(true)), 1 << 30);
    let error = QueueError::new().with_info(3).with_time_out_source(0x1234).with_completion_source(0x5678);
    assert_eq!(u64::from(error), 0x5678_1234_0000_0003);
}

#[test]
fn invalidation_by_register() {
    let command = ContextCommand::new().with_domain_id(0x1234).with_source_id(0x5678).with_function_mask(3);
    let command = command.with_granularity(3).with_actual(2).with_invalidate(true);
    assert_eq!(u64::from(command), 1 << 63 | 3 << 61 | 2 << 59 | 3 << 32 | 0x5678_1234);
    let command = IotlbCommand::new().with_domain_id(0x1234).with_drain_writes(true).with_drain_reads(true);
    let command = command.with_granularity(3).with_actual(2).with_invalidate(true);
    assert_eq!(u64::from(command), 1 << 63 | 3 << 60 | 2 << 57 | 3 << 48 | 0x1234 << 32);
    let address = InvalidateAddress::new().with_address(5).with_address_mask(9).with_hint(true);
    assert_eq!(u64::from(address), 0x5049);
}

#[test]
fn names_and_widths() {
    assert_eq!((register_name(0x9c), register_bytes(0x9c)), (Some("ICS"), Some(4)));
    assert_eq!((register_name(0xb8), register_bytes(0xb8)), (Some("IRTA"), Some(8)));
    assert_eq!(register_name(0x220), None);
}
