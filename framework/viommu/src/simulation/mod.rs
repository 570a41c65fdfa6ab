//! A whole host on one thread, with a seed: what happens next is drawn, time stands still until nothing else can happen.
//!
//! ```text
//!                     ┌── a task: guest, device, shard's thread, event router, a job of the blocking pool
//!   step: draw one ───┼── the gate: the oldest message to one actor goes through
//!                     ├── the actors' System, until it is quiet
//!                     └── nothing of these: the clock goes on to whoever sleeps
//! ```
//! Tasks are coroutines. Wherever a thread of a real host would block (a SYNC that the hardware has not finished, a lock
//! that another thread holds, an empty channel), a task gives way instead, so every interleaving that threads have at
//! their waits can be drawn here, and the same seed draws the same one.
//!
//! ```
//! use std::time::Duration;
//! use viommu::simulation::{self, Simulation};
//!
//! let story = |seed| {
//!     let simulation = Simulation::enter(seed).unwrap();
//!     for name in ["one", "two", "three"] {
//!         simulation.spawn(name, move || {
//!             simulation::sleep(Duration::from_micros(5));
//!             simulation::note(|| format!("{name} was here"));
//!         });
//!     }
//!     simulation.run_until(Duration::from_secs(1), || false).unwrap_err();
//!     let log = simulation.log();
//!     simulation.leave();
//!     log
//! };
//! assert_eq!(story(7), story(7));
//! ```
//!
//! [`crate::HostBuilder::simulated`] makes a host of it: its actors, shards and events are tasks here. A simulated host
//! stays on its thread.

mod core;
mod gate;
mod seams;

pub(crate) use gate::{pass, post};
pub(crate) use seams::System;

use self::core::{Core, Yield};
use crate::Cause;
use crate::seams::{BlockingPool, Clock, Threads};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

thread_local! {
    static HERE: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// The simulation of this thread, if there is one.
fn here() -> Option<Rc<Core>> {
    HERE.with_borrow(Clone::clone)
}

/// Whether this thread is a simulation.
pub fn is_here() -> bool {
    HERE.with_borrow(Option::is_some)
}

/// A point at which others may go on. Does nothing outside a simulation's task.
pub fn yield_now() {
    if let Some(core) = here() {
        core.give_way(Yield::Ready);
    }
}

/// Sleeps in simulated time. Does nothing outside a simulation's task.
pub fn sleep(time: Duration) {
    if let Some(core) = here() {
        core.give_way(Yield::Until(core.now() + time));
    }
}

/// Adds a line to the log.
pub fn note(line: impl FnOnce() -> String) {
    if let Some(core) = here() {
        core.note(line);
    }
}

/// Whether this is the thread's actor system at work: it must not wait for what only it could do.
pub(crate) fn in_system() -> bool {
    here().is_some_and(|core| core.in_system())
}

/// A simulation's blocking pool.
pub(crate) fn blocking_pool() -> Arc<dyn BlockingPool> {
    Arc::new(seams::SimulatedPool)
}

/// Lets others go on, because the caller found nothing to do. `first`: it did something since it last said so.
pub(crate) fn blocked(first: bool, until: Option<Duration>) {
    let Some(core) = here() else { return };
    match core.running() {
        Some(_) => core.give_way(Yield::Blocked { first, until }),
        None => {
            if first {
                core.stir();
            }
            core.step_or_wait();
        }
    }
}

/// This thread as a simulation.
pub struct Simulation(Rc<Core>);

/// Nothing happened that was waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("after {now:?} of simulated time nothing ended the wait; alive: {tasks}")]
pub struct Stuck {
    /// When it was given up.
    pub now: Duration,
    /// Tasks that are left, and messages at the gate.
    pub tasks: String,
}

impl Simulation {
    /// Makes this thread a simulation.
    ///
    /// # Errors
    /// EEXIST if it is one.
    pub fn enter(seed: u64) -> Result<Self, Cause> {
        if is_here() {
            return Err(Cause::Exists("this thread is a simulation already".into()));
        }
        let core = Rc::new(Core::new(seed));
        HERE.set(Some(core.clone()));
        Ok(Self(core))
    }

    /// The simulation of this thread.
    pub fn current() -> Option<Self> {
        here().map(Self)
    }

    /// Ends it. What is still waiting never goes on.
    pub fn leave(self) {
        HERE.take();
        self.0.abandon();
    }

    /// Starts a task; it runs when it is drawn. A panic in it ends the simulation's next step with the same panic.
    pub fn spawn(&self, name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> u64 {
        self.0.spawn(name.into(), Box::new(body))
    }

    /// Whether the task has ended.
    pub fn has_ended(&self, task: u64) -> bool {
        !self.0.is_alive(task)
    }

    /// One thing happens; `false` if nothing could but the clock's going on.
    pub fn step(&self) -> bool {
        self.0.step()
    }

    /// Steps until `done`.
    ///
    /// # Errors
    /// If `limit` of simulated time passed before.
    pub fn run_until(&self, limit: Duration, done: impl Fn() -> bool) -> Result<(), Stuck> {
        let end = self.now() + limit;
        while !done() {
            if self.now() > end {
                return Err(Stuck { now: self.now(), tasks: self.0.describe() });
            }
            self.0.step_or_wait();
        }
        Ok(())
    }

    /// A seeded choice: a number below `bound` (0 if that is 0).
    pub fn choose(&self, bound: u32) -> u32 {
        self.0.choose(bound)
    }

    /// Simulated time.
    pub fn now(&self) -> Duration {
        self.0.now()
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.0.steps()
    }

    /// Keeps the log's lines from now on, not only their sum.
    pub fn keep_log(&self) {
        self.0.keep_log();
    }

    /// What happened, line by line, as far as it was kept.
    pub fn log(&self) -> Vec<String> {
        self.0.log()
    }

    /// A sum over every line of the log, kept or not: equal logs have equal sums.
    pub fn fingerprint(&self) -> u64 {
        self.0.fingerprint()
    }

    /// Its clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(seams::SimulatedClock)
    }

    /// Its blocking pool: each job is a task.
    pub fn blocking_pool(&self) -> Arc<dyn BlockingPool> {
        blocking_pool()
    }

    /// Its threads: tasks.
    pub fn threads(&self) -> Arc<dyn Threads> {
        Arc::new(seams::SimulatedThreads)
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("now", &self.now()).field("steps", &self.steps()).finish_non_exhaustive()
    }
}
