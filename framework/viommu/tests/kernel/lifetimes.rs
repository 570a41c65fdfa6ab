//! Objects of the kernel: made whole or not at all, destroyed in its order, nothing left.

use crate::guest::{CD_1, STE_BYPASS, STE_STAGE_1};
use crate::smmu::Smmu;
use crate::{STREAM, VIRT_ID, World, options, plugin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use viommu::backend::kernel::{DeviceCalls, DeviceSource, KernelBackend, KernelOptions, Lent, SoftwareDevice};
use viommu::uapi::dispatcher::{Dispatcher, Options};
use viommu::uapi::{Errno, ProcessMemory, flags, layout};
use zerocopy::IntoBytes;

/// The kernel's lowest free ID: what is left behind makes it higher.
fn next_id(dispatcher: &Dispatcher) -> u32 {
    let mut alloc = layout::IoasAlloc { size: 12, ..layout::IoasAlloc::default() };
    dispatcher.ioctl(0x3b81, alloc.as_mut_bytes(), &ProcessMemory).unwrap();
    let mut destroy = layout::Destroy { size: 8, id: alloc.out_ioas_id };
    dispatcher.ioctl(0x3b80, destroy.as_mut_bytes(), &ProcessMemory).unwrap();
    alloc.out_ioas_id
}

#[test]
fn a_guest_comes_and_goes_and_leaves_nothing() {
    let world = World::usual();
    let clean = next_id(&world.dispatcher);
    for _ in 0..2 {
        let machine = world.machine();
        machine.guest.enable();
        machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1);
        let _events = machine.viommu.event_queue().unwrap();
        let _faults = world.host.fault_queue().unwrap();
        machine.guest.set_ste(VIRT_ID.into(), STE_BYPASS);
        machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1);
        assert_eq!(machine.viommu.counters().live, 1);
        assert!(machine.guest.all_taken());
        drop(machine);
    }
    assert!(world.host.shutdown().unwrap().is_empty());
    assert_eq!(next_id(&world.dispatcher), clean);
    drop(world.backend);
    assert_eq!(next_id(&world.dispatcher), 1, "the device is unbound too");
}

#[test]
fn what_the_guest_says_is_what_its_device_is_attached_to() {
    let world = World::usual();
    let machine = world.machine();
    let attached = || *world.smmu.seen.lock().unwrap().attached.last().unwrap();
    assert_eq!(attached(), STE_BYPASS, "off: GBPA says bypass");
    machine.guest.enable();
    assert_eq!(attached(), 1, "no entry: abort");
    machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1);
    assert_eq!(attached(), STE_STAGE_1 | CD_1);
    machine.guest.set_ste(VIRT_ID.into(), STE_BYPASS);
    assert_eq!(attached(), STE_BYPASS);
    drop(machine.vdevice);
    drop(machine.viommu);
    world.host.settle().unwrap();
    machine.device.destroy().unwrap();
}

#[test]
fn a_call_that_fails_in_the_middle_leaves_nothing_half_made() {
    let whole = |world: &World| -> Result<(), viommu::Error> {
        let ioas = world.host.ioas()?;
        ioas.map(world.ram())?;
        let viommu = ioas.nest_parent()?.viommu(crate::guest::config(&world.memory))?;
        let vdevice = viommu.vdevice(&world.host.device(STREAM)?, VIRT_ID)?;
        let events = viommu.event_queue()?;
        let faults = world.host.fault_queue()?;
        drop((vdevice, events, faults));
        Ok(())
    };
    let world = World::usual();
    let clean = next_id(&world.dispatcher);
    let mut failures = 0;
    for nth in 1..200 {
        world.dispatcher.fail_nth(nth);
        let done = whole(&world);
        let failed = world.dispatcher.failed();
        world.dispatcher.fail_nth(0);
        world.host.settle().unwrap();
        assert_eq!(next_id(&world.dispatcher), clean, "allocation {nth} failed: {done:?}");
        failures += u32::from(done.is_err());
        if !failed {
            assert!(done.is_ok(), "{done:?}");
            assert!(failures > 8, "{failures} failures in {nth}");
            return;
        }
    }
    panic!("there is no end of allocations");
}

/// A device that is being reset until somebody has waited often enough.
struct InReset {
    device: SoftwareDevice,
    busy: AtomicBool,
    refused: Mutex<u32>,
    slept: Mutex<Vec<Duration>>,
}

impl DeviceCalls for InReset {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<i32, Errno> {
        if code == flags::VFIO_DEVICE_ATTACH_IOMMUFD_PT && self.busy.load(Ordering::Relaxed) {
            *self.refused.lock().unwrap() += 1;
            return Err(Errno::BUSY);
        }
        self.device.ioctl(code, argument, lent)
    }
}

fn world_in_reset(recovers: bool) -> (World, Arc<InReset>) {
    let smmu = Smmu::default();
    let dispatcher = Dispatcher::new(Options::default());
    let memory = crate::guest::memory();
    let device = Arc::new(InReset {
        device: SoftwareDevice(dispatcher.device(smmu.device(STREAM))),
        busy: AtomicBool::new(false),
        refused: Mutex::new(0),
        slept: Mutex::default(),
    });
    let usual = options(&smmu, &dispatcher, &memory);
    let now = Arc::new(Mutex::new(Duration::ZERO));
    let (clock, slept, wakes) = (now.clone(), now, device.clone());
    let options = KernelOptions {
        devices: [(STREAM, DeviceSource::Calls(device.clone()))].into(),
        clock: Arc::new(move || *clock.lock().unwrap()),
        pause: Arc::new(move |delay| {
            *slept.lock().unwrap() += delay;
            wakes.slept.lock().unwrap().push(delay);
            if recovers && *wakes.refused.lock().unwrap() >= 5 {
                wakes.busy.store(false, Ordering::Relaxed);
            }
        }),
        ..usual
    };
    let backend = Arc::new(KernelBackend::open(&plugin(), options).unwrap());
    let host = viommu::Host::builder().backend(backend.clone()).plugin(plugin()).build().unwrap().into();
    (World { smmu, dispatcher, backend, host, memory }, device)
}

#[test]
fn an_attachment_during_a_reset_is_tried_again() {
    let (world, device) = world_in_reset(true);
    let machine = world.machine();
    machine.guest.enable();
    device.busy.store(true, Ordering::Relaxed);
    machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1);
    assert!(machine.guest.all_taken());
    assert_eq!(*device.refused.lock().unwrap(), 5);
    assert_eq!(world.backend.counters().busy.get(), 5);
    assert_eq!(
        *device.slept.lock().unwrap(),
        [1, 2, 4, 8, 16].map(Duration::from_millis),
        "by the clock that was given"
    );
    assert_eq!(world.smmu.seen.lock().unwrap().attached.last(), Some(&(STE_STAGE_1 | CD_1)));
}

#[test]
fn a_reset_without_end_is_an_error_that_says_busy() {
    let (world, device) = world_in_reset(false);
    let ioas = world.host.ioas().unwrap();
    let viommu = ioas.nest_parent().unwrap().viommu(crate::guest::config(&world.memory)).unwrap();
    device.busy.store(true, Ordering::Relaxed);
    let error = viommu.vdevice(&world.host.device(STREAM).unwrap(), VIRT_ID).unwrap_err();
    assert_eq!(error.errno(), 16, "{error}");
    assert!(error.to_string().contains("VFIO_DEVICE_ATTACH_IOMMUFD_PT"), "{error}");
    device.busy.store(false, Ordering::Relaxed);
}

#[test]
fn memory_that_was_not_lent_is_not_mapped() {
    let world = World::usual();
    let ioas = world.host.ioas().unwrap();
    let stray = vec![0u8; 0x2000];
    let mapping = viommu::backend::Mapping {
        iova: 0x1000,
        length: 0x1000,
        backing: viommu::backend::Backing::UserVa(stray.as_ptr() as u64 & !0xfff),
        writable: true,
    };
    assert_eq!(ioas.map(mapping).unwrap_err().errno(), 14);
}

#[test]
fn a_plugin_of_another_vendor_is_refused_by_name() {
    let (smmu, dispatcher, memory) = (Smmu::default(), Dispatcher::new(Options::default()), crate::guest::memory());
    let vtd = viommu_plugin_host::Plugin::linked::<intel_vtd::IntelVtd>();
    let error = KernelBackend::open(&vtd, options(&smmu, &dispatcher, &memory)).unwrap_err();
    assert_eq!(error.errno(), 95, "{error}");
}
