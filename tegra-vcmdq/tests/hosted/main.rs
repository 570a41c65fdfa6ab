//! Guests with queues of their own under the framework: trapped registers, the mapped page, objects, interrupts.

mod guest;

use guest::{Guest, LIMIT, Machine, OWN, PAGES, PIECE, RAM, SYNC, tlbi};
use std::sync::Arc;
use tegra_vcmdq::spec::{CMDQV, CMDQV_LINE, PAGE, VCMDQ_STRIDE, offset, page0, vintf, vintf_page0};
use viommu::backend::direct::ModelMode;
use viommu::objects::ViommuConfig;
use viommu::vm_memory::{GuestAddress, GuestMemoryMmap};

const MODES: [ModelMode; 3] = [ModelMode::Inline, ModelMode::Thread, ModelMode::Delayed { seed: 7 }];

#[test]
fn dma_sees_what_a_guest_says_past_the_framework() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let mut guest = Guest::new(&machine, 0);
        let mut other = Guest::new(&machine, 1);
        let pages = [guest.page(), other.page()];
        for (guest, page) in [(&mut guest, &pages[0]), (&mut other, &pages[1])] {
            guest.ask(0);
            page.write(page0::CONFIG, 4, 1);
            assert_eq!(page.read(page0::STATUS, 4), 1, "{mode:?}");
            assert_eq!(guest.reaches(), PAGES[0], "{mode:?}");
            guest.map(PAGES[1]);
        }
        let before = machine.host_commands(&guest);
        assert!(other.say(&pages[1], 0, &[tlbi(), SYNC]));
        assert_eq!((guest.reaches(), other.reaches()), (PAGES[0], PAGES[1]), "{mode:?}");
        assert!(guest.say(&pages[0], 0, &[tlbi(), SYNC]));
        assert_eq!(guest.reaches(), PAGES[1], "{mode:?}");
        assert_eq!(machine.host_commands(&guest), before, "the framework took no part");
    }
}

impl Machine {
    /// Commands of a guest that went through the framework.
    fn host_commands(&self, guest: &Guest) -> u64 {
        guest.viommu.pipeline().counters().commands.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn a_device_cache_is_reached_by_the_guests_number_as_long_as_it_has_one() {
    let machine = Machine::new(ModelMode::Inline);
    let mut guest = Guest::new(&machine, 0);
    let page = guest.page();
    guest.ask(0);
    page.write(page0::CONFIG, 4, 1);
    let atc_inv = [0x40 | 3 << 32, 52];
    assert!(guest.say(&page, 0, &[atc_inv, SYNC]));
    let Guest { vdevice, .. } = &guest;
    vdevice.clone().destroy().unwrap();
    assert!(!guest.say(&page, 0, &[atc_inv, SYNC]), "no slot, no device");
    assert_eq!(guest.lines.recv_timeout(LIMIT), Ok(CMDQV_LINE));
}

#[test]
fn errors_reach_the_guest_and_the_guest_repairs_them() {
    let machine = Machine::new(ModelMode::Inline);
    let mut guest = Guest::new(&machine, 0);
    let page = guest.page();
    for index in 0..2 {
        guest.ask(index);
        page.write(VCMDQ_STRIDE * index + page0::CONFIG, 4, 1);
    }
    let at = VCMDQ_STRIDE;
    for round in 0..3 {
        assert!(!guest.say(&page, 1, &[[0x10, 0], SYNC]), "TLBI_NH_ALL is for the SMMU's own queue");
        assert_eq!(guest.lines.recv_timeout(LIMIT), Ok(CMDQV_LINE), "round {round}");
        assert_eq!(guest.read(CMDQV + offset::VINTF_ERR_MAP), 1);
        assert_eq!(guest.read(CMDQV + offset::CMDQ_ERR_MAP), 0b10);
        assert_eq!(guest.read(CMDQV + offset::VINTF + vintf::LVCMDQ_ERR_MAP), 0b10);
        assert!(guest.say(&page, 0, &[SYNC]), "the other queue goes on");
        let cons = page.read(at + page0::CONS, 4);
        assert_eq!(cons >> 24, 1, "CERROR_ILL");
        guest.put(OWN + 0x1000 + 16 * (cons & 0xff), &SYNC);
        page.write(at + page0::GERRORN, 4, page.read(at + page0::GERROR, 4));
        assert!(guest.say(&page, 1, &[SYNC]), "round {round}");
    }
    assert!(guest.lines.is_empty(), "one interrupt an error");
}

#[test]
fn the_page_is_mapped_whole_or_not_at_all_and_keeps_its_viommu() {
    let machine = Machine::new(ModelMode::Inline);
    let guest = Guest::new(&machine, 0);
    let place = guest.viommu.page().unwrap();
    assert_eq!((place.length, place.guest_offset), (PAGE, CMDQV + vintf_page0(0)));
    for (offset, length) in [
        (place.offset, PAGE - 1),
        (place.offset, 2 * PAGE),
        (place.offset, 0),
        (place.offset + 0x1000, PAGE),
        (0, PAGE),
        (place.offset + 2 * PAGE, PAGE),
    ] {
        assert_eq!(guest.viommu.map_page(offset, length).unwrap_err().errno(), 6, "{length:#x} at {offset:#x}");
    }
    let page = guest.page();
    assert_eq!((page.read(PAGE, 4), page.read(PAGE - 2, 4), page.read(0, 2)), (0, 0, 0));
    let Guest { viommu, vdevice, .. } = guest;
    vdevice.destroy().unwrap();
    let busy = viommu.clone().destroy().unwrap_err();
    assert_eq!(busy.errno(), 16, "{busy}");
    assert!(busy.to_string().contains("1 mapping"), "{busy}");
}

#[test]
fn a_vmm_that_maps_nothing_has_the_page_trapped() {
    let machine = Machine::new(ModelMode::Inline);
    let guest = Guest::new(&machine, 0);
    guest.ask(0);
    let at = CMDQV + vintf_page0(0);
    guest.write(at + page0::CONFIG, 4, 1);
    assert_eq!(guest.read(at + page0::STATUS), 1);
    assert_eq!(guest.reaches(), PAGES[0]);
    guest.map(PAGES[1]);
    guest.put(OWN, &[tlbi(), SYNC].concat());
    guest.write(at + page0::PROD, 4, 2);
    assert_eq!(guest.read(at + page0::CONS), 2);
    assert_eq!(guest.reaches(), PAGES[1]);
}

#[test]
fn queues_follow_the_guests_registers() {
    let machine = Machine::new(ModelMode::Inline);
    let mut guest = Guest::new(&machine, 0);
    let page = guest.page();
    let there = |index: u64| {
        let at = VCMDQ_STRIDE * index + page0::PROD;
        page.write(at, 4, 5);
        let there = page.read(at, 4) == 5;
        page.write(at, 4, 0);
        there
    };
    assert!(!there(0));
    guest.ask(1);
    assert!(!there(1), "0 comes first");
    guest.ask(0);
    assert!(there(0) && there(1), "and then both are there");
    guest.base(0, 0);
    assert!(!there(0) && !there(1));
    // A base that leads nowhere, or in two pieces of memory, is no queue.
    for base in [0x1_0000_0000 | 8, RAM | 18, (OWN + 0x800) | 8, OWN | 31] {
        guest.base(0, base);
        assert!(!there(0), "{base:#x}");
    }
    guest.ask(0);
    assert!(there(0) && there(1));
    page.write(page0::CONFIG, 4, 1);
    assert!(guest.say(&page, 0, &[SYNC]));
    guest.viommu.reset().unwrap();
    assert!(!there(0) && !there(1), "a reset takes them");
}

#[test]
fn memory_that_hardware_reads_stays() {
    let machine = Machine::new(ModelMode::Inline);
    let guest = Guest::new(&machine, 0);
    guest.ask(0);
    let busy = guest.ioas.unmap(RAM, PIECE).unwrap_err();
    assert_eq!(busy.errno(), 16, "{busy}");
    assert_eq!(guest.ioas.unmap(RAM + PIECE, PIECE).unwrap(), PIECE, "elsewhere nothing is in the way");
    guest.base(0, 0);
    assert_eq!(guest.ioas.unmap(RAM, PIECE).unwrap(), PIECE);
}

#[test]
fn a_guest_with_queues_of_its_own_is_not_moved() {
    let machine = Machine::new(ModelMode::Inline);
    let guest = Guest::new(&machine, 0);
    guest.viommu.save().unwrap();
    guest.viommu.resume();
    guest.ask(0);
    assert_eq!(guest.viommu.save().unwrap_err().errno(), 95);
}

#[test]
fn a_vmm_with_registers_of_its_own_hears_the_hardwares_refusals() {
    let machine = Machine::new(ModelMode::Inline);
    let guest = Guest::new(&machine, 0);
    let errno = |index, iova, length| guest.viommu.hw_queue(index, iova, length).unwrap_err().errno();
    assert_eq!(errno(2, OWN, 0x1000), 5, "index 1 is missing");
    assert_eq!(errno(0, OWN, 0x1800), 22, "no power of two");
    assert_eq!(errno(0, OWN, 16), 22);
    assert_eq!(errno(0, OWN + 0x800, 0x1000), 22, "not aligned");
    assert_eq!(errno(0, RAM, 2 * PIECE), 14, "in two pieces");
    assert_eq!(errno(0, 0x1000, 0x1000), 14, "not mapped");
    assert_eq!(errno(0, u64::MAX - 0xfff, 0x2000), 22);
    let first = guest.viommu.hw_queue(0, OWN, 0x1000).unwrap();
    assert_eq!(errno(0, OWN, 0x1000), 17);
    let second = guest.viommu.hw_queue(1, OWN + 0x1000, 0x1000).unwrap();
    assert_eq!(errno(2, OWN, 0x1000), 22, "a VINTF has two");
    assert_eq!(first.clone().destroy().unwrap_err().errno(), 16);
    second.destroy().unwrap();
    first.destroy().unwrap();
}

#[test]
fn there_are_as_many_guests_as_vintfs_and_one_that_goes_makes_room() {
    let machine = Machine::new(ModelMode::Inline);
    let mut guests: Vec<_> = (0..63).map(|number| Guest::new(&machine, number)).collect();
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
    let memory = Arc::new(memory);
    let config = || ViommuConfig::new(Vec::new(), memory.clone());
    let parent = machine.host.ioas().unwrap().nest_parent().unwrap();
    assert_eq!(parent.viommu(config()).unwrap_err().errno(), 28);
    let Guest { viommu, vdevice, .. } = guests.remove(31);
    vdevice.destroy().unwrap();
    drop(viommu);
    machine.host.settle().unwrap();
    parent.viommu(config()).unwrap();
}

#[test]
fn nothing_is_left_of_a_guest() {
    let machine = Machine::new(ModelMode::Inline);
    let guest = Guest::new(&machine, 0);
    guest.ask(0);
    guest.ask(1);
    drop(guest);
    assert!(machine.host.shutdown().unwrap().is_empty());
}
