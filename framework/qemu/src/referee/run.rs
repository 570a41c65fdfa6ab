//! One seed, from its plan to its verdict; and a shorter story that fails alike.

use super::Referee;
use crate::QemuError;
use std::sync::{Arc, Mutex, PoisonError};
use viommu_sim::{Clause, Options, Outcome, Plan, Second, Vendor, run_beside, shrink_by};

/// Stories that are tried at most when a failed one is made shorter.
const TRIES: usize = 120;

/// Makes a referee.
type Start = dyn Fn() -> Result<Referee, QemuError> + Send + Sync;

/// Who tells stories with a QEMU beside the model: with another one when it ended.
pub struct Teller {
    start: Box<Start>,
    referee: Mutex<Arc<Referee>>,
}

impl Teller {
    /// With the referees that this makes.
    ///
    /// # Errors
    /// If it makes none.
    pub fn new(start: impl Fn() -> Result<Referee, QemuError> + Send + Sync + 'static) -> Result<Self, QemuError> {
        let referee = Mutex::new(Arc::new(start()?));
        Ok(Self { start: Box::new(start), referee })
    }

    /// The version of its QEMU.
    pub fn version(&self) -> String {
        self.referee.lock().unwrap_or_else(PoisonError::into_inner).qemu.version().to_owned()
    }

    /// The story of a seed: its plan, with the devices where QEMU has them.
    pub fn plan(seed: u64) -> Plan {
        let mut plan = Plan::of(Vendor::ArmSmmuv3, seed);
        let devices = plan.vms.iter_mut().flat_map(|vm| &mut vm.devices);
        // The stream of slot n is 8n.
        for (slot, device) in (1..).zip(devices) {
            device.stream = slot << 3;
        }
        plan
    }

    /// Tells a story.
    pub fn tell(&self, plan: &Plan) -> Outcome {
        let mut referee = self.referee.lock().unwrap_or_else(PoisonError::into_inner);
        referee.expect(plan.seed);
        let second: Arc<dyn Second> = referee.clone();
        let outcome = run_beside(plan, Options::default(), &second);
        // What ended it is in the outcome. Without another, so is that of all that follow.
        if !referee.lives()
            && let Ok(other) = (self.start)()
        {
            *referee = Arc::new(other);
        }
        outcome
    }

    /// The shortest story found that violates the same clause.
    pub fn shorten(&self, plan: &Plan, clause: Clause) -> (Plan, Outcome) {
        shrink_by(plan, clause, TRIES, &|plan| self.tell(plan))
    }
}
