//! A shorter story with the same violation: parts of the plan are left out as long as it stays.

use crate::plan::Plan;
use crate::{Clause, Options, Outcome, run};

/// Worlds that are tried at most.
const TRIES: usize = 400;

/// The shortest story found that violates the same clause as `plan` does, and its outcome.
pub fn shrink(plan: &Plan, clause: Clause, options: Options) -> (Plan, Outcome) {
    shrink_by(plan, clause, TRIES, &|plan| run(plan, options))
}

/// As [`shrink`], of worlds that `run` runs, with at most `tries` of them.
pub fn shrink_by(plan: &Plan, clause: Clause, tries: usize, run: &dyn Fn(&Plan) -> Outcome) -> (Plan, Outcome) {
    let mut search = Search { clause, run, tries, best: plan.clone(), outcome: None };
    let mut before = usize::MAX;
    while search.best.size() < before && search.tries > 0 {
        before = search.best.size();
        search.round();
    }
    let outcome = search.outcome.unwrap_or_else(|| run(&search.best));
    (search.best, outcome)
}

struct Search<'a> {
    clause: Clause,
    run: &'a dyn Fn(&Plan) -> Outcome,
    tries: usize,
    best: Plan,
    outcome: Option<Outcome>,
}

impl Search<'_> {
    /// Whether the story is still as bad. Then it is the best one.
    fn try_out(&mut self, plan: Plan) -> bool {
        if self.tries == 0 {
            return false;
        }
        self.tries -= 1;
        let outcome = (self.run)(&plan);
        let same = outcome.violation.as_ref().is_some_and(|violation| violation.clause == self.clause);
        if same {
            (self.best, self.outcome) = (plan, Some(outcome));
        }
        same
    }

    fn round(&mut self) {
        // Large parts first: machines, all faults, then ever smaller pieces of what is left.
        self.leave_out(1, |plan| plan.vms.len(), |plan, at, _| drop(plan.vms.remove(at)));
        let faults = |plan: &mut Plan, at: usize, count: usize| drop(plan.faults.drain(at..at + count));
        self.leave_out(usize::MAX, |plan| plan.faults.len(), faults);
        for vm in 0..self.best.vms.len() {
            let actions = |plan: &mut Plan, at: usize, count: usize| drop(plan.vms[vm].actions.drain(at..at + count));
            self.leave_out(usize::MAX, move |plan| plan.vms[vm].actions.len(), actions);
            let devices = |plan: &mut Plan, at: usize, count: usize| drop(plan.vms[vm].devices.drain(at..at + count));
            self.leave_out(1, move |plan| plan.vms[vm].devices.len(), devices);
        }
        for simpler in [
            |plan: &mut Plan| plan.host.speculation = 0,
            |plan: &mut Plan| plan.host.mailbox = false,
            |plan: &mut Plan| plan.host.shards = 1,
            |plan: &mut Plan| plan.host.pace = 1,
        ] {
            let mut plan = self.best.clone();
            simpler(&mut plan);
            if plan != self.best {
                self.try_out(plan);
            }
        }
    }

    /// Leaves out pieces of a list, at first of half its length or `largest`, then ever smaller ones.
    fn leave_out(&mut self, largest: usize, len: impl Fn(&Plan) -> usize, cut: impl Fn(&mut Plan, usize, usize)) {
        let mut piece = len(&self.best).min(largest).max(1);
        loop {
            let mut at = 0;
            while at < len(&self.best) {
                let count = piece.min(len(&self.best) - at);
                let mut plan = self.best.clone();
                cut(&mut plan, at, count);
                if !self.try_out(plan) {
                    at += count;
                }
            }
            if piece == 1 {
                return;
            }
            piece /= 2;
        }
    }
}
