//! How a guest's IOMMU interrupts: wired lines by eventfd, messages, and the store that a SYNC may ask for.

use crate::guest::{RAM, RAM_SIZE, SYNC};
use crate::world::{CMD_SYNC_LINE, GERROR_LINE, OUTSIDE, QUEUE, Setup, Vm, World, eventually};
use arm_smmuv3::features::Features;
use arm_smmuv3::spec::registers::offset;
use std::sync::Arc;
use viommu::pipeline::{EventFdInterrupts, Interrupts};
use viommu::plugin::{Register, Status};
use viommu::vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const EVENTQ_LINE: u32 = 0;
const EVENTQ: u64 = RAM + 0x4_0000;

/// Enables the event queue, and makes the device fault.
fn fault(world: &World, vm: &Vm) {
    vm.guest.write(offset::EVENTQ_BASE, 8, EVENTQ | 4);
    vm.guest.write(offset::CR0, 4, 0xd);
    assert_eq!(world.dma(vm, 0x8000_0000).status, Status::FAULT);
    eventually("the record arrives", || vm.read(offset::EVENTQ_PROD) == 1);
    let record: u64 = vm.memory.read_obj(GuestAddress(EVENTQ)).unwrap();
    assert_eq!((record as u8, record >> 32), (0x10, 3), "F_TRANSLATION, by the guest's name of its device");
}

#[test]
fn wired_lines_by_eventfd() {
    let lines: Vec<_> = (0..4).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
    let kept: Vec<_> = lines.iter().map(|fd| fd.try_clone().unwrap()).collect();
    let message = EventFd::new(EFD_NONBLOCK).unwrap();
    let kept_message = message.try_clone().unwrap();
    let interrupts: Arc<dyn Interrupts> = Arc::new(EventFdInterrupts { lines, message: Some(message) });
    let world = World::with(Setup { interrupts: Some(interrupts.clone()), ..Setup::default() });
    // How often each was signalled since the last look; nothing to read is zero times.
    let signalled = || kept.iter().map(|fd| fd.read().unwrap_or(0)).collect::<Vec<_>>();
    world.trouble(|a| {
        assert_eq!(signalled(), [0; 4]);
        a.guest.send(&[[0x46 | 1 << 12, 0], SYNC, [0x46, 0], [0x46 | 1 << 12, 0]]);
        assert_eq!(signalled(), [0, 0, 2, 0], "two SYNCs ask for the interrupt");
        a.guest.send(&[[0xff, 0]]);
        assert_eq!(signalled(), [0, 0, 0, 1], "GERROR");
        fault(&world, a);
        eventually("the EVENTQ interrupt", || kept[EVENTQ_LINE as usize].read().is_ok());
        // What is switched off is not signalled.
        a.guest.write(offset::IRQ_CTRL, 4, 0);
        assert_eq!(world.dma(a, 0x8000_0000).status, Status::FAULT);
        eventually("the second record", || a.read(offset::EVENTQ_PROD) == 2);
        assert_eq!(signalled(), [0; 4]);
    });
    assert!(kept_message.read().is_err(), "no message without IDR0.MSI");
    // A line that the VMM did not wire, and a message.
    interrupts.line(77);
    interrupts.msi(OUTSIDE, 5);
    interrupts.msi(OUTSIDE, 6);
    assert_eq!((signalled(), kept_message.read().unwrap()), (vec![0; 4], 2));
}

/// ID registers with IDR0.MSI.
fn msi() -> Vec<Register> {
    let features = Features::default();
    Features { idr0: features.idr0.with_msi(true), ..features }.registers().into()
}

/// SYNC with CS = SIG_IRQ and a message.
fn sync_with(address: u64, data: u32) -> [u64; 2] {
    [0x46 | 1 << 12 | u64::from(data) << 32, address]
}

#[test]
fn a_sync_may_ask_for_a_store() {
    let world = World::with(Setup { registers: msi(), ..Setup::default() });
    world.trouble(|a| {
        let word = |gpa| a.memory.read_obj::<u32>(GuestAddress(gpa)).unwrap();
        // In memory: a plain store of 4 bytes, as Linux waits for it in the command's own slot.
        let slot = QUEUE + 16 * a.cons();
        a.guest.send(&[sync_with(slot, 0)]);
        assert!(a.guest.all_taken());
        assert_eq!((word(slot), word(slot + 4)), (0, 0));
        assert_eq!(word(slot + 8), slot as u32, "no more than 4 bytes");
        let last = RAM + RAM_SIZE - 4;
        a.guest.send(&[sync_with(last, 0x1234_5678), SYNC]);
        assert!(a.guest.all_taken());
        assert_eq!(word(last), 0x1234_5678);
        assert_eq!((a.interrupted.lines(), a.interrupted.messages()), (vec![], vec![]));
        // Elsewhere: a message, for the guest's interrupt controller.
        for address in [RAM + RAM_SIZE, OUTSIDE, 0x000f_ffff_ffff_fffc, 0x0808_0040] {
            a.guest.send(&[sync_with(address, 7)]);
            assert!(a.guest.all_taken(), "{address:#x}");
            assert_eq!((a.interrupted.lines(), a.interrupted.messages()), (vec![], vec![(address, 7)]));
        }
        // Without an address: the wired line.
        a.guest.send(&[sync_with(0, 7)]);
        assert_eq!((a.interrupted.lines(), a.interrupted.messages()), (vec![CMD_SYNC_LINE], vec![]));
    });
}

#[test]
fn errors_and_events_as_messages() {
    let world = World::with(Setup { registers: msi(), ..Setup::default() });
    world.trouble(|a| {
        a.guest.send(&[[0xff, 0]]);
        assert_eq!(a.interrupted.lines(), [GERROR_LINE], "wired while no address is set");
        a.store(QUEUE + 16 * a.cons(), SYNC);
        a.guest.acknowledge();
        for (register, address, data) in
            [(offset::GERROR_IRQ_CFG0, 0x0808_0040, 0x11), (offset::EVENTQ_IRQ_CFG0, 0x0808_0080, 0x12)]
        {
            a.guest.write(register, 8, address);
            a.guest.write(register + 8, 4, data);
        }
        a.guest.send(&[[0xff, 0]]);
        assert_eq!((a.interrupted.lines(), a.interrupted.messages()), (vec![], vec![(0x0808_0040, 0x11)]));
        fault(&world, a);
        eventually("the event's message", || a.interrupted.messages() == [(0x0808_0080, 0x12)]);
    });
}
