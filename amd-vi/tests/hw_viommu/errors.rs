//! What a guest gets wrong stays the guest's.

use crate::guest::{COMMANDS, DOMAINS, ENTRIES, EVENTS, Guest, RAM, STORE, identity, iotlb, pages, plain, wait};
use crate::machine::{self, Machine};
use amd_vi::driver::AmdDriver;
use amd_vi::spec::commands::Opcode;
use amd_vi::spec::events::{EventCode, EventWord0};
use amd_vi::spec::registers::{Control, RingPointer, offset};
use amd_vi::spec::size::ALL_LOG2;
use viommu_plugin::{Driver, Hardware};

const PAGE: u64 = 3;

/// A machine with two guests whose devices use domain 0, and see [`PAGE`] at 1 MiB.
fn two() -> (Machine, AmdDriver, [Guest; 2]) {
    let machine = machine::with(&identity(), true);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let guests = [1, 2].map(|parent| {
        let mut guest = Guest::new(&machine, &mut driver, parent);
        guest.map(0, PAGE, 0x10_0000);
        guest.attach(&mut driver, 0, 10 + parent);
        assert_eq!(guest.reaches(0, PAGE), Some(0x10_0000));
        guest
    });
    (machine, driver, guests)
}

fn code(event: [u64; 2]) -> EventCode {
    EventCode(EventWord0::from(event[0]).code())
}

/// Turns the guest's command buffer off and on, through its trapped CONTROL.
fn restart(guest: &mut Guest, driver: &mut AmdDriver) {
    let control = Control::from(guest.read(offset::CONTROL));
    guest.write(driver, offset::CONTROL, control.with_cmd_buf_en(false).into());
    assert!(!guest.status().cmd_buf_run());
    guest.write(driver, offset::CONTROL, control.into());
}

#[test]
fn illegal_commands_stop_the_guests_own_ring_and_no_other() {
    let (_, mut driver, [mut one, mut other]) = two();
    let illegal = [0u8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf].map(Opcode);
    for (round, opcode) in illegal.into_iter().enumerate() {
        let head = RingPointer::from(one.read(offset::COMMAND_HEAD)).index();
        assert!(!one.sync(&[plain(opcode, 2)]), "{opcode:?}");
        assert!(!one.status().cmd_buf_run() && other.status().cmd_buf_run());
        assert!(other.sync(&[]), "the other guest's ring goes on");
        let (events, lines) = one.events(&mut driver);
        assert_eq!((events.len(), lines), (1, 1), "{opcode:?}");
        assert_eq!(code(events[0]), EventCode::ILLEGAL_COMMAND_ERROR);
        assert_eq!(events[0][1], COMMANDS + 16 * u64::from(head), "the guest's own address of the command");
        assert_eq!(RingPointer::from(one.read(offset::COMMAND_HEAD)).index(), head, "round {round}");
        // The guest puts something harmless in its place, and goes on.
        one.put(COMMANDS + 16 * u64::from(head), &plain(Opcode::INVALIDATE_DEVTAB_ENTRY, 0));
        restart(&mut one, &mut driver);
        assert!(one.status().cmd_buf_run());
        assert!(one.sync(&[]));
    }
    assert_eq!(driver.event(), None, "the host has nothing to do with it");
}

#[test]
fn rings_and_stores_outside_the_guests_memory_are_its_mistake() {
    let (machine, mut driver, [mut one, mut other]) = two();
    one.say(&[wait(RAM, 1)]);
    let (events, _) = one.events(&mut driver);
    assert_eq!(events.iter().map(|event| code(*event)).collect::<Vec<_>>(), [EventCode::COMMAND_HARDWARE_ERROR]);
    // A ring that is nowhere: fetched from where the guest has no memory.
    one.write(&mut driver, offset::COMMAND_BASE, 8 << 56 | RAM);
    let tail = RingPointer::new().with_index(1);
    one.write(&mut driver, offset::COMMAND_TAIL, tail.into());
    let (events, _) = one.events(&mut driver);
    assert_eq!(events, [[u64::from(EventCode::COMMAND_HARDWARE_ERROR.0) << 60, RAM]]);
    // A log that is nowhere stops; the guest finds it not running.
    one.write(&mut driver, offset::EVENT_BASE, 8 << 56 | RAM);
    // (The command buffer behind it came anew, and stopped at once.)
    assert!(!one.status().event_log_run() && one.status().event_overflow());
    assert!(other.sync(&[]), "another guest notices nothing");
    assert_eq!(machine.word(other.ram + EVENTS), 0);
    assert_eq!((driver.event().map(|event| event.stream), driver.event()), (None, None));
}

#[test]
fn numbers_that_are_not_the_guests_do_nothing_to_others() {
    let (_, _driver, [mut one, other]) = two();
    other.map(0, PAGE, 0x11_0000);
    let mut commands: Vec<_> = (0..64).map(|domain| pages(domain, true, 0, ALL_LOG2)).collect();
    commands.extend((0..64).filter(|domain| *domain != DOMAINS[0]).map(|domain| pages(domain, false, 0, ALL_LOG2)));
    commands.extend([0x210, 0x212, 3, 0xffff, 0xfffe, 0xfffd].map(iotlb));
    commands.extend([0x210, 0x212, 3, 0xffff].map(|device| plain(Opcode::INVALIDATE_DEVTAB_ENTRY, device)));
    commands.push(plain(Opcode::INVALIDATE_IOMMU_ALL, 0));
    assert!(one.sync(&commands));
    assert_eq!(other.reaches(0, PAGE), Some(0x10_0000), "what the other guest has cached stays");
    assert_eq!(other.dma(0, PAGE).flags, 1, "from the TLB");
}

#[test]
fn device_caches_are_reached_by_the_guests_number() {
    use amd_vi::spec::registers::{CAPABILITY_HEADER, CapabilityHeader};
    use viommu_plugin::Register;
    let header = CapabilityHeader::new().with_cap_id(0x0f).with_cap_type(3).with_efr_sup(true).with_iotlb_sup(true);
    let [efr, efr2] = identity();
    let header = Register { offset: CAPABILITY_HEADER, value: header.into_bits().into() };
    let machine = machine::with(&[efr, efr2, header], true);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let mut guests = [1, 2].map(|parent| {
        let mut guest = Guest::new(&machine, &mut driver, parent);
        guest.map(0, PAGE, 0x10_0000);
        guest.attach_with_cache(&mut driver, 0, 10 + parent);
        assert_eq!(guest.reaches(0, PAGE), Some(0x10_0000));
        guest.map(0, PAGE, 0x11_0000);
        guest
    });
    let [one, other] = &mut guests;
    assert!(one.sync(&[pages(DOMAINS[0], true, 0, ALL_LOG2)]));
    assert_eq!(one.reaches(0, PAGE), Some(0x10_0000), "the device has its own copy");
    assert!(one.sync(&[iotlb(0)]));
    assert_eq!(one.reaches(0, PAGE), Some(0x11_0000));
    assert_eq!(other.reaches(0, PAGE), Some(0x10_0000));
    // A device that does not answer in time: its guest's ring stops, and its guest is told by its own number.
    machine.unresponsive(one.stream(2), true);
    assert!(!one.sync(&[iotlb(2)]));
    let (events, _) = one.events(&mut driver);
    assert_eq!((code(events[0]), events[0][0] & 0xffff), (EventCode::IOTLB_INV_TIMEOUT, 2));
    assert!(other.sync(&[iotlb(2)]));
}

#[test]
fn a_full_log_stops_until_the_guest_turns_it_on_again() {
    let (machine, mut driver, [mut one, _]) = two();
    for _ in 0..u32::from(ENTRIES) + 3 {
        assert_eq!(one.reaches(0, PAGE + 1), None);
    }
    assert!(one.status().event_overflow() && !one.status().event_log_run());
    let (events, _) = one.events(&mut driver);
    assert_eq!(events.len(), usize::from(ENTRIES) - 1);
    assert_eq!(one.reaches(0, PAGE + 1), None);
    assert_eq!(one.events(&mut driver).0, [[0; 2]; 0], "it does not run");
    let control = Control::from(one.read(offset::CONTROL));
    one.write(&mut driver, offset::CONTROL, control.with_event_log_en(false).into());
    one.write(&mut driver, offset::CONTROL, control.into());
    assert_eq!(one.reaches(0, PAGE + 1), None);
    assert_eq!(one.events(&mut driver).0.len(), 1);
    assert_eq!(machine.word(one.ram + STORE), 0);
    assert_eq!(machine.mmio_read(offset::EVENT_TAIL, 8), 0, "nothing in the host's log");
}
