//! What each invalidation makes a DMA see, and what it leaves alone.

use crate::machine::{Dte, Machine, READ, RW, all, devtab, guest_pages, pages};
use amd_vi::spec::commands::{InvalidateIommuPages, Opcode};
use viommu_plugin::{Model, Status};

const FROM_TLB: u32 = 1;

/// Two devices in domain 1, one in domain 2, each domain with a table of pages at 0 to 15.
fn machine() -> (Machine, [u64; 2]) {
    let mut machine = Machine::new();
    let roots = [machine.page(), machine.page()];
    for (root, base) in roots.into_iter().zip([0x100_0000, 0x200_0000]) {
        map(&mut machine, root, base);
    }
    machine.set_dte(1, Dte::host(1, roots[0], 3));
    machine.set_dte(2, Dte::host(1, roots[0], 3));
    machine.set_dte(3, Dte::host(2, roots[1], 3));
    warm(&mut machine);
    (machine, roots)
}

fn map(machine: &mut Machine, root: u64, base: u64) {
    for page in 0..16 {
        machine.map_host(root, 3, page << 12, base + (page << 12), 12, RW);
    }
}

fn warm(machine: &mut Machine) {
    for page in 0..16 {
        assert_eq!(machine.dma(1, page << 12, READ).status, Status::OK);
        assert_eq!(machine.dma(3, page << 12, READ).status, Status::OK);
    }
}

/// The pages that `device` gets from somewhere else than the TLB.
fn walked(machine: &mut Machine, device: u32) -> Vec<u64> {
    (0..16).filter(|page| machine.dma(device, page << 12, READ).flags & FROM_TLB == 0).collect()
}

#[test]
fn nothing_is_forgotten_unasked() {
    let (mut machine, roots) = machine();
    map(&mut machine, roots[0], 0x300_0000);
    assert_eq!(machine.dma(1, 0x5000, READ).output, 0x100_5000, "stale until a command names it");
    assert_eq!(machine.dma(2, 0x5000, READ).output, 0x100_5000, "and for the domain's other device");
    machine.submit(&[pages(1, 0x5000, 12)]);
    assert_eq!(machine.dma(2, 0x5000, READ).output, 0x300_5000);
    assert_eq!(machine.dma(1, 0x6000, READ).output, 0x100_6000, "its neighbour was not named");
}

#[test]
fn sizes_name_exactly_their_pages() {
    for (address, log2, expected) in
        [(0x3000, 12, 3..4), (0x6000, 13, 6..8), (0x4000, 14, 4..8), (0x8000, 15, 8..16), (0, 64, 0..16)]
    {
        let (mut machine, _) = machine();
        machine.submit(&[pages(1, address, log2)]);
        assert_eq!(walked(&mut machine, 1), expected.collect::<Vec<_>>(), "2^{log2} at {address:#x}");
        assert_eq!(walked(&mut machine, 3), [], "domain 2 keeps everything");
    }
}

#[test]
fn linux_all_pages_with_pde_is_everything_of_the_domain() {
    let (mut machine, _) = machine();
    let word1 = 0x7fff_ffff_ffff_f000 | 0b11;
    machine.submit(&[[0x3000_0001_0000_0000, word1]]);
    assert_eq!(walked(&mut machine, 1).len(), 16);
    assert_eq!(walked(&mut machine, 3), []);
}

#[test]
fn a_page_of_a_larger_leaf_drops_the_leaf() {
    let (mut machine, roots) = machine();
    machine.map_host(roots[0], 3, 0x4000_0000, 0x4000_0000, 21, RW);
    machine.dma(1, 0x4000_0000, READ);
    assert_eq!(machine.dma(1, 0x4010_0000, READ).flags, FROM_TLB);
    machine.submit(&[pages(1, 0x401f_f000, 12)]);
    assert_eq!(machine.dma(1, 0x4000_0000, READ).flags, 0);
}

#[test]
fn a_guest_invalidation_leaves_host_entries() {
    let (mut machine, _) = machine();
    machine.submit(&[guest_pages(1, 0, 0, 64)]);
    assert_eq!(walked(&mut machine, 1), []);
}

#[test]
fn all_is_everything() {
    let (mut machine, roots) = machine();
    machine.set_dte(3, Dte::host(1, roots[0], 3));
    machine.submit(&[all()]);
    assert_eq!(walked(&mut machine, 1).len(), 16);
    assert_eq!(machine.dma(3, 0, READ).output, 0x100_0000, "device table entries too");
}

#[test]
fn a_device_entry_leaves_translations() {
    let (mut machine, _) = machine();
    machine.submit(&[devtab(1)]);
    assert_eq!(walked(&mut machine, 1), []);
}

#[test]
fn interrupt_tables_prefetches_and_page_responses_change_nothing() {
    let (mut machine, _) = machine();
    for opcode in [Opcode::INVALIDATE_INTERRUPT_TABLE, Opcode::PREFETCH_IOMMU_PAGES, Opcode::COMPLETE_PPR_REQUEST] {
        assert_eq!(machine.submit(&[InvalidateIommuPages::new().with_opcode(opcode.0).with_domain_id(1).words()]), 1);
    }
    assert_eq!((walked(&mut machine, 1), walked(&mut machine, 3)), (vec![], vec![]));
}

#[test]
fn room_is_per_domain_and_the_oldest_goes() {
    let mut machine = Machine::with(&[], false, 4);
    let roots = [machine.page(), machine.page()];
    for (device, root) in (1..).zip(roots) {
        map(&mut machine, root, 0x100_0000 * u64::from(device));
        machine.set_dte(device, Dte::host(device as u16, root, 3));
    }
    machine.dma(2, 0, READ);
    for page in 0..5 {
        machine.dma(1, page << 12, READ);
    }
    assert_eq!(machine.iommu.stats().evictions, 1);
    assert_eq!(machine.dma(1, 0x4000, READ).flags, FROM_TLB);
    assert_eq!(machine.dma(2, 0, READ).flags, FROM_TLB, "another domain's room is its own");
    assert_eq!(machine.dma(1, 0, READ).flags, 0, "the oldest went");
    let stats = machine.iommu.stats();
    assert_eq!((stats.stage2_hits, stats.stage2_misses, stats.hits, stats.misses), (2, 7, 0, 0));
}
