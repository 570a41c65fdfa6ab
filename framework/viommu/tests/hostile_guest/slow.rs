//! Hardware that does not finish: an error of the guest that waits, with a time limit.

use crate::guest::SYNC;
use crate::world::{ABT, GERROR_LINE, NONE, Setup, World, tlbi_asid};
use arm_smmuv3::spec::registers::offset;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use viommu::backend::direct::{DirectOptions, Hardware, InterruptHandler, ModelHardware, PhysicalMemory};
use viommu::plugin::{GuestFault, RingGeometry};
use viommu::seams::Clock;

/// An SMMU that hears no doorbell while it is stuck.
struct Stubborn {
    model: Arc<ModelHardware>,
    stuck: Arc<AtomicBool>,
}

impl Hardware for Stubborn {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        self.model.mmio_read(offset, size)
    }
    fn mmio_write(&self, at: u64, size: u32, value: u64) {
        if at != offset::CMDQ_PROD || !self.stuck.load(Ordering::SeqCst) {
            self.model.mmio_write(at, size, value);
        }
    }
    fn memory(&self) -> &PhysicalMemory {
        self.model.memory()
    }
    fn relax(&self) {
        if !self.stuck.load(Ordering::SeqCst) {
            self.model.relax();
        }
    }
    fn on_interrupt(&self, handler: InterruptHandler) {
        self.model.on_interrupt(handler);
    }
    fn ring_ready(&self, ring: &RingGeometry) {
        self.model.ring_ready(ring);
    }
}

#[test]
fn a_sync_that_never_completes_is_its_guests_error() {
    let stuck = Arc::new(AtomicBool::new(false));
    let now = AtomicU64::new(0);
    // A clock that goes on by ten milliseconds whenever somebody looks.
    let clock: Arc<dyn Clock> = Arc::new(move || Duration::from_millis(10 * now.fetch_add(1, Ordering::SeqCst)));
    let switch = stuck.clone();
    let world = World::with(Setup {
        options: DirectOptions { sync_limit: Duration::from_secs(1), clock, ..DirectOptions::default() },
        hardware: Box::new(move |model| Arc::new(Stubborn { model, stuck: switch })),
        ..Setup::default()
    });
    world.trouble(|a| {
        world.translates(a);
        stuck.store(true, Ordering::SeqCst);
        let head = a.cons();
        a.guest.send(&[tlbi_asid(1), SYNC, SYNC]);
        assert_eq!((a.error(), a.cons(), a.faults(GuestFault::HOST_ERROR)), (ABT, head + 1, 1), "at the SYNC");
        assert_eq!(a.interrupted.lines(), [GERROR_LINE]);
        a.guest.acknowledge();
        assert_eq!((a.error(), a.cons(), a.faults(GuestFault::HOST_ERROR)), (ABT, head + 1, 2), "and again");
        // Meanwhile B translates, out of the TLB and past it.
        assert_eq!(world.translates(&world.b), (true, true));
        assert_eq!(world.translates(a), (true, true), "its invalidation has not been executed");

        stuck.store(false, Ordering::SeqCst);
        a.guest.acknowledge();
        assert!(a.guest.all_taken());
        assert_eq!((a.error(), world.translates(a)), (NONE, (true, false)), "now it has");
    });
}
