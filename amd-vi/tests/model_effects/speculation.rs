//! Speculative requests: they fill caches, and leave no other trace.

use crate::machine::{Dte, Machine, NO_PASID, READ, RW, pages};
use viommu_plugin::{Model, Request, Status};

fn speculative(stream: u32, iova: u64) -> Request {
    Request { stream, pasid: NO_PASID, iova, access: READ, flags: Request::SPECULATIVE }
}

#[test]
fn a_speculative_request_refills_after_an_invalidation() {
    for atc in [false, true] {
        let mut machine = Machine::with(&[], atc, 0);
        let root = machine.page();
        machine.set_dte(1, Dte::host(1, root, 3).with_ats());
        machine.map_host(root, 3, 0x1000, 0x8000, 12, RW);
        machine.dma(1, 0x1000, READ);
        let before = machine.iommu.stats();
        machine.submit(&[pages(1, 0, 64)]);
        machine.ask(speculative(1, 0x1000));
        assert_eq!(machine.iommu.stats(), before, "counts nothing");
        machine.map_host(root, 3, 0x1000, 0x9000, 12, RW);
        assert_eq!(machine.dma(1, 0x1000, READ).output, 0x8000, "what it refilled is as stale as any");
    }
}

#[test]
fn faults_are_neither_logged_nor_cached() {
    let mut machine = Machine::new();
    let root = machine.page();
    machine.set_dte(1, Dte::host(1, root, 3));
    let Dte(word0, word1, word2) = Dte::identity(1);
    machine.set_dte(2, Dte(word0.with_mode(7), word1, word2));
    for stream in [1, 2, 500] {
        assert_eq!(machine.ask(speculative(stream, 0x1000)).status, Status::FAULT);
    }
    assert!(machine.events().is_empty());
    assert_eq!(machine.irqs(), 0);
    machine.map_host(root, 3, 0x1000, 0x8000, 12, RW);
    assert_eq!(machine.dma(1, 0x1000, READ).output, 0x8000);
}
