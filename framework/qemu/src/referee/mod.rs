//! QEMU as the referee of the software model: random guests on both at once.
//!
//! ```text
//!   viommu-sim: guests, host, driver ──► Lockstep ──► model            all commands, one at a time
//!                    devices            └──────────► QEMU, when the model has executed them
//!                       └─► model's answer ─► compare ◄─ QEMU's answer     warm: what both have cached counts
//!                                                ▲
//!                       a model and a QEMU with nothing cached ──┘         cold: every bit must agree
//! ```
//! Both walk the same memory, because QEMU's memory is where the story's tables are. So what differs is cached or
//! wrong: an answer that differs is asked for again with empty caches, and what differs then is a finding.

mod cold;
mod compare;
mod exceptions;
mod lockstep;
mod run;
mod sabotage;

pub use exceptions::{DEATHS, Death, EXCEPTIONS, Exception};
pub use run::Teller;
pub use sabotage::Sabotage;

use crate::hardware::SCRATCH;
use crate::{QemuError, QemuHardware};
use cold::Cold;
use compare::Seen;
use lockstep::Lockstep;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu::backend::direct::{Hardware, ModelHardware};
use viommu::vm_memory::FileOffset;
use viommu_plugin::{Answer, Register, Request, Status};
use viommu_plugin_host::Plugin;
use viommu_sim::{Opinion, Second};

/// All memory of a story: the driver's, the machines', what is lent.
const MEMORY: u64 = 0x1_0000_0000;
const MEMORY_BYTES: u64 = 0x1_0000_0000;
/// QEMU's event queue, apart from the model's.
const EVENTS: u64 = SCRATCH + 0x1000;
const EVENTS_LOG2: u32 = 5;

/// How often, in requests.
const EVERY: u64 = 16;
/// Of these, how often with empty caches whatever the answer was. QEMU forgets everything each time, so of two stories
/// one is about what is forgotten, and one about tables.
const COLD: [u64; 2] = [64, 4];

/// A QEMU that judges the model, story by story.
pub struct Referee {
    qemu: Arc<QemuHardware>,
    /// The registers that identify its SMMU.
    identity: Vec<Register>,
    /// One request in so many is answered by QEMU too.
    every: u64,
    sabotage: Option<Sabotage>,
    /// An exception that it does not know.
    unknown: Option<&'static str>,
    asked: AtomicU64,
    /// Seed of the next story.
    seed: AtomicU64,
    story: Mutex<Option<Story>>,
}

/// What is of one story only.
struct Story {
    model: Arc<ModelHardware>,
    lockstep: Arc<Lockstep>,
    cold: Cold,
    /// Records of QEMU's event queue taken so far.
    events: u32,
    /// DMA done by QEMU so far, but for what was aimed.
    by_chance: u64,
    /// One of so many is asked again with empty caches.
    cold_every: u64,
    counted: BTreeMap<&'static str, u64>,
    /// An address that is watched.
    somewhere: u64,
    /// QEMU did not survive it.
    over: bool,
    complaint: Option<String>,
}

impl Referee {
    /// A referee that is this QEMU; nothing else may use it.
    ///
    /// # Errors
    /// If QEMU does not answer.
    pub fn new(qemu: Arc<QemuHardware>) -> Result<Self, QemuError> {
        let memory = qemu.mapping(MEMORY, MEMORY_BYTES)?;
        qemu.memory().add_region(MEMORY, memory).map_err(|cause| QemuError::Start(cause.to_string()))?;
        let offsets = (0..8).map(|at| 4 * at);
        let reads: Vec<_> = offsets.clone().map(|at| (at, 4, None)).collect();
        let values = qemu.registers(&reads)?;
        let identity = offsets.zip(values).map(|(offset, value)| Register { offset, value }).collect();
        let (asked, story) = (AtomicU64::new(0), Mutex::new(None));
        let (sabotage, unknown, seed) = (None, None, AtomicU64::new(0));
        Ok(Self { qemu, identity, every: EVERY, sabotage, unknown, asked, seed, story })
    }

    /// With something broken on purpose.
    pub fn sabotaged(self, sabotage: Sabotage) -> Self {
        Self { sabotage: Some(sabotage), ..self }
    }

    /// One request in `every` is answered by QEMU too.
    pub fn every(self, every: u64) -> Self {
        Self { every, ..self }
    }

    /// The referee that does not know this exception.
    ///
    /// # Panics
    /// If there is no such exception.
    pub fn without(self, name: &str) -> Self {
        let unknown = EXCEPTIONS.iter().find(|exception| exception.name == name);
        let unknown = unknown.unwrap_or_else(|| panic!("there is no exception {name}"));
        Self { unknown: Some(unknown.name), ..self }
    }

    /// Why QEMU is no more, if that is known.
    fn death(&self) -> Option<&'static Death> {
        let words = self.qemu.words();
        DEATHS.iter().find(|death| words.contains(death.words))
    }

    /// Whether QEMU still answers.
    fn lives(&self) -> bool {
        self.qemu.registers(&[(0, 4, None)]).is_ok()
    }

    /// The next story is of this seed.
    fn expect(&self, seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
    }

    fn story(&self) -> MutexGuard<'_, Option<Story>> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything as before the first story.
    fn start_over(&self, data: &[(u64, u64)]) -> Result<(), QemuError> {
        self.qemu.clear(MEMORY, MEMORY_BYTES)?;
        self.qemu.reset()?;
        self.qemu.forget();
        data.iter().for_each(|(pa, length)| self.qemu.watch(*pa, *length));
        Ok(())
    }

    /// QEMU's device does what `answer` is the model's answer to.
    fn perform(&self, story: &mut Story, request: &Request, answer: &Answer) -> Result<Seen, QemuError> {
        let slot = request.stream >> 3;
        let expected = compare::passed(answer).then_some(answer.output);
        let writes = request.access & 2 != 0;
        let read = || {
            let got = self.qemu.read(slot, request.iova)?;
            Ok::<_, QemuError>(compare::source(got, expected, |pa| self.qemu.word(pa).ok()))
        };
        // To see that a write is refused in silence takes a search through all memory; a read that is shows at once.
        if writes && answer.status == Status::ABORT {
            let (output, record) = (read()?, self.event(story)?);
            if output.is_none() || record.is_some() {
                return Ok(Seen { output: None, record });
            }
        }
        let output = if writes && expected.is_none_or(|pa| self.qemu.watches(pa)) {
            self.qemu.write_at(slot, request.iova, expected)?
        } else {
            read()?
        };
        let record = self.event(story)?;
        if output.is_none() && writes && self.sabotage == Some(Sabotage::StrayWrite) {
            self.qemu.stray(story.somewhere)?;
        }
        // Refused in silence, which is rare, or it went where nobody expected it.
        let strayed = output.is_none() && record.is_none() && writes;
        let output = if strayed { self.qemu.find_mark()? } else { output };
        // A word of zeros that was read is no refusal, if no refusal was reported.
        Ok(Seen { output: output.filter(|_| record.is_none()), record })
    }

    /// The newest record of QEMU's event queue. One access makes one.
    fn event(&self, story: &mut Story) -> Result<Option<[u64; 4]>, QemuError> {
        let produced = self.qemu.registers(&[(lockstep::EVENTQ_PROD, 4, None)])?[0] as u32;
        let fresh = produced.wrapping_sub(story.events) & ((2 << EVENTS_LOG2) - 1);
        if fresh == 0 {
            return Ok(None);
        }
        if fresh > 1 {
            story.complaint.get_or_insert(format!("QEMU reported {fresh} events for one access"));
        }
        story.events = produced;
        self.qemu.registers(&[(lockstep::EVENTQ_CONS, 4, Some(produced.into()))])?;
        let newest = produced.wrapping_sub(1) & ((1 << EVENTS_LOG2) - 1);
        let at = EVENTS + 32 * u64::from(newest);
        let words = [0, 8, 16, 24].map(|word| self.qemu.memory().load(at + word).unwrap_or(u64::MAX));
        Ok(Some(words))
    }

    fn ask(&self, story: &mut Story, dma: (&Request, &Answer), aimed: bool) -> Result<Option<Opinion>, QemuError> {
        let (request, answer) = dma;
        story.lockstep.keep_up();
        let answer = &self.sabotage.map_or(*answer, |sabotage| sabotage.answer(answer));
        let warm = self.perform(story, request, answer)?;
        let mut count = |what| *story.counted.entry(what).or_insert(0) += 1;
        count("second.dma");
        let differs = !compare::agree(answer, request, &warm);
        // What is asked by aim is about what is cached: nothing is made to forget for its sake.
        let due = !aimed && story.by_chance.is_multiple_of(story.cold_every);
        story.by_chance += u64::from(!aimed);
        let mut wrong = None;
        if (differs || due) && story.lockstep.forget_all()? {
            let (mut fresh, mut record) = story.cold.ask(&story.model, request);
            if let Some(sabotage) = self.sabotage {
                (fresh, record) = (sabotage.answer(&fresh), record.map(|record| sabotage.record(record)));
            }
            let seen = self.perform(story, request, &fresh)?;
            *story.counted.entry("second.cold").or_insert(0) += 1;
            match compare::finding(request, &fresh, record, &seen, self.unknown) {
                compare::Finding::Same => {}
                compare::Finding::Excepted(used) => {
                    used.iter().for_each(|exception| *story.counted.entry(exception.counter).or_insert(0) += 1);
                }
                compare::Finding::Wrong(what) => {
                    let request = Request { flags: 0, ..*request };
                    wrong = Some(format!("{what}\n{}", story.model.explain(&request).trim_end()));
                }
            }
        }
        // Zeros that QEMU read in silence: refused, or zeros of another page than the model's.
        let unclear = differs && request.access & 2 == 0 && warm == Seen { output: None, record: None };
        if unclear && wrong.is_none() {
            *story.counted.entry("second.unclear").or_insert(0) += 1;
            return Ok(None);
        }
        Ok(Some(Opinion { answer: warm.answer(request), wrong, differs }))
    }
}

impl Second for Referee {
    fn registers(&self) -> Vec<Register> {
        self.identity.clone()
    }

    fn file(&self, pa: u64) -> FileOffset {
        self.qemu.file(pa).unwrap_or_else(|error| panic!("{error}"))
    }

    fn begin(&self, plugin: &Plugin, model: Arc<ModelHardware>, data: &[(u64, u64)]) -> Arc<dyn Hardware> {
        let started = self.start_over(data);
        let lockstep = Arc::new(Lockstep::new(self.qemu.clone(), model.clone(), self.sabotage));
        let identity = (0..8).map(|at| Register { offset: 4 * at, value: model.mmio_read(4 * at, 4) }).collect();
        let cold = Cold::new(plugin.clone(), identity);
        let complaint = started.err().map(|error| error.to_string());
        let cold_every = COLD[(self.seed.load(Ordering::Relaxed) % 2) as usize];
        let (events, by_chance, counted) = (0, 0, BTreeMap::new());
        let somewhere = data.first().map_or(0, |(pa, _)| *pa);
        let story = Story {
            model,
            lockstep: lockstep.clone(),
            cold,
            events,
            by_chance,
            cold_every,
            counted,
            somewhere,
            over: false,
            complaint,
        };
        *self.story() = Some(story);
        self.asked.store(0, Ordering::Relaxed);
        lockstep
    }

    fn keep_up(&self) {
        if let Some(story) = self.story().as_ref() {
            story.lockstep.keep_up();
        }
    }

    fn wants(&self, aimed: bool) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every) || aimed
    }

    fn dma(&self, request: &Request, answer: &Answer, aimed: bool) -> Option<Opinion> {
        let mut story = self.story();
        let story = story.as_mut().filter(|story| !story.over && story.complaint.is_none())?;
        match self.ask(story, (request, answer), aimed) {
            Ok(opinion) => opinion,
            Err(error) => {
                story.complaint = Some(error.to_string());
                None
            }
        }
    }

    fn complaint(&self) -> Option<String> {
        let mut story = self.story();
        let story = story.as_mut()?;
        let complaint = story.complaint.take().or_else(|| story.lockstep.complaint())?;
        if self.death().is_some() {
            story.over = true;
            return None;
        }
        Some(complaint)
    }

    fn end(&self) -> Option<String> {
        let complaint = self.complaint();
        *self.story() = None;
        complaint.or_else(|| match self.qemu.find_mark() {
            Ok(strayed) => strayed.map(|pa| format!("a refused DMA landed at {pa:#x} in QEMU")),
            Err(error) => Some(error.to_string()),
        })
    }

    fn counted(&self) -> Vec<(&'static str, u64)> {
        let story = self.story();
        let death = story.iter().filter(|story| story.over).filter_map(|_| Some((self.death()?.counter, 1)));
        story.iter().flat_map(|story| &story.counted).map(|(name, n)| (*name, *n)).chain(death).collect()
    }
}
