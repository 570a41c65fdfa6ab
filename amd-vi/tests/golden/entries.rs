//! Device table entries and page table entries.

use crate::words;
use amd_vi::spec::dte::{DteWord0, DteWord1, DteWord2, DteWord3, gcr3_table, with_gcr3_table};
use amd_vi::spec::pte::{Gcr3Entry, GuestPte, HostPte, span_log2};

/// Every field of a device table entry has another value.
const NESTED: [u8; 32] = [
    0x83, 0x08, 0xbc, 0x9a, 0x78, 0x56, 0xf4, 0x76, // word 0
    0xcd, 0xab, 0x68, 0xac, 0x07, 0x02, 0xad, 0x8b, // word 1
    0x97, 0x00, 0xee, 0xff, 0xc0, 0x0d, 0x40, 0x65, // word 2
    0x00, 0x80, 0x22, 0x11, 0x44, 0x33, 0x00, 0x00, // word 3
];

#[test]
fn device_table_entry() {
    let [w0, w1, w2, w3] = words(&NESTED);
    let (w0, w1) = (DteWord0::from(w0), DteWord1::from(w1));
    assert_eq!((w0.v(), w0.tv(), w0.had(), w0.mode()), (true, true, 1, 4));
    assert_eq!((w0.host_table(), w0.ppr(), w0.giov(), w0.gv(), w0.glx()), (0x4_5678_9abc_0000, true, true, true, 2));
    assert_eq!((w0.gcr3_14_12(), w0.ir(), w0.iw()), (0b101, true, true));
    assert_eq!((w1.domain_id(), w1.gcr3_30_15(), w1.i(), w1.se(), w1.sa()), (0xabcd, 0xac68, true, true, true));
    assert_eq!((w1.sys_mgt(), w1.gcr3_51_31()), (2, 0x11_75a0));
    let w2 = DteWord2::from(w2);
    assert_eq!((w2.iv(), w2.int_tab_len(), w2.ig(), w2.int_tab_root()), (true, 11, false, 0xdc0_ffee_0080 >> 6));
    assert_eq!((w2.guest_paging_mode(), w2.init_pass(), w2.eint_pass(), w2.nmi_pass()), (1, true, false, true));
    assert_eq!((w2.int_ctl(), w2.lint0_pass(), w2.lint1_pass()), (2, true, false));
    let w3 = DteWord3::from(w3);
    assert_eq!((w3.vimu_en(), w3.guest_id(), w3.guest_device_id()), (true, 0x3344, 0x1122));
}

#[test]
fn gcr3_pointer() {
    let table = 0x8_bad0_5634_5000;
    let (w0, w1) = with_gcr3_table(DteWord0::new(), DteWord1::new(), table);
    assert_eq!(gcr3_table(w0, w1), table);
    assert_eq!((w0.gcr3_14_12(), w1.gcr3_30_15(), w1.gcr3_51_31()), (5, 0xac68, 0x11_75a0));
    let (w0, w1) = with_gcr3_table(DteWord0::new(), DteWord1::new(), u64::MAX);
    assert_eq!((u64::from(w0), u64::from(w1)), (0x7 << 58, 0xffff << 16 | 0x1f_ffff << 43));
    assert_eq!(gcr3_table(w0, w1), 0x000f_ffff_ffff_f000);
}

#[test]
fn identity_as_recorded() {
    let identity = DteWord0::from(0x6000_0000_0000_0003);
    assert_eq!(
        (identity.v(), identity.tv(), identity.mode(), identity.ir(), identity.iw()),
        (true, true, 0, true, true)
    );
}

#[test]
fn host_pte() {
    let directory = HostPte::from(0x6000_0000_0290_e401);
    assert_eq!((directory.pr(), directory.next_level(), directory.pointer()), (true, 2, 0x290_e000));
    assert_eq!((directory.ir(), directory.iw(), directory.fc(), directory.u()), (true, true, false, false));
    let sized = HostPte::from(0x3000_0000_0123_7e61);
    assert_eq!((sized.next_level(), sized.a(), sized.d()), (HostPte::SIZED_PAGE, true, true));
    assert_eq!((sized.ir(), sized.iw(), sized.fc()), (true, false, true));
    assert_eq!(sized.sized_page(), (0x123_0000, 16));
    let built = HostPte::new().with_pr(true).with_a(true).with_d(true).with_next_level(7).with_address(0x1237);
    assert_eq!(u64::from(built.with_fc(true).with_ir(true)), 0x3000_0000_0123_7e61);
}

#[test]
fn guest_pte() {
    let page = GuestPte::from(0x8000_0055_5560_01e7);
    assert_eq!((page.p(), page.rw(), page.us(), page.pwt(), page.pcd()), (true, true, true, false, false));
    assert_eq!((page.a(), page.d(), page.ps(), page.g(), page.nx()), (true, true, true, true, true));
    assert_eq!(page.pointer(), 0x55_5560_0000);
    let entry = Gcr3Entry::from(0x000a_bcde_f012_3001);
    assert_eq!((entry.v(), entry.pointer()), (true, 0x000a_bcde_f012_3000));
}

#[test]
fn spans() {
    assert_eq!((1..=6).map(span_log2).collect::<Vec<_>>(), [12, 21, 30, 39, 48, 57]);
}
