//! An IOMMU that is nothing but a command ring: word 0 of a command is its meaning, word 1 is free.

#![allow(dead_code)] // each test program uses a part

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use viommu::backend::direct::{Hardware, InterruptHandler, PhysicalMemory, QueueControl, RingParts, RingSink};
use viommu::backend::{BackendEvent, Batch, Host, Owner, Position, Sink, SinkError, Words};
use viommu::plugin::{Classes, QueueFault, QueueFaultKind, RingGeometry};
use viommu::seams::Clock;

pub(crate) const PLAIN: u64 = 1;
pub(crate) const SYNC: u64 = 2;
pub(crate) const ILLEGAL: u64 = 3;
/// A device cache invalidation that no device answers: the next SYNC stops.
pub(crate) const UNANSWERED: u64 = 4;
/// The hardware cannot read this one.
pub(crate) const UNREADABLE: u64 = 5;

pub(crate) const LIMIT: Duration = Duration::from_secs(1);
const PRODUCER: u64 = 0x98;
const CONSUMER: u64 = 0x9c;
const RING: u64 = 0x10_0000;

/// The hardware behind one lock.
#[derive(Default)]
struct State {
    producer: u32,
    consumer: u32,
    error: u32,
    unanswered: bool,
    executed: Vec<[u64; 2]>,
    resumes: u32,
    /// Shown instead of the consumer register.
    broken: Option<u32>,
}

pub(crate) struct Fake {
    memory: Arc<PhysicalMemory>,
    geometry: RingGeometry,
    state: Mutex<State>,
    driver: Mutex<()>,
    /// Commands executed each time that somebody waits.
    pub(crate) pace: AtomicU64,
    /// Commands executed at each doorbell.
    pub(crate) eager: AtomicU64,
    now: AtomicU64,
}

pub(crate) struct Rig {
    pub(crate) fake: Arc<Fake>,
    pub(crate) ring: Arc<RingSink>,
    pub(crate) events: flume::Receiver<BackendEvent>,
}

impl Rig {
    /// A ring of `2^log2` commands whose hardware does nothing by itself.
    pub(crate) fn new(log2: u32, wrap_bit: u32) -> Self {
        let memory = PhysicalMemory::new();
        memory.add_dma(RING, 16 << log2).expect("mmap");
        let geometry = RingGeometry {
            base: RING,
            log2_commands: log2,
            command_words: 2,
            producer: PRODUCER,
            consumer: CONSUMER,
            index_shift: 4,
            wrap_bit,
            error_mask: 0x7,
            error_register: 0,
            error_bits: 0,
            running_bits: 0,
        };
        let zero = AtomicU64::default;
        let state = Mutex::default();
        let fake = Arc::new(Fake {
            memory,
            geometry,
            state,
            driver: Mutex::default(),
            pace: zero(),
            eager: zero(),
            now: zero(),
        });
        let timer = fake.clone();
        // A clock that goes on by a millisecond whenever somebody looks.
        let clock: Arc<dyn Clock> = Arc::new(move || Duration::from_millis(timer.now.fetch_add(1, Ordering::Relaxed)));
        let (sender, events) = flume::bounded(16);
        let ring = RingSink::new(RingParts {
            hardware: fake.clone(),
            control: fake.clone(),
            geometry,
            sync: vec![SYNC, 0],
            limit: LIMIT,
            clock,
            events: sender,
        });
        Self { fake, ring: ring.expect("a sane ring"), events }
    }

    pub(crate) fn put(&self, owner: u32, commands: &[[u64; 2]], sync: bool) -> Result<Position, SinkError> {
        self.put_classes(owner, commands, Classes::TLB, sync)
    }

    pub(crate) fn put_classes(
        &self,
        owner: u32,
        commands: &[[u64; 2]],
        classes: Classes,
        sync: bool,
    ) -> Result<Position, SinkError> {
        let words = Words::<Host>::injected(commands.as_flattened());
        self.ring.submit(Batch { owner: Owner(owner), words, classes, sync })
    }

    pub(crate) fn wait(&self, owner: u32, position: Position) -> Result<(), SinkError> {
        self.ring.wait(Owner(owner), position)
    }
}

impl Fake {
    /// Executes at most `budget` commands.
    pub(crate) fn run(&self, budget: u64) {
        let mut state = self.state.lock().expect("no panic");
        let mask = (1u32 << (self.geometry.log2_commands + self.geometry.wrap_bit)) - 1;
        for _ in 0..budget {
            if state.error != 0 || state.consumer == state.producer {
                return;
            }
            let slot = u64::from(state.consumer & ((1 << self.geometry.log2_commands) - 1));
            let word = |at| self.memory.load(RING + slot * 16 + at).expect("ring memory");
            let command = [word(0), word(8)];
            state.error = match command[0] {
                ILLEGAL => QueueFaultKind::ILLEGAL.0,
                UNREADABLE => QueueFaultKind::FETCH.0,
                SYNC if std::mem::take(&mut state.unanswered) => QueueFaultKind::ATC_TIMEOUT.0,
                _ => 0,
            };
            if state.error == 0 {
                state.unanswered |= command[0] == UNANSWERED;
                state.executed.push(command);
                state.consumer = (state.consumer + 1) & mask;
            }
        }
    }

    pub(crate) fn executed(&self) -> Vec<[u64; 2]> {
        self.state.lock().expect("no panic").executed.clone()
    }

    /// How often the driver was told to resume.
    pub(crate) fn resumes(&self) -> u32 {
        self.state.lock().expect("no panic").resumes
    }

    /// From now on the consumer register reads as this.
    pub(crate) fn break_consumer(&self, register: u32) {
        self.state.lock().expect("no panic").broken = Some(register);
    }
}

impl Hardware for Fake {
    fn mmio_read(&self, offset: u64, _size: u32) -> u64 {
        let state = self.state.lock().expect("no panic");
        match offset {
            CONSUMER => u64::from(state.broken.unwrap_or(state.consumer << 4 | state.error)),
            _ => 0,
        }
    }

    fn mmio_write(&self, offset: u64, _size: u32, value: u64) {
        assert_eq!(offset, PRODUCER);
        self.state.lock().expect("no panic").producer = (value >> 4) as u32;
        self.run(self.eager.load(Ordering::Relaxed));
    }

    fn memory(&self) -> &PhysicalMemory {
        &self.memory
    }

    fn relax(&self) {
        self.run(self.pace.load(Ordering::Relaxed));
    }

    fn on_interrupt(&self, _handler: InterruptHandler) {}
}

impl QueueControl for Fake {
    fn attend(&self, repair: &mut dyn FnMut(QueueFault) -> bool) {
        let Ok(_driver) = self.driver.try_lock() else { return };
        let (error, index) = {
            let state = self.state.lock().expect("no panic");
            (state.error, state.consumer)
        };
        if error != 0 && repair(QueueFault { kind: QueueFaultKind(error), index }) {
            let mut state = self.state.lock().expect("no panic");
            state.error = 0;
            state.resumes += 1;
        }
    }
}

/// Commands with consecutive numbers, to recognise them by.
pub(crate) struct Numbered(u64);

impl Numbered {
    pub(crate) fn from(first: u64) -> Self {
        Self(first)
    }
    pub(crate) fn take(&mut self, count: usize) -> Vec<[u64; 2]> {
        let first = self.0;
        self.0 += count as u64;
        (first..self.0).map(|number| [PLAIN, number]).collect()
    }
}

/// `executed` without SYNCs.
pub(crate) fn plain(executed: &[[u64; 2]]) -> VecDeque<u64> {
    executed.iter().filter(|command| command[0] == PLAIN).map(|command| command[1]).collect()
}
