//! One seed, from its plan to its verdict; and a shorter story that fails alike.

use super::Referee;
use std::sync::Arc;
use viommu_sim::{Clause, Options, Outcome, Plan, Second, Vendor, run_beside, shrink_by};

/// Stories that are tried at most when a failed one is made shorter.
const TRIES: usize = 120;

/// Who tells stories with a QEMU beside the model.
pub struct Teller(Arc<Referee>);

impl Teller {
    /// With this referee.
    pub fn new(referee: Referee) -> Self {
        Self(Arc::new(referee))
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
        self.0.expect(plan.seed);
        let second: Arc<dyn Second> = self.0.clone();
        run_beside(plan, Options::default(), &second)
    }

    /// The shortest story found that violates the same clause.
    pub fn shorten(&self, plan: &Plan, clause: Clause) -> (Plan, Outcome) {
        shrink_by(plan, clause, TRIES, &|plan| self.tell(plan))
    }
}
