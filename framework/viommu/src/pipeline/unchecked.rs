//! For tests of a sink that finds illegal commands itself: a rewrite that lets them through.

use viommu_plugin::{Classes, HostIds, Rewritten, Stop};
use viommu_plugin_host::{CallError, Codec};

/// As [`Codec::rewrite`], but what that refuses goes on as the guest wrote it, counted as a TLB invalidation.
pub(super) fn rewrite(
    codec: &Codec,
    command_words: usize,
    guest: &[u64],
    before: Classes,
    ids: HostIds<'_>,
    out: &mut [u64],
) -> Result<Rewritten, CallError> {
    let mut whole = codec.rewrite(guest, before, ids, out)?;
    while whole.stop == Stop::FAULT {
        let (taken, written) = (whole.taken as usize * command_words, whole.written as usize * command_words);
        let Some(room) = out.get_mut(written..written + command_words) else {
            whole.stop = Stop::ROOM;
            break;
        };
        room.copy_from_slice(&guest[taken..taken + command_words]);
        let classes = whole.classes.with(Classes::TLB);
        let (guest, out) = (&guest[taken + command_words..], &mut out[written + command_words..]);
        let rest = codec.rewrite(guest, before.with(classes), ids, out)?;
        whole = Rewritten {
            taken: whole.taken + 1 + rest.taken,
            written: whole.written + 1 + rest.written,
            stop: rest.stop,
            fault: rest.fault,
            classes: classes.with(rest.classes),
            local_stream: whole.local_stream + rest.local_stream,
            local_domain: whole.local_domain + rest.local_domain,
            hints: whole.hints + rest.hints,
            tlb: whole.tlb + 1 + rest.tlb,
            config: whole.config + rest.config,
            atc: whole.atc + rest.atc,
            reserved: 0,
        };
    }
    Ok(whole)
}
