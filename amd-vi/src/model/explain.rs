//! A translation in words: every structure read, with address and value, and why it ended.

use super::devices::{Lookup, Route};
use super::fault::Fault;
use super::walk::{Walker, rights};
use super::{Iommu, access};
use std::fmt::{Arguments, Write};
use viommu_plugin::{Message, Request};

impl Iommu {
    /// Walks for `request` as if nothing were cached, changing nothing.
    pub(super) fn tell(&self, request: &Request, text: &mut Message) {
        // A message cannot fail: what does not fit is cut.
        let mut tell = |line: Arguments<'_>| {
            let _ = writeln!(text, "{line}");
        };
        if !self.registers.control().iommu_en() {
            tell(format_args!("IommuEn is 0: identity"));
            return;
        }
        if let Err(fault) = self.narrate(request, &mut tell) {
            let name = fault.event.name().unwrap_or("unknown event");
            let stage = ["", " of the guest's stage", " of the host's stage"][usize::from(fault.stage.min(2))];
            tell(format_args!("ends with {name}{stage}"));
            if let Some(address) = fault.unreadable {
                tell(format_args!("{address:#x} is not memory"));
            }
        }
    }

    fn narrate(&self, request: &Request, tell: &mut impl FnMut(Arguments<'_>)) -> Result<(), Fault> {
        let lookup = Lookup { identity: &self.identity, registers: &self.registers, memory: &*self.host };
        let (address, [w0, w1, w2, w3]) = lookup.entry(request.stream)?;
        tell(format_args!("DTE {:#x} [{address:#x}] = {w0:#x} {w1:#x} {w2:#x} {w3:#x}", request.stream));
        let context = match lookup.decode(&[w0, w1, w2, w3])? {
            Route::Forward => {
                tell(format_args!("V is 0: identity"));
                return Ok(());
            }
            Route::Abort => {
                tell(format_args!("TV is 0: aborts, no event"));
                return Ok(());
            }
            Route::Context(context) => context,
        };
        let pasid = context.pasid(request.pasid, &self.identity)?;
        if let (None, 0) = (pasid, context.host.levels) {
            tell(format_args!("Mode is 0: identity, {}", rights(context.permissions)));
            return context.allow(3, access(request)).map(drop);
        }
        let guest = context.guest.as_ref().zip(pasid);
        let mut walker = Walker { memory: &*self.host, tell };
        let found = walker.translate(&context.host, guest, request.iova, access(request))?;
        let (output, log2, domain) = (found.apply(request.iova), found.log2, context.domain);
        (walker.tell)(format_args!(
            "{:#x} is at {output:#x}, {} (the entry allows {}), cached as 2^{log2} bytes for DomainID {domain}",
            request.iova,
            rights(found.permissions),
            rights(context.permissions),
        ));
        if let Some(pasid) = pasid {
            (walker.tell)(format_args!("and PASID {pasid:#x}"));
        }
        context.allow(found.permissions, access(request)).map(drop)
    }
}
