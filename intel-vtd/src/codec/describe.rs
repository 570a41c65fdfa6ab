//! Descriptors in words, for people.

use crate::spec::descriptors::{
    ContextCacheInv, DescriptorType, DeviceTlbInv, Granularity, InterruptEntryCacheInv, IotlbInv, PageGroupResponse,
    PasidCacheGranularity, PasidCacheInv, PasidDeviceTlbInv, PasidIotlbGranularity, PasidIotlbInv, Wait,
    sized_range_log2,
};
use std::fmt::{Result, Write};

/// Writes the descriptor's name and the fields it uses.
pub(super) fn command(words: [u64; 4], text: &mut dyn Write) -> Result {
    let kind = DescriptorType::of(words[0]);
    let both = [words[0], words[1]];
    let Some(name) = kind.name() else {
        return write!(text, "type {:#04x} ({:#018x} {:#018x})", kind.0, words[0], words[1]);
    };
    write!(text, "{name}")?;
    match kind {
        DescriptorType::CONTEXT_CACHE => {
            let c = ContextCacheInv::from_words(both);
            match Granularity(c.granularity()) {
                Granularity::GLOBAL => write!(text, " global"),
                Granularity::DOMAIN => write!(text, " did {:#x}", c.domain_id()),
                Granularity::SELECTIVE => {
                    write!(text, " sid {:#x} fm {} did {:#x}", c.source_id(), c.function_mask(), c.domain_id())
                }
                Granularity(other) => write!(text, " g {other}"),
            }
        }
        DescriptorType::IOTLB => {
            let c = IotlbInv::from_words(both);
            match Granularity(c.granularity()) {
                Granularity::GLOBAL => write!(text, " global"),
                Granularity::DOMAIN => write!(text, " did {:#x}", c.domain_id()),
                Granularity::SELECTIVE => {
                    write!(text, " did {:#x}", c.domain_id())?;
                    pages(text, c.address(), c.address_mask(), c.hint())
                }
                Granularity(other) => write!(text, " g {other}"),
            }
        }
        DescriptorType::DEVICE_TLB => {
            let c = DeviceTlbInv::from_words(both);
            write!(text, " sid {:#x}", c.source_id())?;
            sized(text, c.address(), c.size())
        }
        DescriptorType::INTERRUPT_ENTRY_CACHE => {
            let c = InterruptEntryCacheInv::from_words(both);
            if c.selective() {
                write!(text, " index {:#x} x 2^{}", c.index(), c.index_mask())
            } else {
                write!(text, " global")
            }
        }
        DescriptorType::WAIT => wait(Wait::from_words(both), text),
        DescriptorType::PASID_IOTLB => {
            let c = PasidIotlbInv::from_words(both);
            write!(text, " did {:#x} pasid {:#x}", c.domain_id(), c.pasid())?;
            match PasidIotlbGranularity(c.granularity()) {
                PasidIotlbGranularity::PASID => Ok(()),
                PasidIotlbGranularity::PAGES => pages(text, c.address(), c.address_mask(), c.hint()),
                PasidIotlbGranularity(other) => write!(text, " g {other}"),
            }
        }
        DescriptorType::PASID_CACHE => {
            let c = PasidCacheInv::from_words(both);
            match PasidCacheGranularity(c.granularity()) {
                PasidCacheGranularity::DOMAIN => write!(text, " did {:#x}", c.domain_id()),
                PasidCacheGranularity::PASID => write!(text, " did {:#x} pasid {:#x}", c.domain_id(), c.pasid()),
                PasidCacheGranularity::GLOBAL => write!(text, " global"),
                PasidCacheGranularity(other) => write!(text, " g {other}"),
            }
        }
        DescriptorType::PASID_DEVICE_TLB => {
            let c = PasidDeviceTlbInv::from_words(both);
            write!(text, " sid {:#x}", c.source_id())?;
            if c.global() {
                write!(text, " every pasid")?
            } else {
                write!(text, " pasid {:#x}", c.pasid())?
            }
            sized(text, c.address(), c.size())
        }
        _ => {
            let c = PageGroupResponse::from_words(both);
            write!(text, " rid {:#x} group {} code {}", c.requester_id(), c.group_index(), c.response_code())
        }
    }
}

fn wait(c: Wait, text: &mut dyn Write) -> Result {
    if c.status_write() {
        write!(text, " status {:#x} at {:#x}", c.status_data(), c.status_address() << 2)?;
    }
    for (set, name) in
        [(c.interrupt(), " interrupt"), (c.fence(), " fence"), (c.page_request_drain(), " page requests")]
    {
        if set {
            write!(text, "{name}")?;
        }
    }
    Ok(())
}

fn pages(text: &mut dyn Write, address: u64, mask: u8, hint: bool) -> Result {
    write!(text, " addr {:#x} x 2^{mask}{}", address << 12, if hint { " ih" } else { "" })
}

fn sized(text: &mut dyn Write, address: u64, size: bool) -> Result {
    let log2 = if size { sized_range_log2(address) } else { 12 };
    match log2 {
        64 => write!(text, " everything"),
        _ => write!(text, " addr {:#x} size 2^{log2}", address << 12 & !((1 << log2) - 1)),
    }
}
