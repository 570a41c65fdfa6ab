//! Checks of the codec.

use crate::check::{Checked, ensure};
use crate::random::Random;
use crate::{Samples, Verdict};
use viommu_plugin::{Classes, HostIds, KeyKind, Message, NO_STREAM, Rewritten, Stop};
use viommu_plugin_host::{CallError, Codec, Plugin};

/// What the host lends has this beyond its end.
const CANARY: u64 = 0xa5a5_a5a5_a5a5_a5a5;
/// Host commands for which one guest command is given room.
const ROOM: usize = 8;
/// Guest IDs in the tables lent.
const STREAMS: usize = 1 << 16;

fn codec(plugin: &Plugin, samples: &Samples) -> Checked<Codec> {
    if !plugin.info().parts.contains(&"codec") {
        return Err(Verdict::Skipped("it offers no codec"));
    }
    Ok(plugin.codec(&samples.registers)?)
}

/// A rewrite with plenty of room: the answer, and the words written.
fn rewrite(
    plugin: &Plugin,
    codec: &Codec,
    guest: &[u64],
    before: Classes,
    ids: HostIds<'_>,
) -> Result<(Rewritten, Vec<u64>), CallError> {
    let words = plugin.info().command_words;
    let mut out = vec![0; guest.len() * ROOM];
    let done = codec.rewrite(guest, before, ids, &mut out)?;
    out.truncate(done.written as usize * words);
    Ok((done, out))
}

/// A table in which every second of the first 64 guest IDs has a stream.
fn some_streams() -> Vec<u32> {
    (0..64).map(|id| if id % 2 == 0 { 0x40 + id } else { NO_STREAM }).collect()
}

/// Runs of sample commands, in random order.
fn runs(samples: &Samples, count: usize) -> Vec<Vec<&[u64]>> {
    let mut random = Random::new(samples.seed ^ 0x4127);
    let one = |random: &mut Random| samples.commands[random.index(samples.commands.len())].as_slice();
    (0..count).map(|_| (0..=random.index(24)).map(|_| one(&mut random)).collect()).collect()
}

pub(crate) fn takes_prefix(plugin: &Plugin, samples: &Samples) -> Checked {
    let codec = codec(plugin, samples)?;
    let streams = some_streams();
    let ids = HostIds { tag: 3, streams: &streams, domains: &streams };
    for run in runs(samples, 400) {
        let (whole, words) = rewrite(plugin, &codec, &run.concat(), Classes::NONE, ids)?;
        let (mut sum, mut single) = (Rewritten::default(), Vec::new());
        for command in &run {
            let (one, out) = rewrite(plugin, &codec, command, sum.classes, ids)?;
            single.extend(out);
            sum = Rewritten {
                taken: sum.taken + one.taken,
                written: sum.written + one.written,
                stop: one.stop,
                fault: one.fault,
                classes: sum.classes.with(one.classes),
                local_stream: sum.local_stream + one.local_stream,
                local_domain: sum.local_domain + one.local_domain,
                reserved: 0,
                hints: sum.hints + one.hints,
                tlb: sum.tlb + one.tlb,
                config: sum.config + one.config,
                atc: sum.atc + one.atc,
            };
            if one.stop != Stop::END {
                break;
            }
        }
        ensure!(whole == sum, "{run:x?}: at once {whole:?}, one by one {sum:?}");
        ensure!(words == single, "{run:x?}: at once {words:x?}, one by one {single:x?}");
    }
    Ok(())
}

pub(crate) fn unknown_opcode_is_fault(plugin: &Plugin, samples: &Samples) -> Checked {
    let codec = codec(plugin, samples)?;
    let streams = some_streams();
    let (mut random, mut unknown) = (Random::new(samples.seed), 0);
    for _ in 0..4096 {
        let command: Vec<u64> = (0..plugin.info().command_words).map(|_| random.word()).collect();
        if codec.opcode_name(codec.opcode(&command)?)?.is_some() {
            continue;
        }
        unknown += 1;
        let (done, _) =
            rewrite(plugin, &codec, &command, Classes::NONE, HostIds { tag: 1, streams: &streams, domains: &[] })?;
        ensure!(done.stop == Stop::FAULT && done.taken == 0, "{command:x?} has no opcode, yet {done:?}");
    }
    if unknown == 0 { Err(Verdict::Skipped("every opcode tried has a name")) } else { Ok(()) }
}

pub(crate) fn never_writes_past_out(plugin: &Plugin, samples: &Samples) -> Checked {
    let codec = codec(plugin, samples)?;
    let words = plugin.info().command_words;
    let streams = some_streams();
    let ids = HostIds { tag: 1, streams: &streams, domains: &streams };
    for run in runs(samples, 100) {
        let guest = run.concat();
        let (most, _) = rewrite(plugin, &codec, &guest, Classes::NONE, ids)?;
        for room in 0..=run.len() {
            let mut out = vec![CANARY; (room + ROOM) * words];
            let done = codec.rewrite(&guest, Classes::NONE, ids, &mut out[..room * words])?;
            let beyond = &out[room * words..];
            ensure!(beyond.iter().all(|word| *word == CANARY), "{run:x?} with room for {room}: wrote beyond it");
            let full = done.stop == Stop::ROOM;
            ensure!(full || done == most, "{run:x?} with room for {room}: {done:?}, with more room {most:?}");
            ensure!(!full || done.taken <= most.taken, "{run:x?}: takes more with less room");
        }
    }
    Ok(())
}

/// Where the bits of an ID land if `places` are the bits that its value 1 sets.
fn placed(places: &[u64], id: u32) -> Vec<u64> {
    let place = |mask: u64| (0..64).filter(|bit| mask >> bit & 1 != 0).fold(0, |word, bit| word ^ u64::from(id) << bit);
    places.iter().map(|mask| place(*mask)).collect()
}

pub(crate) fn names_only_given_ids(plugin: &Plugin, samples: &Samples) -> Checked {
    let codec = codec(plugin, samples)?;
    let mut named = 0;
    let (zeros, mut table) = (vec![0; STREAMS], vec![0; STREAMS]);
    let plain = HostIds { tag: 0, streams: &zeros, domains: &zeros };
    for command in &samples.commands {
        let rewritten = |ids: HostIds<'_>| rewrite(plugin, &codec, command, Classes::NONE, ids);
        let (done, base) = rewritten(plain)?;
        if done.taken == 0 || done.written == 0 {
            continue;
        }
        let differ = |other: &[u64]| base.iter().zip(other).map(|(a, b)| a ^ b).collect::<Vec<u64>>();
        let (mut tags, mut streams, mut domains) = (Vec::new(), Vec::new(), Vec::new());
        // The lowest bit tells where an ID stands, all others must stand there too.
        for id in (0..8).map(|bit| 1 << bit).chain([0x03, 0x55, 0xaa, 0xff]) {
            table.fill(id);
            for (what, places, ids) in [
                ("tag", &mut tags, HostIds { tag: id, ..plain }),
                ("stream", &mut streams, HostIds { streams: &table, ..plain }),
                ("domain's tag", &mut domains, HostIds { domains: &table, ..plain }),
            ] {
                let (_, out) = rewritten(ids)?;
                if id == 1 {
                    *places = differ(&out);
                }
                let right = differ(&out) == placed(places, id);
                ensure!(right, "{command:x?} for {what} {id:#x}: {out:x?}, for {what} 0: {base:x?}");
            }
        }
        let has = |places: &[u64]| places.iter().any(|word| *word != 0);
        let (has_tag, has_stream, has_domain) = (has(&tags), has(&streams), has(&domains));
        ensure!(
            done.tlb == 0 || has_tag || has_domain,
            "{command:x?} invalidates a TLB without a tag given: {base:x?}"
        );
        ensure!(done.atc == 0 || has_stream, "{command:x?} names no stream of those given: {base:x?}");
        named += 1;

        // Only the tables say what there is: without them, nothing that names a stream or a domain goes out.
        let (done, _) = rewritten(HostIds { streams: &[], ..plain })?;
        let local = done.taken == 1 && done.written == 0 && done.local_stream == 1;
        ensure!(has_stream == local, "{command:x?}: names a stream: {has_stream}; without any stream: {done:?}");
        let (done, _) = rewritten(HostIds { domains: &[], ..plain })?;
        let local = done.taken == 1 && done.written == 0 && done.local_domain == 1;
        ensure!(has_domain == local, "{command:x?}: names a domain: {has_domain}; without any domain: {done:?}");
    }
    if named == 0 { Err(Verdict::Skipped("no sample command reaches the hardware")) } else { Ok(()) }
}

pub(crate) fn is_pure(plugin: &Plugin, samples: &Samples) -> Checked {
    let codec = codec(plugin, samples)?;
    let streams = some_streams();
    let runs = runs(samples, 50);
    let transcript = || -> Result<Vec<_>, CallError> {
        let ids = HostIds { tag: 9, streams: &streams, domains: &streams };
        runs.iter().map(|run| rewrite(plugin, &codec, &run.concat(), Classes::ATC, ids)).collect()
    };
    let first = transcript()?;
    ensure!(first == transcript()?, "the same commands were rewritten in another way the second time");
    let others = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(transcript)).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    for other in others {
        let Ok(other) = other else { return Err(Verdict::Failed("a thread ended in a panic".into())) };
        ensure!(first == other?, "another thread was answered in another way");
    }
    Ok(())
}

pub(crate) fn entry_key_is_canonical(plugin: &Plugin, samples: &Samples) -> Checked {
    let codec = codec(plugin, samples)?;
    for entry in &samples.entries {
        let key = codec.entry_key(entry)?;
        ensure!(key == codec.entry_key(entry)?, "{entry:x?} has two keys");
        ensure!(key.event == 0 || key.kind == KeyKind::ABORT, "{entry:x?} is illegal and yet lets DMA pass: {key:x?}");
        if key.kind == KeyKind::TRANSLATE {
            // The words of a key are an entry with every bit gone that does not matter: it has the same key.
            let mut reduced = key.words.to_vec();
            reduced.resize(entry.len(), 0);
            let again = codec.entry_key(&reduced)?;
            ensure!(again == key, "{entry:x?} has the key {key:x?}, whose words have the key {again:x?}");
        }
    }
    Ok(())
}

pub(crate) fn describe_nonempty(plugin: &Plugin, samples: &Samples) -> Checked {
    let codec = codec(plugin, samples)?;
    for command in &samples.commands {
        let mut text = Message::default();
        codec.describe(command, &mut text)?;
        ensure!(!text.text().trim().is_empty(), "{command:x?} has no description");
    }
    Ok(())
}
