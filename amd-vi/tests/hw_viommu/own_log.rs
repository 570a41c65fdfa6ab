//! Faults of a guest's devices are in its own log, by its own numbers; interrupts as it asked for them.

use crate::guest::{Guest, identity};
use crate::machine::{self, Machine};
use amd_vi::driver::AmdDriver;
use amd_vi::spec::commands::{CompletionWait, Opcode};
use amd_vi::spec::events::{EventCode, EventWord0, flags};
use amd_vi::spec::registers::{Control, offset};
use viommu_plugin::{Driver, EventOwner, Frontend, Mode, QueueState};

const PAGE: u64 = 3;

fn one() -> (Machine, AmdDriver, Guest) {
    let machine = machine::with(&identity(), false);
    let mut driver = AmdDriver::new(machine.boxed()).unwrap();
    let mut guest = Guest::new(&machine, &mut driver, 1);
    guest.map(0, PAGE, 0x10_0000);
    guest.attach(&mut driver, 0, 11);
    (machine, driver, guest)
}

#[test]
fn a_fault_of_the_guests_tables_is_in_its_log_by_its_own_number() {
    let (_, mut driver, mut guest) = one();
    assert_eq!(guest.reaches(2, 9), None);
    let (events, lines) = guest.events(&mut driver);
    let word0 = EventWord0::from(events[0][0]);
    assert_eq!((events.len(), lines), (1, 1));
    assert_eq!((EventCode(word0.code()), word0.device_id(), word0.flags()), (EventCode::IO_PAGE_FAULT, 2, flags::GN));
    assert_eq!(events[0][1], 0x9000);
    assert_eq!(driver.event(), None);
}

#[test]
fn a_fault_of_the_hosts_table_is_the_hosts() {
    let (_, mut driver, mut guest) = one();
    guest.map(0, PAGE, 0x4000_0000);
    assert_eq!(guest.dma(0, PAGE).stage, 2);
    let event = driver.event().unwrap();
    assert_eq!((event.owner, event.stream), (EventOwner::HOST, guest.stream(0)));
    assert_eq!(guest.events(&mut driver).0, [[0; 2]; 0]);
}

#[test]
fn interrupts_come_as_the_guest_asked_for_them() {
    let (_, mut driver, mut guest) = one();
    let wait = CompletionWait::new().with_opcode(Opcode::COMPLETION_WAIT.0).with_i(true).words();
    guest.say(&[wait]);
    assert!(guest.status().com_wait_int());
    assert_eq!(guest.events(&mut driver), (Vec::new(), 1));
    let control = Control::from(guest.read(offset::CONTROL)).with_com_wait_int_en(false).with_event_int_en(false);
    guest.write(&mut driver, offset::CONTROL, control.into());
    guest.say(&[wait]);
    assert!(guest.status().com_wait_int());
    assert_eq!(guest.reaches(0, 9), None);
    assert_eq!(guest.events(&mut driver).1, 0);
}

#[test]
fn the_guest_sees_an_iommu_and_no_vimmu_of_its_own() {
    let (_, _, guest) = one();
    let efr = guest.read(offset::EFR);
    assert_eq!((efr >> 55 & 1, efr >> 4 & 1), (0, 1));
    assert_eq!(guest.frontend.queue().state, QueueState::DISABLED, "nobody fetches its commands");
    assert_eq!(guest.frontend.mode(), Mode::TRANSLATE);
    for at in (0x2000..0x3000).step_by(8) {
        assert_eq!(guest.frontend.read(at, 8), 0, "{at:#x} is the hardware's");
    }
    let restored = {
        let mut other = guest.frontend.clone();
        other.reset();
        other.restore(&guest.frontend.save()).unwrap();
        other
    };
    let mut rings = [Default::default(); 4];
    assert_eq!((restored.hw_queues(&mut rings), rings[0].iova, rings[1].iova), (2, 0x9000, 0x8000));
    let memory = NoMemory;
    let mut pages = [0; 4];
    assert_eq!(guest.frontend.watched(&memory, &[0, 2, 127, 128], 0, &mut pages), 1, "128 is not in its table");
    assert_eq!(pages[0], 0xb000);
    assert_eq!(guest.frontend.watched(&memory, &[0], 1, &mut pages), 0);
}

struct NoMemory;

impl viommu_plugin::GuestMemory for NoMemory {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<(), viommu_plugin::Unreadable> {
        Err(viommu_plugin::Unreadable)
    }
}
