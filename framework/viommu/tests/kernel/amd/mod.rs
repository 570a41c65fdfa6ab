//! AMD, whose guests Linux 7.3 cannot nest: their page tables as mappings of the kernel's. What a device reaches is what the
//! guest said last, and never more than the guest has.

mod guest;
mod hostile;

use crate::guest::{RAM, RAM_SIZE};
use crate::rig::{FIRST_STREAM, Rig, fails_anywhere};
use guest::{Guest, PAGES, all, device_cache, page};
use std::collections::BTreeMap;
use std::sync::Arc;
use viommu::backend::kernel::{KernelBackend, KernelOptions};
use viommu::backend::{ObjectKind, Objects};
use viommu::objects::RestoreConfig;
use viommu::uapi::dispatcher::driver::DeviceConfig;
use viommu::uapi::dispatcher::drivers::AmdVi;
use viommu_plugin_host::Plugin;

const VA: u64 = 0x5000;
const P0: u64 = PAGES;
const P1: u64 = PAGES + 0x3000;

fn plugin() -> Plugin {
    Plugin::linked::<amd_vi::AmdVi>()
}

/// Two devices behind an IOMMU as QEMU shows it.
fn rig_with(adjust: impl FnOnce(KernelOptions) -> KernelOptions, reserved: &[(u64, u64)]) -> Rig {
    let driver = Arc::new(AmdVi { efr: 0x29d7, efr2: 0, nesting: false });
    let device = |stream| DeviceConfig { reserved: reserved.to_vec(), ..DeviceConfig::new(driver.clone(), stream) };
    Rig::new(plugin, &crate::guest::memory(), vec![device(FIRST_STREAM), device(FIRST_STREAM + 1)], adjust)
}

fn rig() -> Rig {
    rig_with(|options| options, &[])
}

/// A guest whose first device is translated in domain 1: [`VA`] leads to [`P0`].
fn translating(rig: &Rig) -> Guest<'_> {
    let guest = Guest::new(rig);
    guest.map(1, VA, Some(P0));
    guest.translated(0, 1);
    assert!(guest.announce(0));
    guest
}

#[test]
fn a_page_is_stale_until_the_guest_invalidates_it_and_fresh_when_it_waited() {
    let rig = rig();
    let guest = Guest::new(&rig);
    guest.map(1, VA, Some(P0));
    guest.translated(0, 1);
    assert_eq!(guest.dma(0, VA), None, "nothing was announced");
    assert!(guest.announce(0));
    assert_eq!(guest.dma(0, VA + 0x123), Some(P0 + 0x123));
    guest.map(1, VA, Some(P1));
    assert_eq!(guest.dma(0, VA), Some(P0), "stale");
    assert!(guest.send(&[page(1, VA + 0x1000), page(2, VA)]));
    assert_eq!(guest.dma(0, VA), Some(P0), "another page, another domain");
    assert!(guest.send(&[page(1, VA)]));
    assert_eq!(guest.dma(0, VA), Some(P1));
    guest.map_read_only(1, VA, P1);
    assert!(guest.send(&[all(1)]));
    assert_eq!(rig.reach(0, VA), Some((P1, false)), "it may only read");
    guest.map(1, VA, None);
    assert_eq!(guest.dma(0, VA), Some(P1), "stale");
    assert!(guest.send(&[page(1, VA)]));
    assert_eq!(guest.dma(0, VA), None, "unreachable from here on");
    drop(guest);
    rig.down();
}

#[test]
fn devices_of_one_domain_share_its_shadow_and_no_other() {
    let rig = rig();
    let guest = Guest::new(&rig);
    for domain in [1, 2] {
        guest.map(domain, VA, Some(P0));
    }
    (0..2).for_each(|device| guest.translated(device, 1));
    assert!(guest.announce(0) && guest.announce(1));
    assert_eq!(guest.machine.viommu.counters().live, 1, "one table, one shadow");
    guest.map(1, VA, Some(P1));
    assert!(guest.send(&[page(1, VA)]));
    assert_eq!([0, 1].map(|device| guest.dma(device, VA)), [Some(P1); 2]);
    // The second device goes to another domain: by its entry, when that is announced.
    guest.translated(1, 2);
    assert_eq!(guest.dma(1, VA), Some(P1));
    assert!(guest.announce(1));
    assert_eq!([0, 1].map(|device| guest.dma(device, VA)), [Some(P1), Some(P0)]);
    guest.map(1, VA, None);
    guest.map(2, VA, None);
    assert!(guest.send(&[page(2, VA)]));
    assert_eq!([0, 1].map(|device| guest.dma(device, VA)), [Some(P1), None], "each domain by itself");
    // Not translated; blocked.
    guest.entry(1, [3 | 3 << 61, 0]);
    assert!(guest.announce(1));
    assert_eq!((guest.dma(1, P0), guest.dma(1, VA)), (Some(P0), None));
    guest.entry(1, [1, 0]);
    assert!(guest.announce(1));
    assert_eq!(guest.dma(1, P0), None);
    assert_eq!(guest.machine.viommu.counters().live, 1, "the second shadow went with its last user");
    // All entries at once.
    guest.translated(1, 1);
    guest.map(1, VA, Some(P0));
    assert!(guest.send(&[[8 << 60, 0]]));
    assert_eq!([0, 1].map(|device| guest.dma(device, VA)), [Some(P0); 2]);
    drop(guest);
    rig.down();
}

#[test]
fn memory_that_the_host_takes_away_is_in_no_shadow_and_comes_back() {
    let rig = rig();
    let guest = Guest::new(&rig);
    guest.map(1, VA, Some(P0));
    guest.map(1, VA + 0x1000, Some(RAM + 0x3_0000));
    guest.translated(0, 1);
    assert!(guest.announce(0));
    let ioas = &guest.machine.ioas;
    let half = RAM_SIZE / 2;
    assert_eq!(ioas.unmap(RAM + half + 0x1000, 0x1000).unwrap_err().errno(), 2, "a mapping is not cut");
    assert_eq!(guest.dma(0, VA), Some(P0), "and nothing of it is gone");
    ioas.unmap(RAM + half, half).unwrap();
    assert_eq!((guest.dma(0, VA), guest.dma(0, VA + 0x1000)), (None, Some(RAM + 0x3_0000)));
    // Announced while there is nothing behind it: there as soon as there is.
    guest.map(1, VA, Some(P1));
    assert!(guest.send(&[page(1, VA)]));
    assert_eq!(guest.dma(0, VA), None);
    ioas.map(rig.piece(half, half, false)).unwrap();
    assert_eq!(rig.reach(0, VA), Some((P1, false)), "as the host allows");
    ioas.unmap(0, u64::MAX).unwrap();
    assert_eq!((guest.dma(0, VA), guest.dma(0, VA + 0x1000)), (None, None));
    drop(guest);
    rig.down();
}

#[test]
fn a_guest_that_switches_its_iommu_off_goes_through_no_table() {
    let rig = rig();
    let guest = translating(&rig);
    guest.machine.viommu.reset().unwrap();
    assert_eq!((guest.dma(0, VA), guest.dma(0, P0)), (None, Some(P0)));
    drop(guest);
    rig.down();
}

#[test]
fn a_set_up_that_fails_anywhere_leaves_nothing() {
    let rig = rig();
    fails_anywhere(&rig, |rig| {
        let machine = rig.machine(rig.backend.guest_registers().to_vec())?;
        drop(machine);
        Ok(())
    });
    // A shadow that cannot be made, or not filled.
    for nth in 1..40 {
        let guest = Guest::new(&rig);
        guest.map(1, VA, Some(P0));
        guest.translated(0, 1);
        rig.dispatcher.fail_nth(nth);
        let announced = guest.announce(0);
        let failed = rig.dispatcher.failed();
        rig.dispatcher.fail_nth(0);
        rig.host.settle().unwrap();
        // Told that its entry counts, the guest finds that it does; not told, that of before may still count.
        let reached = guest.dma(0, VA);
        assert_eq!(reached, announced.then_some(P0), "allocation {nth}");
        assert!(!announced || guest.dma(0, P0).is_none(), "allocation {nth}: not translated");
        if !failed {
            assert!(announced);
            drop(guest);
            return rig.down();
        }
        drop(guest);
        rig.host.settle().unwrap();
    }
    panic!("there is no end of allocations");
}

#[test]
fn a_guest_with_device_caches_invalidates_them_and_the_kernel_has_done_it() {
    let rig = rig();
    let mut shown = rig.backend.guest_registers().to_vec();
    // IotlbSup in the capability header.
    let header = shown.iter_mut().find(|register| register.offset == amd_vi::spec::registers::CAPABILITY_HEADER);
    header.unwrap().value |= 1 << 24;
    let guest = Guest::shown(&rig, shown);
    guest.map(1, VA, Some(P0));
    guest.translated(0, 1);
    assert!(guest.announce(0));
    guest.map(1, VA, None);
    assert!(guest.send(&[device_cache(0)]));
    assert_eq!(guest.dma(0, VA), Some(P0), "the guest has not said that its table changed");
    assert!(guest.send(&[page(1, VA), device_cache(0)]));
    assert_eq!(guest.dma(0, VA), None);
    drop(guest);
    rig.down();
}

#[test]
fn dirty_pages_behind_a_shadow_are_not_claimed_to_be_known() {
    let rig = rig_with(|options| KernelOptions { dirty_tracking: true, ..options }, &[]);
    let guest = Guest::new(&rig);
    let parent = rig.backend.live().into_iter().find_map(|(id, kind)| (kind == ObjectKind::NestParent).then_some(id));
    let parent = parent.unwrap();
    rig.backend.track_dirty(parent, true).unwrap();
    guest.translated(0, 1);
    assert!(guest.announce(0));
    for error in [
        rig.backend.track_dirty(parent, true).unwrap_err(),
        rig.backend.dirty_pages(parent, (RAM, RAM_SIZE), 4096, false).unwrap_err(),
    ] {
        assert_eq!(error.errno(), 95, "{error}");
        assert!(error.to_string().contains("shadow"), "{error}");
    }
    drop(guest);
    rig.down();
}

#[test]
fn an_amd_guest_that_wants_to_be_nested_is_refused_by_name() {
    let rig = rig();
    let error = rig.machine(amd_vi::features::Features::default().registers().to_vec()).err().unwrap();
    assert_eq!(error.errno(), 95, "{error}");
    assert!(error.to_string().contains("nested"), "{error}");
}

#[test]
fn a_process_that_takes_over_has_the_shadows_with_what_is_in_them() {
    let old = rig();
    let guest = translating(&old);
    guest.map(1, VA + 0x1000, Some(P0 + 0x1000));
    assert!(guest.send(&[all(1)]));
    let (saved, graph) = (guest.machine.viommu.save().unwrap(), old.backend.save_graph());
    let (tail, waits) = guest.progress();
    old.backend.hand_over();
    let (dispatcher, log, devices, memory) =
        (old.dispatcher.clone(), old.log.clone(), old.devices.clone(), old.memory.clone());
    drop(guest);
    drop(old);
    let reached = || dispatcher.translate(1, 0, VA).unwrap().is_some();
    assert!(reached(), "the old process is gone, the device goes on");
    log.take();
    let options = Rig::options(&log, &devices, &memory);
    let (backend, refused) = KernelBackend::adopt(&plugin(), options, &graph, BTreeMap::new()).unwrap();
    assert_eq!(refused, []);
    let rig = Rig::over(plugin, dispatcher.clone(), log.clone(), devices, Arc::new(backend), memory.clone());
    let ioas = rig.host.ioas().unwrap();
    for piece in [0, RAM_SIZE / 2] {
        ioas.map(rig.piece(piece, RAM_SIZE / 2, true)).unwrap();
    }
    let devices: Vec<_> = (0..2).map(|at| rig.host.device(FIRST_STREAM + at).unwrap()).collect();
    let handles = (crate::rig::FIRST_ID..).zip(&devices).map(|(id, device)| (id, device.handle().clone()));
    let config = RestoreConfig::new(memory, handles.collect());
    let restored = ioas.nest_parent().unwrap().restore_viommu(config, &saved).unwrap();
    assert_eq!(rig.backend.unclaimed(), [], "everything was asked for");
    use viommu::uapi::Command;
    let changed = |(command, _): &(Command, u32)| {
        matches!(command, Command::IoasUnmap | Command::IoasCopy | Command::HwptAlloc | Command::Destroy)
    };
    assert_eq!(log.take().into_iter().filter(changed).collect::<Vec<_>>(), [], "no table was touched");
    let machine = crate::rig::Machine { ioas, viommu: restored.viommu, vdevices: restored.vdevices, devices };
    let guest = Guest::goes_on(&rig, machine, tail, waits);
    assert_eq!(guest.dma(0, VA), Some(P0));
    guest.map(1, VA, None);
    assert!(guest.send(&[page(1, VA)]));
    assert_eq!((guest.dma(0, VA), guest.dma(0, VA + 0x1000)), (None, Some(P0 + 0x1000)));
    drop(guest);
    rig.down();
}
