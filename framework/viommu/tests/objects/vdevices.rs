//! Devices follow their guest's table: canonical keys, shared nested HWPTs, assign and resign.

use crate::guest::{CD_1, CD_2, Guest, STE_ABORT, STE_BYPASS, STE_STAGE_1, SYNC};
use crate::{builder, eventually, guest, host, machine};
use viommu::backend::BackendEvent;
use viommu::blocking::Host;
use viommu::objects::NestedCounters;
use viommu::plugin::{GuestFault, KeyKind};

#[test]
fn a_device_follows_the_guests_mode() {
    let (backend, host) = host();
    let (viommu, memory, devices) = machine(&host);
    let (abort, bypass) = (viommu.handle().info().abort, viommu.handle().info().bypass);
    let guest = Guest::new(&viommu, &memory);
    let _vdevice = viommu.vdevice(&devices[0], 3).unwrap();
    let attached = || backend.attached()[&devices[0].id()];
    assert_eq!(attached(), bypass, "GBPA lets DMA pass after reset");
    guest.abort_while_off(true);
    assert_eq!(attached(), abort, "GBPA.ABORT");
    guest.store_ste(3, STE_STAGE_1 | CD_1);
    guest.enable();
    assert_eq!(attached(), viommu.nested_hwpts()[0].id(), "every entry is read when translation is enabled");
    guest.disable();
    assert_eq!(attached(), abort);
    assert_eq!(viommu.counters(), NestedCounters { created: 1, reused: 0, live: 0 });
    guest.enable();
    viommu.reset().unwrap();
    assert_eq!(attached(), bypass, "reset: GBPA's reset value");
    assert_eq!(viommu.nested_hwpts().len(), 0);
    assert!(backend.log().contains(&format!("flush {}", viommu.id())));
}

#[test]
fn translate_then_bypass_with_the_pointer_still_set_frees_the_nested_hwpt() {
    let (backend, host) = host();
    let (viommu, memory, devices) = machine(&host);
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    let vdevice = viommu.vdevice(&devices[0], 3).unwrap();
    guest.set_ste(3, STE_STAGE_1 | CD_1);
    let nested = viommu.nested_hwpts().remove(0);
    assert_eq!(vdevice.handle().key().unwrap().kind, KeyKind::TRANSLATE);
    backend.log();
    guest.set_ste(3, STE_BYPASS | CD_1);
    let device = devices[0].id();
    let bypass = viommu.handle().info().bypass;
    assert_eq!(backend.log(), [format!("attach {device} -> {bypass}"), format!("-{}", nested.id())]);
    assert_eq!(viommu.counters(), NestedCounters { created: 1, reused: 0, live: 0 });
    assert!(guest.all_taken());
    assert!(host.host().find_nested_hwpt(nested.id()).is_err());
}

#[test]
fn equal_keys_share_one_nested_hwpt_and_the_last_user_frees_it() {
    let (backend, host) = host();
    let (viommu, memory, devices) = machine(&host);
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    let [first, second] = [0, 1].map(|at: usize| viommu.vdevice(&devices[at], at as u32).unwrap());
    guest.set_ste(0, STE_STAGE_1 | CD_1);
    guest.set_ste(1, STE_STAGE_1 | CD_1);
    assert_eq!(viommu.counters(), NestedCounters { created: 1, reused: 1, live: 1 });
    assert_eq!(viommu.nested_hwpts()[0].users(), 2);
    // The same entry announced again: nothing to attach, but what it leads to may have changed.
    backend.log();
    guest.set_ste(0, STE_STAGE_1 | CD_1);
    assert_eq!(backend.log(), [format!("reload {}", devices[0].id())]);
    assert!(guest.all_taken());
    // Another CD table is another HWPT; the device goes over without a gap.
    guest.set_ste(1, STE_STAGE_1 | CD_2);
    assert_eq!(viommu.counters(), NestedCounters { created: 2, reused: 1, live: 2 });
    drop(first);
    host.settle().unwrap();
    assert_eq!(viommu.counters().live, 1);
    guest.set_ste(1, STE_ABORT | CD_2);
    assert_eq!(viommu.counters().live, 0);
    assert_eq!(backend.attached()[&devices[1].id()], viommu.handle().info().abort);
    drop(second);
}

#[test]
fn a_hot_added_device_takes_the_entry_that_was_announced_before_it_came() {
    let (backend, host) = host();
    let (viommu, memory, devices) = machine(&host);
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    guest.set_ste(9, STE_STAGE_1 | CD_1);
    assert!(guest.all_taken(), "a stream without a device completes locally");
    assert_eq!(viommu.counters().created, 0);
    let _vdevice = viommu.vdevice(&devices[0], 9).unwrap();
    assert_eq!(backend.attached()[&devices[0].id()], viommu.nested_hwpts()[0].id());
}

#[test]
fn commands_reach_a_device_from_assign_to_resign_and_no_longer() {
    let (backend, host) = host();
    let (viommu, memory, devices) = machine(&host);
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    // CMD_CFGI_CD of stream 7.
    let cfgi_cd = [5 | 7 << 32, 1];
    guest.send(&[cfgi_cd, SYNC]);
    assert_eq!(backend.words(), [0; 0]);
    let vdevice = viommu.vdevice(&devices[0], 7).unwrap();
    guest.send(&[cfgi_cd, SYNC]);
    assert_eq!(backend.words(), [5 | 0x40 << 32, 1]);
    vdevice.destroy().unwrap();
    guest.send(&[cfgi_cd, SYNC]);
    assert_eq!(backend.words(), [0; 0]);
    assert!(guest.all_taken());
    assert!(!backend.attached().contains_key(&devices[0].id()), "a device without a name is detached");
    // Its name is free again.
    drop(viommu.vdevice(&devices[1], 7).unwrap());
}

#[test]
fn a_vmm_with_registers_of_its_own_installs_entries() {
    let backend = crate::Recorder::new();
    let host: Host = builder(&backend).build().unwrap().into();
    let memory = guest::memory();
    let mut config = guest::config(&memory);
    config.frontend = false;
    let viommu = host.ioas().unwrap().nest_parent().unwrap().viommu(config).unwrap();
    let device = host.device(0x40).unwrap();
    assert_eq!(viommu.set_passthrough(3).unwrap_err().errno(), 2);
    let vdevice = viommu.vdevice(&device, 3).unwrap();
    let attached = || backend.attached()[&device.id()];
    assert_eq!(attached(), viommu.handle().info().abort, "nothing installed yet");
    viommu.install_entry(3, &[STE_STAGE_1 | CD_1, 2, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(attached(), viommu.nested_hwpts()[0].id());
    assert_eq!(viommu.install_entry(3, &[1, 2]).unwrap_err().errno(), 22);
    viommu.set_passthrough(3).unwrap();
    assert_eq!(attached(), viommu.handle().info().bypass);
    viommu.set_blocking(3).unwrap();
    assert_eq!(attached(), viommu.handle().info().abort);
    assert_eq!(viommu.counters(), NestedCounters { created: 1, reused: 0, live: 0 });
    // TLBI_NH_ASID of ASID 1: complete when the call returns, under this guest's tag.
    let done = viommu.invalidate(&[0x11 | 1 << 48, 0]).unwrap();
    assert_eq!((done.handled, done.fault), (1, GuestFault::NONE));
    let tag = u64::from(viommu.handle().info().tag);
    assert_eq!(backend.words(), [0x11 | 1 << 48 | tag << 32, 0]);
    // CMD_CFGI_CD that names stream 99, in the name of the device.
    let done = device.invalidate(&[5 | 99 << 32, 1]).unwrap();
    assert_eq!((done.handled, done.fault), (1, GuestFault::NONE));
    assert_eq!(backend.words(), [5 | 0x40 << 32, 1]);
    drop(vdevice);
}

#[test]
fn entries_cannot_be_installed_over_the_guests_own_table() {
    let (_backend, host) = host();
    let (viommu, _memory, devices) = machine(&host);
    let _vdevice = viommu.vdevice(&devices[0], 3).unwrap();
    assert_eq!(viommu.set_blocking(3).unwrap_err().errno(), 22);
}

#[test]
fn faults_reach_the_guest_that_has_the_device() {
    let (backend, host) = host();
    let (viommu, _memory, devices) = machine(&host);
    let vdevice = viommu.vdevice(&devices[0], 3).unwrap();
    let events = host.events();
    let fault = |stream| BackendEvent::Guest { stream, record: [0x10, 0, 0, 0, 0, 0, 0, 0], words: 4 };
    let delivered = || viommu.pipeline().counters().events.load(std::sync::atomic::Ordering::SeqCst);
    backend.report(fault(0x40));
    eventually("the event is delivered", || delivered() == 1);
    vdevice.destroy().unwrap();
    backend.report(fault(0x40));
    backend.report(BackendEvent::Host { stream: 0x40, code: 0x10 });
    assert_eq!(events.recv().unwrap(), viommu::HostEvent::HostFault { stream: 0x40, code: 0x10 });
    assert_eq!(delivered(), 1, "a device without a name reports to nobody");
}
