//! Checks of the kernel's payloads.

use crate::check::{Checked, ensure};
use crate::random::Random;
use crate::{Samples, Verdict};
use viommu_plugin::{Classes, EntryKey, HostIds, KeyKind, NO_DOMAIN, Nesting, TranslationMode};
use viommu_plugin_host::{CallError, KernelAbi, Plugin};

/// What the host lends has this beyond its end.
const CANARY: u8 = 0xa5;
/// Guest IDs and domains in the identity tables.
const IDS: u32 = 1 << 16;
/// Bytes for the entries of a run.
const ROOM: usize = 4096;
const MODES: [TranslationMode; 2] = [TranslationMode::NESTED, TranslationMode::SHADOW];

fn kernel(plugin: &Plugin) -> Checked<KernelAbi> {
    plugin.kernel_abi().ok_or(Verdict::Skipped("its guests are not served on /dev/iommu"))
}

pub(crate) fn facts_agree(plugin: &Plugin, _: &Samples) -> Checked {
    let kernel = kernel(plugin)?;
    // Loading refuses facts that do not agree.
    let facts = kernel.facts()?;
    ensure!(facts == kernel.facts()?, "they are not the same the second time: {facts:?}");
    ensure!(facts.reserved == 0, "what is reserved is not zero: {facts:?}");
    Ok(())
}

/// Hardware information: nothing, everything, and many between.
fn hw_infos(kernel: &KernelAbi, seed: u64) -> Checked<Vec<Vec<u8>>> {
    let facts = kernel.facts()?;
    let bytes = (facts.hw_info_bytes + facts.hw_info_more_bytes) as usize;
    let mut random = Random::new(seed ^ 0x1f0);
    let word = |random: &mut Random| random.word().to_ne_bytes();
    let mut all = vec![vec![0; bytes], vec![0xff; bytes]];
    all.extend((0..512).map(|_| {
        let mut info: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| word(&mut random)).collect();
        info.truncate(bytes);
        info
    }));
    Ok(all)
}

pub(crate) fn registers_are_taken(plugin: &Plugin, samples: &Samples) -> Checked {
    let kernel = kernel(plugin)?;
    for info in hw_infos(&kernel, samples.seed)? {
        for (mode, capabilities) in MODES.into_iter().flat_map(|mode| [(mode, 0), (mode, u64::MAX)]) {
            let shown = match kernel.registers(&info, capabilities, mode) {
                Err(CallError::Refused(why)) => {
                    ensure!(!why.text.is_empty(), "{info:x?} is refused without a reason");
                    continue;
                }
                shown => shown?,
            };
            ensure!(shown == kernel.registers(&info, capabilities, mode)?, "{info:x?}: not the same the second time");
            if shown.is_empty() {
                continue;
            }
            let parts = &plugin.info().parts;
            if parts.contains(&"frontend") {
                plugin.frontend(&shown)?;
            }
            if parts.contains(&"codec") {
                let served = plugin.codec(&shown)?.mode()?;
                ensure!(served == mode, "{info:x?}: asked for {}, a guest is {}", mode.name(), served.name());
            }
        }
    }
    let whole = vec![0; kernel.facts()?.hw_info_bytes as usize];
    for length in 0..whole.len() {
        let answer = kernel.registers(&whole[..length], 0, TranslationMode::NESTED);
        ensure!(matches!(answer, Err(CallError::Refused(_))), "{length} bytes of {}: {answer:?}", whole.len());
    }
    Ok(())
}

/// Keys of sample entries, and the two that have no words.
fn keys(plugin: &Plugin, samples: &Samples) -> Checked<Vec<EntryKey>> {
    let mut keys = vec![EntryKey::default(), EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() }];
    if plugin.info().parts.contains(&"codec") {
        let codec = plugin.codec(&samples.registers)?;
        for entry in &samples.entries {
            keys.push(codec.entry_key(entry)?);
        }
    }
    Ok(keys)
}

pub(crate) fn hwpt_data_is_whole(plugin: &Plugin, samples: &Samples) -> Checked {
    let kernel = kernel(plugin)?;
    let facts = kernel.facts()?;
    let whole = facts.hwpt_data_bytes as usize;
    let written = |key: &EntryKey, room: usize| -> Checked<Vec<u8>> {
        let mut data = vec![CANARY; room + 16];
        let written = kernel.hwpt_data(key, &mut data[..room])?;
        ensure!(data[room..].iter().all(|byte| *byte == CANARY), "{key:x?} with room for {room}: wrote beyond it");
        data.truncate(written);
        Ok(data)
    };
    for key in keys(plugin, samples)? {
        let data = written(&key, whole)?;
        ensure!(data.is_empty() || data.len() == whole, "{key:x?}: {} bytes of {whole}", data.len());
        let translates = key.kind == KeyKind::TRANSLATE && facts.nesting != Nesting::NONE;
        ensure!(!translates || data.len() == whole, "{key:x?} translates and has no payload");
        ensure!(data == written(&key, whole + 8)?, "{key:x?}: another payload with more room");
        if whole > 0 {
            ensure!(written(&key, whole - 1)?.is_empty(), "{key:x?}: half a payload with too little room");
        }
    }
    Ok(())
}

/// Commands that the codec passes on, as checked words: every ID is the guest's own.
fn checked(plugin: &Plugin, samples: &Samples) -> Checked<Vec<(Vec<u64>, Classes)>> {
    if !plugin.info().parts.contains(&"codec") {
        return Err(Verdict::Skipped("it offers no codec"));
    }
    let codec = plugin.codec(&samples.registers)?;
    let own: Vec<u32> = (0..IDS).collect();
    let ids = HostIds { tag: 0, streams: &own, domains: &own };
    let words = plugin.info().command_words;
    let mut passed = Vec::new();
    for command in &samples.commands {
        let mut out = vec![0; words];
        let done = codec.rewrite(command, Classes::NONE, ids, &mut out)?;
        if done.written == 1 {
            passed.push((out, done.classes));
        }
    }
    if passed.is_empty() { Err(Verdict::Skipped("no sample command reaches the hardware")) } else { Ok(passed) }
}

/// What one call makes of `commands` with room for `room` bytes: entries with their target and domain, and words taken.
fn once(kernel: &KernelAbi, commands: &[u64], room: usize) -> Checked<(Vec<String>, usize)> {
    let mut bytes = vec![CANARY; room + 64];
    let done = kernel.entries(commands, &mut bytes[..room])?;
    ensure!(bytes[room..].iter().all(|byte| *byte == CANARY), "{commands:x?}: wrote beyond room for {room}");
    ensure!(done.refused == 0, "{:x?} passed the codec and has no entry", &commands[done.taken as usize..]);
    let entries = bytes[..done.written as usize].chunks(done.entry_bytes.max(1) as usize);
    let named = |entry: &[u8]| {
        let domain = if done.domain == NO_DOMAIN { String::new() } else { format!("domain {} ", done.domain) };
        format!("{:?} {domain}{entry:x?}", done.target)
    };
    Ok((entries.map(named).collect(), done.taken as usize))
}

pub(crate) fn entries_take_prefix(plugin: &Plugin, samples: &Samples) -> Checked {
    let kernel = kernel(plugin)?;
    if kernel.facts()?.nesting == Nesting::NONE {
        return Err(Verdict::Skipped("its guests are shadowed, and have nothing to invalidate but mappings"));
    }
    let passed = checked(plugin, samples)?;
    let mut random = Random::new(samples.seed ^ 0xe27e);
    for round in 0..400 {
        let run: Vec<&[u64]> = (0..=random.index(24)).map(|_| &passed[random.index(passed.len())].0[..]).collect();
        let words = run.concat();
        let room = if round % 2 == 0 { ROOM } else { 64 + random.index(256) };
        let (mut whole, mut at) = (Vec::new(), 0);
        while at < words.len() {
            let (entries, taken) = once(&kernel, &words[at..], room)?;
            ensure!(taken > 0, "{:x?}: takes nothing with room for {room} bytes", &words[at..]);
            whole.extend(entries);
            at += taken;
        }
        let mut single = Vec::new();
        for command in &run {
            single.extend(once(&kernel, command, ROOM)?.0);
        }
        ensure!(whole == single, "{run:x?}: at once {whole:?}, one by one {single:?}");
    }
    Ok(())
}

pub(crate) fn repeats_what_has_to(plugin: &Plugin, samples: &Samples) -> Checked {
    let kernel = kernel(plugin)?;
    for (command, classes) in checked(plugin, samples)? {
        let repeated = kernel.repeatable(&command)?;
        let right = classes.any(Classes::TLB.with(Classes::CONFIG));
        ensure!(repeated == right, "{command:x?} of {classes:?}: repeatable is {repeated}");
    }
    Ok(())
}

pub(crate) fn events_survive(plugin: &Plugin, samples: &Samples) -> Checked {
    let kernel = kernel(plugin)?;
    let facts = kernel.facts()?;
    let mut frontend = match plugin.info().parts.contains(&"frontend") {
        true => Some(plugin.frontend(&samples.registers)?),
        false => None,
    };
    let mut random = Random::new(samples.seed ^ 0xe7e7);
    let queues = [
        (facts.veventq_type, facts.vevent_bytes),
        (facts.interface_veventq_type, facts.interface_vevent_bytes),
        (0x7777_7777, 32),
    ];
    for _ in 0..512 {
        let bytes: Vec<u8> = (0..64).map(|_| random.word() as u8).collect();
        for (queue, length) in queues {
            let whole = kernel.event(queue, &bytes[..length as usize])?;
            let named = [facts.veventq_type, facts.interface_veventq_type].contains(&queue) && queue != 0;
            ensure!(whole.is_some() == named, "queue type {queue:#x}, {length} bytes: {whole:?}");
            if let (Some(event), Some(frontend)) = (whole, &mut frontend) {
                frontend.event(event.virt_id, &event.record[..event.words as usize])?;
            }
            let cut = kernel.event(queue, &bytes[..(length as usize).saturating_sub(1)])?;
            ensure!(cut.is_none(), "queue type {queue:#x}: an event from a payload that is cut short: {cut:?}");
        }
        let data: Vec<u8> =
            (0..facts.viommu_data_bytes.div_ceil(8)).flat_map(|_| random.sparse().to_ne_bytes()).collect();
        match kernel.interface(&data[..facts.viommu_data_bytes as usize]) {
            // Nothing says that this is what a kernel answers: the host refuses a page that cannot be mapped.
            Ok(_) | Err(CallError::OutOfRange { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
