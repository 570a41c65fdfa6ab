//! Commands in words, for people.

use crate::spec::commands::{
    CompletePprRequest, CompletionWait, InvalidateDevice, InvalidateIommuPages, InvalidateIotlbPages, Opcode, span,
};
use std::fmt::{Result, Write};

/// Writes the command's name and the fields it uses.
pub(super) fn command(words: [u64; 2], text: &mut dyn Write) -> Result {
    let opcode = Opcode::of(words[0]);
    let Some(name) = opcode.name() else {
        return write!(text, "opcode {:#x} ({:#018x} {:#018x})", opcode.0, words[0], words[1]);
    };
    write!(text, "{name}")?;
    match opcode {
        Opcode::COMPLETION_WAIT => {
            let c = CompletionWait::from_words(words);
            if c.s() {
                write!(text, " store {:#x} at {:#x}", c.data(), c.store_address())?;
            }
            write!(text, "{}{}", flag(c.i(), " interrupt"), flag(c.f(), " flush"))
        }
        Opcode::INVALIDATE_DEVTAB_ENTRY | Opcode::INVALIDATE_INTERRUPT_TABLE => {
            write!(text, " device {:#x}", InvalidateDevice::from_words(words).device_id())
        }
        Opcode::INVALIDATE_IOMMU_PAGES => {
            let c = InvalidateIommuPages::from_words(words);
            write!(text, " domain {:#x}", c.domain_id())?;
            pasid(text, c.gn(), c.pasid())?;
            pages(text, c.s(), c.address())?;
            write!(text, "{}", flag(c.pde(), " pde"))
        }
        Opcode::INVALIDATE_IOTLB_PAGES => {
            let c = InvalidateIotlbPages::from_words(words);
            write!(text, " device {:#x} queue {:#x}", c.device_id(), c.queue_id())?;
            pasid(text, c.gn(), c.pasid())?;
            pages(text, c.s(), c.address())
        }
        Opcode::PREFETCH_IOMMU_PAGES => write!(text, " device {:#x} address {:#x}", words[0] as u16, words[1] & !0xfff),
        Opcode::COMPLETE_PPR_REQUEST => {
            let c = CompletePprRequest::from_words(words);
            write!(text, " device {:#x}", c.device_id())?;
            pasid(text, c.gn(), c.pasid())?;
            write!(text, " tag {:#x} status {}", c.tag(), c.status())
        }
        _ => Ok(()),
    }
}

fn pasid(text: &mut dyn Write, valid: bool, pasid: u32) -> Result {
    if valid { write!(text, " pasid {pasid:#x}") } else { Ok(()) }
}

fn pages(text: &mut dyn Write, s: bool, address: u64) -> Result {
    match span(s, address) {
        (_, 64) => write!(text, " everything"),
        (first, log2) => write!(text, " address {first:#x} size 2^{log2}"),
    }
}

fn flag(set: bool, name: &'static str) -> &'static str {
    if set { name } else { "" }
}
