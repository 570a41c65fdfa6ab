//! Page requests: they arrive with who asks, are answered, and no device waits for ever, whoever is gone.

use crate::guest::{CD_1, CD_2, STE_STAGE_1};
use crate::smmu::Smmu;
use crate::{Machine, STREAM, VIRT_ID, World};
use std::time::{Duration, Instant};
use viommu::HostEvent;
use viommu::backend::PageRequest;
use viommu::backend::kernel::KernelOptions;
use viommu::blocking::FaultQueue;
use viommu::objects::ViommuConfig;
use viommu::uapi::Errno;
use viommu::uapi::dispatcher::PageAnswer;
use viommu::uapi::flags::{PAGE_RESP_INVALID, PAGE_RESP_SUCCESS, PGFAULT_PERM_WRITE};
use viommu::uapi::payload::HwptPgfault;

const LONG: Duration = Duration::from_secs(20);

/// A guest whose device goes through a nested HWPT that was made while there was a fault queue.
fn faulting(world: &World) -> (Machine, FaultQueue, u32) {
    let queue = world.host.fault_queue().unwrap();
    let machine = world.machine_with(ViommuConfig { frontend: false, ..crate::guest::config(&world.memory) });
    install(&machine, CD_1);
    let device = (1..100).find(|id| world.dispatcher.event_target(*id).is_some()).expect("the attached device");
    (machine, queue, device)
}

fn install(machine: &Machine, table: u64) {
    machine.viommu.install_entry(VIRT_ID, &[STE_STAGE_1 | table, 2, 0, 0, 0, 0, 0, 0]).unwrap();
}

fn ask(world: &World, device: u32, pasid: u32, group: u32) {
    let request = HwptPgfault {
        dev_id: device,
        pasid,
        grpid: group,
        perm: PGFAULT_PERM_WRITE,
        addr: 0x5000 + u64::from(group) * 0x1000,
        ..HwptPgfault::default()
    };
    world.dispatcher.page_request(request).unwrap();
}

fn told(events: &flume::Receiver<HostEvent>) -> PageRequest {
    std::iter::from_fn(|| events.recv_timeout(LONG).ok())
        .find_map(|event| match event {
            HostEvent::PageRequest(request) => Some(request),
            _ => None,
        })
        .expect("a page request")
}

/// Waits until so many answers came.
fn answers(world: &World, count: usize) -> Vec<PageAnswer> {
    let (end, mut all) = (Instant::now() + LONG, Vec::new());
    while all.len() < count && Instant::now() < end {
        all.extend(world.dispatcher.page_answers());
        std::thread::yield_now();
    }
    all
}

#[test]
fn a_request_of_a_pasid_arrives_as_it_was_asked_and_the_device_goes_on() {
    let world = World::usual();
    let events = world.host.events();
    let (_machine, queue, device) = faulting(&world);
    ask(&world, device, 5, 9);
    let request = told(&events);
    assert_eq!((request.queue, request.stream, request.pasid), (queue.id(), Some(STREAM), Some(5)));
    assert_eq!((request.group, request.last, request.permissions, request.address), (9, true, 2, 0xe000));
    assert_eq!(world.dispatcher.page_answers(), [], "it waits");
    queue.respond(request.cookie, true).unwrap();
    let answer = PageAnswer { device, pasid: 5, group: 9, code: PAGE_RESP_SUCCESS };
    assert_eq!(world.dispatcher.page_answers(), [answer]);
    // Without a PASID, and given up.
    ask(&world, device, 0, 1);
    let request = told(&events);
    assert_eq!(request.pasid, None);
    queue.respond(request.cookie, false).unwrap();
    assert_eq!(world.dispatcher.page_answers(), [PageAnswer { pasid: 0, group: 1, code: PAGE_RESP_INVALID, ..answer }]);
}

#[test]
fn what_an_hwpt_left_open_is_answered_when_the_device_leaves_it() {
    let world = World::usual();
    let events = world.host.events();
    let (machine, queue, device) = faulting(&world);
    ask(&world, device, 5, 1);
    let request = told(&events);
    install(&machine, CD_2);
    let [answer] = world.dispatcher.page_answers()[..] else { panic!("one answer") };
    assert_eq!((answer.group, answer.code), (1, PAGE_RESP_INVALID), "replaced");
    assert_eq!(queue.respond(request.cookie, true).unwrap_err().errno(), 22, "too late, and no harm");
    // The new HWPT's requests go to the same queue.
    ask(&world, device, 5, 2);
    assert_eq!(told(&events).group, 2);
    drop(machine);
    world.host.settle().unwrap();
    assert_eq!(
        world.dispatcher.page_answers().iter().map(|answer| answer.code).collect::<Vec<_>>(),
        [PAGE_RESP_INVALID]
    );
    queue.destroy().unwrap();
}

#[test]
fn a_queue_that_an_hwpt_reports_to_stays_and_says_why() {
    let world = World::usual();
    let (machine, queue, _) = faulting(&world);
    let error = queue.clone().destroy().unwrap_err();
    assert_eq!(error.errno(), 16, "{error}");
    drop((machine, queue));
    world.host.settle().unwrap();
    assert!(world.host.shutdown().unwrap().is_empty());
}

#[test]
fn a_request_that_nobody_hears_is_refused_at_once() {
    let world = World::usual();
    let (_machine, _queue, device) = faulting(&world);
    ask(&world, device, 7, 3);
    let answer = PageAnswer { device, pasid: 7, group: 3, code: PAGE_RESP_INVALID };
    assert_eq!(answers(&world, 1), [answer], "no subscriber: the device does not wait for ever");
}

#[test]
fn in_a_flood_every_request_is_answered_by_somebody() {
    const FLOOD: u32 = 2000;
    let world = World::new(Smmu::default(), |options| KernelOptions { event_capacity: 4, ..options });
    let events = world.host.events();
    let (_machine, queue, device) = faulting(&world);
    (0..FLOOD).for_each(|group| ask(&world, device, 5, group));
    // A host that answers what it hears; what it does not hear is answered for it.
    let (end, mut heard, mut codes) = (Instant::now() + LONG, 0, Vec::new());
    while codes.len() < FLOOD as usize && Instant::now() < end {
        while let Ok(event) = events.try_recv() {
            if let HostEvent::PageRequest(request) = event {
                queue.respond(request.cookie, true).unwrap();
                heard += 1;
            }
        }
        codes.extend(world.dispatcher.page_answers().into_iter().map(|answer| answer.code));
        std::thread::yield_now();
    }
    let good = codes.iter().filter(|code| **code == PAGE_RESP_SUCCESS).count();
    assert_eq!((codes.len(), good), (FLOOD as usize, heard), "each once");
}

#[test]
fn the_files_of_event_queues_are_read_as_the_kernel_has_it() {
    let world = World::usual();
    let iommufd = world.backend.iommufd();
    let (faults, fd) = iommufd.fault_queue_alloc().unwrap();
    let calls = iommufd.calls();
    assert_eq!(calls.read(fd, &mut [0; 39]), Err(Errno::SPIPE), "no whole records");
    assert_eq!(calls.read(fd, &mut [0; 40]), Ok(0), "nothing there is no end of file");
    assert_eq!(calls.write(fd, &[0; 7]), Err(Errno::SPIPE));
    assert_eq!(calls.write(fd, &[9, 0, 0, 0, 0, 0, 0, 0]), Err(Errno::INVAL), "an unknown cookie");
    assert_eq!(iommufd.destroy(faults).unwrap_err().errno(), 16, "as long as the file is open");
    calls.close(fd).unwrap();
    assert_eq!(calls.close(fd), Err(Errno::BADF));
    iommufd.destroy(faults).unwrap();
    assert_eq!(iommufd.destroy(faults).unwrap_err().errno(), 2);
}
