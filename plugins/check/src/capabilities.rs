//! What a plugin can do, asked of itself: its driver on its own model.

use crate::Verdict;
use crate::machine::Machine;
use crate::samples::Samples;
use viommu_plugin::{
    Classes, DriverInfo, EntryKey, HostIds, HwQueueKind, HwQueueRequest, KernelFacts, KeyKind, Register,
    TranslationMode,
};
use viommu_plugin_host::{CallError, Plugin};

/// More interfaces, or streams of one, are not counted.
const MOST: u32 = 1 << 12;
/// Bytes of memory in which a queue is tried: as much as the largest has, aligned to that.
const QUEUE_ROOM: u64 = 1 << 20;
const STREAM: u32 = 1;

/// What a vendor's hardware and its plugin can do for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// What the driver says of the hardware.
    pub info: DriverInfo,
    /// ID registers that nested guests are shown; empty if there are no such guests.
    pub nested: Vec<Register>,
    /// The same of shadowed guests.
    pub shadow: Vec<Register>,
    /// Whether guests number their domains and each gets a host tag of its own; else a guest has one tag.
    pub domains: bool,
    /// Whether guests can be saved and restored.
    pub saves: bool,
    /// Whether it can tell if hardware with fewer features serves a guest.
    pub covers: bool,
    /// How its guests are served on Linux's `/dev/iommu`; `None` if they are not.
    pub kernel: Option<KernelFacts>,
    /// Parts of the hardware that guests drive themselves; `None` if there are none.
    pub interfaces: Option<Interfaces>,
}

/// Virtual interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interfaces {
    /// How many guests can have one, at most 4096.
    pub count: u32,
    /// How many streams each can name, at most 4096.
    pub streams: u32,
    /// Bytes of registers that a guest touches directly.
    pub page_bytes: u64,
    /// What hardware uses itself of a guest's queues.
    pub queues: Vec<HwQueueKind>,
}

impl Capabilities {
    /// Asks `plugin`.
    ///
    /// # Errors
    /// [`Verdict::Skipped`] if it offers no driver or no model, [`Verdict::Failed`] if it fails.
    pub fn of(plugin: &Plugin) -> Result<Self, Verdict> {
        let mut machine = Machine::new(plugin, &[])?;
        let info = machine.driver.info()?;
        let nested = machine.driver.guest_registers(TranslationMode::NESTED)?;
        let shadow = machine.driver.guest_registers(TranslationMode::SHADOW)?;
        let interfaces = interfaces(&mut machine, info.first_tag)?;
        let shown = if nested.is_empty() { &shadow } else { &nested };
        let offers = |part| plugin.info().parts.contains(&part);
        let saves = offers("frontend") && there(plugin.frontend(shown)?.save())?;
        let covers = offers("frontend") && there(plugin.covers(shown, shown))?;
        let domains = offers("codec") && names_domains(plugin, shown)?;
        let kernel = plugin.kernel_abi().map(|kernel| kernel.facts()).transpose()?;
        Ok(Self { domains, saves, covers, kernel, interfaces, info, nested, shadow })
    }
}

/// Whether a slot that a plugin may leave out is there.
fn there<T>(answer: Result<T, CallError>) -> Result<bool, Verdict> {
    match answer {
        Ok(_) => Ok(true),
        Err(CallError::Missing { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether any command is about a domain of the guest's: nothing of it goes out where no domain has a tag.
fn names_domains(plugin: &Plugin, shown: &[Register]) -> Result<bool, Verdict> {
    let codec = plugin.codec(shown)?;
    let ids = HostIds { tag: 1, streams: &[], domains: &[] };
    for command in Samples::generic(plugin, 1)?.commands {
        // A granularity that has to be given is one of a few bits.
        for bit in 0..64 * command.len() {
            let (mut tried, mut out) = (command.clone(), vec![0; 8 * command.len()]);
            tried[bit / 64] ^= 1 << (bit % 64);
            if codec.rewrite(&tried, Classes::NONE, ids, &mut out)?.local_domain > 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn interfaces(machine: &mut Machine, tag: u32) -> Result<Option<Interfaces>, Verdict> {
    let refused = |refusal: viommu_plugin::Refusal| Verdict::Failed(refusal.text);
    let room = machine.board.memory.alloc(QUEUE_ROOM, QUEUE_ROOM).map_err(refused)?;
    let driver = &mut machine.driver;
    let stage2 = driver.stage2_create(tag)?;
    driver.stage2_map(stage2, 0, room, QUEUE_ROOM, 3)?;
    let bypass = EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() };
    driver.attach(STREAM, stage2, tag, &bypass)?;
    let Some(first) = driver.interface_create(stage2)? else { return Ok(None) };
    let mut count = 1;
    while count < MOST && matches!(driver.interface_create(stage2), Ok(Some(_))) {
        count += 1;
    }
    let mut streams = 0;
    while streams < MOST && driver.interface_stream_set(first.handle, streams, STREAM).is_ok() {
        streams += 1;
    }
    let mut queues = Vec::new();
    for kind in [HwQueueKind::COMMAND, HwQueueKind::EVENT, HwQueueKind::PAGE_REQUEST] {
        let takes = |log2| {
            let queue = HwQueueRequest { kind, index: 0, iova: 0, length: 1_u64 << log2 };
            driver.hw_queue_create(first.handle, &queue, room).is_ok()
        };
        if (12..=QUEUE_ROOM.ilog2()).any(takes) {
            queues.push(kind);
        }
    }
    Ok(Some(Interfaces { count, streams, page_bytes: first.page_length, queues }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mock_says_what_it_is() {
        let can = Capabilities::of(&Plugin::linked::<mock_plugin::Mock>()).expect("it answers");
        assert_eq!((can.info.streams, can.info.modes, can.info.ats), (256, 1, 1));
        assert_eq!((can.nested.len(), can.shadow.len()), (2, 0));
        assert_eq!(can.kernel.map(|facts| facts.viommu_type), Some(0xdead_beef));
        assert_eq!((can.domains, can.saves, can.covers, can.interfaces), (false, true, true, None));
    }
}
