//! The end of a world: everything is given back.

use super::hardware::now;
use super::{Platform, World};
use crate::inject::Injection;
use crate::oracle::{Clause, Violation};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use viommu::backend::Objects;
use viommu::blocking::Host;
use viommu::simulation::Simulation;

/// Simulated time in which the host's own tasks end: they look four times a second.
const QUIET: u32 = 1000;

/// Tries of what the hardware must answer: together longer than it ever stands still.
const TRIES: u32 = 8;

impl World {
    /// Shuts the host down, then looks for what was left over.
    pub(super) fn end(self, simulation: &Simulation, host: Arc<Host>, in_use: u64, injection: Option<Injection>) {
        let Some(host) = Arc::into_inner(host) else {
            return self.oracle.violation(Violation::new(Clause::Stuck, "somebody still has the host"));
        };
        assert!(injection != Some(Injection::Panic), "a panic that was asked for");
        let shutdown = move || {
            // What nobody holds is destroyed when the hardware answers again; only then is somebody's what is left.
            for _ in 0..TRIES {
                host.settle()?;
                if host.objects().is_empty() {
                    break;
                }
            }
            host.shutdown()
        };
        let Some(leftovers) = self.on_task(simulation, "shutdown", shutdown) else { return };
        match leftovers {
            Ok(left) if left.is_empty() => {}
            other => self.oracle.violation(Violation::new(Clause::Objects, format!("left over: {other:?}"))),
        }
        self.started.store(false, Ordering::SeqCst);
        let platform = self.platform.clone();
        let Some(missing) = self.on_task(simulation, "count the tags", move || platform.missing_tags()) else { return };
        if let Some(missing) = missing {
            self.oracle.violation(Violation::new(Clause::Tags, missing));
        }
        if injection == Some(Injection::LeakMemory) {
            drop(self.platform.memory.alloc(4096, 4096));
        }
        let now_in_use = self.platform.memory.in_use();
        if now_in_use != in_use {
            let what =
                format!("{in_use:#x} bytes of DMA memory were in use at the start, {now_in_use:#x} are at the end");
            self.oracle.violation(Violation::new(Clause::Memory, what));
        }
        self.over.store(true, Ordering::SeqCst);
        let (oracle, platform) = (self.oracle.clone(), Arc::downgrade(&self.platform));
        drop(self);
        let mut waited = 0;
        loop {
            let Err(stuck) = simulation.run_until(Duration::from_millis(1), || false) else { continue };
            if stuck.tasks.is_empty() {
                break;
            }
            waited += 1;
            if waited == QUIET {
                return oracle.violation(Violation::new(Clause::Stuck, stuck.to_string()));
            }
        }
        if platform.upgrade().is_some() {
            oracle.violation(Violation::new(Clause::Stuck, "somebody still has the backend"));
        }
    }
}

impl Platform {
    /// Takes every tag there is, and gives it back. What is wrong.
    fn missing_tags(&self) -> Option<String> {
        let direct = &self.direct;
        let all = || {
            let ioas = now(direct.ioas_alloc())?;
            let parents: Result<Vec<_>, _> = (0..self.tags).map(|_| now(direct.nest_parent_alloc(ioas))).collect();
            // Hardware that stands still answers later.
            parents?.into_iter().chain([ioas]).try_for_each(|id| {
                (1..TRIES).fold(now(direct.destroy(id)), |tried, _| tried.or_else(|_| now(direct.destroy(id))))
            })
        };
        all().err().map(|cause| format!("not all of {} are free: {cause}", self.tags))
    }
}
