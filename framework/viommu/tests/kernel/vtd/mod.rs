//! VT-d: nested on the parent. There is no vIOMMU in the kernel; an invalidation goes to each nested HWPT of its domain.

mod guest;
mod pasids;
mod unit;

pub(crate) use unit::Unit;

use crate::guest::{RAM, RAM_SIZE};
use crate::rig::{FIRST_STREAM, Rig, fails_anywhere};
use guest::{Guest, PAGES, all, legacy_page, page};
use std::sync::atomic::Ordering;
use unit::Dma;
use viommu::backend::{ObjectKind, Objects};
use viommu::plugin::TranslationMode;
use viommu::vm_memory::GuestMemoryMmap;
use viommu_plugin_host::Plugin;

const VA: u64 = 0x5000;
const P0: u64 = PAGES;
const P1: u64 = PAGES + 0x3000;

pub(crate) fn plugin() -> Plugin {
    Plugin::linked::<intel_vtd::IntelVtd>()
}

fn rig_of(make: impl FnOnce(&std::sync::Arc<GuestMemoryMmap>) -> Unit) -> (Unit, Rig) {
    let memory = crate::guest::memory();
    let unit = make(&memory);
    let devices = (0..3).map(|device| unit.device(FIRST_STREAM + device)).collect();
    let rig = Rig::new(plugin, &memory, devices, |options| options);
    (unit, rig)
}

fn rig() -> (Unit, Rig) {
    rig_of(Unit::new)
}

impl Unit {
    /// A device's DMA without a PASID.
    fn at(&self, device: u32, iova: u64) -> Dma {
        self.dma(FIRST_STREAM + device, 0, iova)
    }
}

/// A guest whose first device is translated in domain 1: [`VA`] leads to [`P0`].
fn translating(rig: &Rig) -> Guest<'_> {
    let guest = Guest::new(rig);
    guest.map(0, VA, Some(P0));
    guest.translated(0, 0, 1);
    assert!(guest.announce(0, 1));
    guest
}

#[test]
fn a_page_is_stale_until_the_guest_invalidates_it_and_fresh_when_it_waited() {
    let (unit, rig) = rig();
    let guest = Guest::new(&rig);
    assert_eq!(unit.at(0, VA), Dma::Blocked, "no entry");
    guest.map(0, VA, Some(P0));
    guest.map(0, VA + 0x1000, Some(P0 + 0x1000));
    guest.translated(0, 0, 1);
    assert!(guest.announce(0, 1));
    let both = || [VA + 0x10, VA + 0x1010].map(|iova| unit.at(0, iova));
    assert_eq!(both(), [Dma::At(P0 + 0x10), Dma::At(P0 + 0x1010)]);
    guest.map(0, VA, Some(P1));
    guest.map(0, VA + 0x1000, None);
    assert_eq!(both(), [Dma::At(P0 + 0x10), Dma::At(P0 + 0x1010)], "stale");
    assert!(guest.send(&[page(1, VA, true)]));
    assert_eq!(both(), [Dma::At(P1 + 0x10), Dma::At(P0 + 0x1010)], "one page");
    assert!(guest.send(&[all(1)]));
    assert_eq!(both(), [Dma::At(P1 + 0x10), Dma::Fault]);
    drop(guest);
    rig.down();
}

#[test]
fn the_hint_that_only_leaves_changed_is_carried_as_the_guest_gave_it() {
    let (unit, rig) = rig();
    let guest = translating(&rig);
    assert_eq!(unit.at(0, VA), Dma::At(P0));
    guest.swap_lowest(0, VA, P1);
    assert!(guest.send(&[page(1, VA, true)]));
    assert_eq!(unit.at(0, VA), Dma::At(P0), "the guest said that its tables stay");
    assert!(guest.send(&[page(1, VA, false)]));
    assert_eq!(unit.at(0, VA), Dma::At(P1));
    drop(guest);
    rig.down();
}

#[test]
fn an_invalidation_reaches_every_nested_hwpt_of_its_domain_and_no_other() {
    let (unit, rig) = rig();
    let guest = Guest::new(&rig);
    // Two tables in one domain, and one in another.
    for (device, table, domain) in [(0, 0, 1), (1, 1, 1), (2, 2, 2)] {
        guest.map(table, VA, Some(P0));
        guest.translated(device, table, domain);
        assert!(guest.announce(device, domain));
    }
    let three = || [0, 1, 2].map(|device| unit.at(device, VA));
    assert_eq!(three(), [Dma::At(P0); 3]);
    assert_eq!(guest.machine.viommu.counters().live, 3);
    (0..3).for_each(|table| guest.map(table, VA, Some(P1)));
    assert!(guest.send(&[page(1, VA, false)]));
    assert_eq!(three(), [Dma::At(P1), Dma::At(P1), Dma::At(P0)]);
    assert!(guest.send(&[all(2)]));
    assert_eq!(three(), [Dma::At(P1); 3]);
    // The second device joins the third one's table: equal entries share an HWPT, whoever invalidates.
    guest.translated(1, 2, 2);
    assert!(guest.announce(1, 2) && guest.announce(1, 1));
    assert_eq!(guest.machine.viommu.counters().live, 2);
    guest.map(2, VA, None);
    assert!(guest.send(&[page(2, VA, true)]));
    assert_eq!(three(), [Dma::At(P1), Dma::Fault, Dma::Fault]);
    drop(guest);
    rig.down();
}

#[test]
fn an_invalidation_that_the_hardware_never_got_would_be_seen() {
    let (unit, rig) = rig();
    let guest = translating(&rig);
    assert_eq!(unit.at(0, VA), Dma::At(P0));
    guest.map(0, VA, None);
    unit.deaf.store(true, Ordering::Relaxed);
    assert!(guest.send(&[all(1)]));
    assert_eq!(unit.at(0, VA), Dma::At(P0), "stale behind the guest's wait");
    drop(guest);
    rig.down();
}

#[test]
fn what_the_guest_says_of_a_device_is_where_its_dma_goes() {
    let (unit, rig) = rig();
    let guest = Guest::new(&rig);
    guest.map(0, VA, Some(P0));
    guest.map(1, VA, Some(P1));
    guest.translated(0, 0, 1);
    assert!(guest.announce(0, 1));
    assert_eq!(unit.at(0, VA), Dma::At(P0));
    // Other tables in another domain.
    guest.translated(0, 1, 2);
    assert_eq!(unit.at(0, VA), Dma::At(P0), "not announced");
    assert!(guest.announce(0, 1));
    assert_eq!(unit.at(0, VA), Dma::At(P1));
    // Pass-through, a second stage (which nobody nests: illegal), nothing.
    guest.entry(0, [1 | 2 << 2 | 4 << 6, 7, 0]);
    assert!(guest.announce(0, 2));
    assert_eq!(unit.at(0, P1), Dma::At(P1));
    guest.entry(0, [1 | 7 << 6, 7, 0]);
    assert!(guest.announce(0, 7));
    assert_eq!(unit.at(0, P1), Dma::Blocked);
    guest.translated(0, 0, 1);
    assert!(guest.announce(0, 7));
    assert_eq!(unit.at(0, VA), Dma::At(P0));
    guest.entry(0, [0; 3]);
    assert!(guest.announce(0, 1));
    assert_eq!(unit.at(0, VA), Dma::Blocked);
    // Off, and on again.
    guest.translated(0, 0, 1);
    guest.translation(false);
    assert_eq!(unit.at(0, P1), Dma::At(P1));
    guest.translation(true);
    assert_eq!(unit.at(0, VA), Dma::At(P0));
    assert_eq!(guest.machine.viommu.counters().live, 1, "what nobody uses is gone");
    drop(guest);
    rig.down();
}

#[test]
fn an_entry_that_is_said_to_have_changed_and_has_not_is_walked_anew() {
    let (unit, rig) = rig();
    let guest = Guest::new(&rig);
    guest.map(0, VA, Some(P0));
    (0..2).for_each(|device| guest.translated(device, 0, 1));
    assert!(guest.announce(0, 1));
    assert_eq!([0, 1].map(|device| unit.at(device, VA)), [Dma::At(P0); 2]);
    guest.map(0, VA, Some(P1));
    // PASID cache alone.
    assert!(guest.send(&[[7 | 1 << 4 | 1 << 16, 0]]));
    assert_eq!([0, 1].map(|device| unit.at(device, VA)), [Dma::At(P1); 2], "both share what was made anew");
    drop(guest);
    rig.down();
}

#[test]
fn there_is_no_event_queue_and_no_hardware_queue_and_it_is_said() {
    let (_, rig) = rig();
    let machine = rig.machine(rig.backend.guest_registers().to_vec()).unwrap();
    let error = machine.viommu.event_queue().unwrap_err();
    assert_eq!(error.errno(), 95);
    assert!(error.to_string().contains("intel-vtd"), "{error}");
    drop(machine);
    rig.down();
}

#[test]
fn a_machine_goes_from_every_state_and_leaves_nothing() {
    // How far it gets, and what goes first.
    for stage in 0..4 {
        for order in 0..3 {
            let (unit, rig) = rig();
            let guest = Guest::new(&rig);
            if stage > 0 {
                guest.map(0, VA, Some(P0));
                (0..3).for_each(|device| guest.translated(device, device % 2, 1 + device as u16 / 2));
                assert!(guest.announce(0, 1) && guest.announce(2, 2));
            }
            if stage > 1 {
                guest.entry(1, [1 | 2 << 2 | 4 << 6, 7, 0]);
                assert!(guest.announce(1, 1));
            }
            if stage > 2 {
                guest.machine.viommu.reset().unwrap();
            }
            let crate::rig::Machine { ioas, viommu, vdevices, devices } = guest.machine;
            let busy = viommu.clone().destroy().unwrap_err();
            assert_eq!(busy.errno(), 16, "{busy}");
            assert!(busy.to_string().contains("3 vdevices"), "{busy}");
            match order {
                0 => drop((viommu, vdevices, devices, ioas)),
                1 => drop((ioas, devices, vdevices, viommu)),
                _ => {
                    drop(vdevices);
                    rig.host.settle().unwrap();
                    viommu.destroy().unwrap();
                    devices.into_iter().for_each(|device| device.destroy().unwrap());
                    ioas.unmap(RAM, RAM_SIZE / 2).unwrap();
                    drop(ioas);
                }
            }
            rig.host.settle().unwrap();
            assert_eq!([0, 1, 2].map(|device| unit.at(device, VA)), [Dma::Blocked; 3], "stage {stage}, order {order}");
            rig.down();
        }
    }
}

#[test]
fn a_set_up_that_fails_anywhere_leaves_nothing() {
    let (_, rig) = rig();
    fails_anywhere(&rig, |rig| rig.machine(rig.backend.guest_registers().to_vec()).map(drop));
    rig.down();
}

#[test]
fn a_guest_in_legacy_mode_is_shadowed_on_a_host_that_nests_and_on_one_that_does_not() {
    for nests in [true, false] {
        let (_, rig) = rig_of(|memory| if nests { Unit::new(memory) } else { Unit::new(memory).without_nesting() });
        let shown = Objects::guest_registers(&*rig.backend, TranslationMode::SHADOW).unwrap();
        let guest = Guest::shown(&rig, shown, true);
        let dma = |device| rig.reach(device, VA).map(|(gpa, _)| gpa);
        guest.map(0, VA, Some(P0));
        (0..2).for_each(|device| guest.translated(device, 0, 1));
        assert!(guest.announce(0, 1) && guest.announce(1, 1));
        assert_eq!([0, 1].map(dma), [Some(P0); 2], "nests: {nests}");
        guest.map(0, VA, Some(P1));
        assert_eq!(dma(0), Some(P0), "stale");
        assert!(guest.send(&[legacy_page(1, VA)]));
        assert_eq!([0, 1].map(dma), [Some(P1); 2]);
        guest.map(0, VA, None);
        assert!(guest.send(&[legacy_page(1, VA)]));
        assert_eq!([0, 1].map(dma), [None; 2]);
        drop(guest);
        rig.down();
    }
}

#[test]
fn a_host_that_cannot_nest_says_so_to_a_guest_that_needs_it() {
    let (_, rig) = rig_of(|memory| Unit::new(memory).without_nesting());
    let error = rig.machine(intel_vtd::features::Features::default().registers().to_vec()).err().unwrap();
    assert_eq!(error.errno(), 95, "{error}");
    let parents = |kind: ObjectKind| rig.backend.live().iter().filter(|(_, of)| *of == kind).count();
    assert_eq!(parents(ObjectKind::Viommu), 0);
}
