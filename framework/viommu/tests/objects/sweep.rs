//! Each backend call of a passing story fails once, one story after the other: the end is the same clean end.

use crate::guest::{CD_1, CD_2, Guest, STE_BYPASS, STE_STAGE_1};
use crate::{Recorder, builder, guest};
use std::sync::Arc;
use viommu::Error;
use viommu::backend::{BackendEvent, Backing, Mapping, Objects};
use viommu::blocking::Host;
use viommu::seams::BlockingPool;

/// Attach, replace, fault, detach. A step that fails ends the story; its handles are dropped where it stands.
fn story(host: &Host, backend: &Recorder) -> Result<(), Error> {
    let memory = guest::memory();
    let ioas = host.ioas()?;
    let backing = Backing::Physical(0x8000_0000);
    ioas.map(Mapping { iova: guest::RAM, length: guest::RAM_SIZE, backing, writable: true })?;
    let viommu = ioas.nest_parent()?.viommu(guest::config(&memory))?;
    let _events = viommu.event_queue()?;
    let _queue = viommu.hw_queue(0, 0, 4096)?;
    let _faults = host.fault_queue()?;
    let devices = [host.device(0x40)?, host.device(0x41)?];
    let guest = Guest::new(&viommu, &memory);
    guest.store_ste(1, STE_STAGE_1 | CD_1);
    guest.enable();
    let first = viommu.vdevice(&devices[0], 1)?;
    let second = viommu.vdevice(&devices[1], 2)?;
    for ste in [STE_STAGE_1 | CD_1, STE_STAGE_1 | CD_2, STE_BYPASS] {
        guest.set_ste(2, ste);
        if guest.stopped() {
            // The host failed the guest's command; the guest tries again, as it must.
            guest.acknowledge();
        }
    }
    backend.report(BackendEvent::Guest { stream: 0x41, record: [0x10, 0, 0, 0, 0, 0, 0, 0], words: 4 });
    first.destroy()?;
    ioas.unmap(guest::RAM, guest::RAM_SIZE)?;
    viommu.reset()?;
    second.destroy()
}

fn run(nth: usize) -> (Arc<Recorder>, Result<(), Error>) {
    let backend = Recorder::new();
    let host: Host = builder(&backend).build().unwrap().into();
    backend.fail_nth(nth);
    let told = story(&host, &backend);
    host.settle().unwrap();
    assert_eq!(host.objects(), [], "call {nth}: objects without a handle");
    let left = host.shutdown().unwrap();
    assert!(left.is_empty(), "call {nth}: {left:?}");
    (backend, told)
}

#[test]
fn the_story_passes_when_nothing_fails() {
    let (backend, told) = run(usize::MAX / 2);
    told.unwrap();
    assert!(!backend.failed());
}

/// Runs every job at once, on the actors' own thread.
struct Inline;

impl BlockingPool for Inline {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

#[test]
fn without_a_pool_the_backend_sees_the_same_calls_in_the_same_order() {
    let (pooled, told) = run(usize::MAX / 2);
    told.unwrap();
    let inline = Recorder::new();
    let host: Host = builder(&inline).blocking_pool(Arc::new(Inline)).build().unwrap().into();
    story(&host, &inline).unwrap();
    assert!(host.shutdown().unwrap().is_empty());
    assert_eq!(inline.log(), pooled.log());
}

#[test]
fn every_backend_call_may_fail_once() {
    let mut nth = 1;
    loop {
        let (backend, told) = run(nth);
        assert_eq!(backend.live(), [], "call {nth}: left in the backend");
        assert_eq!(backend.attached().len(), 0, "call {nth}: left attached");
        if !backend.failed() {
            told.unwrap();
            break;
        }
        nth += 1;
    }
    assert!(nth > 30, "only {nth} calls: the sweep did not reach the story's end");
}
