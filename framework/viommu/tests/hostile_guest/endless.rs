//! A guest that fills its command queue as fast as it is emptied.

use crate::guest::{RAM, SYNC};
use crate::world::{NONE, QUEUE, Setup, World, tlbi_asid};
use arm_smmuv3::spec::registers::offset;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use viommu::pipeline::{CommandTap, Pipeline};

const LOG2: u64 = 16;
const STEP: u64 = 64;

/// Another vCPU of guest A: for each command that is consumed it puts more into the queue, and rings.
#[derive(Default)]
struct Feeder {
    pipeline: OnceLock<Weak<Pipeline>>,
    producer: AtomicU64,
    consumed: AtomicU64,
    /// Stops when so many were consumed.
    enough: AtomicU64,
}

impl CommandTap for Feeder {
    fn consumed(&self, words: &[u64]) {
        let consumed = self.consumed.fetch_add(words.len() as u64 / 2, Ordering::SeqCst);
        if let Some(pipeline) = self.pipeline.get().and_then(Weak::upgrade)
            && consumed < self.enough.load(Ordering::SeqCst)
        {
            let producer = self.producer.fetch_add(words.len() as u64 / 2, Ordering::SeqCst) + words.len() as u64 / 2;
            pipeline.mmio_write(offset::CMDQ_PROD, 4, producer & ((2 << LOG2) - 1)).unwrap();
        }
    }
}

#[test]
fn it_gets_its_thread_back_and_the_others_their_turn() {
    let feeder = Arc::new(Feeder::default());
    let world = World::with(Setup { tap: Some(feeder.clone()), ..Setup::default() });
    let b = &world.b;
    world.trouble(|a| {
        // A queue over half of its memory, full of one command.
        (0..1 << LOG2).for_each(|slot| a.store(QUEUE + 16 * slot, tlbi_asid(77)));
        a.move_queue(RAM, LOG2, 0);
        feeder.enough.store(u64::MAX, Ordering::SeqCst);
        feeder.producer.store(STEP, Ordering::SeqCst);
        feeder.pipeline.set(Arc::downgrade(a.viommu.pipeline())).unwrap();
        a.guest.write(offset::CMDQ_PROD, 4, STEP);
        // It is back, and there is more: the feeder has not stopped.
        let consumed = feeder.consumed.load(Ordering::SeqCst);
        assert!(consumed >= 1 << LOG2, "{consumed} commands: a whole queue at least");
        assert_eq!(a.error(), NONE);
        assert_eq!(world.translates(b), (true, true));
        feeder.enough.store(0, Ordering::SeqCst);
        assert!(a.viommu.pipeline().wait_settled(Duration::from_secs(20)));
        assert_eq!((a.error(), a.cons()), (NONE, feeder.producer.load(Ordering::SeqCst) & ((2 << LOG2) - 1)));
        a.store(QUEUE + 16 * (a.cons() & ((1 << LOG2) - 1)), SYNC);
        a.ring((a.cons() + 1) & ((2 << LOG2) - 1));
        assert_eq!(a.error(), NONE);
    });
}
