//! A translation in words: every structure read, with address and value, and why it ended.

use super::context::Route;
use super::fault::Fault;
use super::stream::Lookup;
use super::walk::{Narrator, Walker, rights};
use super::{Smmu, access};
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

impl Smmu {
    /// Walks for `request` as if nothing were cached, changing nothing.
    pub(super) fn tell(&self, request: &Request, text: &mut Message) {
        let mut story = Story(text);
        if !self.registers.cr0().smmuen() {
            let abort = self.registers.gbpa().abort();
            story.tell(format_args!("SMMUEN is 0: {}", if abort { "abort (GBPA.ABORT)" } else { "identity" }));
            return;
        }
        let walker = Walker { memory: &*self.host, narrator: Story(text) };
        let lookup = Lookup { identity: &self.identity, registers: &self.registers, walker };
        let outcome = narrate(lookup, request);
        if let Err(Fault { event, stage, address, .. }) = outcome {
            let name = event.name().unwrap_or("unknown event");
            let stage = ["configuration", "stage 1", "stage 2"].get(usize::from(stage)).unwrap_or(&"?");
            Story(text).tell(format_args!("ends with {name} of {stage} ({address:#x})"));
        }
    }
}

fn narrate(mut lookup: Lookup<'_, Story<'_>>, request: &Request) -> Result<(), Fault> {
    let ste = lookup.ste(request.stream)?;
    match lookup.route(&ste, request.pasid)? {
        Route::Abort => lookup.walker.narrator.tell(format_args!("STE.Config {} aborts, no event", ste.config.0)),
        Route::Bypass => lookup.walker.narrator.tell(format_args!("bypass: identity")),
        Route::Translate(context) => {
            let input = context.canonical(request.iova);
            let (found, global) = lookup.walker.translate(&context.stages, input, access(request))?;
            let (output, rights) = (found.apply(input), rights(found.permissions));
            let (vmid, whose) = (context.vmid, if global { "any ASID" } else { "its own tag" });
            let log2 = found.log2;
            lookup.walker.narrator.tell(format_args!(
                "{input:#x} is at {output:#x}, {rights}, cached as 2^{log2} bytes for VMID {vmid}, {whose}"
            ));
        }
    }
    Ok(())
}
