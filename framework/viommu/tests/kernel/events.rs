//! What the kernel reports, on its way to the guest.

use crate::guest::{self};
use crate::smmu::Smmu;
use crate::{Machine, STREAM, VIRT_ID, World};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use viommu::HostEvent;
use viommu::backend::PageRequest;
use viommu::backend::kernel::KernelOptions;
use viommu::objects::ViommuConfig;
use viommu::pipeline::Interrupts;
use viommu::uapi::flags;
use viommu::uapi::payload::HwptPgfault;
use zerocopy::IntoBytes;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

/// What a VMM with registers of its own hears: the guest's ID and the record, or that some were lost.
struct Heard(mpsc::Sender<Option<(u32, Vec<u64>)>>);

impl Interrupts for Heard {
    fn msi(&self, _: u64, _: u32) {}
    fn line(&self, _: u32) {}
    fn event(&self, virt_id: u32, record: &[u64]) {
        self.0.send(Some((virt_id, record.to_vec()))).unwrap();
    }
    fn event_lost(&self) {
        self.0.send(None).unwrap();
    }
}

type Receiver = mpsc::Receiver<Option<(u32, Vec<u64>)>>;

fn listening(world: &World) -> (Machine, Receiver) {
    let (sender, heard) = mpsc::channel();
    let config = ViommuConfig { frontend: false, interrupts: Arc::new(Heard(sender)), ..guest::config(&world.memory) };
    (world.machine_with(config), heard)
}

/// The kernel's vIOMMU: the only one there is.
fn kernels_viommu(world: &World) -> u32 {
    (1..100).find(|id| report(world, *id, 0).is_ok()).expect("a vIOMMU with an event queue")
}

/// F_TRANSLATION of the guest's device at an address.
fn report(world: &World, viommu: u32, address: u64) -> Result<(), viommu::uapi::Errno> {
    let record = [0x10 | u64::from(VIRT_ID) << 32, 0, address, 0].map(u64::to_le);
    world.dispatcher.report_event(viommu, flags::VEVENTQ_TYPE_ARM_SMMUV3, record.as_bytes())
}

#[test]
fn a_fault_reaches_the_guest_with_its_own_number_of_the_device() {
    let world = World::usual();
    let (machine, heard) = listening(&world);
    let queue = machine.viommu.event_queue().unwrap();
    let viommu = kernels_viommu(&world);
    for address in [0x1000, 0x2000] {
        report(&world, viommu, address).unwrap();
    }
    for address in [0, 0x1000, 0x2000] {
        let (virt_id, record) = heard.recv_timeout(LONG).unwrap().unwrap();
        assert_eq!((virt_id, record), (VIRT_ID, vec![0x10, 0, address, 0]));
    }
    queue.destroy().unwrap();
    machine.viommu.event_queue().unwrap();
}

#[test]
fn lost_events_are_counted_and_the_guest_told() {
    let world = World::new(Smmu::default(), |options| KernelOptions { event_depth: 4, ..options });
    let (machine, heard) = listening(&world);
    let host_events = world.host.events();
    let _queue = machine.viommu.event_queue().unwrap();
    let viommu = kernels_viommu(&world);
    for address in 1..=1000 {
        report(&world, viommu, address).unwrap();
    }
    // One more, until one arrives: what arrived and what was said to be lost is all there was.
    let mut got = 0;
    for more in 1..10_000 {
        report(&world, viommu, LAST + more).unwrap();
        while let Ok(heard) = heard.recv_timeout(SHORT) {
            let Some((_, record)) = heard else { continue };
            got += 1;
            if let Some(more) = record[2].checked_sub(LAST) {
                // The first was that of `kernels_viommu`.
                let total = 1 + 1000 + more;
                let lost: u64 = host_events.try_iter().map(|event| lost_in(&event, machine.viommu.id())).sum();
                assert_eq!(got + lost, total, "{got} events, {lost} lost");
                return;
            }
        }
    }
    panic!("nothing arrives");
}

/// Addresses of events behind the flood.
const LAST: u64 = 1 << 32;

fn lost_in(event: &HostEvent, of: u32) -> u64 {
    match event {
        HostEvent::GuestEventsLost { viommu, records } if *viommu == of => *records,
        _ => 0,
    }
}

#[test]
fn a_page_request_is_told_and_answered() {
    let world = World::usual();
    let events = world.host.events();
    let queue = world.host.fault_queue().unwrap();
    let (machine, _heard) = listening(&world);
    // Made while there is a fault queue: its page requests go there.
    let entry = [guest::STE_STAGE_1 | guest::CD_1, 2, 0, 0, 0, 0, 0, 0];
    machine.viommu.install_entry(VIRT_ID, &entry).unwrap();
    let device = (1..100).find(|id| world.dispatcher.event_target(*id).is_some()).expect("the attached device");
    let request = HwptPgfault { dev_id: device, grpid: 5, perm: flags::PGFAULT_PERM_READ, addr: 0x5000, ..page() };
    world.dispatcher.page_request(request).unwrap();
    let told = std::iter::from_fn(|| events.recv_timeout(LONG).ok());
    let request = told.into_iter().find_map(|event| match event {
        HostEvent::PageRequest(request) => Some(request),
        _ => None,
    });
    let PageRequest { stream, address, cookie, last, group, .. } = request.expect("a page request");
    assert_eq!((stream, address, last, group), (Some(STREAM), 0x5000, true, 5));
    queue.respond(cookie, true).unwrap();
    assert_eq!(queue.respond(cookie, true).unwrap_err().errno(), 22, "answered already");
    assert_eq!(world.dispatcher.page_answers().len(), 1);
}

fn page() -> HwptPgfault {
    HwptPgfault { flags: flags::PGFAULT_FLAGS_LAST_PAGE, ..HwptPgfault::default() }
}
