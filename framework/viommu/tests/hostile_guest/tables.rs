//! Tables that are not there, or make no sense.

use crate::guest::{CD_1, RAM, STE_STAGE_1, SYNC};
use crate::world::{DEVICE, NONE, OUTSIDE, World, eventually, tlbi_asid};
use arm_smmuv3::spec::registers::offset;
use viommu::HostEvent;
use viommu::plugin::Status;
use viommu::vm_memory::{Bytes, GuestAddress};

const TABLE: u64 = RAM + 0x1_0000;
const TABLE_LOG2: u64 = 8;
const TWO_LEVEL: u64 = 1 << 16 | 8 << 6;
const DEVICE_STE: u64 = TABLE + 64 * DEVICE as u64;

/// A device whose entry cannot be found passes nothing; with the table back it translates again.
#[test]
fn stream_tables_that_are_not_there() {
    let l1 = RAM + 0x3_0000;
    let descriptor = |span: u64, l2: u64| l2 | span;
    for (what, base, cfg, l1_word) in [
        ("outside memory", OUTSIDE, TABLE_LOG2, 0),
        ("at the end of the address space", 0x000f_ffff_ffff_ffc0, TABLE_LOG2, 0),
        ("of size 0", TABLE, 0, 0),
        ("of size 63", OUTSIDE, 63, 0),
        ("with its first level outside memory", OUTSIDE, 16 | TWO_LEVEL, 0),
        ("with no level-2 table", l1, 16 | TWO_LEVEL, descriptor(0, TABLE)),
        ("with a span of 2", l1, 16 | TWO_LEVEL, descriptor(2, TABLE)),
        ("with a span beyond the split", l1, 16 | TWO_LEVEL, descriptor(12, TABLE)),
        ("with the largest span", l1, 16 | TWO_LEVEL, descriptor(31, TABLE)),
        ("with its second level outside memory", l1, 16 | TWO_LEVEL, descriptor(9, OUTSIDE)),
        ("with all bits set", l1, 63 | TWO_LEVEL, u64::MAX),
    ] {
        let world = World::new();
        world.trouble(|a| {
            a.memory.write_obj(l1_word.to_le(), GuestAddress(l1)).unwrap();
            a.guest.write(offset::STRTAB_BASE, 8, base);
            a.guest.write(offset::STRTAB_BASE_CFG, 4, cfg);
            a.guest.send(&[[4, 31], SYNC]);
            assert!(a.guest.all_taken(), "a stream table {what}");
            assert_eq!(world.dma(a, 0x1234).status, Status::ABORT, "a stream table {what}");
            // And the same table in two levels, as it should be.
            a.memory.write_obj(descriptor(9, TABLE).to_le(), GuestAddress(l1)).unwrap();
            a.guest.write(offset::STRTAB_BASE_CFG, 4, 16 | TWO_LEVEL);
            a.guest.write(offset::STRTAB_BASE, 8, l1);
            a.guest.send(&[[4, 31], SYNC]);
            assert_eq!((a.error(), world.translates(a).0), (NONE, true), "after a stream table {what}");
        });
    }
}

/// The hardware reads context descriptors and tables through stage 2: what is not the guest's is not there.
#[test]
fn context_descriptors_that_are_not_there() {
    for pointer in [OUTSIDE, 0, 0x000f_ffff_ffff_ffc0, 0x80_0000_0000] {
        let world = World::new();
        let events = world.host.events();
        world.trouble(|a| {
            a.guest.set_ste(DEVICE.into(), STE_STAGE_1 | pointer);
            assert!(a.guest.all_taken());
            let answer = world.dma(a, 0x1234);
            assert_eq!(answer.status, Status::FAULT, "{pointer:#x}: {answer:?}");
            a.guest.set_ste(DEVICE.into(), STE_STAGE_1 | CD_1);
            assert!(world.translates(a).0);
        });
        eventually("the host is told", || events.drain().any(|event| matches!(event, HostEvent::HostFault { .. })));
    }
}

#[test]
fn translation_tables_that_are_not_there() {
    for table in [OUTSIDE, 0x80_0000_0000, RAM + (1 << 30)] {
        let world = World::new();
        world.trouble(|a| {
            let ttb0 = GuestAddress(CD_1 + 8);
            let right: u64 = a.memory.read_obj(ttb0).unwrap();
            let forget = [[6 | u64::from(DEVICE) << 32, 0], tlbi_asid(1), SYNC];
            a.memory.write_obj(table.to_le(), ttb0).unwrap();
            a.guest.send(&forget);
            assert_eq!(world.dma(a, 0x1234).status, Status::FAULT, "{table:#x}");
            a.memory.write_obj(right, ttb0).unwrap();
            a.guest.send(&forget);
            assert!(world.translates(a).0);
        });
    }
}

/// Entries with anything in them: illegal ones abort, the others reach only what is the guest's.
#[test]
fn entries_with_anything_in_them() {
    let world = World::new();
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200 {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let entry = [word | 1, word.rotate_left(17), word.rotate_left(31), word.rotate_left(47)];
        // Half of them otherwise as they should be.
        let entry =
            if round % 2 == 0 { entry } else { [STE_STAGE_1 | CD_1 | word & 0xf8 << 56, word & 0x3f00_00ff, 0, 0] };
        let put = |vm: &crate::world::Vm| {
            for (at, word) in (0..).zip(entry) {
                vm.memory.write_obj(word.to_le(), GuestAddress(DEVICE_STE + 8 * at)).unwrap();
            }
            vm.guest.send(&[[3 | u64::from(DEVICE) << 32, 1], SYNC]);
            assert!(vm.guest.all_taken(), "round {round}: {entry:#x?}");
        };
        put(&world.a);
        let answer = world.dma(&world.a, 0x1234);
        let own = 0x80_0000_0000..0x80_0000_0000 + crate::guest::RAM_SIZE;
        assert!(answer.status != Status::OK || own.contains(&answer.output), "round {round}: {entry:#x?}: {answer:?}");
    }
    world.trouble(|_| {});
}
