//! Guests with rings of their own under the framework: trapped registers, the page that is theirs, watched device tables,
//! domains in their order, interrupts. Evidence M, as all of the hardware vIOMMU.

mod guest;

use amd_vi::spec::registers::offset;
use guest::{DEVICE_TABLE, EVENTS, Guest, LIMIT, Machine, PAGES, PIECE, RAM, flush};
use std::sync::atomic::Ordering;
use viommu::backend::direct::ModelMode;

const MODES: [ModelMode; 3] = [ModelMode::Inline, ModelMode::Thread, ModelMode::Delayed { seed: 7 }];

/// A guest whose device goes through domain 1 to the first page.
fn attached(machine: &Machine, number: u32) -> Guest {
    let guest = Guest::new(machine, number, true);
    guest.map(1, PAGES[0]);
    guest.entry(Some(1));
    assert_eq!(guest.reaches(), None, "the entry is written, and nobody was told");
    guest.trap();
    assert_eq!(guest.reaches(), Some(PAGES[0]));
    guest
}

#[test]
fn dma_sees_what_a_guest_says_past_the_framework() {
    for mode in MODES {
        let machine = Machine::new(mode);
        let mut guest = attached(&machine, 0);
        let mut other = attached(&machine, 1);
        // More commands than the ring has places: it wraps, and goes through both pieces of memory.
        for round in 0..300 {
            let page = PAGES[(round + 1) % 3];
            let before = guest.reaches();
            guest.map(1, page);
            assert!(other.sync(&[flush(1)]), "{mode:?}, round {round}");
            assert_eq!(
                guest.reaches(),
                before,
                "{mode:?}, round {round}: the other guest's word counts for nothing here"
            );
            assert!(guest.sync(&[flush(1)]), "{mode:?}, round {round}");
            assert_eq!(guest.reaches(), Some(page), "{mode:?}, round {round}");
        }
        let commands = &guest.viommu.pipeline().counters().commands;
        assert_eq!(commands.load(Ordering::Relaxed), 0, "the framework took no part");
    }
}

#[test]
fn a_device_does_what_its_entry_says_when_the_write_was_told() {
    let machine = Machine::new(ModelMode::Inline);
    let mut guest = attached(&machine, 0);
    guest.map(2, PAGES[2]);
    guest.entry(Some(2));
    assert!(guest.sync(&[[2 << 60 | 3, 0]]), "INVALIDATE_DEVTAB_ENTRY is the hardware's");
    assert_eq!(guest.reaches(), Some(PAGES[0]), "which knows nothing of the guest's table");
    assert_eq!(guest.trap(), 0, "it was attached before");
    assert_eq!(guest.reaches(), Some(PAGES[2]));
    // The domain that the guest talks about is the one that its device is in.
    guest.map(2, PAGES[1]);
    assert!(guest.sync(&[flush(1)]));
    assert_eq!(guest.reaches(), Some(PAGES[2]));
    assert!(guest.sync(&[flush(2)]));
    assert_eq!(guest.reaches(), Some(PAGES[1]));
    // A write elsewhere, even in a table, is no announcement.
    guest.entry(None);
    assert_eq!(guest.viommu.memory_written(DEVICE_TABLE + 0x1000, 0x1000).unwrap(), 0);
    assert_eq!(guest.reaches(), Some(PAGES[1]));
    guest.trap();
    assert_eq!(guest.reaches(), None);
    assert_eq!(guest.viommu.nested_hwpts().len(), 0);
}

#[test]
fn faults_are_in_the_guests_own_log_and_interrupt_it() {
    let machine = Machine::new(ModelMode::Inline);
    let mut guest = attached(&machine, 0);
    guest.put(RAM + 0x4_8000 + 0x4000 + 8 * 5, &[0]);
    assert!(guest.sync(&[flush(1)]));
    assert_eq!(guest.reaches(), None);
    assert_eq!(guest.lines.recv_timeout(LIMIT), Ok(0));
    assert_eq!((guest.read(offset::EVENT_TAIL), guest.get(EVENTS) & 0xffff, guest.get(EVENTS + 8)), (16, 3, 0x5000));
    assert!(!guest.sync(&[[0xa << 60 | 1, 0]]), "RESET_VMMIO is the host's");
    assert_eq!((guest.read(offset::EVENT_TAIL), guest.get(EVENTS + 16) >> 60), (32, 5));
}

#[test]
fn memory_that_hardware_reads_stays() {
    let machine = Machine::new(ModelMode::Inline);
    let guest = attached(&machine, 0);
    assert_eq!(guest.ioas.unmap(RAM + PIECE, PIECE).unwrap_err().errno(), 16, "half of its ring");
    assert_eq!(guest.viommu.save().unwrap_err().errno(), 95, "where its rings stand is in the hardware alone");
}

#[test]
fn a_guest_that_is_shown_less_is_served_as_ever() {
    let machine = Machine::new(ModelMode::Inline);
    let own = attached(&machine, 0);
    let mut guest = Guest::new(&machine, 1, false);
    assert!(guest.viommu.page().is_none() && own.viommu.page().is_some());
    assert!(guest.viommu.watched_pages().unwrap().is_empty());
    guest.map(1, PAGES[1]);
    guest.entry(Some(1));
    assert!(guest.sync(&[[2 << 60 | 3, 0]]));
    assert_eq!(guest.reaches(), Some(PAGES[1]), "by a command that the framework fetched");
    assert_eq!(guest.viommu.pipeline().counters().commands.load(Ordering::Relaxed), 2);
}

#[test]
fn nothing_is_left_of_a_guest() {
    let machine = Machine::new(ModelMode::Inline);
    for number in 0..2 {
        let mut guest = attached(&machine, number);
        assert!(guest.sync(&[]));
        guest.viommu.reset().unwrap();
        assert!(!guest.status().cmd_buf_run(), "a reset takes the rings");
        let Guest { viommu, vdevice, .. } = guest;
        vdevice.destroy().unwrap();
        drop(viommu);
        machine.host.settle().unwrap();
    }
    assert!(machine.host.shutdown().unwrap().is_empty());
}
