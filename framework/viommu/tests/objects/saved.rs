//! A guest that moves: what its devices do on the new host, and what happens if it cannot move.

use crate::builder;
use crate::direct::{Machine, machine};
use crate::guest::{self, CD_1, CD_2, Guest, RAM, RAM_SIZE, STE_ABORT, STE_BYPASS, STE_STAGE_1, SYNC};
use crate::recorder::Recorder;
use arm_smmuv3::features::Features;
use arm_smmuv3::frontend::ArmFrontend;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use viommu::Error;
use viommu::backend::direct::DirectOptions;
use viommu::backend::{Backing, Mapping, ObjectKind, Objects};
use viommu::blocking::{Host, NestParent, RestoredViommu, Viommu};
use viommu::objects::{ObjectState, RestoreConfig, ViommuConfig};
use viommu::pipeline::CommandTap;
use viommu::plugin::{Frontend, GuestFault, Register, Status};
use viommu::save::{GuestEntry, SavedVdevice, SavedViommu};
use viommu::vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const CMDQ_CONS: u64 = 0x9c;
const CR0: u64 = 0x20;

/// A nesting parent on `machine` whose stage 2 leads to `host_ram`.
fn parent(machine: &Machine, memory: &Arc<GuestMemoryMmap>, host_ram: u64) -> NestParent {
    let region = memory.find_region(GuestAddress(RAM)).unwrap();
    machine.physical.add_region(host_ram, region.get_mmap()).unwrap();
    let ioas = machine.host.ioas().unwrap();
    let backing = Backing::Physical(host_ram);
    ioas.map(Mapping { iova: RAM, length: RAM_SIZE, backing, writable: true }).unwrap();
    ioas.nest_parent().unwrap()
}

/// The devices that the guest knows, as `(guest ID, stream of this host)`.
fn devices(host: &Host, names: &[(u32, u32)]) -> BTreeMap<u32, viommu::objects::Device> {
    names.iter().map(|(virt_id, stream)| (*virt_id, host.device(*stream).unwrap().handle().clone())).collect()
}

fn moved(
    machine: &Machine,
    memory: &Arc<GuestMemoryMmap>,
    saved: &SavedViommu,
    names: &[(u32, u32)],
) -> Result<RestoredViommu, Error> {
    // Tags of others, so that the guest has another.
    let _other = machine.host.ioas().unwrap().nest_parent().unwrap();
    let parent = parent(machine, memory, 0x9_0000_0000);
    let saved = SavedViommu::from_bytes(&saved.to_bytes()).unwrap();
    parent.restore_viommu(RestoreConfig::new(memory.clone(), devices(&machine.host, names)), &saved)
}

fn settled(viommu: &Viommu) {
    assert!(viommu.pipeline().wait_settled(Duration::from_secs(20)));
}

#[test]
fn devices_do_what_the_entries_said_when_they_were_last_read() {
    let (old, memory) = (machine(DirectOptions::default()), guest::memory());
    let viommu = parent(&old, &memory, 0x8000_0000).viommu(guest::config(&memory)).unwrap();
    let names = [3, 4, 5].map(|virt_id| viommu.vdevice(&old.host.device(0x40 + virt_id).unwrap(), virt_id).unwrap());
    let _events = viommu.event_queue().unwrap();
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    for (stream, ste) in [(3, STE_STAGE_1 | CD_1), (4, STE_BYPASS), (5, STE_ABORT)] {
        guest.set_ste(stream, ste);
    }
    // Written and not announced: nobody has read it.
    guest.store_ste(3, STE_BYPASS);
    guest.store_ste(4, STE_ABORT);
    guest.store_ste(5, STE_STAGE_1 | CD_2);
    let saved = viommu.save().unwrap();
    assert_eq!(viommu.save().unwrap(), saved, "saving changes nothing");
    drop((guest, names, viommu, _events));
    assert!(old.host.shutdown().unwrap().is_empty());

    let new = machine(DirectOptions::default());
    let restored = moved(&new, &memory, &saved, &[(3, 0x71), (4, 0x70), (5, 0x72)]).unwrap();
    assert!(restored.event_queue.is_some());
    assert_eq!(new.dma(0x71, 0x1234).output, 0x9_0000_1234, "stage 1, then stage 2");
    assert_eq!(new.dma(0x70, RAM + 0x1234).output, 0x9_0000_1234, "stage 2");
    assert_eq!(new.dma(0x72, 0x1234).status, Status::ABORT);
    // The guest's own word counts again as soon as it is given.
    let guest = Guest::of(&restored.viommu, &memory, 6);
    guest.send(&[[4, 31], SYNC]);
    assert_eq!(new.dma(0x71, RAM + 0x1234).output, 0x9_0000_1234);
    assert_eq!(new.dma(0x70, RAM + 0x1234).status, Status::ABORT);
    assert_eq!(new.dma(0x72, 0x1234).output, 0x9_0000_1234);
    drop((guest, restored));
    assert!(new.host.shutdown().unwrap().is_empty());
}

/// Holds the thread that takes the guest's commands between the first of a batch and the next, until a save waits for it.
struct Between {
    reached: flume::Sender<()>,
    saved: flume::Receiver<()>,
}

impl CommandTap for Between {
    fn consumed(&self, _words: &[u64]) {
        // Disconnected after the one time that counts. Nobody can see a save wait: it gets a moment to be wrong in.
        if self.reached.send(()).is_ok() {
            let _ = self.saved.recv_timeout(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_save_waits_for_the_configuration_command_that_is_being_taken() {
    let (machine, memory) = (machine(DirectOptions::default()), guest::memory());
    let (reached, at) = flume::bounded(1);
    let (done, saved) = flume::bounded::<()>(1);
    let config = ViommuConfig { tap: Some(Arc::new(Between { reached, saved })), ..guest::config(&memory) };
    let viommu = parent(&machine, &memory, 0x8000_0000).viommu(config).unwrap();
    let _name = viommu.vdevice(&machine.host.device(0x43).unwrap(), 3).unwrap();
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    guest.store_ste(3, STE_STAGE_1 | CD_1);
    let vcpu = std::thread::spawn(move || {
        guest.post(&[[0x30, 0], [3 | 3 << 32, 1], SYNC]);
        guest
    });
    at.recv().unwrap();
    drop(at);
    let state = viommu.save().unwrap();
    drop(done);
    assert!(matches!(state.vdevices[0].entry, GuestEntry::Words(_)), "the command was complete: {state:?}");
    let guest = vcpu.join().unwrap();
    assert!(!guest.all_taken(), "the SYNC is the next host's");
    viommu.resume();
    assert!(viommu.pipeline().wait_settled(Duration::from_secs(20)));
    assert!(guest.all_taken());
}

#[test]
fn commands_that_were_not_consumed_are_consumed_on_the_new_host() {
    let (machine, memory) = (machine(DirectOptions::default()), guest::memory());
    let new = parent(&machine, &memory, 0x8000_0000);
    // A guest whose doorbell rang, on a host that got no further: CFGI_STE of stream 3, a SYNC.
    let mut frontend = ArmFrontend::new(&[]).unwrap();
    let idle = parent(&machine, &guest::memory(), 0xa000_0000).viommu(guest::config(&memory)).unwrap();
    let guest = Guest::new(&idle, &memory);
    guest.store_ste(3, STE_BYPASS);
    guest.write(CR0, 4, 1);
    guest.send(&[[3 | 3 << 32, 1], SYNC]);
    for (at, size) in [(0x80, 8), (0x88, 4), (0x90, 8), (0x98, 4)] {
        frontend.write(at, size, idle.mmio_read(at, size).unwrap());
    }
    frontend.write(CR0, 4, 9);
    let saved = SavedViommu {
        vendor: "arm-smmuv3".into(),
        frontend: Some(frontend.save()),
        vdevices: vec![SavedVdevice { virt_id: 3, entry: GuestEntry::Abort }],
        ..SavedViommu::default()
    };
    let config = RestoreConfig::new(memory.clone(), devices(&machine.host, &[(3, 0x40)]));
    let restored = new.restore_viommu(config, &saved).unwrap();
    settled(&restored.viommu);
    assert_eq!(restored.viommu.mmio_read(CMDQ_CONS, 4).unwrap(), 2);
    assert_eq!(machine.dma(0x40, RAM + 0x1234).output, 0x8000_1234, "the entry was read by then");
}

#[test]
fn a_guest_that_is_saved_at_any_time_and_stays_misses_nothing() {
    let (machine, memory) = (machine(DirectOptions::default()), guest::memory());
    let viommu = parent(&machine, &memory, 0x8000_0000).viommu(guest::config(&memory)).unwrap();
    let _name = viommu.vdevice(&machine.host.device(0x40).unwrap(), 3).unwrap();
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    std::thread::scope(|scope| {
        let save = |_| {
            let saved = viommu.save().unwrap();
            viommu.resume();
            saved
        };
        let saving = scope.spawn(move || (0..50).map(save).collect::<Vec<_>>());
        for round in 0..200 {
            guest.set_ste(3, if round % 2 == 0 { STE_BYPASS } else { STE_STAGE_1 | CD_1 });
            assert!(guest.all_taken(), "round {round}");
        }
        // Whenever it was: one of the entries there ever were, whole.
        for saved in saving.join().unwrap() {
            let GuestEntry::Words(words) = &saved.vdevices[0].entry else { panic!("{:?}", saved.vdevices) };
            assert!([0, STE_BYPASS, STE_STAGE_1 | CD_1].contains(&words[0]), "{words:x?}");
        }
    });
}

#[test]
fn a_guest_out_of_service_stays_out_of_service_and_is_not_told_twice() {
    let (old, memory) = (machine(DirectOptions::default()), guest::memory());
    let viommu = parent(&old, &memory, 0x8000_0000).viommu(guest::config(&memory)).unwrap();
    let _name = viommu.vdevice(&old.host.device(0x40).unwrap(), 3).unwrap();
    let guest = Guest::new(&viommu, &memory);
    guest.enable();
    guest.set_ste(3, STE_BYPASS);
    viommu.pipeline().quarantine(GuestFault::HOST_ERROR);
    let mut saved = viommu.save().unwrap();
    assert_eq!(saved.quarantined, None, "the object itself is in service: only its queue is not");
    saved.quarantined = Some("its plugin died".into());
    let before = [0x60, 0x64, 0x98, 0x9c].map(|at| viommu.mmio_read(at, 4).unwrap());

    let new = machine(DirectOptions::default());
    let restored = moved(&new, &memory, &saved, &[(3, 0x70)]).unwrap();
    let viommu = &restored.viommu;
    assert_eq!([0x60, 0x64, 0x98, 0x9c].map(|at| viommu.mmio_read(at, 4).unwrap()), before);
    assert!(viommu.pipeline().is_quarantined());
    assert_eq!(new.dma(0x70, RAM).status, Status::ABORT, "whatever the entry says");
    let state = new.host.objects().into_iter().find(|object| object.id == viommu.id()).unwrap().state;
    assert_eq!(state, ObjectState::Quarantined);
    assert_eq!(viommu.save().unwrap().quarantined.as_deref(), Some("its plugin died"));
}

#[test]
fn a_vmm_with_registers_of_its_own_moves_its_guests_too() {
    let (old, memory) = (machine(DirectOptions::default()), guest::memory());
    let config = || ViommuConfig { frontend: false, ..guest::config(&memory) };
    let viommu = parent(&old, &memory, 0x8000_0000).viommu(config()).unwrap();
    let names = [3, 4].map(|virt_id| viommu.vdevice(&old.host.device(0x40 + virt_id).unwrap(), virt_id).unwrap());
    viommu.install_entry(3, &[STE_STAGE_1 | CD_1, 2, 0, 0, 0, 0, 0, 0]).unwrap();
    viommu.set_passthrough(4).unwrap();
    let saved = viommu.save().unwrap();
    assert_eq!((&saved.frontend, &saved.vdevices[1].entry), (&None, &GuestEntry::Bypass));
    drop((names, viommu));

    let new = machine(DirectOptions::default());
    let restored = moved(&new, &memory, &saved, &[(3, 0x70), (4, 0x71)]).unwrap();
    assert_eq!(new.dma(0x70, 0x1234).output, 0x9_0000_1234);
    assert_eq!(new.dma(0x71, RAM + 0x1234).output, 0x9_0000_1234);
    restored.viommu.set_blocking(3).unwrap();
    assert_eq!(new.dma(0x70, 0x1234).status, Status::ABORT);
}

/// A state of a guest that was shown these registers.
fn shown(registers: Vec<Register>) -> SavedViommu {
    let frontend = ArmFrontend::new(&registers).unwrap().save();
    SavedViommu { vendor: "arm-smmuv3".into(), shown: registers, frontend: Some(frontend), ..SavedViommu::default() }
}

#[test]
fn a_host_that_lacks_what_the_guest_has_seen_says_what() {
    let (machine, memory) = (machine(DirectOptions::default()), guest::memory());
    let parent = parent(&machine, &memory, 0x8000_0000);
    let restore = |saved: &SavedViommu, names: &[(u32, u32)]| {
        let config = RestoreConfig::new(memory.clone(), devices(&machine.host, names));
        parent.restore_viommu(config, saved).map(drop).map_err(|error| (error.errno(), error.to_string()))
    };
    let features = Features::default();
    let idr5 = |oas| Register { offset: 0x14, value: features.idr5.with_oas(oas).into_bits().into() };
    restore(&shown(vec![idr5(5)]), &[]).unwrap();
    machine.host.settle().unwrap();
    let (errno, text) = restore(&shown(vec![idr5(6)]), &[]).unwrap_err();
    assert_eq!(errno, 95);
    assert!(text.contains("IDR5.OAS: the guest was shown 52 bits, this host has 48"), "{text}");
    let idr0 = Register { offset: 0, value: features.idr0.with_pri(true).into_bits().into() };
    let (_, text) = restore(&shown(vec![idr0]), &[]).unwrap_err();
    assert!(text.contains("IDR0.PRI: the guest was shown 1, this host has 0"), "{text}");

    let good = shown(Vec::new());
    let vdevice = |virt_id| vec![SavedVdevice { virt_id, entry: GuestEntry::Words(vec![5; 3].into()) }];
    for (saved, names, says) in [
        (SavedViommu { vendor: "amd-vi".into(), ..good.clone() }, &[][..], "the state is of plugin amd-vi"),
        (SavedViommu { vdevices: vdevice(3), ..good.clone() }, &[], "no device was given for guest ID 3"),
        (good.clone(), &[(4, 0x50)], "the state has no vdevice with guest ID 4"),
        (SavedViommu { vdevices: vdevice(3), ..good.clone() }, &[(3, 0x51)], "a table entry has 8 words, not 3"),
        (SavedViommu { frontend: Some(vec![1, 0]), ..good.clone() }, &[], "cut short in version"),
        (SavedViommu { shown: vec![idr5(3)], ..good.clone() }, &[], "IDR5.OAS: the guest was shown 44 bits"),
    ] {
        let (errno, text) = restore(&saved, names).expect_err(says);
        assert!(text.contains(says) && [22, 95].contains(&errno), "{says}: {errno} {text}");
        machine.host.settle().unwrap();
        let viommus = machine.host.objects().into_iter().filter(|object| object.kind == ObjectKind::Viommu).count();
        assert_eq!(viommus, 0, "{says}: something is left");
    }
    restore(&good, &[]).unwrap();
}

#[test]
fn a_restore_that_fails_anywhere_leaves_nothing() {
    let memory = guest::memory();
    let words = |ste: u64| GuestEntry::Words([ste, 2, 0, 0, 0, 0, 0, 0].into());
    let vdevices = [(1, words(STE_STAGE_1 | CD_1)), (2, words(STE_BYPASS)), (3, words(STE_STAGE_1 | CD_1))];
    let saved = SavedViommu {
        event_queue: true,
        hw_queues: vec![viommu::save::SavedHwQueue { iova: 0, length: 4096 }; 2],
        vdevices: vdevices.into_iter().map(|(virt_id, entry)| SavedVdevice { virt_id, entry }).collect(),
        ..shown(Vec::new())
    };
    let mut failed = 0;
    for nth in 1.. {
        let backend = Recorder::new();
        let host: Host = builder(&backend).build().unwrap().into();
        let parent = host.ioas().unwrap().nest_parent().unwrap();
        let devices = devices(&host, &[(1, 0x40), (2, 0x41), (3, 0x42)]);
        let before = backend.live();
        backend.fail_nth(nth);
        let told = parent.restore_viommu(RestoreConfig::new(memory.clone(), devices.clone()), &saved);
        if !backend.failed() {
            let restored = told.unwrap();
            assert_eq!((restored.vdevices.len(), restored.hw_queues.len()), (3, 2));
            assert_eq!(restored.viommu.nested_hwpts()[0].users(), 2, "equal entries share");
            break;
        }
        failed += 1;
        told.expect_err("a call failed");
        host.settle().unwrap();
        assert_eq!(backend.live(), before, "call {nth} failed");
        assert_eq!(backend.attached().len(), 0, "call {nth} failed");
        // And the parent is free for the next try.
        backend.fail_nth(usize::MAX / 2);
        parent.restore_viommu(RestoreConfig::new(memory.clone(), devices), &saved).unwrap();
    }
    assert!(failed >= 10, "{failed}");
}

#[test]
fn the_old_host_takes_no_command_after_the_save() {
    let (machine, memory) = (machine(DirectOptions::default()), guest::memory());
    let viommu = parent(&machine, &memory, 0x8000_0000).viommu(guest::config(&memory)).unwrap();
    let guest = Guest::new(&viommu, &memory);
    guest.send(&[SYNC]);
    viommu.save().unwrap();
    viommu.mmio_write(0x98, 4, 5).unwrap();
    assert!(!viommu.pipeline().wait_settled(Duration::from_millis(50)), "commands wait");
    assert_eq!(viommu.mmio_read(CMDQ_CONS, 4).unwrap(), 1, "the new host's to take");
    // It stays after all: four empty slots are no commands, and say so.
    viommu.resume();
    settled(&viommu);
    assert!(guest.stopped());
}
