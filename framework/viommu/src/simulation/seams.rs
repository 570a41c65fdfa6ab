//! What a simulated host is handed instead of a clock, a pool, threads, and an actor thread.

use super::here;
use crate::seams::{BlockingPool, Clock, Running, Threads, Wait};
use actix::{Arbiter, ArbiterHandle, SystemRunner};
use std::cell::RefCell;
use std::io;
use std::time::Duration;

/// Turns of the System in which it comes to rest: longer than the longest chain of actors that wake each other without
/// a message between them (job, actor, answer, reaper, answer), each link of which takes one.
const TURNS: usize = 16;

/// The actors' system, on the simulation's thread.
pub(crate) struct System {
    runner: RefCell<SystemRunner>,
    pub(crate) arbiter: ArbiterHandle,
}

impl System {
    pub(super) fn new() -> io::Result<Self> {
        // Without time: whoever in here would look at a clock of its own panics.
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let runner = actix::System::with_tokio_rt(move || runtime);
        let arbiter = runner.block_on(async { Arbiter::current() });
        Ok(Self { runner: RefCell::new(runner), arbiter })
    }

    /// The system of this thread's simulation, made on first use.
    pub(crate) fn here() -> io::Result<Option<ArbiterHandle>> {
        here().map(|core| core.system().map(|system| system.arbiter.clone())).transpose()
    }

    pub(super) fn run_until_quiet(&self) {
        self.runner.borrow_mut().block_on(async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
    }
}

pub(super) struct SimulatedClock;

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        here().map_or(Duration::ZERO, |core| core.now())
    }
}

pub(super) struct SimulatedPool;

impl BlockingPool for SimulatedPool {
    fn run(&self, job: Box<dyn FnOnce() + Send>) {
        match here() {
            Some(core) => drop(core.spawn("job".into(), job)),
            None => tracing::error!("a simulated host was used outside its simulation"),
        }
    }
}

pub(super) struct SimulatedThreads;

impl Threads for SimulatedThreads {
    fn spawn(&self, name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<Box<dyn Running>> {
        let core = here().ok_or_else(|| io::Error::other("not in a simulation"))?;
        Ok(Box::new(SimulatedTask(core.spawn(name.into(), body))))
    }
}

struct SimulatedTask(u64);

impl Running for SimulatedTask {
    fn join(self: Box<Self>) {
        let mut wait = Wait::new();
        while here().is_some_and(|core| core.is_alive(self.0) && core.running() != Some(self.0)) {
            wait.pause();
        }
    }
}
