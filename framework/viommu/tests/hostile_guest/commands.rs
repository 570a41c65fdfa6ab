//! Commands that a guest may not send, and IDs that are not its own.

use crate::guest::{CD_1, SYNC};
use crate::world::{CMDQ_ERR, DEVICE, GERROR_LINE, ILL, NONE, QUEUE, STREAM_A, STREAM_B, Vm, World, tlbi_asid};
use std::sync::atomic::Ordering;
use viommu::plugin::{GuestFault, Status};
use viommu::vm_memory::{Bytes, GuestAddress};

/// Sends `bad` between two good commands: what Linux sees then, and does about it.
fn refused(world: &World, bad: [u64; 2], fault: GuestFault) {
    world.trouble(|a| {
        let (head, counted) = (a.cons(), a.faults(fault));
        a.guest.send(&[tlbi_asid(77), bad, SYNC]);
        // CERROR_ILL at exactly this command, and the GERROR interrupt.
        assert_eq!((a.error(), a.cons()), (ILL, head + 1), "{bad:#x?}");
        assert_eq!((a.active(), a.faults(fault)), (CMDQ_ERR, counted + 1), "{bad:#x?}");
        assert_eq!(a.interrupted.lines(), [GERROR_LINE]);
        // Stopped: a doorbell moves nothing, an acknowledgement of something else neither.
        a.guest.send(&[SYNC]);
        assert_eq!((a.error(), a.cons()), (ILL, head + 1), "{bad:#x?}");
        // The driver puts a SYNC in its place, acknowledges, and it goes on.
        a.store(QUEUE + 16 * (head + 1), SYNC);
        a.guest.acknowledge();
        assert!(a.guest.all_taken(), "{bad:#x?}");
        assert_eq!(a.active(), 0);
        assert!(world.translates(a).0);
    });
}

#[test]
fn illegal_opcodes() {
    let world = World::new();
    // Not a command; stage 2's, EL2's and EL3's invalidations; answers to page requests and stalls; ATC_INV without ATS.
    for opcode in [0x00, 0x07, 0x08, 0x18, 0x1a, 0x20, 0x21, 0x22, 0x23, 0x28, 0x2a, 0x31, 0x40, 0x41, 0x44, 0x45, 0xff]
    {
        refused(&world, [opcode, 0], GuestFault::ILLEGAL_OPCODE);
    }
}

#[test]
fn reserved_bits() {
    let world = World::new();
    let device = u64::from(DEVICE) << 32;
    for bad in [
        [0x10, 1],                    // TLBI_NH_ALL with an address
        [0x11, 1 << 12],              // TLBI_NH_ASID with an address
        [0x12, 2],                    // TLBI_NH_VA
        [0x12, 1 << 10],              // a granule without a range
        [0x12 | 1 << 12, 0],          // a range without a granule
        [0x12 | 1 << 25, 1 << 10],    // SCALE's sixth bit without IDR5.DS
        [0x13 | 1 << 48, 0],          // TLBI_NH_VAA with an ASID
        [0x30 | 1 << 32, 0],          // TLBI_NSNH_ALL with a VMID
        [0x05 | 1 << 10 | device, 0], // CFGI_CD of a Secure stream
        [0x05 | 1 << 12 | device, 0], // CFGI_CD of a SubstreamID without IDR1.SSIDSIZE
        [0x06 | device, 1],           // CFGI_CD_ALL with Leaf
        [0x03 | 1 << 10 | device, 1], // CFGI_STE of a Secure stream
        [0x04 | device, 32],          // CFGI_STE_RANGE
        [0x01 | 1 << 10 | device, 0], // PREFETCH_CONFIG of a Secure stream
        [0x46 | 3 << 12, 0],          // SYNC with a reserved signal
        [0x46 | 1 << 63, 1 << 63],    // SYNC
    ] {
        refused(&world, bad, GuestFault::RESERVED_BITS);
    }
}

/// CD.V of the guest's context descriptor.
fn set_cd_valid(vm: &Vm, valid: bool) {
    let word: u64 = vm.memory.read_obj(GuestAddress(CD_1)).unwrap();
    let word = u64::from_le(word) & !(1 << 31) | u64::from(valid) << 31;
    vm.memory.write_obj(word.to_le(), GuestAddress(CD_1)).unwrap();
}

/// A names B's tag and B's stream in everything that takes one. B's tables are broken meanwhile: if anything that the
/// SMMU keeps of B were dropped, B's next DMA would fault.
#[test]
fn foreign_ids_name_nothing() {
    let world = World::new();
    let tag_b = u64::from(world.b.viommu.handle().info().tag) << 32;
    world.trouble(|a| {
        set_cd_valid(&world.b, false);
        world.translates(a);
        assert_eq!(world.translates(a), (true, true));
        let counters = a.viommu.pipeline().counters();
        let local = counters.local_stream.load(Ordering::Relaxed);
        for stream in [STREAM_B, STREAM_A, 0, u32::MAX] {
            let stream = u64::from(stream) << 32;
            a.guest.send(&[[5 | stream, 1], [6 | stream, 0], [3 | stream, 1], [1 | stream, 0], SYNC]);
            assert!(a.guest.all_taken(), "no device has this name: complete, and nothing happens");
        }
        assert_eq!(counters.local_stream.load(Ordering::Relaxed), local + 16);
        assert_eq!(world.translates(a), (true, true));
        // ASID 1, which both use; one page of it; everything.
        for command in [[0x11 | tag_b | 1 << 48, 0], [0x12 | tag_b | 1 << 48, 0], [0x10 | tag_b, 0], [0x30, 0]] {
            a.guest.send(&[command, SYNC]);
            assert!(a.guest.all_taken());
            assert_eq!(world.translates(a), (true, false), "its own entries: {command:#x?}");
            assert_eq!(world.translates(&world.b), (true, true), "not B's: {command:#x?}");
        }
        // The whole stream table, of this guest.
        a.guest.send(&[[4, 31], SYNC]);
        assert!(a.guest.all_taken());
        assert_eq!(a.error(), NONE);
        set_cd_valid(&world.b, true);
    });
    // B itself can: without its own CFGI_CD and TLBI, nothing above would have shown anything.
    set_cd_valid(&world.b, false);
    world.b.guest.send(&[[6 | u64::from(DEVICE) << 32, 0], tlbi_asid(1), SYNC]);
    assert_eq!(world.dma(&world.b, 0x1234).status, Status::FAULT);
}
