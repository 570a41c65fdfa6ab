//! The guest's CMDQV frame, as Linux uses it and a guest abuses it.

use arm_smmuv3::spec::registers::offset as smmu;
use tegra_vcmdq::TegraVcmdq;
use tegra_vcmdq::frontend::TegraFrontend;
use tegra_vcmdq::spec::{
    CMDQV, CMDQV_LINE, CmdqAlloc, Param, VCMDQ_PAGE1, VCMDQ_STRIDE, VintfConfig, offset, page1, vintf, vintf_page1,
};
use viommu_plugin::{Actions, Frontend, HwQueueRequest, NO_STREAM, Refusal, Register, Vendor};

fn param(param: Param) -> [Register; 1] {
    [Register { offset: CMDQV + offset::PARAM, value: param.into_bits().into() }]
}

fn read(frontend: &TegraFrontend, at: u64) -> u32 {
    frontend.read(CMDQV + at, 4) as u32
}

fn write(frontend: &mut TegraFrontend, at: u64, value: u32) -> u32 {
    frontend.write(CMDQV + at, 4, value.into()).actions.0
}

fn alloc(lvcmdq: u8) -> u32 {
    CmdqAlloc::new().with_allocated(true).with_lvcmdq(lvcmdq).into_bits()
}

fn base(frontend: &mut TegraFrontend, index: u64, value: u64) -> u32 {
    frontend.write(CMDQV + vintf_page1(0) + VCMDQ_STRIDE * index + page1::BASE, 8, value).actions.0
}

fn requests(frontend: &TegraFrontend) -> Vec<(u32, u64, u64)> {
    let mut out = [HwQueueRequest::default(); 8];
    let count = frontend.hw_queues(&mut out);
    out[..count].iter().map(|request| (request.index, request.iova, request.length)).collect()
}

#[test]
fn linux_brings_it_up() {
    let mut guest = TegraFrontend::new(&[]).unwrap();
    let shown = Param::from_bits(read(&guest, offset::PARAM));
    assert_eq!((shown.ver(), shown.vintfs(), shown.per_vintf(), shown.slots()), (1, 1, 2, 16));
    // Off, every queue to its place, on.
    write(&mut guest, offset::CONFIG, 0);
    assert_eq!(read(&guest, offset::STATUS), 0);
    for queue in 0..2 {
        let place = CmdqAlloc::new().with_lvcmdq(queue as u8).into_bits();
        assert_eq!(write(&mut guest, offset::CMDQ_ALLOC + 4 * queue, place), if queue > 0 { 4 } else { 0 });
    }
    write(&mut guest, offset::CONFIG, 1);
    assert_eq!(read(&guest, offset::STATUS), 1);
    // It asks to be the hypervisor and is not; by that it knows what it may send.
    let asked = VintfConfig::new().with_hyp_own(true).with_en(true);
    write(&mut guest, offset::VINTF + vintf::CONFIG, asked.into_bits());
    assert_eq!(read(&guest, offset::VINTF + vintf::CONFIG), asked.with_hyp_own(false).into_bits());
    assert_eq!(read(&guest, offset::VINTF + vintf::STATUS), 1);
    assert_eq!(requests(&guest), []);
    for queue in 0..2 {
        assert_eq!(write(&mut guest, offset::CMDQ_ALLOC + 4 * queue, alloc(queue as u8)), Actions::HW_QUEUES);
        assert_eq!(base(&mut guest, queue, 0x4000_0000 + 0x1000 * queue + 8), Actions::HW_QUEUES);
    }
    assert_eq!(requests(&guest), [(0, 0x4000_0000, 0x1000), (1, 0x4000_1000, 0x1000)]);
    assert_eq!(base(&mut guest, 1, 0x4000_1008), 0, "nothing has changed");
    assert_eq!(base(&mut guest, 1, 0), Actions::HW_QUEUES);
    assert_eq!(requests(&guest), [(0, 0x4000_0000, 0x1000)]);
    assert_eq!(write(&mut guest, offset::CMDQ_ALLOC, 0), Actions::HW_QUEUES);
    assert_eq!(requests(&guest), []);
}

#[test]
fn both_views_of_page1_are_one() {
    let mut guest = TegraFrontend::new(&[]).unwrap();
    write(&mut guest, offset::CMDQ_ALLOC + 4, alloc(1));
    write(&mut guest, VCMDQ_PAGE1 + VCMDQ_STRIDE, 0x4000_0008);
    write(&mut guest, VCMDQ_PAGE1 + VCMDQ_STRIDE + 4, 0x12);
    assert_eq!(guest.read(CMDQV + vintf_page1(0) + VCMDQ_STRIDE, 8), 0x12_4000_0008);
    assert_eq!(requests(&guest), [(1, 0x12_4000_0000, 0x1000)]);
    assert_eq!(guest.read(CMDQV + vintf_page1(0) + 2 * VCMDQ_STRIDE, 8), 0, "there are two");
}

#[test]
fn queue_errors_show_in_every_map_and_interrupt_unless_masked() {
    let mut guest = TegraFrontend::new(&[]).unwrap();
    let maps = [offset::VINTF_ERR_MAP, offset::CMDQ_ERR_MAP, offset::VINTF + vintf::LVCMDQ_ERR_MAP];
    let shown = |guest: &TegraFrontend| maps.map(|at| read(guest, at));
    assert_eq!(guest.event(NO_STREAM, &[0b10, 0]).lines, 1 << CMDQV_LINE);
    assert_eq!(shown(&guest), [1, 0b10, 0b10]);
    write(&mut guest, offset::VINTF_INT_MASK, 1);
    assert_eq!(guest.event(NO_STREAM, &[0b1, 0]).lines, 0);
    assert_eq!(shown(&guest), [1, 1, 1], "the map is what hardware said last");
    base(&mut guest, 0, 0x4000_0008);
    assert_eq!(shown(&guest), [0, 0, 0], "the queue that failed is no more");
    write(&mut guest, offset::VINTF_INT_MASK, 0);
    // Queues that this guest does not have, and a record that is none.
    assert_eq!(guest.event(NO_STREAM, &[0b100, u64::MAX]).lines | guest.event(NO_STREAM, &[1]).lines, 0);
}

#[test]
fn only_one_vintf_can_be_promised() {
    for (wrong, names) in [(Param::MODEL, "NUM_VINTF_LOG2"), (Param::new().with_ver(1).with_num_vcmdq_log2(8), "VCMDQ")]
    {
        for refusal in
            [TegraFrontend::new(&param(wrong)).unwrap_err(), TegraVcmdq::codec(&param(wrong)).map(drop).unwrap_err()]
        {
            assert_eq!(refusal.errno, Refusal::EOPNOTSUPP);
            assert!(refusal.text.contains(names), "{refusal}");
        }
    }
    let mut none = TegraFrontend::new(&param(Param::new())).unwrap();
    for at in (0..0x5_0000).step_by(4) {
        write(&mut none, at, u32::MAX);
        assert_eq!(read(&none, at), 0, "without a CMDQV there is nothing at {at:#x}");
    }
}

#[test]
fn a_host_with_fewer_queues_or_slots_does_not_serve_the_guest() {
    let shown = Param::MODEL.of_one_vintf();
    let covers = |here: Param| TegraVcmdq::covers(&param(here), &param(shown));
    assert_eq!(covers(shown), Ok(()));
    assert_eq!(covers(shown.with_num_vcmdq_log2(3)), Ok(()));
    for (less, names) in [
        (shown.with_num_vcmdq_log2(0), "NUM_VCMDQ_LOG2"),
        (shown.with_num_sid_log2(3), "NUM_SID_PER_VM_LOG2"),
        (shown.with_ver(2), "VER"),
        (Param::new(), "VER"),
    ] {
        let refusal = covers(less).unwrap_err();
        assert!(refusal.errno == Refusal::EOPNOTSUPP && refusal.text.contains(names), "{refusal}");
    }
    assert_eq!(TegraVcmdq::covers(&param(shown), &param(Param::new())), Ok(()));
}

#[test]
fn what_is_saved_is_the_smmu_and_the_cmdqv() {
    let mut guest = TegraFrontend::new(&[]).unwrap();
    guest.write(smmu::CR1, 4, 0xd75);
    write(&mut guest, offset::CONFIG, 1);
    write(&mut guest, offset::VINTF_INT_MASK, 5);
    write(&mut guest, offset::VINTF + vintf::CONFIG, 0x1_2345);
    write(&mut guest, offset::CMDQ_ALLOC, alloc(0));
    base(&mut guest, 0, 0x4000_0008);
    guest.event(NO_STREAM, &[0b11, 0]);
    let saved = guest.save();
    let mut next = TegraFrontend::new(&[]).unwrap();
    next.restore(&saved).unwrap();
    for at in (0..0x7_0000).step_by(4) {
        assert_eq!(next.read(at, 4), guest.read(at, 4), "{at:#x}");
    }
    assert_eq!((next.save(), requests(&next)), (saved.clone(), requests(&guest)));
    let mut fewer = TegraFrontend::new(&param(Param::MODEL.of_one_vintf().with_num_vcmdq_log2(0))).unwrap();
    let refusal = fewer.restore(&saved).unwrap_err();
    assert!(refusal.text.contains("NUM_VCMDQ_LOG2"), "{refusal}");
    // Bits that no guest can have set.
    let len = saved.len();
    for (at, names) in [(len - 21, "CMDQ_ALLOC"), (len - 13, "BASE"), (len - 41, "VINTF_CONFIG")] {
        let mut broken = saved.clone();
        broken[at] |= 0x80;
        let refusal = next.restore(&broken);
        assert!(refusal.as_ref().is_err_and(|refusal| refusal.text.contains(names)), "{names}: {refusal:?}");
    }
}
