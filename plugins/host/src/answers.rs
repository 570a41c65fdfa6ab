//! What a plugin may answer. Pure checks; the words of an `Err` complete "answered out of range: ".
//!
//! Values from open sets that this host does not know become the safest one known.

use viommu_plugin::{
    Answer, Classes, Configuration, DriverInfo, Effects, EntryKey, EventOwner, GuestFault, GuestMapping, GuestQueue,
    HostEvent, KeyKind, Lookup, Mode, NO_DOMAIN, QueueFault, QueueFaultKind, QueueState, Rewritten, ShadowRange,
    Status, Stop, TranslationMode, VirtualInterface, Walked,
};

pub(crate) mod kernel;

type Checked<T> = Result<T, &'static str>;

/// Host commands that one guest command may become at most, before "no room" in an empty buffer of that size is taken
/// for a plugin that would never get on.
const EXPANSION_MAX: usize = 8;
/// Domains that a guest can number: 16 bits on every IOMMU there is.
const DOMAINS: u32 = 1 << 16;

fn check<T>(right: bool, value: T, what: &'static str) -> Checked<T> {
    if right { Ok(value) } else { Err(what) }
}

/// A rewrite of `given` guest commands with room for `room` host commands and `before` on the ring.
#[inline]
pub(crate) fn rewritten(mut answer: Rewritten, given: usize, room: usize, before: Classes) -> Checked<Rewritten> {
    let (taken, written) = (answer.taken as usize, answer.written as usize);
    check(taken <= given, (), "more commands taken than given")?;
    check(written <= room, (), "more commands written than there is room")?;
    let local = u64::from(answer.local_stream) + u64::from(answer.local_domain) + u64::from(answer.hints);
    check(local <= u64::from(answer.taken), (), "more local commands than taken")?;
    let classes = u64::from(answer.tlb) + u64::from(answer.config) + u64::from(answer.atc);
    check(classes <= u64::from(answer.written), (), "more commands by class than written")?;
    let counted = [(answer.tlb, Classes::TLB), (answer.config, Classes::CONFIG), (answer.atc, Classes::ATC)];
    let told = counted.iter().all(|(count, class)| *count == 0 || answer.classes.any(*class));
    check(told, (), "a class counted that is not in the set of classes")?;
    if answer.stop == Stop::END {
        return check(taken == given, answer, "stopped at the end with commands left");
    }
    check(taken < given, (), "stopped at a command beyond the last")?;
    match answer.stop {
        Stop::SYNC | Stop::CONFIGURATION | Stop::SHADOW => {}
        Stop::ORDER => {
            let progress = taken > 0 || before != Classes::NONE;
            check(progress, (), "asked for a SYNC with nothing to wait for")?;
        }
        Stop::ROOM => {
            let progress = taken > 0 || room < EXPANSION_MAX;
            check(progress, (), "no room for one command in a buffer for many")?;
        }
        _ => {
            answer.stop = Stop::FAULT;
            if answer.fault == GuestFault::NONE {
                answer.fault = GuestFault::ILLEGAL_OPCODE;
            }
        }
    }
    Ok(answer)
}

pub(crate) fn configuration(scope: Configuration) -> Checked<Configuration> {
    let says_something = scope.first <= scope.last || scope.flush == 1;
    check(says_something && scope.flush <= 1, scope, "last ID before the first, and nothing to forget")
}

pub(crate) fn translation_mode(mode: u64) -> Checked<TranslationMode> {
    let known = [TranslationMode::NESTED, TranslationMode::SHADOW];
    known.into_iter().find(|known| u64::from(known.0) == mode).ok_or("a mode of unknown number")
}

pub(crate) fn shadow_range(range: ShadowRange) -> Checked<ShadowRange> {
    check(range.all_domains <= 1, (), "neither one domain nor all")?;
    check(range.first <= range.last, range, "last address before the first")
}

/// A walk of `first..=last` that wrote to `out`: leaves ascend without overlapping, each is a power of two in size and
/// aligned to it, and each maps some of the range. A walk that goes on does so further on.
pub(crate) fn walked(walked: Walked, first: u64, last: u64, out: &[GuestMapping]) -> Checked<Walked> {
    let written = out.get(..walked.written as usize).ok_or("more leaves than there is room")?;
    let mut free = 0;
    for leaf in written {
        let sized = leaf.length.is_power_of_two() && leaf.length >= 0x1000;
        check(sized && leaf.iova % leaf.length == 0 && leaf.gpa % 0x1000 == 0, (), "a leaf of impossible size")?;
        let end = leaf.iova + (leaf.length - 1);
        check(leaf.gpa.checked_add(leaf.length - 1).is_some(), (), "a leaf beyond the address space")?;
        check(leaf.iova >= free && leaf.iova <= last && end >= first, (), "a leaf out of order or out of range")?;
        check((1..=3).contains(&leaf.permissions), (), "a leaf that permits nothing, or what there is not")?;
        free = end.saturating_add(1);
    }
    let goes_on = walked.done == 1 || (walked.done == 0 && walked.next > first && walked.next >= free);
    check(goes_on, walked, "a walk that is not done and does not go on")
}

pub(crate) fn entry_key(mut key: EntryKey) -> Checked<EntryKey> {
    if !matches!(key.kind, KeyKind::BYPASS | KeyKind::TRANSLATE) {
        key.kind = KeyKind::ABORT;
    }
    let canonical = key.kind == KeyKind::TRANSLATE || (key.words == [0; 4] && key.domain == NO_DOMAIN);
    check(canonical, (), "words or a domain in a key that does not translate")?;
    check(key.domain == NO_DOMAIN || key.domain < DOMAINS, key, "a domain beyond the last")
}

#[inline]
pub(crate) fn effects(effects: &Effects) -> Checked<()> {
    check(effects.store_count as usize <= effects.stores.len(), (), "more stores than there is room")?;
    check(effects.msi_count as usize <= effects.msis.len(), (), "more messages than there is room")?;
    let stores = &effects.stores[..effects.store_count as usize];
    let fit = stores.iter().all(|store| store.len as usize <= store.bytes.len());
    check(fit, (), "a store longer than its bytes")
}

/// A command queue of a vendor whose commands have at most `command_words`.
#[inline]
pub(crate) fn queue(queue: &mut GuestQueue, command_words: usize) -> Checked<()> {
    if !matches!(queue.state, QueueState::DISABLED | QueueState::RUNNING) {
        queue.state = QueueState::STOPPED;
    }
    if queue.state == QueueState::RUNNING && queue.fault == GuestFault::NONE {
        let words = (1..=command_words).contains(&(queue.command_words as usize));
        check(words, (), "commands of impossible length")?;
        check(queue.capacity == 0 || queue.head < queue.capacity, (), "the queue's head is outside it")?;
    }
    check(queue.pending <= queue.capacity, (), "more commands pending than the queue holds")
}

pub(crate) fn mode(mode: Mode) -> Mode {
    if matches!(mode, Mode::BYPASS | Mode::TRANSLATE) { mode } else { Mode::ABORT }
}

pub(crate) fn lookup(lookup: Lookup) -> Lookup {
    if matches!(lookup, Lookup::FOUND | Lookup::NO_ENTRY) { lookup } else { Lookup::UNREADABLE }
}

pub(crate) fn driver_info(info: DriverInfo, command_words: usize) -> Checked<DriverInfo> {
    let ring = info.ring;
    check((1..=command_words).contains(&(ring.command_words as usize)), (), "ring commands of impossible length")?;
    check((1..=24).contains(&ring.log2_commands), (), "a ring of impossible size")?;
    let index_bits = u64::from(ring.index_shift) + u64::from(ring.log2_commands) + u64::from(ring.wrap_bit);
    check(index_bits <= 32 && ring.wrap_bit <= 1, (), "an index beyond its register")?;
    check(info.first_tag <= info.last_tag, (), "no tags")?;
    check(info.modes != 0, (), "no mode in which guests can be served")?;
    check(info.streams > 0, (), "no streams")?;
    check(info.page_log2 <= info.ipa_bits && info.ipa_bits <= 64, info, "an impossible page or address size")
}

/// An interface whose guest sees `frame_bytes` of registers.
pub(crate) fn interface(interface: VirtualInterface, frame_bytes: u64) -> Checked<VirtualInterface> {
    let VirtualInterface { page, page_length, guest_page, .. } = interface;
    check((page | page_length | guest_page) % 0x1000 == 0, (), "a page of registers that cannot be mapped")?;
    check(page.checked_add(page_length).is_some(), (), "a page of registers beyond all of them")?;
    let shown = guest_page.checked_add(page_length).is_some_and(|end| end <= frame_bytes);
    check(page_length == 0 || shown, interface, "a page of registers outside the guest's frame")
}

pub(crate) fn queue_fault(fault: QueueFault) -> Checked<QueueFault> {
    let known = [QueueFaultKind::ILLEGAL, QueueFaultKind::FETCH, QueueFaultKind::ATC_TIMEOUT].contains(&fault.kind);
    check(known, fault, "a queue fault of unknown kind")
}

pub(crate) fn host_event(mut event: HostEvent) -> Checked<HostEvent> {
    if !matches!(event.owner, EventOwner::GUEST | EventOwner::LOST | EventOwner::INTERFACE) {
        event.owner = EventOwner::HOST;
    }
    check(event.words as usize <= event.record.len(), event, "an event longer than its record")
}

/// Answers written by a translation.
#[inline]
pub(crate) fn answers(answers: &[Answer]) -> Checked<()> {
    let right = answers.iter().all(|answer| answer.status.0 <= Status::DISABLED.0 && answer.leaf_log2 <= 64);
    check(right, (), "an answer of unknown status or impossible size")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(taken: u32, written: u32, stop: Stop) -> Rewritten {
        Rewritten { taken, written, stop, ..Default::default() }
    }

    #[test]
    fn a_rewrite_must_stay_in_its_buffers_and_get_on() {
        let none = Classes::NONE;
        assert!(rewritten(answer(4, 4, Stop::END), 4, 4, none).is_ok());
        assert!(rewritten(answer(5, 4, Stop::END), 4, 4, none).is_err());
        assert!(rewritten(answer(4, 5, Stop::END), 4, 4, none).is_err());
        assert!(rewritten(answer(3, 3, Stop::END), 4, 4, none).is_err());
        assert!(rewritten(answer(4, 0, Stop::SYNC), 4, 4, none).is_err());
        assert!(rewritten(answer(0, 0, Stop::ORDER), 4, 4, none).is_err());
        assert!(rewritten(answer(0, 0, Stop::ORDER), 4, 4, Classes::TLB).is_ok());
        assert!(rewritten(answer(0, 0, Stop::ROOM), 4, 1, none).is_ok());
        assert!(rewritten(answer(0, 0, Stop::ROOM), 4, 64, none).is_err());
        assert!(rewritten(Rewritten { hints: 5, ..answer(4, 0, Stop::END) }, 4, 4, none).is_err());
        assert!(rewritten(Rewritten { atc: 1, ..answer(4, 4, Stop::END) }, 4, 4, none).is_err());
    }

    #[test]
    fn an_unknown_stop_is_a_fault_with_a_reason() {
        let checked = rewritten(answer(1, 1, Stop(77)), 4, 4, Classes::NONE).unwrap();
        assert_eq!((checked.stop, checked.fault), (Stop::FAULT, GuestFault::ILLEGAL_OPCODE));
    }

    #[test]
    fn unknown_values_become_the_safest_known() {
        assert_eq!(mode(Mode(9)), Mode::ABORT);
        assert_eq!(lookup(Lookup(9)), Lookup::UNREADABLE);
        assert_eq!(entry_key(EntryKey { kind: KeyKind(9), ..Default::default() }).unwrap().kind, KeyKind::ABORT);
        assert!(entry_key(EntryKey { kind: KeyKind::BYPASS, words: [1, 0, 0, 0], ..Default::default() }).is_err());
    }

    #[test]
    fn a_queue_holds_what_is_pending() {
        let right =
            GuestQueue { capacity: 8, pending: 8, command_words: 2, state: QueueState::RUNNING, ..Default::default() };
        let taken = |mut answer: GuestQueue| queue(&mut answer, 2).is_ok();
        assert!(taken(right));
        assert!(!taken(GuestQueue { pending: 9, ..right }));
        assert!(!taken(GuestQueue { head: 8, ..right }));
        assert!(!taken(GuestQueue { command_words: 3, ..right }));
    }
}
