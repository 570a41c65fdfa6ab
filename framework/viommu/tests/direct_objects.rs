//! The object rules of the direct backend: who may go when, what exists already, what runs out.

mod machine;

use machine::{Machine, RAM, RAM_BYTES, now, ram_mapping};
use viommu::backend::direct::{DirectOptions, ModelMode};
use viommu::backend::{Backing, Mapping, ObjectKind, Objects};
use viommu::plugin::{EntryKey, HwQueueRequest, KeyKind, ModelConfig, Status};

const EBUSY: i32 = 16;
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EOPNOTSUPP: i32 = 95;

/// Destroys what has users, in every wrong order, then in the right one.
#[test]
fn nothing_goes_while_it_is_used() {
    let m = Machine::new();
    let guest = m.guest(0);
    let hwpt = m.translate(&guest);
    let queue = now(m.direct.event_queue_alloc(guest.viommu.id)).unwrap();
    let busy = |id: u32, users: &str| {
        let cause = now(m.direct.destroy(id)).unwrap_err();
        assert_eq!((cause.errno(), cause.to_string().as_str()), (EBUSY, format!("busy: used by {users}").as_str()));
    };
    busy(guest.ioas, "1 nesting parent");
    busy(guest.parent, "1 vIOMMU");
    busy(guest.viommu.id, "1 nested HWPT, 1 vdevice, 1 event queue");
    busy(hwpt, "1 device");
    busy(guest.device, "1 vdevice");

    now(m.direct.destroy(guest.vdevice)).unwrap();
    busy(guest.device, &format!("its attachment to nested HWPT {hwpt}"));
    now(m.direct.detach(guest.device)).unwrap();
    for id in [hwpt, queue, guest.viommu.id, guest.parent, guest.ioas, guest.device] {
        now(m.direct.destroy(id)).unwrap();
        assert_eq!(now(m.direct.destroy(id)).unwrap_err().errno(), ENOENT, "{id} again");
    }
    assert_eq!(m.direct.live(), []);
    assert!(m.guest(1).ioas > guest.vdevice.max(queue), "IDs are given once");
}

#[test]
fn a_viommus_own_hwpts_go_with_it_unless_a_device_is_on_one() {
    let m = Machine::new();
    let guest = m.guest(0);
    now(m.direct.attach(guest.device, guest.viommu.bypass)).unwrap();
    now(m.direct.destroy(guest.vdevice)).unwrap();
    assert_eq!(now(m.direct.destroy(guest.viommu.id)).unwrap_err().errno(), EBUSY);
    now(m.direct.detach(guest.device)).unwrap();
    now(m.direct.destroy(guest.viommu.id)).unwrap();
    let kinds: Vec<_> = m.direct.live().iter().map(|&(_, kind)| kind).collect();
    assert_eq!(kinds, [ObjectKind::Ioas, ObjectKind::NestParent, ObjectKind::Device]);
    now(m.direct.viommu_alloc(guest.parent)).expect("the parent is free again");
}

#[test]
fn what_is_not_there_is_not_found() {
    let m = Machine::new();
    let guest = m.guest(0);
    let d = &m.direct;
    let key = EntryKey::default();
    let none = 999;
    assert_eq!(now(d.ioas_map(none, ram_mapping(0, 0))).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.ioas_unmap(none, 0, 1)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.nest_parent_alloc(none)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.viommu_alloc(guest.ioas)).unwrap_err().errno(), ENOENT, "not a nesting parent");
    assert_eq!(now(d.vdevice_alloc(guest.viommu.id, none, 7)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.vdevice_alloc(none, guest.device, 7)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.nested_hwpt_alloc(none, &key)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.attach(none, guest.viommu.abort)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.attach(guest.device, guest.parent)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.detach(none)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.event_queue_alloc(none)).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.hw_queue_alloc(none, &HwQueueRequest::default())).unwrap_err().errno(), ENOENT);
    assert_eq!(now(d.hw_queue_alloc(guest.viommu.id, &HwQueueRequest::default())).unwrap_err().errno(), EOPNOTSUPP);
    assert!(d.sink(none).is_err());
}

#[test]
fn the_same_thing_exists_once() {
    let m = Machine::new();
    let (guest, other) = (m.guest(0), m.guest(1));
    let d = &m.direct;
    assert_eq!(now(d.device_bind(guest.stream)).unwrap_err().errno(), EEXIST);
    assert_eq!(now(d.device_bind(u32::MAX)).unwrap_err().errno(), EINVAL, "beyond the stream table");
    assert_eq!(now(d.vdevice_alloc(guest.viommu.id, other.device, 0)).unwrap_err().errno(), EEXIST, "the guest's ID");
    assert_eq!(now(d.vdevice_alloc(other.viommu.id, guest.device, 7)).unwrap_err().errno(), EEXIST, "the device");
    now(d.event_queue_alloc(guest.viommu.id)).unwrap();
    assert_eq!(now(d.event_queue_alloc(guest.viommu.id)).unwrap_err().errno(), EEXIST);
    let second = now(d.viommu_alloc(guest.parent)).unwrap_err();
    assert_eq!(second.errno(), EINVAL);
    assert!(second.to_string().contains("would share translation tag"), "{second}");
}

#[test]
fn a_translating_hwpt_takes_only_devices_that_the_guest_can_name() {
    let m = Machine::new();
    let (guest, other) = (m.guest(0), m.guest(1));
    let hwpt = now(m.direct.nested_hwpt_alloc(guest.viommu.id, &m.translate_key())).unwrap().id;
    assert_eq!(now(m.direct.attach(other.device, hwpt)).unwrap_err().errno(), ENOENT, "named to another guest");
    let unnamed = now(m.direct.device_bind(0x999)).unwrap();
    assert_eq!(now(m.direct.attach(unnamed, hwpt)).unwrap_err().errno(), ENOENT);
    now(m.direct.attach(unnamed, guest.viommu.bypass)).expect("no name needed");
    now(m.direct.attach(unnamed, guest.viommu.abort)).expect("no name needed");
}

#[test]
fn mappings_do_not_overlap_and_are_not_cut() {
    let m = Machine::new();
    let guest = m.guest(0);
    let map = |iova, length, backing| {
        now(m.direct.ioas_map(guest.ioas, Mapping { iova, length, backing, writable: true })).map_err(|e| e.errno())
    };
    let at = Backing::Physical(0x50_0000_0000);
    assert_eq!(map(RAM + RAM_BYTES - 0x1000, 0x2000, at), Err(EEXIST));
    assert_eq!(map(RAM - 0x1000, 0x2000, at), Err(EEXIST));
    assert_eq!(map(0, 1 << 40, at), Err(EEXIST), "around");
    assert_eq!(map(0x1001, 0x1000, at), Err(EINVAL));
    assert_eq!(map(0x1000, 0, at), Err(EINVAL));
    assert_eq!(map(u64::MAX - 0xfff, 0x2000, at), Err(EINVAL));
    assert_eq!(map(1 << 60, 0x1000, at), Err(EINVAL), "beyond stage 2");
    assert_eq!(map(0x1000, 0x1000, Backing::UserVa(0)), Err(EOPNOTSUPP));
    assert_eq!(map(0x1000, 0x1000, at), Ok(()));

    let unmap = |iova, length| now(m.direct.ioas_unmap(guest.ioas, iova, length)).map_err(|e| e.errno());
    assert_eq!(unmap(RAM, 0x1000), Err(EINVAL), "cuts");
    assert_eq!(unmap(RAM + 0x1000, RAM_BYTES), Err(EINVAL), "cuts");
    assert_eq!(unmap(0x2000, 0x1000), Err(ENOENT));
    assert_eq!(unmap(0x1000, 0), Err(EINVAL));
    assert_eq!(unmap(0x1000, u64::MAX), Err(EINVAL));
    assert_eq!(unmap(RAM, RAM_BYTES), Ok(RAM_BYTES), "two mappings at once");
    assert_eq!(unmap(0, u64::MAX), Ok(0x1000));
    assert_eq!(unmap(0, u64::MAX), Ok(0));
}

/// A mapping that one of two parents refuses is in neither.
#[test]
fn a_map_that_fails_changed_nothing() {
    let m = Machine::new();
    let guest = m.guest(0);
    now(m.direct.attach(guest.device, guest.viommu.bypass)).unwrap();
    let beyond = Mapping { iova: 0x8000_0000, length: 0x1000, backing: Backing::Physical(1 << 56), writable: true };
    now(m.direct.ioas_map(guest.ioas, beyond)).unwrap_err();
    assert_eq!(m.dma(&guest, 0x8000_0000).status, Status::FAULT);
    let right = Mapping { backing: Backing::Physical(guest.host), ..beyond };
    now(m.direct.ioas_map(guest.ioas, right)).expect("nothing is left of the failed one");
    assert_eq!(m.dma(&guest, 0x8000_0000).output, guest.host);
}

#[test]
fn tags_run_out_by_name() {
    let m = Machine::with_few_tags();
    let ioas = now(m.direct.ioas_alloc()).unwrap();
    let parents: Vec<_> = (0..255).map(|_| now(m.direct.nest_parent_alloc(ioas)).unwrap()).collect();
    let cause = now(m.direct.nest_parent_alloc(ioas)).unwrap_err();
    assert_eq!(cause.errno(), ENOSPC);
    assert!(cause.to_string().contains("VMID") && cause.to_string().contains("255"), "{cause}");
    let tags = |parents: &[u32]| -> Vec<u32> {
        parents.iter().map(|&parent| now(m.direct.viommu_alloc(parent)).unwrap().tag).collect()
    };
    let mut seen = tags(&parents);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((seen.len(), seen[0], seen[254]), (255, 1, 255));
    assert_eq!(m.direct.describe().tags, 255);
}

/// The next owner of a tag hits nothing that the last one left in the caches.
#[test]
fn a_freed_tag_is_flushed_before_it_is_used_again() {
    let options = DirectOptions { tag_limit: Some(1), ..DirectOptions::default() };
    let m = Machine::with(ModelMode::Inline, ModelConfig::default(), options);
    let guest = m.guest(0);
    let hwpt = m.translate(&guest);
    assert_eq!(m.dma(&guest, machine::VIRTUAL).status, Status::OK);
    now(m.direct.detach(guest.device)).unwrap();
    for id in [guest.vdevice, hwpt, guest.viommu.id] {
        now(m.direct.destroy(id)).unwrap();
    }
    assert_eq!(now(m.direct.nest_parent_alloc(guest.ioas)).unwrap_err().errno(), ENOSPC);
    now(m.direct.destroy(guest.parent)).unwrap();

    let next = m.guest(1);
    assert_eq!(next.viommu.tag, guest.viommu.tag);
    m.translate(&next);
    let answer = m.dma(&next, machine::VIRTUAL);
    assert_eq!((answer.status, answer.output), (Status::OK, next.host + RAM_BYTES / 2));
    assert_eq!(m.model.stats().unwrap().hits, 0);
}

#[test]
fn a_stream_that_is_attached_to_nothing_aborts() {
    let m = Machine::new();
    let guest = m.guest(0);
    assert_eq!(m.dma(&guest, RAM).status, Status::FAULT, "no table entry at all");
    now(m.direct.attach(guest.device, guest.viommu.bypass)).unwrap();
    assert_eq!(m.dma(&guest, RAM).output, guest.host);
    now(m.direct.attach(guest.device, guest.viommu.abort)).unwrap();
    assert_eq!(m.dma(&guest, RAM).status, Status::ABORT);
    m.translate(&guest);
    assert_eq!(m.dma(&guest, machine::VIRTUAL).output, guest.host + RAM_BYTES / 2);
    now(m.direct.detach(guest.device)).unwrap();
    now(m.direct.detach(guest.device)).expect("detached already");
    assert_eq!(m.dma(&guest, RAM).status, Status::ABORT);
    let key = EntryKey { kind: KeyKind(77), ..Default::default() };
    let unknown = now(m.direct.nested_hwpt_alloc(guest.viommu.id, &key)).unwrap().id;
    now(m.direct.attach(guest.device, unknown)).unwrap();
    assert_eq!(m.dma(&guest, RAM).status, Status::ABORT, "a kind of entry that nobody knows");
}
