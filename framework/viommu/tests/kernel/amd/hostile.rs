//! A guest that writes into its tables what it likes: it reaches nothing that is not its own, and the host bears it.

use super::guest::{Guest, PAGES, all, page, table};
use super::{P0, P1, VA, rig, rig_with};
use crate::guest::{RAM, RAM_SIZE};

const GIB: u64 = 1 << 30;

/// Every address that the device can reach of these lies in the guest's memory: [`crate::rig::Rig::reach`] asserts it.
fn probe(guest: &Guest<'_>, addresses: impl IntoIterator<Item = u64>) -> usize {
    addresses.into_iter().filter(|iova| guest.dma(0, *iova).is_some()).count()
}

#[test]
fn leaves_that_lead_elsewhere_lead_nowhere() {
    let rig = rig();
    let guest = Guest::new(&rig);
    let host = &raw const rig as u64 & !0xfff;
    let leaves = [0, 0x1000, RAM - 0x1000, RAM + RAM_SIZE, host, 0x000f_ffff_ffff_f000, P0];
    for (at, page) in (0..).step_by(0x1000).zip(leaves) {
        guest.map(1, at, Some(page));
    }
    guest.translated(0, 1);
    assert!(guest.announce(0));
    assert_eq!(probe(&guest, (0..0x1_0000).step_by(0x1000)), 1);
    assert_eq!(guest.dma(0, 0x6000), Some(P0));
    drop(guest);
    rig.down();
}

#[test]
fn a_leaf_larger_than_the_guest_reaches_the_guest() {
    let rig = rig();
    let guest = Guest::new(&rig);
    guest.translated(0, 1);
    // 1 GiB at the guest's first byte, and 1 GiB of what is not there.
    guest.upper(1, 3, 1, 1 | RAM & !(GIB - 1) | 3 << 61);
    guest.upper(1, 3, 2, 1 | (8 * GIB) | 3 << 61);
    assert!(guest.announce(0));
    let at = GIB + (RAM & (GIB - 1));
    assert_eq!((guest.dma(0, at), guest.dma(0, at + RAM_SIZE - 1)), (Some(RAM), Some(RAM + RAM_SIZE - 1)));
    assert_eq!(probe(&guest, [at.wrapping_sub(1), at + RAM_SIZE, 2 * GIB, 2 * GIB + RAM]), 0);
    // The large page becomes a table of small ones, of which one is there.
    guest.upper(1, 3, 1, 1 | 2 << 9 | table(1, 2) | 3 << 61);
    guest.map(1, VA, Some(P1));
    assert!(guest.send(&[page(1, at)]));
    assert_eq!((guest.dma(0, at), guest.dma(0, GIB + VA)), (None, Some(P1)));
    drop(guest);
    rig.down();
}

#[test]
fn sized_pages_that_overlap_reach_the_guest_alone() {
    let rig = rig();
    let guest = Guest::new(&rig);
    guest.translated(0, 1);
    // Next Level 7: the size is in the address. 8 KiB that is said once, 2 MiB of which the first entry says 32 KiB.
    guest.leaf(1, 0x2000, 1 | 7 << 9 | PAGES | 3 << 61);
    for at in 0..8 {
        guest.leaf(1, 0x8000 + 0x1000 * at, 1 | 7 << 9 | PAGES | ((0x1000 << (at % 3)) - 0x1000) | 3 << 61);
    }
    let first = guest.announce(0);
    for _ in 0..2 {
        probe(&guest, (0..0x2_0000).step_by(0x800));
        guest.send(&[page(1, 0x9000), all(1)]);
    }
    // Whatever became of it, it became nobody else's.
    assert!(first || guest.machine.viommu.pipeline().is_quarantined());
    drop(guest);
    rig.down();
}

#[test]
fn a_table_without_end_costs_its_guest_its_service_and_are_bounded() {
    let rig = rig();
    let guest = Guest::new(&rig);
    guest.translated(0, 1);
    guest.map(1, VA, Some(P0));
    assert!(guest.announce(0));
    assert_eq!(guest.dma(0, VA), Some(P0));
    // Every entry of the root leads to one table of which every entry leads to one table of leaves: 2^27 entries to look at.
    for index in 0..512 {
        guest.upper(1, 3, index, 1 | 2 << 9 | table(1, 2) | 3 << 61);
        guest.upper(1, 2, index, 1 | 1 << 9 | table(1, 1) | 3 << 61);
    }
    guest.send(&[all(1)]);
    let viommu = &guest.machine.viommu;
    assert!(viommu.pipeline().is_quarantined());
    drop(guest);
    rig.down();
}

#[test]
fn what_a_device_keeps_for_itself_cannot_be_mapped_and_the_rest_can() {
    let rig = rig_with(|options| options, &[(0x5000, 0x5fff)]);
    let guest = Guest::new(&rig);
    // Attached first: left out.
    guest.translated(0, 1);
    assert!(guest.announce(0));
    guest.map(1, VA, Some(P0));
    guest.map(1, VA + 0x1000, Some(P1));
    assert!(guest.send(&[all(1)]));
    assert_eq!((guest.dma(0, VA), guest.dma(0, VA + 0x1000)), (None, Some(P1)));
    // Mapped first: an entry that this host cannot carry out, so that nothing passes; and the guest goes on.
    guest.map(2, VA, Some(P0));
    guest.translated(1, 2);
    assert!(guest.announce(1));
    assert_eq!((guest.dma(1, VA), guest.dma(1, P0)), (None, None));
    guest.map(2, VA, None);
    guest.map(2, VA + 0x1000, Some(P1));
    assert!(guest.send(&[all(2)]) && guest.announce(1));
    assert_eq!(guest.dma(1, VA + 0x1000), Some(P1));
    drop(guest);
    rig.down();
}
