//! Who lives how long: ownership, EBUSY, ENOENT, EEXIST, leftovers.

use crate::{guest, host, machine};
use viommu::backend::{Backing, Mapping, ObjectKind};
use viommu::objects::ObjectState;
use viommu::{Cause, Error};

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> i32 {
    result.unwrap_err().errno()
}

#[test]
fn handles_dropped_in_any_order_are_torn_down_children_first() {
    let (backend, host) = host();
    let memory = guest::memory();
    let ioas = host.ioas().unwrap();
    let parent = ioas.nest_parent().unwrap();
    let viommu = parent.viommu(guest::config(&memory)).unwrap();
    let events = viommu.event_queue().unwrap();
    let queues = [0, 1].map(|index| viommu.hw_queue(index, 0x10_0000 * u64::from(index), 4096).unwrap());
    let device = host.device(0x40).unwrap();
    let vdevice = viommu.vdevice(&device, 5).unwrap();
    assert_eq!(
        backend.log(),
        [
            "+IOAS 1",
            "+NEST_PARENT 2",
            "+VIOMMU 3",
            "+VEVENTQ 6",
            "+HW_QUEUE 7",
            "+HW_QUEUE 8",
            "+DEVICE 9",
            "+VDEVICE 10",
            "attach 9 -> 5",
        ]
    );
    // Parents first, the lower queue first: their children keep them alive.
    drop((ioas, parent, viommu, device));
    let [first, second] = queues;
    drop(first);
    host.settle().unwrap();
    assert_eq!(backend.log(), [""; 0]);
    drop(second);
    drop(vdevice);
    drop(events);
    host.settle().unwrap();
    assert_eq!(backend.log(), ["-8", "-7", "attach 9 -> 4", "-10", "detach 9", "-9", "-6", "-3", "-2", "-1"]);
    assert_eq!(host.objects(), []);
    assert!(host.shutdown().unwrap().is_empty());
}

#[test]
fn destroy_is_refused_while_used_and_names_the_users() {
    let (_backend, host) = host();
    let (viommu, _memory, devices) = machine(&host);
    let parent = viommu.handle().parent().clone();
    let _names = [0, 1].map(|at: usize| viommu.vdevice(&devices[at], at as u32).unwrap());
    let refused = viommu.clone().destroy().unwrap_err();
    assert_eq!(refused.to_string(), format!("vIOMMU {}: destroy failed: busy: used by 2 vdevices", viommu.id()));
    assert_eq!(errno(devices[0].clone().destroy()), 16);
    assert_eq!(errno(viommu::blocking::NestParent::from(parent).destroy()), 16);
    // A refused destroy changes nothing.
    assert!(host.objects().iter().all(|object| object.state == ObjectState::Running));
    drop(viommu.vdevice(&devices[0], 7).unwrap_err());
}

#[test]
fn what_is_gone_answers_enoent_and_its_id_never_comes_back() {
    let (_backend, host) = host();
    let ioas = host.ioas().unwrap();
    let (id, again) = (ioas.id(), ioas.clone());
    ioas.destroy().unwrap();
    let mapping = Mapping { iova: 0, length: 4096, backing: Backing::Physical(0), writable: true };
    assert_eq!(errno(again.map(mapping)), 2);
    assert_eq!(errno(again.nest_parent()), 2);
    assert_eq!(errno(again.clone().destroy()), 2);
    assert!(host.host().find_ioas(id).is_err());
    let ids: Vec<u32> = (0..20).map(|_| host.ioas().unwrap()).map(|ioas| ioas.id()).collect();
    host.settle().unwrap();
    assert!(ids.iter().all(|other| *other > id) && ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[test]
fn the_same_thing_twice_is_eexist() {
    let (_backend, host) = host();
    let (viommu, memory, devices) = machine(&host);
    let _bound = viommu.vdevice(&devices[0], 5).unwrap();
    assert_eq!(errno(host.device(0x40)), 17, "stream bound twice");
    assert_eq!(errno(viommu.vdevice(&devices[1], 5)), 17, "guest ID taken");
    assert_eq!(errno(viommu.vdevice(&devices[0], 6)), 17, "device has a name");
    let _events = viommu.event_queue().unwrap();
    assert_eq!(errno(viommu.event_queue()), 17, "second event queue");
    let _queue = viommu.hw_queue(0, 0, 4096).unwrap();
    assert_eq!(errno(viommu.hw_queue(0, 0, 4096)), 17, "index taken");
    assert_eq!(errno(viommu.hw_queue(2, 0, 4096)), 5, "index 1 is missing");
    let other = host.ioas().unwrap().nest_parent().unwrap().viommu(guest::config(&memory)).unwrap();
    assert_eq!(errno(other.vdevice(&devices[0], 5)), 17, "device has a name in another guest");
}

#[test]
fn a_second_viommu_on_one_parent_is_refused_with_the_reason() {
    let (_backend, host) = host();
    let memory = guest::memory();
    let parent = host.ioas().unwrap().nest_parent().unwrap();
    let first = parent.viommu(guest::config(&memory)).unwrap();
    let refused = parent.viommu(guest::config(&memory)).unwrap_err();
    assert!(refused.to_string().contains("share its VMID, so equal ASIDs would alias"), "{refused}");
    first.destroy().unwrap();
    drop(parent.viommu(guest::config(&memory)).unwrap());
}

#[test]
fn guest_ids_have_a_limit_that_the_error_names() {
    let (_backend, host) = host();
    let (viommu, _memory, devices) = machine(&host);
    let refused = viommu.vdevice(&devices[0], 1 << 20).unwrap_err();
    assert_eq!(refused.errno(), 22);
    assert!(refused.to_string().contains("1048576"), "{refused}");
    drop(viommu.vdevice(&devices[0], (1 << 20) - 1).unwrap());
}

#[test]
fn shutdown_says_what_was_left_over() {
    let (backend, host) = host();
    let (viommu, _memory, devices) = machine(&host);
    let vdevice = viommu.vdevice(&devices[0], 5).unwrap();
    let left = host.shutdown().unwrap();
    let kinds: Vec<_> = left.held.iter().map(|(kind, _)| *kind).collect();
    use ObjectKind::{Device, Ioas, NestParent, Vdevice, Viommu};
    assert_eq!(kinds, [Ioas, NestParent, Viommu, Device, Device, Vdevice]);
    assert_eq!(left.remaining, []);
    assert_eq!(viommu::backend::Objects::live(backend.as_ref()), []);
    // Handles that outlive the host answer, and do not hang.
    let late = vdevice.destroy().unwrap_err();
    assert!(matches!(late.cause, Cause::Closed | Cause::NotFound(_)), "{late}");
}

#[test]
fn blocking_calls_on_an_actor_thread_answer_would_deadlock() {
    let (_backend, host) = host();
    let (viommu, _memory, devices) = machine(&host);
    actix::System::new().block_on(async {
        let refused = host.ioas().unwrap_err();
        assert!(matches!(refused.cause, Cause::WouldDeadlock), "{refused}");
        assert!(matches!(viommu.vdevice(&devices[0], 1).unwrap_err().cause, Cause::WouldDeadlock));
        assert!(matches!(viommu.mmio_write(0x20, 4, 0).unwrap_err().cause, Cause::WouldDeadlock));
        // The async API works there.
        host.host().ioas().await.unwrap();
    });
}

#[test]
fn the_async_api_needs_no_runtime_of_a_kind() {
    let (_backend, host) = host();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let ioas = runtime.block_on(host.host().ioas()).unwrap();
    assert_eq!(host.objects().len(), 1);
    runtime.block_on(ioas.destroy()).unwrap();
    assert_eq!(host.objects(), []);
}

#[test]
fn guests_come_and_go_side_by_side_and_leave_nothing() {
    let (backend, host) = host();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let host = &host;
            scope.spawn(move || {
                for round in 0..20 {
                    let memory = guest::memory();
                    let viommu = host.ioas().unwrap().nest_parent().unwrap().viommu(guest::config(&memory)).unwrap();
                    let devices = [0, 1].map(|at| host.device(0x1000 * thread + 2 * round + at).unwrap());
                    let guest = guest::Guest::new(&viommu, &memory);
                    guest.enable();
                    let names = [0, 1].map(|at: usize| viommu.vdevice(&devices[at], at as u32).unwrap());
                    guest.set_ste(0, guest::STE_STAGE_1 | guest::CD_1);
                    guest.set_ste(1, guest::STE_STAGE_1 | guest::CD_1);
                    assert!(guest.all_taken());
                    assert_eq!(viommu.nested_hwpts()[0].users(), 2);
                    // Every other guest goes with its names still on.
                    if round % 2 == 0 {
                        names.into_iter().for_each(|name| name.destroy().unwrap());
                    }
                }
            });
        }
    });
    host.settle().unwrap();
    assert_eq!(host.objects(), []);
    assert_eq!(backend.attached().len(), 0);
    assert!(host.shutdown().unwrap().is_empty());
}
