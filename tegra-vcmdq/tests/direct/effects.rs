//! What a command in a guest's queue does, and to whom.

use crate::machine::{Guest, Machine, atc_inv, sync, tlbi_asid, tlbi_va};
use arm_smmuv3::spec::commands::{Opcode, Tlbi};
use arm_smmuv3::spec::registers::CommandError;
use tegra_vcmdq::spec::{CMDQV, CmdqAlloc, VCMDQ_PAGE0, VCMDQ_PAGE1, VCMDQ_STRIDE, offset, page0, page1};
use viommu_plugin::{Driver, Hardware, Model};

#[test]
fn dma_sees_a_direct_tlbi_after_its_sync_and_not_before() {
    for command in [tlbi_va(0), tlbi_asid()] {
        let (machine, mut driver) = Machine::driven(false);
        let mut guest = Guest::new(&machine, &mut driver, 7, 3);
        guest.queue(&mut driver, 0);
        assert_eq!(guest.reaches(), Some(0x1_0000));
        guest.map(crate::machine::VA, 0x1_1000);
        assert_eq!(guest.reaches(), Some(0x1_0000), "cached: without an invalidation nothing changes");
        assert!(guest.say(0, &[sync()]));
        assert_eq!(guest.reaches(), Some(0x1_0000), "a SYNC alone invalidates nothing");
        assert!(guest.say(0, &[command, sync()]));
        assert_eq!(guest.reaches(), Some(0x1_1000));
        assert!(machine.take_irqs().is_empty());
    }
}

#[test]
fn the_vmid_is_the_vintfs_whatever_the_guest_writes() {
    let (machine, mut driver) = Machine::driven(false);
    let mut one = Guest::new(&machine, &mut driver, 7, 3);
    let mut other = Guest::new(&machine, &mut driver, 8, 3);
    one.queue(&mut driver, 0);
    other.queue(&mut driver, 0);
    for guest in [&one, &other] {
        assert_eq!(guest.reaches(), Some(0x1_0000));
        guest.map(crate::machine::VA, 0x1_1000);
    }
    // Same ASID, and the other's VMID by name.
    assert!(other.say(0, &[tlbi_va(7), tlbi_asid(), sync()]));
    assert_eq!((one.reaches(), other.reaches()), (Some(0x1_0000), Some(0x1_1000)));
    assert!(one.say(0, &[tlbi_va(8), sync()]));
    assert_eq!(one.reaches(), Some(0x1_1000));
}

#[test]
fn a_direct_atc_inv_reaches_the_device_that_the_guest_means() {
    let (machine, mut driver) = Machine::driven(true);
    let mut one = Guest::new(&machine, &mut driver, 7, 3);
    let mut other = Guest::new(&machine, &mut driver, 8, 3);
    one.queue(&mut driver, 0);
    other.queue(&mut driver, 0);
    for guest in [&mut one, &mut other] {
        assert_eq!(guest.reaches(), Some(0x1_0000));
        guest.map(crate::machine::VA, 0x1_1000);
        assert!(guest.say(0, &[tlbi_va(0), sync()]));
        assert_eq!(guest.reaches(), Some(0x1_0000), "the device has a cache of its own");
    }
    assert!(other.say(0, &[atc_inv(3), sync()]));
    assert_eq!((one.reaches(), other.reaches()), (Some(0x1_0000), Some(0x1_1000)));
    assert!(one.say(0, &[atc_inv(3), sync()]));
    assert_eq!(one.reaches(), Some(0x1_1000));
}

#[test]
fn queues_of_one_guest_go_on_beside_each_other_and_past_their_end() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    guest.queue(&mut driver, 0);
    guest.queue(&mut driver, 1);
    assert_eq!(guest.reaches(), Some(0x1_0000));
    for round in 0..300u64 {
        let page = 0x1_1000 + 0x1000 * (round % 2);
        guest.map(crate::machine::VA, page);
        assert!(guest.say((round % 2) as u32, &[tlbi_va(0), sync()]), "round {round}");
        assert_eq!(guest.reaches(), Some(page), "round {round}");
    }
}

#[test]
fn a_budget_is_one_command_of_each_queue() {
    let (machine, mut driver) = Machine::driven(false);
    let mut guest = Guest::new(&machine, &mut driver, 7, 3);
    guest.queue(&mut driver, 0);
    guest.queue(&mut driver, 1);
    for (index, commands) in [(0, 3), (1, 1)] {
        machine.put(guest.ram + guest.request(index).iova, &sync().repeat(commands));
        // Behind the machine's back, which would execute everything at once.
        let at = guest.interface.page + VCMDQ_STRIDE * u64::from(index) + page0::PROD;
        machine.model().mmio_write(at, 4, commands as u64);
    }
    let step = |budget| {
        let turns = machine.model().step(budget);
        (turns, guest.cons(0).rd(), guest.cons(1).rd())
    };
    assert_eq!(step(0), (0, 0, 0));
    assert_eq!(step(1), (1, 1, 1));
    assert_eq!(step(10), (2, 3, 1));
    assert_eq!(step(10), (0, 3, 1));
}

#[test]
fn a_hypervisors_queue_takes_every_command_as_it_is() {
    let (machine, mut driver) = Machine::driven(false);
    let guest = Guest::new(&machine, &mut driver, 7, 3);
    assert_eq!(guest.reaches(), Some(0x1_0000));
    guest.map(crate::machine::VA, 0x1_1000);
    // Queue 0 is VINTF 0's, which the driver left to the host.
    let base = machine.alloc(0x1000, 0x1000).unwrap();
    let nh_all = Tlbi::new().with_opcode(Opcode::TLBI_NH_ALL.0).with_vmid(7).words();
    machine.put(base, &[nh_all, sync(), [u64::from(Opcode::SYNC.0) | 1 << 12, 0]].concat());
    let alloc = CmdqAlloc::new().with_allocated(true);
    machine.mmio_write(CMDQV + offset::CMDQ_ALLOC, 4, alloc.into_bits().into());
    machine.mmio_write(CMDQV + VCMDQ_PAGE1 + page1::BASE, 8, base | 8);
    machine.mmio_write(CMDQV + VCMDQ_PAGE0 + page0::CONFIG, 4, 1);
    machine.mmio_write(CMDQV + VCMDQ_PAGE0 + page0::PROD, 4, 2);
    assert_eq!(machine.mmio_read(CMDQV + VCMDQ_PAGE0 + page0::CONS, 4), 2);
    assert_eq!(guest.reaches(), Some(0x1_1000));
    machine.mmio_write(CMDQV + VCMDQ_PAGE0 + page0::PROD, 4, 3);
    let cons = machine.mmio_read(CMDQV + VCMDQ_PAGE0 + page0::CONS, 4);
    assert_eq!(cons, u64::from(CommandError::ILL.0) << 24 | 2, "but its SYNC must be polled, too");
    // The host's own queue is not a guest's affair.
    machine.take_irqs();
    driver.interrupt(4);
    assert_eq!(driver.event(), None);
}
