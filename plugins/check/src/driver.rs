//! Checks of the driver, on the plugin's own model.

use crate::check::{Checked, ensure};
use crate::machine::Machine;
use crate::random::Random;
use crate::{Samples, Verdict};
use viommu_plugin::{
    Answer, EntryKey, Hardware, HostInvalidation, KeyKind, ModelConfig, ModelHost, NO_DOMAIN, QueueFaultKind, Refusal,
    Request, Scope, Status, TranslationMode, Unreadable,
};
use viommu_plugin_host::{CallError, Plugin};

const BYPASS: EntryKey = EntryKey { kind: KeyKind::BYPASS, event: 0, domain: NO_DOMAIN, reserved: 0, words: [0; 4] };
const STREAM: u32 = 3;
const IPA: u64 = 0x4000_0000;
const LEN: u64 = 0x20_0000;

fn stopped(answer: &Answer) -> bool {
    matches!(answer.status, Status::ABORT | Status::FAULT)
}

/// A machine with [`STREAM`] on a stage 2 that maps `IPA..IPA+LEN`; the stage 2, and where it leads.
fn attached(plugin: &Plugin, samples: &Samples, write: bool) -> Checked<(Machine, u32, u64)> {
    let mut machine = Machine::new(plugin, &samples.hardware)?;
    let tag = machine.driver.info()?.first_tag;
    let pa = machine.board.memory.alloc(LEN, LEN).map_err(|refusal| Verdict::Failed(refusal.text))?;
    let stage2 = machine.driver.stage2_create(tag)?;
    machine.driver.stage2_map(stage2, IPA, pa, LEN, 1 | u32::from(write) << 1)?;
    machine.driver.attach(STREAM, stage2, tag, &BYPASS)?;
    Ok((machine, stage2, pa))
}

pub(crate) fn on_own_model(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut machine = Machine::new(plugin, &samples.hardware)?;
    let info = machine.driver.info()?;
    for stream in (0..info.streams.min(64)).chain([info.streams - 1]) {
        let answer = machine.access(stream, IPA, 1)?;
        ensure!(stopped(&answer), "stream {stream} is not stopped after creation: {answer:?}");
    }
    ensure!(machine.driver.queue_fault()?.is_none(), "the queue is stopped after creation");
    let modes = machine.driver.info()?.modes;
    for mode in [TranslationMode::NESTED, TranslationMode::SHADOW] {
        let registers = machine.driver.guest_registers(mode)?;
        if modes & mode.bit() == 0 {
            ensure!(
                registers.is_empty(),
                "guests are shown {registers:x?} in a mode that is not offered: {}",
                mode.name()
            );
        } else if plugin.info().parts.contains(&"frontend") {
            plugin.frontend(&registers)?;
            let served = plugin.codec(&registers)?.mode()?;
            ensure!(served == mode, "a guest to be {} is {}", mode.name(), served.name());
        }
    }
    Ok(())
}

pub(crate) fn stage2_decides(plugin: &Plugin, samples: &Samples) -> Checked {
    for write in [true, false] {
        let (mut machine, _, pa) = attached(plugin, samples, write)?;
        for offset in [0, 0x1234, LEN - 8] {
            let answer = machine.access(STREAM, IPA + offset, 1)?;
            ensure!((answer.status, answer.output) == (Status::OK, pa + offset), "offset {offset:#x}: {answer:x?}");
        }
        let written = machine.access(STREAM, IPA + 8, 2)?;
        ensure!((written.status == Status::OK) == write, "mapped with write {write}, a write is {written:x?}");
        for outside in [0, IPA - 8, IPA + LEN] {
            let answer = machine.access(STREAM, outside, 1)?;
            let right = (answer.status, answer.stage) == (Status::FAULT, 2);
            ensure!(right, "{outside:#x} is not mapped, yet {answer:x?}");
        }
        let other = machine.access(STREAM + 1, IPA, 1)?;
        ensure!(stopped(&other), "a stream that is not attached: {other:x?}");
        machine.driver.detach(STREAM)?;
        let detached = machine.access(STREAM, IPA, 1)?;
        ensure!(stopped(&detached), "after detach: {detached:x?}");
        while let Some(event) = machine.driver.event()? {
            ensure!(event.words as usize <= plugin.info().event_words, "an event of {} words", event.words);
        }
    }
    Ok(())
}

pub(crate) fn invalidations_work(plugin: &Plugin, samples: &Samples) -> Checked {
    let (mut machine, stage2, _) = attached(plugin, samples, true)?;
    let tag = machine.driver.info()?.first_tag;
    let cached = machine.access(STREAM, IPA, 1)?;
    ensure!(cached.status == Status::OK, "a mapped address: {cached:x?}");
    machine.driver.stage2_unmap(stage2, IPA, LEN)?;
    let what = HostInvalidation { tag, stream: STREAM, address: IPA, length: LEN, ..Default::default() };
    let scopes = [Scope::STAGE2_RANGE, Scope::STAGE1_ALL, Scope::TAG];
    let all: Vec<_> = scopes.into_iter().map(|scope| HostInvalidation { scope, ..what }).collect();
    ensure!(machine.invalidate(&all)?, "the queue stopped at the driver's own commands");
    let gone = machine.access(STREAM, IPA, 1)?;
    ensure!(stopped(&gone), "an address that is not mapped any more: {gone:x?}");
    if machine.driver.info()?.ats != 0 {
        let cache = machine.encode(HostInvalidation { scope: Scope::DEVICE_CACHE, ..what })?;
        ensure!(!cache.is_empty(), "it serves device caches and has no command for them");
    }
    Ok(())
}

pub(crate) fn recovers_from_illegal_command(plugin: &Plugin, samples: &Samples) -> Checked {
    if !plugin.info().parts.contains(&"codec") {
        return Err(Verdict::Skipped("it offers no codec that knows what is illegal"));
    }
    let mut machine = Machine::new(plugin, &samples.hardware)?;
    let codec = plugin.codec(&samples.registers)?;
    let ring = machine.driver.info()?.ring;
    let mut random = Random::new(samples.seed);
    let mut illegal = None;
    for _ in 0..1000 {
        let command: Vec<u64> = (0..ring.command_words).map(|_| random.word()).collect();
        if codec.opcode_name(codec.opcode(&command)?)?.is_none() {
            illegal = Some(command);
        }
    }
    let Some(illegal) = illegal else { return Err(Verdict::Skipped("every opcode tried has a name")) };
    let index = |value: u64| (value >> ring.index_shift) as u32 & ((1 << (ring.log2_commands + ring.wrap_bit)) - 1);
    let before = index(machine.board.model().mmio_read(ring.consumer, 4)?);
    ensure!(!machine.put(&illegal)?, "{illegal:x?} was executed");
    let Some(fault) = machine.driver.queue_fault()? else {
        return Err(Verdict::Failed("the queue stopped and the driver sees no fault".into()));
    };
    ensure!(fault.kind == QueueFaultKind::ILLEGAL, "{fault:?} for an illegal command");
    ensure!(fault.index == before, "stopped at {:#x}, the command is at {before:#x}", fault.index);
    let sync = machine.encode(HostInvalidation { scope: Scope::SYNC, ..Default::default() })?;
    let place = ring.base + u64::from(before & ((1 << ring.log2_commands) - 1)) * 8 * u64::from(ring.command_words);
    ensure!(machine.board.store(place, &sync), "the ring is not memory");
    machine.driver.queue_resume()?;
    ensure!(machine.driver.queue_fault()?.is_none(), "still stopped after the command was replaced");
    ensure!(machine.put(&sync)?, "the queue does not go on");
    Ok(())
}

pub(crate) fn refuses_nonsense(plugin: &Plugin, samples: &Samples) -> Checked {
    let (mut machine, stage2, pa) = attached(plugin, samples, true)?;
    let info = machine.driver.info()?;
    let beyond = if info.ipa_bits < 64 { 1 << info.ipa_bits } else { !0xfff };
    let driver = &mut machine.driver;
    let outcomes = [
        ("a misaligned address mapped", driver.stage2_map(stage2, IPA * 2 + 1, pa, LEN, 3)),
        ("a misaligned target mapped", driver.stage2_map(stage2, IPA * 2, pa + 1, LEN, 3)),
        ("nothing mapped", driver.stage2_map(stage2, IPA * 2, pa, 0, 3)),
        ("an address beyond the size mapped", driver.stage2_map(stage2, beyond, pa, LEN, 3)),
        ("a range past the end mapped", driver.stage2_map(stage2, IPA * 2, pa, !0xfff, 3)),
        ("what is mapped mapped again", driver.stage2_map(stage2, IPA, pa, LEN, 3)),
        ("an unknown stage 2 mapped", driver.stage2_map(stage2 + 77, IPA, pa, LEN, 3)),
        ("an unknown stage 2 attached", driver.attach(STREAM + 1, stage2 + 77, info.first_tag, &BYPASS)),
        ("a stream beyond the table attached", driver.attach(info.streams, stage2, info.first_tag, &BYPASS)),
        ("a stream beyond the table detached", driver.detach(u32::MAX)),
    ];
    for (what, outcome) in outcomes {
        match outcome {
            Err(CallError::Refused(_)) => {}
            Err(error) => return Err(Verdict::Failed(format!("{what}: {error}"))),
            Ok(()) => return Err(Verdict::Failed(format!("{what} without complaint"))),
        }
    }
    let answer = machine.access(STREAM, IPA, 1)?;
    ensure!((answer.status, answer.output) == (Status::OK, pa), "refusals changed a mapping: {answer:x?}");
    Ok(())
}

pub(crate) fn frees_memory(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut machine = Machine::new(plugin, &samples.hardware)?;
    let tag = machine.driver.info()?.first_tag;
    let before = machine.board.memory.allocated();
    for round in 0..8 {
        let stage2 = machine.driver.stage2_create(tag)?;
        for index in 0..16 {
            machine.driver.stage2_map(stage2, IPA + index * 0x1000, IPA + round * 0x1000, 0x1000, 3)?;
        }
        machine.driver.stage2_destroy(stage2)?;
        let now = machine.board.memory.allocated();
        ensure!(now == before, "{} bytes are left of a stage 2 that was destroyed", now - before.min(now));
    }
    Ok(())
}

/// A host all of whose callbacks panic.
struct Broken;

/// A panic that no hook reports: thousands of them are on purpose.
fn broken() -> ! {
    std::panic::resume_unwind(Box::new("a broken host"))
}

impl ModelHost for Broken {
    fn read(&self, _pa: u64, _bytes: &mut [u8]) -> Result<(), Unreadable> {
        broken()
    }
    fn write(&self, _pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        broken()
    }
    fn irq(&self, _line: u32) {
        broken()
    }
}

impl Hardware for Broken {
    fn mmio_read(&self, _offset: u64, _size: u32) -> u64 {
        broken()
    }
    fn mmio_write(&self, _offset: u64, _size: u32, _value: u64) {
        broken()
    }
    fn read(&self, _pa: u64, _bytes: &mut [u8]) -> Result<(), Unreadable> {
        broken()
    }
    fn write(&self, _pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        broken()
    }
    fn alloc(&self, _len: u64, _align: u64) -> Result<u64, Refusal> {
        broken()
    }
    fn free(&self, _pa: u64, _len: u64) {
        broken()
    }
    fn issue(&self, _commands: &[u64]) -> Result<(), Refusal> {
        broken()
    }
}

pub(crate) fn host_panic_contained(plugin: &Plugin, samples: &Samples) -> Checked {
    let parts = &plugin.info().parts;
    if parts.contains(&"driver") {
        let refused = plugin.driver(Box::new(Broken)).err();
        let named = matches!(&refused, Some(CallError::Callback { slot: "driver_create", .. }));
        ensure!(named, "a driver on broken hardware: {refused:?}");
    }
    if parts.contains(&"model") {
        let config = ModelConfig { registers: &samples.hardware, ..Default::default() };
        let mut model = plugin.model(Box::new(Broken), config)?;
        let mut random = Random::new(samples.seed);
        for _ in 0..2_000 {
            let offset = random.index(0x200) as u64 & !3;
            let request = Request { stream: random.index(4) as u32, pasid: u32::MAX, ..Request::default() };
            let outcomes = [
                model.mmio_write(offset, random.of(&[4, 8]), random.word()),
                model.step(4).map(drop),
                model.translate(&[request], &mut [Answer::default()]).map(drop),
            ];
            for outcome in outcomes {
                let contained = matches!(outcome, Ok(()) | Err(CallError::Callback { .. }));
                ensure!(contained, "a panic of the host became {outcome:?}");
            }
        }
        model.stats()?;
    }
    Ok(())
}
