//! The tasks, the clock, and the draw.

use super::gate::{Gate, Message};
use super::seams::System;
use generator::{Generator, Gn};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Stack of a task, in machine words: deep enough for an unoptimised plugin call in a handler in a job.
const STACK: usize = 64 << 10;
/// What a step takes.
const STEP: Duration = Duration::from_micros(1);
/// How far the clock goes when everybody waits and nobody said until when.
const IDLE: Duration = Duration::from_millis(1);

/// Why a task gives way.
#[derive(Debug, Clone, Copy)]
pub(super) enum Yield {
    /// It could go on.
    Ready,
    /// It waits for others. `first`: it did something since it last gave way.
    Blocked { first: bool, until: Option<Duration> },
    /// It sleeps.
    Until(Duration),
}

struct Task {
    name: Rc<str>,
    /// Taken out while it runs.
    body: Option<Generator<'static, (), ()>>,
    /// Looked in vain when this much had happened: not asked again before more has.
    seen: Option<u64>,
    until: Option<Duration>,
    panic: Arc<Mutex<Option<Box<dyn Any + Send>>>>,
}

/// What may be drawn.
enum Draw {
    Task(u64),
    Message(usize),
    System,
}

pub(super) struct Core {
    random: RefCell<Pcg32>,
    now: Cell<Duration>,
    steps: Cell<u64>,
    /// Grows whenever something happened that somebody may have waited for.
    happened: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    last_task: Cell<u64>,
    running: Cell<Option<u64>>,
    yielded: Cell<Option<Yield>>,
    pub(super) gate: Gate,
    system: RefCell<Option<Rc<System>>>,
    /// The actors may have something to do.
    stirred: Cell<bool>,
    in_system: Cell<bool>,
    log: RefCell<Option<Vec<String>>>,
    fingerprint: Cell<u64>,
}

impl Core {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: RefCell::new(Pcg32::seed_from_u64(seed)),
            now: Cell::default(),
            steps: Cell::default(),
            happened: Cell::default(),
            tasks: RefCell::default(),
            last_task: Cell::default(),
            running: Cell::default(),
            yielded: Cell::default(),
            gate: Gate::default(),
            system: RefCell::default(),
            stirred: Cell::default(),
            in_system: Cell::default(),
            log: RefCell::default(),
            fingerprint: Cell::new(0xcbf2_9ce4_8422_2325),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now.get()
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps.get()
    }

    pub(super) fn running(&self) -> Option<u64> {
        self.running.get()
    }

    pub(super) fn in_system(&self) -> bool {
        self.in_system.get() && self.running.get().is_none()
    }

    pub(super) fn is_alive(&self, task: u64) -> bool {
        self.tasks.borrow().contains_key(&task)
    }

    pub(super) fn choose(&self, bound: u32) -> u32 {
        let drawn = u64::from(self.random.borrow_mut().next_u32());
        ((drawn * u64::from(bound)) >> 32) as u32
    }

    /// Something happened: whoever looked in vain may look again.
    pub(super) fn stir(&self) {
        self.happened.set(self.happened.get() + 1);
        self.stirred.set(true);
    }

    pub(super) fn spawn(&self, name: String, body: Box<dyn FnOnce() + Send>) -> u64 {
        let id = self.last_task.get() + 1;
        self.last_task.set(id);
        let panic: Arc<Mutex<Option<Box<dyn Any + Send>>>> = Arc::default();
        let caught = panic.clone();
        let body = Gn::<()>::new_opt(STACK, move || {
            // A panic must not run through the coroutine's own frames: it is handed to who steps.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                *crate::seams::lock(&caught) = Some(panic);
            }
        });
        let task = Task { name: name.into(), body: Some(body), seen: Some(0), until: None, panic };
        self.tasks.borrow_mut().insert(id, task);
        self.stir();
        id
    }

    /// The running task stops here and goes on when it is drawn again.
    pub(super) fn give_way(&self, why: Yield) {
        if self.running.get().is_none() {
            return;
        }
        self.yielded.set(Some(why));
        // The scoped form would have to be carried through every caller's frame to here.
        #[allow(deprecated)]
        generator::yield_with(());
    }

    /// A step, or if nothing can happen, the clock goes on.
    pub(super) fn step_or_wait(&self) {
        assert!(!self.in_system.get(), "an actor waits for what only its own thread could do");
        if !self.step() {
            let sleeping = self.tasks.borrow().values().filter_map(|task| task.until).min();
            match sleeping.filter(|&until| until > self.now()) {
                Some(until) => self.now.set(until),
                None => {
                    self.now.set(self.now() + IDLE);
                    self.happened.set(self.happened.get() + 1);
                }
            }
        }
    }

    /// Draws what happens next, and lets it happen; `false` if there is nothing.
    pub(super) fn step(&self) -> bool {
        let (now, happened) = (self.now(), self.happened.get());
        let mut options: Vec<Draw> = Vec::new();
        for (&id, task) in &*self.tasks.borrow() {
            let due = task.until.is_some_and(|until| until <= now);
            if due || task.seen.is_some_and(|seen| seen < happened) {
                options.push(Draw::Task(id));
            }
        }
        options.extend(self.gate.heads().into_iter().map(Draw::Message));
        if self.stirred.get() && self.system.borrow().is_some() {
            options.push(Draw::System);
        }
        if options.is_empty() {
            return false;
        }
        self.steps.set(self.steps.get() + 1);
        self.now.set(now + STEP);
        match options.swap_remove(self.choose(options.len() as u32) as usize) {
            Draw::Task(id) => self.resume(id),
            Draw::Message(index) => {
                if let Some(message) = self.gate.take(index) {
                    self.deliver(message);
                }
            }
            Draw::System => self.run_system(),
        }
        true
    }

    fn resume(&self, id: u64) {
        let Some((name, mut body)) = self.tasks.borrow_mut().get_mut(&id).and_then(|task| {
            let body = task.body.take()?;
            Some((task.name.clone(), body))
        }) else {
            return;
        };
        self.note(|| name.to_string());
        self.running.set(Some(id));
        body.resume();
        self.running.set(None);
        if body.is_done() {
            self.stir();
            let panic = self.tasks.borrow_mut().remove(&id).and_then(|task| crate::seams::lock(&task.panic).take());
            if let Some(panic) = panic {
                resume_unwind(panic);
            }
            return;
        }
        let (seen, until) = match self.yielded.take() {
            Some(Yield::Blocked { first, until }) => {
                if first {
                    self.stir();
                }
                (Some(self.happened.get()), until)
            }
            Some(Yield::Until(until)) => {
                self.stir();
                (None, Some(until))
            }
            Some(Yield::Ready) | None => {
                self.stir();
                (Some(0), None)
            }
        };
        if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
            (task.body, task.seen, task.until) = (Some(body), seen, until);
        }
    }

    fn deliver(&self, message: Message) {
        self.note(|| message.to_string());
        message.open();
        self.run_system();
    }

    fn run_system(&self) {
        self.stirred.set(false);
        let Some(system) = self.system.borrow().clone() else { return };
        self.note(|| "actors".into());
        self.in_system.set(true);
        system.run_until_quiet();
        self.in_system.set(false);
        self.happened.set(self.happened.get() + 1);
    }

    /// The actors' system of this thread, made on first use.
    pub(super) fn system(&self) -> std::io::Result<Rc<System>> {
        let mut system = self.system.borrow_mut();
        if system.is_none() {
            *system = Some(Rc::new(System::new()?));
        }
        system.clone().ok_or_else(|| std::io::Error::other("no actor system"))
    }

    pub(super) fn note(&self, line: impl FnOnce() -> String) {
        let text = format!("{} {}us {}", self.steps.get(), self.now().as_micros(), line());
        // FNV-1a.
        let sum = text
            .bytes()
            .chain([b'\n'])
            .fold(self.fingerprint.get(), |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        self.fingerprint.set(sum);
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.push(text);
        }
    }

    pub(super) fn keep_log(&self) {
        self.log.borrow_mut().get_or_insert_default();
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.log.borrow().clone().unwrap_or_default()
    }

    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint.get()
    }

    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for task in self.tasks.borrow().values() {
            let _ = write!(text, "{}; ", task.name);
        }
        text + &self.gate.describe()
    }

    /// Tasks that never ended are left where they are: unwinding them would run their hosts' code without a simulation.
    pub(super) fn abandon(&self) {
        for (_, task) in std::mem::take(&mut *self.tasks.borrow_mut()) {
            std::mem::forget(task.body);
        }
        self.gate.close();
        self.system.take();
    }
}
