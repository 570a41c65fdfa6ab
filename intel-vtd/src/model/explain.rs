//! A translation in words: every structure read, with address and value, and why it ended.

use super::entries::{ContextEntry, Route};
use super::fault::Fault;
use super::lookup::{Lookup, NO_PASID};
use super::walk::{Narrator, Walker, rights};
use super::{RemappingUnit, access, is_interrupt};
use crate::spec::fault_reason::FaultReason;
use std::fmt::{self, Write};
use viommu_plugin::{Message, Request};

/// Writes one line a step.
struct Story<'a>(&'a mut Message);

impl Narrator for Story<'_> {
    fn tell(&mut self, line: fmt::Arguments<'_>) {
        // A message cannot fail: what does not fit is cut.
        let _ = writeln!(self.0, "{line}");
    }
}

impl RemappingUnit {
    /// Walks for `request` as if nothing were cached, changing nothing.
    pub(super) fn tell(&self, request: &Request, text: &mut Message) {
        if !self.registers.status().translation() {
            return Story(text).tell(format_args!("GSTS.TES is 0: identity"));
        }
        if self.aborts() {
            return Story(text).tell(format_args!("RTADDR.TTM is 3: abort"));
        }
        if is_interrupt(request) && request.pasid == NO_PASID {
            return Story(text).tell(format_args!("interrupt range: not translated"));
        }
        let walker = Walker { memory: &*self.host, narrator: Story(text) };
        let lookup = Lookup { identity: &self.identity, root: self.registers.root(), walker };
        if let Err(Fault { reason, stage, input, recorded }) = narrate(lookup, request) {
            let what = reason.text().unwrap_or("unknown");
            let stage = ["configuration", "first stage", "second stage"].get(usize::from(stage)).unwrap_or(&"?");
            let silently = if recorded { "" } else { ", not recorded (FPD)" };
            let reason = reason.0;
            Story(text).tell(format_args!("fault {reason:#x} of {stage} ({input:#x}): {what}{silently}"));
        }
    }
}

fn narrate(mut lookup: Lookup<'_, Story<'_>>, request: &Request) -> Result<(), Fault> {
    let own = (request.pasid != NO_PASID).then_some(request.pasid);
    let route = match (lookup.context(request.stream)?, own) {
        (ContextEntry::Legacy { .. }, Some(_)) => {
            return Err(Fault::configuration(FaultReason::SM_PASID_IN_LEGACY_MODE));
        }
        (ContextEntry::Legacy { route, .. }, None) => route,
        (ContextEntry::Scalable(context), own) => {
            let entry = lookup.pasid(&context, own)?;
            context.route(&entry, own.unwrap_or(context.rid_pasid), own.is_none())?
        }
    };
    let Route::Translate(context) = route else {
        lookup.walker.narrator.tell(format_args!("pass-through: identity"));
        return Ok(());
    };
    let unless = |fault: Fault| fault.unless(!context.records);
    if is_interrupt(request) {
        return Err(unless(Fault::configuration(FaultReason::SM_INTERRUPT_ADDRESS)));
    }
    let found = lookup.walker.translate(&context.stages, request.iova, access(request)).map_err(unless)?;
    let (output, rights) = (found.apply(request.iova), rights(found.permissions));
    let (domain, tag, log2) = (context.domain, context.tag, found.log2);
    lookup.walker.narrator.tell(format_args!(
        "{:#x} is at {output:#x}, {rights}, cached as 2^{log2} bytes for domain {domain}, {tag:?}",
        request.iova
    ));
    Ok(())
}
