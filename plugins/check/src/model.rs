//! Checks of the model alone, on memory that is noise.

use crate::check::{Checked, ensure};
use crate::random::Random;
use crate::{Samples, Verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use viommu_plugin::{Answer, CacheStats, Message, ModelConfig, ModelHost, Request, Unreadable};
use viommu_plugin_host::{CallError, Model, Plugin};

/// Memory whose every word follows from its address; an eighth of the pages is not there. Counts what comes out.
#[derive(Clone, Default)]
struct Noise {
    seed: u64,
    out: Arc<AtomicU32>,
}

impl Noise {
    /// SplitMix64's output function: a word of noise for an address.
    fn word(&self, at: u64) -> u64 {
        let mut word = (at ^ self.seed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Whether there is memory at `pa`: in seven pages of eight.
    fn there(&self, pa: u64) -> bool {
        !self.word(pa >> 12).is_multiple_of(8)
    }
}

impl ModelHost for Noise {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        if !self.there(pa) {
            return Err(Unreadable);
        }
        for (byte, at) in bytes.iter_mut().zip(0..) {
            let at = pa.wrapping_add(at);
            // Words with fewer bits are tables more often.
            let word = self.word(at >> 3) & self.word(at >> 3 ^ 1 << 62);
            *byte = word.to_le_bytes()[(at % 8) as usize];
        }
        Ok(())
    }
    fn write(&self, pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        self.out.fetch_add(1, Relaxed);
        if self.there(pa) { Ok(()) } else { Err(Unreadable) }
    }
    fn irq(&self, _line: u32) {
        self.out.fetch_add(1, Relaxed);
    }
}

fn model(plugin: &Plugin, samples: &Samples, noise: &Noise) -> Checked<Model> {
    if !plugin.info().parts.contains(&"model") {
        return Err(Verdict::Skipped("it offers no model"));
    }
    let config = ModelConfig { registers: &samples.hardware, atc: true, tlb_capacity: 0 };
    Ok(plugin.model(Box::new(noise.clone()), config)?)
}

fn noise(samples: &Samples) -> Noise {
    Noise { seed: samples.seed, ..Noise::default() }
}

/// A random register write: mostly among the first registers, mostly of a size that exists.
fn write(model: &mut Model, random: &mut Random, plugin: &Plugin) -> Result<(), CallError> {
    let reach = random.of(&[0x100, 0x100, 0x200, plugin.info().frame_bytes as usize]);
    let offset = random.index(reach.min(plugin.info().frame_bytes as usize)) as u64;
    let offset = if random.index(16) == 0 { offset } else { offset & !3 };
    model.mmio_write(offset, random.of(&[4, 4, 8, 8, 1, 16]), random.word())
}

fn request(random: &mut Random) -> Request {
    let pasid = if random.index(4) == 0 { random.index(8) as u32 } else { u32::MAX };
    Request { stream: random.index(32) as u32, pasid, iova: random.word(), access: random.index(4) as u32, flags: 0 }
}

pub(crate) fn random_mmio_survives(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut model = model(plugin, samples, &noise(samples))?;
    let mut random = Random::new(samples.seed);
    for _ in 0..20_000 {
        write(&mut model, &mut random, plugin)?;
        match random.index(8) {
            0 => drop(model.step(random.index(64) as u32)?),
            1 => drop(model.translate(&[request(&mut random)], &mut [Answer::default()])?),
            2 => drop(model.mmio_read(random.index(0x200) as u64, random.of(&[4, 8, 3]))?),
            3 => model.explain(&request(&mut random), &mut Message::default())?,
            4 if random.index(256) == 0 => model.reset()?,
            5 => model.atc_unresponsive(random.index(32) as u32, random.index(2) == 0)?,
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn step_respects_budget(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut model = model(plugin, samples, &noise(samples))?;
    let mut random = Random::new(samples.seed ^ 0x57e9);
    for _ in 0..5_000 {
        write(&mut model, &mut random, plugin)?;
        let budget = random.index(5) as u32;
        let consumed = model.step(budget)?;
        ensure!(consumed <= budget, "consumed {consumed} commands of a budget of {budget}");
    }
    Ok(())
}

pub(crate) fn answers_requests(plugin: &Plugin, samples: &Samples) -> Checked {
    let mut model = model(plugin, samples, &noise(samples))?;
    let mut random = Random::new(samples.seed ^ 0xa45);
    for count in 0..32 {
        let requests: Vec<_> = (0..count).map(|_| request(&mut random)).collect();
        for room in [0, count / 2, count, count + 3] {
            let canary = Answer { leaf_log2: 0xa5, ..Answer::default() };
            let mut answers = vec![canary; room + 1];
            let answered = model.translate(&requests, &mut answers[..room])?;
            ensure!(answered == count.min(room), "{count} requests, room for {room}: answered {answered}");
            ensure!(answers[answered..].iter().all(|answer| *answer == canary), "wrote beyond its answers");
        }
    }
    Ok(())
}

/// Everything a model says in a random life.
fn life(plugin: &Plugin, samples: &Samples) -> Checked<(Vec<u64>, Vec<Answer>, CacheStats, u32)> {
    let noise = noise(samples);
    let mut model = model(plugin, samples, &noise)?;
    let mut random = Random::new(samples.seed ^ 0x11fe);
    let (mut reads, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..2_000 {
        write(&mut model, &mut random, plugin)?;
        reads.push(u64::from(model.step(8)?));
        reads.push(model.mmio_read(random.index(0x200) as u64 & !3, 4)?);
        let mut answer = [Answer::default()];
        model.translate(&[request(&mut random)], &mut answer)?;
        answers.extend(answer);
    }
    Ok((reads, answers, model.stats()?, noise.out.load(Relaxed)))
}

pub(crate) fn is_deterministic(plugin: &Plugin, samples: &Samples) -> Checked {
    let (first, second) = (life(plugin, samples)?, life(plugin, samples)?);
    ensure!(first.0 == second.0, "registers or steps differ between two equal lives");
    ensure!(first.1 == second.1, "translations differ between two equal lives");
    ensure!(first.2 == second.2, "counters differ between two equal lives: {:?}, {:?}", first.2, second.2);
    ensure!(first.3 == second.3, "stores and interrupts differ between two equal lives");
    Ok(())
}

pub(crate) fn speculative_is_silent(plugin: &Plugin, samples: &Samples) -> Checked {
    let noise = noise(samples);
    let mut model = model(plugin, samples, &noise)?;
    let mut random = Random::new(samples.seed ^ 0x5bec);
    for _ in 0..2_000 {
        write(&mut model, &mut random, plugin)?;
        model.step(4)?;
        let (out, before) = (noise.out.load(Relaxed), model.stats()?);
        let request = Request { flags: Request::SPECULATIVE, ..request(&mut random) };
        model.translate(&[request], &mut [Answer::default()])?;
        let after = CacheStats { evictions: before.evictions, ..model.stats()? };
        ensure!(after == before, "{request:?} counted: {before:?}, then {after:?}");
        ensure!(noise.out.load(Relaxed) == out, "{request:?} stored something or interrupted");
    }
    Ok(())
}

pub(crate) fn reset_is_power_on(plugin: &Plugin, samples: &Samples) -> Checked {
    let noise = noise(samples);
    let (mut fresh, mut used) = (model(plugin, samples, &noise)?, model(plugin, samples, &noise)?);
    let mut random = Random::new(samples.seed ^ 0x2e);
    for _ in 0..8 {
        for _ in 0..500 {
            write(&mut used, &mut random, plugin)?;
            used.step(4)?;
        }
        used.reset()?;
        for offset in (0..plugin.info().frame_bytes.min(1 << 18)).step_by(4) {
            let (new, now) = (fresh.mmio_read(offset, 4)?, used.mmio_read(offset, 4)?);
            ensure!(new == now, "register {offset:#x} is {now:#x} after a reset, {new:#x} in a new model");
        }
    }
    Ok(())
}
