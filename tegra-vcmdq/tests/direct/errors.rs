//! A command that a guest's queue does not take (C11 rows 10 and 11), and devices that do not answer.

use crate::machine::{Guest, Machine, atc_inv, sync, tlbi_va};
use arm_smmuv3::spec::commands::Opcode;
use arm_smmuv3::spec::registers::CommandError;
use tegra_vcmdq::driver::TegraDriver;
use tegra_vcmdq::spec::{CMDQV, CMDQV_LINE, offset, page0};
use viommu_plugin::{Driver, EventOwner, Hardware, HostEvent, Model};

/// What the driver says after the machine's interrupts.
fn events(machine: &Machine, driver: &mut TegraDriver) -> Vec<HostEvent> {
    machine.take_irqs().into_iter().for_each(|line| driver.interrupt(line));
    std::iter::from_fn(|| driver.event()).collect()
}

fn stopped(guest: &Guest, index: u32, error: CommandError) -> bool {
    let active = guest.read(index, page0::GERROR) ^ guest.read(index, page0::GERRORN);
    guest.cons(index).err() == error.0 && active == 1
}

#[test]
fn what_a_guests_queue_does_not_take_stops_it_and_is_one_event() {
    let signals = (1..4).map(|cs: u64| [u64::from(Opcode::SYNC.0) | cs << 12, 0]);
    let taken = [Opcode::TLBI_NH_VA, Opcode::TLBI_NH_ASID, Opcode::ATC_INV, Opcode::SYNC];
    let opcodes = (0..=255).map(Opcode).filter(|opcode| !taken.contains(opcode)).map(|opcode| [opcode.0.into(), 0]);
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    guest.queue(&mut driver, 0);
    guest.queue(&mut driver, 1);
    for command in signals.chain(opcodes).chain([atc_inv(4)]) {
        guest.map(crate::machine::VA, 0x1_0000);
        assert!(guest.say(0, &[tlbi_va(0), sync()]));
        assert_eq!(guest.reaches(), Some(0x1_0000));
        guest.map(crate::machine::VA, 0x1_1000);
        let at = guest.cons(1).rd();
        assert!(!guest.say(1, &[command, tlbi_va(0), sync()]), "{command:x?}");
        assert!(stopped(&guest, 1, CommandError::ILL), "{command:x?}");
        assert_eq!(guest.cons(1).rd(), at, "CONS names the command");
        assert_eq!(guest.reaches(), Some(0x1_0000), "nothing behind it is done");
        let told = events(&machine, &mut driver);
        assert_eq!(told.len(), 1, "{command:x?}");
        assert_eq!((told[0].owner, told[0].stream), (EventOwner::INTERFACE, guest.interface.handle));
        assert_eq!((told[0].words, &told[0].record[..2]), (2, &[0b10, 0][..]));
        // The other queue goes on.
        assert!(guest.say(0, &[sync()]));
        // The guest repairs it itself.
        guest.skip(1);
        assert!(!stopped(&guest, 1, CommandError::ILL) && guest.cons(1).err() == 0);
        assert_eq!(guest.reaches(), Some(0x1_1000));
    }
}

#[test]
fn who_does_not_acknowledge_hears_nothing_more() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    guest.queue(&mut driver, 0);
    assert!(!guest.say(0, &[[0xff, 0]]));
    assert_eq!(events(&machine, &mut driver).len(), 1);
    for _ in 0..10 {
        // Doorbells, and the host's own work.
        assert!(!guest.say(0, &[sync()]));
        machine.issue(&[]).unwrap();
        assert_eq!(events(&machine, &mut driver), []);
    }
    assert!(stopped(&guest, 0, CommandError::ILL), "the host neither acknowledges nor repairs");
    // Acknowledged but not repaired, it is the next error.
    guest.write(0, page0::GERRORN, guest.read(0, page0::GERROR));
    assert_eq!(events(&machine, &mut driver).len(), 1);
    guest.skip(0);
    assert_eq!(guest.cons(0).err(), 0);
}

#[test]
fn errors_of_two_queues_are_one_map() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    let mut other = Guest::new(&machine, &mut driver, 8, 3);
    for guest in [&mut guest, &mut other] {
        guest.queue(&mut driver, 0);
        guest.queue(&mut driver, 1);
    }
    assert!(!guest.say(0, &[[0xff, 0]]) && !guest.say(1, &[[0xff, 0]]) && !other.say(1, &[[0xff, 0]]));
    let mut told: Vec<_> = events(&machine, &mut driver).iter().map(|e| (e.stream, e.record[0])).collect();
    told.sort_unstable();
    assert_eq!(told, [(guest.interface.handle, 0b11), (other.interface.handle, 0b10)]);
    let map = machine.mmio_read(CMDQV + offset::VINTF_ERR_MAP, 4);
    assert_eq!(map, 1 << guest.interface.handle | 1 << other.interface.handle);
}

#[test]
fn a_masked_vintf_interrupts_nobody() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    guest.queue(&mut driver, 0);
    machine.mmio_write(CMDQV + offset::VINTF_INT_MASK, 4, 1 << guest.interface.handle);
    assert!(!guest.say(0, &[[0xff, 0]]));
    assert!(!machine.take_irqs().contains(&CMDQV_LINE));
}

#[test]
fn a_queue_that_cannot_be_read_aborts() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    let request = guest.request(0);
    driver.hw_queue_create(guest.interface.handle, &request, 1 << 45).unwrap();
    guest.write(0, page0::CONFIG, 1);
    assert!(!guest.say(0, &[sync()]));
    assert!(stopped(&guest, 0, CommandError::ABT));
}

#[test]
fn a_device_that_does_not_answer_is_the_error_of_its_own_queues_sync() {
    let (machine, mut driver) = Machine::driven(true);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    let mut other = Guest::new(&machine, &mut driver, 8, 3);
    guest.queue(&mut driver, 0);
    guest.queue(&mut driver, 1);
    other.queue(&mut driver, 0);
    machine.model().atc_unresponsive(guest.stream, true);
    assert!(guest.say(0, &[atc_inv(3)]));
    assert!(other.say(0, &[atc_inv(3), sync()]) && guest.say(1, &[sync()]), "nobody else hears of it");
    machine.issue(&[]).expect("nor the host, while the queue is the guest's");
    assert!(!guest.say(0, &[sync()]));
    assert!(stopped(&guest, 0, CommandError::ATC_INV_SYNC));
    assert_eq!(events(&machine, &mut driver).len(), 1);
    guest.skip(0);
    assert_eq!(guest.cons(0).err(), 0);
}

#[test]
fn the_next_owner_of_a_queue_is_not_blamed_for_a_late_device() {
    for flushed in [true, false] {
        let (machine, mut driver) = Machine::driven(true);
        let mut guest = Guest::new(&machine, &mut driver, 7, 3);
        let queue = guest.queue(&mut driver, 0);
        machine.model().atc_unresponsive(guest.stream, true);
        assert!(guest.say(0, &[atc_inv(3)]));
        if flushed {
            driver.hw_queue_destroy(queue).unwrap();
            guest.queue(&mut driver, 0);
            assert!(guest.say(0, &[sync()]));
        } else {
            // The same without the SYNC on the SMMU's own queue: the model would show it.
            guest.write(0, page0::CONFIG, 0);
            guest.write(0, page0::CONFIG, 1);
            assert!(!guest.say(0, &[sync()]) && stopped(&guest, 0, CommandError::ATC_INV_SYNC));
        }
    }
}
