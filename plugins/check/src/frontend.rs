//! Checks of the frontend.

use crate::check::{Checked, ensure};
use crate::random::Random;
use crate::{Samples, Verdict};
use viommu_plugin::{Effects, GuestFault, GuestMemory, Lookup, QueueState, Register, Unreadable};
use viommu_plugin_host::{CallError, Frontend, Plugin};

/// Bytes of a register frame that are looked at one by one.
const FRAME_MAX: u64 = 1 << 18;

fn frontend(plugin: &Plugin, samples: &Samples) -> Checked<Frontend> {
    if !plugin.info().parts.contains(&"frontend") {
        return Err(Verdict::Skipped("it offers no frontend"));
    }
    Ok(plugin.frontend(&samples.registers)?)
}

/// Guest memory that holds the same word everywhere, or is not there.
struct Memory(Option<u64>);

impl GuestMemory for Memory {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let word = self.0.ok_or(Unreadable)?.to_le_bytes();
        bytes.iter_mut().zip(gpa..).for_each(|(byte, at)| *byte = word[(at % 8) as usize]);
        Ok(())
    }
}

/// Offsets of the registers that have a name.
fn named(plugin: &Plugin, frontend: &Frontend) -> Result<Vec<u64>, CallError> {
    let mut offsets = Vec::new();
    for offset in (0..plugin.info().frame_bytes.min(FRAME_MAX)).step_by(4) {
        if frontend.register_name(offset)?.is_some() {
            offsets.push(offset);
        }
    }
    Ok(offsets)
}

/// A random write: mostly to a register that has a name, mostly of a size that exists.
fn write(frontend: &mut Frontend, random: &mut Random, plugin: &Plugin, named: &[u64]) -> Result<(), CallError> {
    let anywhere = random.index(plugin.info().frame_bytes as usize) as u64;
    let offset = if named.is_empty() || random.index(8) == 0 { anywhere } else { random.of(named) };
    let size = random.of(&[4, 4, 8, 8, 8, 1, 2, 0, 16]);
    frontend.write(offset, size, random.word())?;
    frontend.read(offset, size)?;
    Ok(())
}

pub(crate) fn shows_id_registers(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut frontend = frontend(plugin, samples)?;
    let own: Vec<_> =
        samples.registers.iter().filter(|register| !samples.hardware.contains(register)).copied().collect();
    if own.is_empty() {
        return Err(Verdict::Skipped("no ID registers are known"));
    }
    for after in ["creation", "a reset"] {
        for register in &own {
            let value = frontend.read(register.offset, 4)?;
            let shown = value as u32 == register.value as u32;
            ensure!(
                shown,
                "register {:#x} reads {value:#x} after {after}, given {:#x}",
                register.offset,
                register.value
            );
            frontend.write(register.offset, 4, !register.value)?;
        }
        frontend.reset()?;
    }
    Ok(())
}

pub(crate) fn random_mmio_survives(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut frontend = frontend(plugin, samples)?;
    let registers = named(plugin, &frontend)?;
    let mut random = Random::new(samples.seed);
    let (words, record) = (plugin.info().entry_words, vec![u64::MAX; plugin.info().event_words]);
    let no_command = vec![vec![0; plugin.info().command_words]];
    let commands = if samples.commands.is_empty() { &no_command } else { &samples.commands };
    for _ in 0..20_000 {
        write(&mut frontend, &mut random, plugin, &registers)?;
        frontend.mode()?;
        let queue = frontend.queue()?;
        match random.index(16) {
            0 => _ = frontend.event(random.word() as u32, &record)?,
            1 => _ = frontend.event_lost()?,
            2 => _ = frontend.fault(GuestFault(random.index(9) as u32))?,
            3 if queue.pending > 0 => _ = frontend.sync_done(&commands[random.index(commands.len())])?,
            4 => frontend.advance(random.index(queue.pending as usize + 1) as u32)?,
            5 => {
                let memory = Memory(Some(random.word()));
                frontend.entry(&memory, random.word() as u32, &mut vec![0; words])?;
            }
            6 if random.index(64) == 0 => frontend.reset()?,
            7 => frontend.trouble(&mut Default::default())?,
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn reset_idempotent(plugin: &Plugin, samples: &Samples) -> Checked {
    let fresh = frontend(plugin, samples)?;
    let registers = named(plugin, &fresh)?;
    let mut used = frontend(plugin, samples)?;
    let mut random = Random::new(samples.seed ^ 0x2e5e7);
    for _ in 0..8 {
        for _ in 0..500 {
            write(&mut used, &mut random, plugin, &registers)?;
        }
        for time in ["a", "a second"] {
            used.reset()?;
            for offset in (0..plugin.info().frame_bytes.min(FRAME_MAX)).step_by(4) {
                let (new, now) = (fresh.read(offset, 4)?, used.read(offset, 4)?);
                ensure!(new == now, "register {offset:#x} is {now:#x} after {time} reset, {new:#x} in a new frontend");
            }
            ensure!(fresh.queue()? == used.queue()?, "the queue is {:?} after {time} reset", used.queue()?);
            ensure!(fresh.mode()? == used.mode()?, "the mode is {:?} after {time} reset", used.mode()?);
        }
    }
    Ok(())
}

pub(crate) fn queue_pending_bounded(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut frontend = frontend(plugin, samples)?;
    let registers = named(plugin, &frontend)?;
    let mut random = Random::new(samples.seed ^ 0x9e0e);
    let mut ran = 0;
    for _ in 0..20_000 {
        write(&mut frontend, &mut random, plugin, &registers)?;
        let queue = frontend.queue()?;
        if queue.state == QueueState::RUNNING && queue.fault == GuestFault::NONE && queue.pending > 0 {
            ran += 1;
            frontend.advance(1)?;
            let one = frontend.queue()?;
            let next = if queue.head + 1 == queue.capacity { 0 } else { queue.head + 1 };
            ensure!((one.head, one.pending) == (next, queue.pending - 1), "{queue:?} advanced by one is {one:?}");
            frontend.advance(one.pending)?;
            let none = frontend.queue()?;
            ensure!(none.pending == 0, "{one:?} advanced past all of it is {none:?}");
        }
        if random.index(64) == 0 {
            frontend.reset()?;
        }
    }
    if ran == 0 { Err(Verdict::Skipped("random writes never started the queue")) } else { Ok(()) }
}

pub(crate) fn entry_needs_memory(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut frontend = frontend(plugin, samples)?;
    let registers = named(plugin, &frontend)?;
    let mut random = Random::new(samples.seed ^ 0xe4);
    for _ in 0..2_000 {
        write(&mut frontend, &mut random, plugin, &registers)?;
        let virt_id = random.word() as u32;
        let lookup = frontend.entry(&Memory(None), virt_id, &mut vec![0; plugin.info().entry_words])?;
        ensure!(lookup != Lookup::FOUND, "an entry of {virt_id:#x} was found without memory");
    }
    Ok(())
}

/// A state, or that this plugin has none to give.
fn saved(frontend: &Frontend) -> Checked<Vec<u8>> {
    match frontend.save() {
        Err(CallError::Missing { .. }) => Err(Verdict::Skipped("it is older than saved states")),
        saved => Ok(saved?),
    }
}

/// The first difference that a guest or the framework can see between two frontends.
fn difference(plugin: &Plugin, one: &Frontend, other: &Frontend) -> Result<Option<String>, CallError> {
    for offset in (0..plugin.info().frame_bytes.min(FRAME_MAX)).step_by(4) {
        let (a, b) = (one.read(offset, 4)?, other.read(offset, 4)?);
        if a != b {
            return Ok(Some(format!("register {offset:#x} is {b:#x} instead of {a:#x}")));
        }
    }
    let (a, b) = (one.queue()?, other.queue()?);
    if a != b {
        return Ok(Some(format!("the queue is {b:?} instead of {a:?}")));
    }
    let (a, b) = (one.mode()?, other.mode()?);
    Ok((a != b).then(|| format!("the mode is {b:?} instead of {a:?}")))
}

/// One thing that a guest or its devices do; what the frontend asks for then.
fn act(frontend: &mut Frontend, seed: u64, plugin: &Plugin, named: &[u64]) -> Result<Effects, CallError> {
    let mut random = Random::new(seed);
    let record = vec![random.word(); plugin.info().event_words];
    match random.index(8) {
        0 => frontend.event(random.word() as u32, &record).copied(),
        1 => frontend.event_lost().copied(),
        2 => frontend.fault(GuestFault(random.index(9) as u32)).copied(),
        _ => {
            let (offset, size) = (if named.is_empty() { 0 } else { random.of(named) }, random.of(&[4, 8]));
            // Mostly what a driver writes: few bits.
            let value = if random.index(2) == 0 { random.word() } else { random.sparse() };
            frontend.write(offset, size, value).copied()
        }
    }
}

pub(crate) fn save_restores(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut lived = frontend(plugin, samples)?;
    let registers = named(plugin, &lived)?;
    let mut random = Random::new(samples.seed ^ 0x5a7e);
    for round in 0..64 {
        for _ in 0..random.index(200) {
            act(&mut lived, random.word(), plugin, &registers)?;
        }
        let state = saved(&lived)?;
        let mut restored = frontend(plugin, samples)?;
        // What it was before does not matter.
        for _ in 0..random.index(50) {
            act(&mut restored, random.word(), plugin, &registers)?;
        }
        restored.restore(&state)?;
        let found = difference(plugin, &lived, &restored)?;
        ensure!(found.is_none(), "restored in round {round}: {}", found.unwrap_or_default());
        ensure!(restored.save()? == state, "restored in round {round}, it saves other bytes than it was made of");
        for _ in 0..100 {
            let seed = random.word();
            let (as_lived, as_restored) =
                (act(&mut lived, seed, plugin, &registers)?, act(&mut restored, seed, plugin, &registers)?);
            ensure!(as_lived == as_restored, "restored, it asks for {as_restored:?} instead of {as_lived:?}");
        }
        let found = difference(plugin, &lived, &restored)?;
        ensure!(found.is_none(), "some accesses after round {round}: {}", found.unwrap_or_default());
    }
    Ok(())
}

pub(crate) fn restore_refuses(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut lived = frontend(plugin, samples)?;
    let registers = named(plugin, &lived)?;
    let mut random = Random::new(samples.seed ^ 0xc07);
    for _ in 0..100 {
        act(&mut lived, random.word(), plugin, &registers)?;
    }
    let state = saved(&lived)?;
    let mut wrong: Vec<(String, Vec<u8>)> = (0..state.len())
        .map(|length| (format!("{length} of {} bytes", state.len()), state[..length].to_vec()))
        .collect();
    wrong.push(("a byte behind the end".into(), [&state[..], &[0]].concat()));
    wrong.push((
        "another version".into(),
        state.iter().enumerate().map(|(at, byte)| if at < 4 { 0xff } else { *byte }).collect(),
    ));
    let mut other = frontend(plugin, samples)?;
    let before = saved(&other)?;
    for (what, bytes) in &wrong {
        match other.restore(bytes) {
            Err(CallError::Refused(refusal)) => ensure!(!refusal.text.is_empty(), "{what}: refused without a reason"),
            Err(error) => return Err(error.into()),
            Ok(()) => return Err(Verdict::Failed(format!("{what}: taken for a state"))),
        }
        ensure!(other.save()? == before, "{what}: refused, and the frontend is another");
    }
    // Bytes that are nothing: taken or refused, they break nothing.
    for _ in 0..2_000 {
        let mut bytes = state.clone();
        for _ in 0..=random.index(8) {
            let at = random.index(bytes.len().max(1));
            bytes.get_mut(at).into_iter().for_each(|byte| *byte = random.word() as u8);
        }
        match other.restore(&bytes) {
            Ok(()) | Err(CallError::Refused(_)) => {}
            Err(error) => return Err(error.into()),
        }
        other.queue()?;
        other.mode()?;
    }
    Ok(())
}

pub(crate) fn fewer_features_are_refused(plugin: &Plugin, samples: &Samples) -> Checked {
    let lived = frontend(plugin, samples)?;
    let state = saved(&lived)?;
    plugin.covers(&samples.registers, &samples.registers)?;
    let mut found = 0;
    for index in 0..samples.registers.len() {
        for bit in 0..64 {
            let mut fewer: Vec<Register> = samples.registers.clone();
            fewer[index].value &= !(1 << bit);
            if fewer == samples.registers || samples.hardware.contains(&samples.registers[index]) {
                continue;
            }
            // Whoever finds these registers impossible refuses earlier, by name too.
            let Ok(mut poorer) = plugin.frontend(&fewer) else { continue };
            match plugin.covers(&fewer, &samples.registers) {
                Ok(()) => {}
                Err(CallError::Refused(refusal)) => {
                    found += 1;
                    ensure!(!refusal.text.is_empty(), "refused without a name");
                    let restored = poorer.restore(&state);
                    ensure!(restored.is_err(), "a guest that this is refused for was restored: {refusal}");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    ensure!(found > 0 || samples.registers.is_empty(), "no feature that is missing is missed");
    Ok(())
}
