//! What a plugin may answer about the kernel's payloads.

use super::{Checked, DOMAINS, check};
use viommu_plugin::{InvalidateTarget, KernelEntries, KernelEvent, KernelFacts, NO_DOMAIN, Nesting, VirtualInterface};

/// Most bytes of a payload or of an invalidation entry: a page, as in the kernel.
const PAYLOAD_MAX: u32 = 4096;

/// Facts that agree with each other. A nesting that this host does not know is none.
pub(crate) fn facts(mut facts: KernelFacts) -> Checked<KernelFacts> {
    if !matches!(facts.nesting, Nesting::VIOMMU | Nesting::PARENT) {
        facts.nesting = Nesting::NONE;
    }
    let sizes = [
        facts.hw_info_bytes,
        facts.hw_info_more_bytes,
        facts.viommu_data_bytes,
        facts.hwpt_data_bytes,
        facts.invalidate_entry_bytes,
        facts.vevent_bytes,
        facts.interface_vevent_bytes,
    ];
    check(sizes.iter().all(|&bytes| bytes <= PAYLOAD_MAX), (), "a payload of impossible size")?;
    check(facts.hw_info_type != 0 && facts.hw_info_bytes > 0, (), "no type of hardware information")?;
    check((facts.hw_info_more_type == 0) == (facts.hw_info_more_bytes == 0), (), "half a second hardware information")?;
    let nests = facts.nesting != Nesting::NONE;
    check(nests == (facts.hwpt_data_type != 0 && facts.hwpt_data_bytes > 0), (), "nesting without HWPT data")?;
    check(nests == (facts.invalidate_entry_bytes > 0), (), "nesting without invalidation entries")?;
    check((facts.nesting == Nesting::VIOMMU) == (facts.viommu_type != 0), (), "nesting and vIOMMU type disagree")?;
    let on_viommu = facts.veventq_type | facts.interface_veventq_type | facts.hw_queue_type | facts.viommu_data_bytes;
    check(facts.viommu_type != 0 || on_viommu == 0, (), "queues of a vIOMMU that there is not")?;
    let known = matches!(facts.invalidate_target, InvalidateTarget::VIOMMU | InvalidateTarget::NESTED_HWPT);
    check(known, facts, "invalidations of an unknown object")
}

/// Entries made of `given` words in commands of `command_words`, with room for `room` bytes.
pub(crate) fn entries(
    answer: KernelEntries,
    given: usize,
    command_words: usize,
    room: usize,
) -> Checked<KernelEntries> {
    let (taken, written) = (answer.taken as usize, answer.written as usize);
    check(taken <= given && taken.is_multiple_of(command_words), (), "words taken that are no whole commands")?;
    check(written <= room, (), "more bytes written than there is room")?;
    let length = answer.entry_bytes as usize;
    check(length <= PAYLOAD_MAX as usize, (), "an entry of impossible size")?;
    let whole = if length == 0 { written == 0 } else { written.is_multiple_of(length) };
    check(whole, (), "bytes written that are no whole entries")?;
    let known = matches!(answer.target, InvalidateTarget::VIOMMU | InvalidateTarget::NESTED_HWPT);
    check(known, (), "invalidations of an unknown object")?;
    check(answer.domain < DOMAINS || answer.domain == NO_DOMAIN, (), "a domain of impossible number")?;
    check(answer.refused <= 1 && (answer.refused == 0 || taken < given), (), "refused a command beyond the last")?;
    let progress = taken > 0 || given == 0 || answer.refused == 1 || room < PAYLOAD_MAX as usize;
    check(progress, answer, "took nothing with room for an entry")
}

pub(crate) fn event(event: KernelEvent) -> Checked<KernelEvent> {
    let inside = event.words >= 1 && event.words as usize <= event.record.len();
    check(inside, event, "an event longer than its record")
}

/// Registers that can be mapped, for a guest that sees `frame_bytes` of them.
pub(crate) fn interface(interface: VirtualInterface, frame_bytes: u64) -> Checked<VirtualInterface> {
    check(interface.page_length > 0, (), "no registers to map")?;
    super::interface(interface, frame_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right() -> KernelFacts {
        KernelFacts {
            hw_info_type: 2,
            hw_info_bytes: 40,
            viommu_type: 1,
            hwpt_data_type: 2,
            hwpt_data_bytes: 16,
            invalidate_entry_bytes: 16,
            veventq_type: 1,
            vevent_bytes: 32,
            ..KernelFacts::default()
        }
    }

    #[test]
    fn facts_must_agree_with_each_other() {
        assert!(facts(right()).is_ok());
        for wrong in [
            KernelFacts { hw_info_type: 0, ..right() },
            KernelFacts { hw_info_bytes: 0, ..right() },
            KernelFacts { hw_info_more_type: 3, ..right() },
            KernelFacts { viommu_type: 0, ..right() },
            KernelFacts { hwpt_data_type: 0, ..right() },
            KernelFacts { invalidate_entry_bytes: 0, ..right() },
            KernelFacts { invalidate_entry_bytes: 4097, ..right() },
            KernelFacts { invalidate_target: InvalidateTarget(2), ..right() },
            KernelFacts { nesting: Nesting::PARENT, ..right() },
            KernelFacts { nesting: Nesting::NONE, ..right() },
        ] {
            assert!(facts(wrong).is_err(), "{wrong:?}");
        }
        let unknown = KernelFacts { hw_info_type: 9, hw_info_bytes: 8, nesting: Nesting(77), ..KernelFacts::default() };
        assert_eq!(facts(unknown).map(|facts| facts.nesting), Ok(Nesting::NONE));
    }

    #[test]
    fn entries_stay_in_their_buffers_and_get_on() {
        let right = KernelEntries { taken: 4, written: 32, entry_bytes: 16, ..KernelEntries::default() };
        let taken = |answer| entries(answer, 4, 2, 32).is_ok();
        assert!(taken(right));
        for wrong in [
            KernelEntries { taken: 6, ..right },
            KernelEntries { taken: 3, ..right },
            KernelEntries { written: 48, ..right },
            KernelEntries { written: 24, ..right },
            KernelEntries { entry_bytes: 0, ..right },
            KernelEntries { entry_bytes: 1 << 20, ..right },
            KernelEntries { target: InvalidateTarget(2), ..right },
            KernelEntries { domain: 1 << 16, ..right },
            KernelEntries { refused: 1, ..right },
            KernelEntries { refused: 2, taken: 2, ..right },
        ] {
            assert!(!taken(wrong), "{wrong:?}");
        }
        let nothing = KernelEntries::default();
        assert!(entries(nothing, 4, 2, 15).is_ok(), "there may be no room");
        assert!(entries(nothing, 4, 2, 4096).is_err(), "there is");
        assert!(entries(KernelEntries { refused: 1, ..nothing }, 4, 2, 4096).is_ok());
    }
}
