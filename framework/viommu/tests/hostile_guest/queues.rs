//! Queues that cannot be: outside RAM, of extreme sizes, with indices that contradict each other.

use crate::guest::{RAM, RAM_SIZE, SYNC};
use crate::world::{
    ABT, CMDQ_ERR, DEVICE, EVENTQ_ABT_ERR, GERROR_LINE, ILL, NONE, OUTSIDE, QUEUE, World, eventually, tlbi_asid,
};
use arm_smmuv3::spec::registers::offset;
use viommu::plugin::{GuestFault, Status};

#[test]
fn a_command_queue_outside_memory() {
    for base in [OUTSIDE, 0, RAM + RAM_SIZE, RAM - 0x1000, 0x000f_ffff_ffff_f000] {
        let world = World::new();
        world.trouble(|a| {
            a.move_queue(base, 8, 5);
            a.ring(6);
            assert_eq!((a.error(), a.cons()), (ABT, 5), "base {base:#x}");
            assert_eq!((a.active(), a.faults(GuestFault::FETCH_ABORT)), (CMDQ_ERR, 1));
            assert_eq!(a.interrupted.lines(), [GERROR_LINE]);
            a.ring(7);
            assert_eq!((a.error(), a.cons()), (ABT, 5), "stopped until acknowledged");
            // Acknowledged with nothing changed: tried again, and no better.
            a.guest.acknowledge();
            assert_eq!((a.error(), a.cons(), a.faults(GuestFault::FETCH_ABORT)), (ABT, 5, 2));
            // With a queue that is there it goes on.
            a.move_queue(QUEUE, 8, 0);
            a.store(QUEUE, SYNC);
            a.guest.acknowledge();
            a.ring(1);
            assert_eq!((a.error(), a.cons()), (NONE, 1));
        });
    }
}

/// The last commands in memory are executed; the first outside is where it stops.
#[test]
fn a_command_queue_that_leaves_memory() {
    let world = World::new();
    world.trouble(|a| {
        let in_memory = RAM_SIZE / 16;
        for place in 1..=10 {
            a.store(RAM + RAM_SIZE - 16 * place, tlbi_asid(1));
        }
        assert!(world.translates(a).0 && world.translates(a).1);
        a.move_queue(QUEUE, 19, in_memory - 10);
        a.ring(in_memory + 5);
        assert_eq!((a.error(), a.cons()), (ABT, in_memory));
        assert_eq!(world.translates(a), (true, false), "the ten were executed");
    });
}

/// The largest queue: all that memory holds of it in one doorbell, then the end of memory.
#[test]
fn the_largest_command_queue() {
    let world = World::new();
    world.trouble(|a| {
        let in_memory = RAM_SIZE / 16;
        (0..in_memory).for_each(|place| a.store(RAM + 16 * place, tlbi_asid(77)));
        // Sizes above IDR1.CMDQS count as that, and so do those that no register can hold.
        a.move_queue(QUEUE, 31, 0);
        a.ring(0x8_0000);
        assert_eq!((a.error(), a.cons()), (ABT, in_memory));
    });
}

#[test]
fn a_command_queue_of_one_command() {
    let world = World::new();
    world.trouble(|a| {
        a.move_queue(RAM + RAM_SIZE - 32, 0, 0);
        for round in 0..5 {
            world.translates(a);
            assert_eq!(world.translates(a), (true, true));
            // One slot and a wrap bit: PROD is 1, 0, 1, 0, ...
            a.store(RAM + RAM_SIZE - 32, tlbi_asid(1));
            a.ring(1 - round % 2);
            assert_eq!((a.error(), a.cons()), (NONE, 1 - round % 2));
            assert_eq!(world.translates(a), (true, false));
        }
        a.store(RAM + RAM_SIZE - 32, [0xff, 0]);
        a.ring(0);
        assert_eq!((a.error(), a.cons()), (ILL, 1));
    });
}

#[test]
fn an_index_beyond_the_queue() {
    for beyond in [257, 300, 511] {
        let world = World::new();
        world.trouble(|a| {
            a.move_queue(QUEUE, 8, 0);
            a.store(QUEUE, SYNC);
            a.ring(beyond);
            assert_eq!((a.error(), a.cons(), a.faults(GuestFault::QUEUE_CONFIG)), (ABT, 0, 1), "{beyond}");
            a.guest.acknowledge();
            assert_eq!((a.error(), a.cons(), a.faults(GuestFault::QUEUE_CONFIG)), (ABT, 0, 2), "still nonsense");
            a.ring(1);
            assert_eq!((a.error(), a.cons()), (ABT, 0), "stopped until acknowledged");
            a.guest.acknowledge();
            assert_eq!((a.error(), a.cons()), (NONE, 1));
        });
    }
}

/// F_TRANSLATION of A's device, with nowhere to write it.
#[test]
fn an_event_queue_outside_memory() {
    let world = World::new();
    world.trouble(|a| {
        a.guest.write(offset::EVENTQ_BASE, 8, OUTSIDE | 4);
        a.guest.write(offset::CR0, 4, 0xd);
        assert_eq!(world.dma(a, 0x8000_0000).status, Status::FAULT);
        eventually("EVENTQ_ABT_ERR", || a.active() == EVENTQ_ABT_ERR);
        eventually("the GERROR interrupt", || a.interrupted.lines().contains(&GERROR_LINE));
        // The command queue is not concerned.
        a.guest.send(&[[6 | u64::from(DEVICE) << 32, 0], tlbi_asid(1), SYNC]);
        assert!(a.guest.all_taken());
        assert_eq!(world.translates(a), (true, false));
        a.guest.acknowledge();
        assert_eq!(a.active(), 0);
    });
}
