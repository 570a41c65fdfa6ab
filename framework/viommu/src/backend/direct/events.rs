//! The physical event queue: drained by a thread of its own into one bounded channel.
//!
//! ```text
//!   interrupt ─► wake (1 message at most) ─► thread: driver.event() until none ─► bounded channel ─► whoever routes
//! ```

use super::DriverCell;
use super::hardware::Hardware;
use crate::Cause;
use crate::backend::BackendEvent;
use crate::seams::{Running, Threads, lock, recv};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use viommu_plugin::{EventOwner, HostEvent};

/// Records taken in one go. A device that faults without pause is drained for ever, but never under one lock.
const TURN: usize = 1024;

/// Takes records from the driver, in order.
pub(super) struct Drain {
    driver: Arc<DriverCell>,
    sender: flume::Sender<BackendEvent>,
    /// Bit per interrupt line that came in and that the driver was not told of.
    lines: AtomicU64,
    /// Whose each virtual interface is, by its handle.
    pub(super) interfaces: Mutex<BTreeMap<u32, u32>>,
    /// Held while draining, so that two drainers do not mix up the order: records lost since the channel was full.
    lost: Mutex<u64>,
}

/// The thread, and the receiver's end.
pub(super) struct Events {
    pub(super) drain: Arc<Drain>,
    pub(super) receiver: flume::Receiver<BackendEvent>,
    /// The only strong reference: dropping it ends the thread.
    wake: Option<Arc<flume::Sender<()>>>,
    thread: Option<Box<dyn Running>>,
}

impl Drain {
    /// Takes what the hardware has reported so far; how many records, at most [`TURN`].
    pub(super) fn run(&self) -> usize {
        let mut lost = lock(&self.lost);
        self.tell_lines();
        for taken in 0..TURN {
            let event = self.driver.lock().event();
            match event {
                Ok(Some(event)) => self.send(&mut lost, event),
                Ok(None) => return taken,
                Err(error) => {
                    tracing::error!(%error, "the event queue cannot be read");
                    return taken;
                }
            }
        }
        TURN
    }

    /// Tells the driver which interrupts came in.
    fn tell_lines(&self) {
        let mut lines = self.lines.swap(0, Ordering::AcqRel);
        while lines != 0 {
            if let Err(error) = self.driver.lock().interrupt(lines.trailing_zeros()) {
                tracing::error!(%error, "an interrupt cannot be looked into");
            }
            lines &= lines - 1;
        }
    }

    fn send(&self, lost: &mut u64, event: HostEvent) {
        if *lost > 0 && self.sender.try_send(BackendEvent::Lost).is_ok() {
            tracing::warn!(records = *lost, "event records were lost: nobody took them in time");
            *lost = 0;
        }
        let event = match event.owner {
            EventOwner::GUEST => {
                let words = event.words.min(event.record.len() as u32);
                BackendEvent::Guest { stream: event.stream, record: event.record, words }
            }
            EventOwner::LOST => BackendEvent::Lost,
            EventOwner::INTERFACE => {
                let words = event.words.min(event.record.len() as u32);
                match lock(&self.interfaces).get(&event.stream) {
                    Some(&viommu) => BackendEvent::Queues { viommu, record: event.record, words },
                    // Its guest is gone.
                    None => return,
                }
            }
            _ => BackendEvent::Host { stream: event.stream, code: event.code },
        };
        // In order or not at all: nothing passes a gap that is not marked.
        if *lost > 0 || self.sender.try_send(event).is_err() {
            *lost += 1;
        }
    }
}

impl Events {
    pub(super) fn start(
        hardware: &dyn Hardware,
        driver: Arc<DriverCell>,
        channel: (flume::Sender<BackendEvent>, flume::Receiver<BackendEvent>),
        threads: &dyn Threads,
    ) -> Result<Self, Cause> {
        let (sender, receiver) = channel;
        let drain = Arc::new(Drain {
            driver,
            sender,
            lines: AtomicU64::new(0),
            interfaces: Mutex::default(),
            lost: Mutex::new(0),
        });
        let (wake, wakes) = flume::bounded(1);
        let wake = Arc::new(wake);
        let work = {
            let drain = drain.clone();
            move || {
                while let Ok(()) = recv(&wakes) {
                    while drain.run() == TURN {}
                }
            }
        };
        let thread = threads.spawn("viommu-events", Box::new(work))?;
        let (weak, told) = (Arc::downgrade(&wake), Arc::downgrade(&drain));
        hardware.on_interrupt(Box::new(move |line| {
            if let Some(drain) = told.upgrade() {
                drain.lines.fetch_or(1 << (line % 64), Ordering::AcqRel);
            }
            if let Some(wake) = weak.upgrade() {
                // A full mailbox means that the thread will look again anyway.
                let _ = wake.try_send(());
            }
        }));
        Ok(Self { drain, receiver, wake: Some(wake), thread: Some(thread) })
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}
