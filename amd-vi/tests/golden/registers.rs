//! Registers, as the recorded guest's were.

use amd_vi::spec::registers::{
    CAPABILITY_HEADER, CapabilityHeader, Control, DeviceTableBase, Efr, Efr2, FRAME_BYTES, RingBase, RingPointer,
    Status, offset, register_name,
};

#[test]
fn bases_and_pointers() {
    let table = DeviceTableBase::from(0x0126_0007);
    assert_eq!((table.address(), table.bytes()), (0x126_0000, 0x8000));
    let ring = RingBase::from(0x0900_0000_0124_8000);
    assert_eq!((ring.address(), ring.length()), (0x124_8000, 9));
    assert_eq!(RingPointer::from(0x1fd0).index(), 0x1fd);
    assert_eq!(u64::from(RingPointer::new().with_index(0x7fff)), 0x7_fff0);
}

#[test]
fn control() {
    let recorded = Control::from(0x000c_0000_0003_148f);
    assert!(recorded.iommu_en() && recorded.event_log_en() && recorded.event_int_en() && recorded.cmd_buf_en());
    assert!(
        recorded.coherent() && recorded.gt_en() && recorded.ga_en() && recorded.xt_en() && recorded.int_cap_xt_en()
    );
    assert!(!recorded.com_wait_int_en() && !recorded.ppr_log_en() && !recorded.gcr3_trp_mode());
    assert_eq!(recorded.inv_timeout(), 4, "1 s");
    let bit = |control: Control| u64::from(control).trailing_zeros();
    let single = Control::new;
    assert_eq!(bit(single().with_ppr_en(true)), 15);
    assert_eq!(bit(single().with_gam_en(1)), 25);
    assert_eq!(bit(single().with_ga_log_en(true)), 28);
    assert_eq!(bit(single().with_num_int_remap_mode(1)), 43);
    assert_eq!(bit(single().with_eph_en(true)), 45);
    assert_eq!(bit(single().with_vcmd_en(true)), 52);
    assert_eq!(bit(single().with_gcr3_trp_mode(true)), 58);
    assert_eq!(bit(single().with_irt_cache_dis(true)), 59);
    assert_eq!(bit(single().with_gst_buffer_trp_mode(true)), 60);
    assert_eq!(bit(single().with_snp_avic_en(1)), 61);
}

#[test]
fn status() {
    let recorded = Status::from(0x18);
    assert!(recorded.event_log_run() && recorded.cmd_buf_run() && !recorded.event_overflow());
    let ones = Status::from(Status::WRITE_1_TO_CLEAR);
    assert!(ones.event_overflow() && ones.event_log_int() && ones.com_wait_int() && ones.ppr_overflow());
    assert!(ones.ppr_int() && ones.ga_log_overflow() && ones.ga_int());
    assert!(!ones.event_log_run() && !ones.cmd_buf_run() && !ones.ppr_run() && !ones.ga_log_run());
}

#[test]
fn features() {
    let recorded = Efr::from(0x29d7);
    assert!(recorded.pref_sup() && recorded.ppr_sup() && recorded.xt_sup() && recorded.gt_sup());
    assert!(recorded.ia_sup() && recorded.ga_sup() && recorded.he_sup() && !recorded.nx_sup() && !recorded.gio_sup());
    assert_eq!((recorded.hats(), recorded.gats(), recorded.glx_sup(), recorded.pas_max()), (2, 2, 0, 0));
    let bit = |efr: Efr| u64::from(efr).trailing_zeros();
    assert_eq!(bit(Efr::new().with_gam_sup(1)), 21);
    assert_eq!(bit(Efr::new().with_pas_max(1)), 32);
    assert_eq!(bit(Efr::new().with_gio_sup(true)), 48);
    assert_eq!(bit(Efr::new().with_hd_sup(true)), 52);
    assert_eq!(bit(Efr::new().with_viommu_sup(true)), 55);
    assert_eq!(bit(Efr::new().with_snp_sup(true)), 63);
    assert_eq!(u64::from(Efr2::new().with_gcr3_trp_mode(true)), 8);
    assert_eq!(u64::from(Efr2::new().with_ht_range_ignore(true)), 1 << 11);
    let header = CapabilityHeader::from(0x0d0b_000f);
    assert_eq!((header.cap_id(), header.cap_type(), header.cap_rev()), (0x0f, 3, 1));
    assert!(header.iotlb_sup() && !header.ht_tunnel() && header.np_cache() && header.efr_sup());
}

#[test]
fn names() {
    assert_eq!(register_name(offset::CONTROL), Some("CONTROL"));
    assert_eq!(register_name(CAPABILITY_HEADER), Some("CAPABILITY_HEADER"));
    assert_eq!(register_name(0x48), None);
    assert!((0..FRAME_BYTES).filter(|&at| register_name(at).is_some()).count() == 26);
}
