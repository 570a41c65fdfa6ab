//! `--migrate-every`: at random doorbells every machine is saved as bytes, the whole host torn down, and the machines
//! restored on a fresh one, where nothing has its old number.

use super::machine::{Machine, World};
use super::physical::Physical;
use crate::replay::args::{Args, Injection};
use crate::replay::report::Summary;
use crate::replay::{Job, ReplayError};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use viommu::save::{GuestEntry, SavedViommu};
use viommu_trace::{Header, Scan};

/// When the machines move.
pub(super) struct Schedule {
    every: NonZeroU64,
    random: Mutex<Pcg64>,
}

impl Schedule {
    pub(super) fn new(args: &Args) -> Option<Self> {
        args.migrate_every.map(|every| Self { every, random: Mutex::new(Pcg64::seed_from_u64(args.migrate_seed)) })
    }

    /// Whether they move at this doorbell.
    pub(super) fn is_time(&self) -> bool {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.next_u64().is_multiple_of(self.every.get())
    }
}

/// The host that the machines are on now, and what those before it counted.
pub(super) struct Removal<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) header: &'a Header,
    pub(super) world: &'a World,
    pub(super) physical: Arc<Physical>,
    pub(super) summary: Summary,
}

impl Removal<'_> {
    /// Moves all machines to a fresh host, if one of them is due.
    ///
    /// # Errors
    /// If a machine cannot be saved or restored, or the old host leaves something over.
    pub(super) fn move_those_due(&mut self, machines: &mut [Machine<'_>]) -> Result<(), ReplayError> {
        if !machines.iter().any(|machine| machine.is_due) {
            return Ok(());
        }
        // 1. Everything the guests' IOMMUs are, as bytes.
        let saved =
            machines.iter().map(|machine| Ok(machine.save()?.to_bytes())).collect::<Result<Vec<_>, ReplayError>>()?;
        // 2. The old host goes, whole.
        self.physical.count(&mut self.summary)?;
        self.summary.migrations += 1;
        let fresh = Physical::new(self.job, self.header, &self.world.shown, self.summary.migrations)?;
        let old = std::mem::replace(&mut self.physical, Arc::new(fresh));
        machines.iter_mut().for_each(Machine::leave);
        let old = Arc::into_inner(old).ok_or_else(|| ReplayError::Leftovers("somebody still holds the host".into()))?;
        old.tear_down()?;
        // 3. The bytes become machines again.
        for (machine, bytes) in machines.iter_mut().zip(&saved) {
            let mut saved = SavedViommu::from_bytes(bytes)?;
            if self.job.args.inject == Some(Injection::ForgetEntry) && machine.is_first() {
                forget_busiest(&mut saved, &self.job.scan);
            }
            machine.arrive(self.job, &self.physical, &saved)?;
        }
        Ok(())
    }
}

/// `--inject forget-entry`: the device with the most recorded translations of those with an entry arrives without it.
fn forget_busiest(saved: &mut SavedViommu, scan: &Scan) {
    let with_entry = saved.vdevices.iter_mut().filter(|vdevice| matches!(vdevice.entry, GuestEntry::Words(_)));
    let busy = |virt_id: u32| scan.streams.get(&virt_id).map_or(0, |counts| counts.stage1);
    if let Some(busiest) = with_entry.max_by_key(|vdevice| busy(vdevice.virt_id)) {
        busiest.entry = GuestEntry::Abort;
    }
}
