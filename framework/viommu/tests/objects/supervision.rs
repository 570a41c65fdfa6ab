//! Panics: rolled back, degraded, blocked, restarted, quarantined.

use crate::guest::{CD_1, CD_2, Guest, STE_BYPASS, STE_STAGE_1, SYNC};
use crate::{Recorder, builder, eventually, machine};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use viommu::backend::{BackendEvent, ObjectKind, Owner};
use viommu::blocking::Host;
use viommu::objects::ObjectState;
use viommu::plugin::GuestFault;
use viommu::seams::{Clock, FaultPlan};
use viommu::{Cause, HostEvent};

/// Time that stands still until it is told otherwise, in seconds.
#[derive(Default)]
struct Seconds(AtomicU64);

impl Clock for Seconds {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

fn host(plan: FaultPlan) -> (Arc<Recorder>, Arc<Seconds>, Host) {
    let (backend, clock) = (Recorder::new(), Arc::new(Seconds::default()));
    let host = builder(&backend).clock(clock.clone()).faults(plan).build().unwrap();
    (backend, clock, host.into())
}

fn state(host: &Host, id: u32) -> ObjectState {
    host.objects().into_iter().find(|object| object.id == id).unwrap().state
}

#[test]
fn a_panic_degrades_blocks_and_restarts() {
    // Table base, table size and enable are the first three changes of configuration; the fourth panics.
    let (backend, _clock, host) = host(FaultPlan::none().panic(ObjectKind::Viommu, "reconfigure", 4));
    let events = host.events();
    let (viommu, memory, devices) = machine(&host);
    let guest = Guest::new(&viommu, &memory);
    let _vdevice = viommu.vdevice(&devices[0], 3).unwrap();
    guest.store_ste(3, STE_STAGE_1 | CD_1);
    guest.enable();
    let attached = || backend.attached()[&devices[0].id()];
    let first = viommu.nested_hwpts()[0].id();
    assert_eq!((attached(), state(&host, viommu.id())), (first, ObjectState::Running));
    guest.set_ste(3, STE_STAGE_1 | CD_2);
    assert_eq!(state(&host, viommu.id()), ObjectState::Degraded);
    assert_eq!(attached(), first, "rolled back: as before the message");
    assert!(guest.stopped(), "the guest is told that its command had no effect");
    // Invalidations flow while it is degraded.
    backend.words();
    assert!(viommu.invalidate(&[0x11 | 1 << 48, 0]).is_ok());
    assert_eq!(backend.words().len(), 2);
    // The next configuration change blocks the device, then the restart takes the entry that is there now.
    backend.log();
    guest.acknowledge();
    assert!(guest.all_taken(), "the guest goes on");
    eventually("restarted", || state(&host, viommu.id()) == ObjectState::Running);
    let now = viommu.nested_hwpts()[0].id();
    assert_ne!(now, first);
    assert_eq!(attached(), now);
    let (device, abort) = (devices[0].id(), viommu.handle().info().abort);
    let (blocked, freed) = (format!("attach {device} -> {abort}"), format!("-{first}"));
    let (created, back) = (format!("+HWPT_NESTED {now}"), format!("attach {device} -> {now}"));
    assert_eq!(backend.log(), [blocked, freed, created, back]);
    let (kind, id) = (ObjectKind::Viommu, viommu.id());
    let told: Vec<_> = events.try_iter().collect();
    assert!(matches!(&told[0], HostEvent::Degraded { id: of, .. } if *of == id), "{told:?}");
    assert_eq!(told[1..3], [HostEvent::Blocked { kind, id }, HostEvent::Restarted { kind, id }]);
}

#[test]
fn more_than_three_panics_in_five_seconds_quarantine() {
    let plan = (1..=4).fold(FaultPlan::none(), |plan, nth| plan.panic(ObjectKind::Viommu, "alloc", nth));
    let (backend, _clock, host) = host(plan);
    let events = host.events();
    let (viommu, memory, devices) = machine(&host);
    for nth in 1..=4 {
        let refused = viommu.vdevice(&devices[0], 3).unwrap_err();
        assert!(matches!(refused.cause, Cause::Panicked(_)), "{nth}: {refused}");
        let expected = if nth < 4 { ObjectState::Degraded } else { ObjectState::Quarantined };
        assert_eq!(state(&host, viommu.id()), expected, "panic {nth}");
    }
    let refused = viommu.vdevice(&devices[0], 3).unwrap_err();
    assert!(matches!(refused.cause, Cause::Quarantined(_)), "{refused}");
    assert!(viommu.invalidate(&[0x11 | 1 << 48, 0]).is_err(), "the data path is stopped too");
    assert!(events.try_iter().any(|event| matches!(event, HostEvent::Quarantined { .. })));
    // It can still be torn down.
    drop((viommu, memory, devices));
    host.settle().unwrap();
    assert_eq!(viommu::backend::Objects::live(backend.as_ref()), []);
}

#[test]
fn panics_further_apart_only_degrade() {
    let plan = (1..=6).fold(FaultPlan::none(), |plan, nth| plan.panic(ObjectKind::Viommu, "alloc", nth));
    let (_backend, clock, host) = host(plan);
    let (viommu, _memory, devices) = machine(&host);
    for _ in 0..6 {
        viommu.vdevice(&devices[0], 3).unwrap_err();
        clock.0.fetch_add(2, Ordering::SeqCst);
    }
    assert_eq!(state(&host, viommu.id()), ObjectState::Degraded);
    drop(viommu.vdevice(&devices[0], 3).unwrap());
}

#[test]
fn quarantine_attaches_the_abort_hwpt_and_the_neighbour_goes_on() {
    let (backend, _clock, host) = host(FaultPlan::none());
    let (viommu, memory, devices) = machine(&host);
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    let _vdevice = viommu.vdevice(&devices[0], 3).unwrap();
    guest.set_ste(3, STE_STAGE_1 | CD_1);
    let neighbour_memory = crate::guest::memory();
    let config = crate::guest::config(&neighbour_memory);
    let neighbour = host.ioas().unwrap().nest_parent().unwrap().viommu(config).unwrap();
    let other = Guest::new(&neighbour, &neighbour_memory);
    other.enable();
    let _other_device = neighbour.vdevice(&devices[1], 3).unwrap();
    other.set_ste(3, STE_STAGE_1 | CD_1);
    let owner = Owner(viommu.handle().info().owner);
    backend.report(BackendEvent::QueueError { owner, fault: GuestFault::ILLEGAL_OPCODE });
    eventually("quarantined", || state(&host, viommu.id()) == ObjectState::Quarantined);
    eventually("the guest sees it", || guest.stopped());
    assert_eq!(backend.attached()[&devices[0].id()], viommu.handle().info().abort);
    assert_eq!(backend.attached()[&devices[1].id()], neighbour.nested_hwpts()[0].id());
    other.send(&[[0x11 | 1 << 48, 0], SYNC]);
    other.set_ste(3, STE_BYPASS);
    assert!(other.all_taken());
    assert_eq!(backend.attached()[&devices[1].id()], neighbour.handle().info().bypass);
}

#[test]
fn objects_that_no_dma_depends_on_are_restarted_at_once_with_their_dependants() {
    let (_backend, _clock, host) = host(FaultPlan::none().panic(ObjectKind::Ioas, "unmap", 1));
    let (viommu, _memory, _devices) = machine(&host);
    let events = host.events();
    let ioas = viommu::blocking::Ioas::from(viommu.handle().parent().ioas().clone());
    assert!(matches!(ioas.unmap(0, 4096).unwrap_err().cause, Cause::Panicked(_)));
    let restarted = |event| match event {
        HostEvent::Restarted { kind, .. } => Some(kind),
        _ => None,
    };
    let order: Vec<_> = events.iter().filter_map(restarted).take(3).collect();
    assert_eq!(order, [ObjectKind::Ioas, ObjectKind::NestParent, ObjectKind::Viommu], "rest_for_one");
    assert_eq!(state(&host, ioas.id()), ObjectState::Running);
    assert_eq!(ioas.unmap(0, 4096).unwrap(), 4096);
}
