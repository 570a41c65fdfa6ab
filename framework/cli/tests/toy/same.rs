//! The two plugins are of the same hardware: to the same accesses they answer the same, word by word.

use crate::plugins::{toy_c, toy_rust};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use viommu_plugin::{
    Answer, CacheStats, Classes, Effects, EntryKey, GuestFault, HostIds, ModelConfig, ModelHost, NO_STREAM, Request,
    Rewritten, Unreadable,
};
use viommu_plugin_host::Plugin;

const SEED: u64 = 20_261_123;
const TABLE: u64 = 0x10_0000;
const QUEUE: u64 = 0x20_0000;
const EVENTS: u64 = 0x21_0000;
const RANGES: u64 = 0x22_0000;
const PAGE_TABLE: u64 = 0x23_0000;
const RAM: u64 = 0x40_0000;

/// Words of memory below [`RAM`], and how many interrupts came.
#[derive(Clone, Default)]
struct Board(Arc<Mutex<(HashMap<u64, u64>, u32)>>);

impl Board {
    fn set(&self, at: u64, word: u64) {
        self.0.lock().expect("nobody panicked").0.insert(at, word);
    }
}

impl ModelHost for Board {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let board = self.0.lock().expect("nobody panicked");
        for (chunk, at) in bytes.chunks_mut(8).zip((pa..RAM).step_by(8)) {
            chunk.copy_from_slice(&board.0.get(&at).copied().unwrap_or(0).to_le_bytes()[..chunk.len()]);
        }
        if pa < RAM { Ok(()) } else { Err(Unreadable) }
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        if pa >= RAM {
            return Err(Unreadable);
        }
        for (chunk, at) in bytes.chunks_exact(8).zip((pa..).step_by(8)) {
            self.set(at, u64::from_le_bytes(chunk.try_into().expect("8 bytes")));
        }
        Ok(())
    }
    fn irq(&self, line: u32) {
        self.0.lock().expect("nobody panicked").1 += 1 + line;
    }
}

struct Draw(Pcg64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }
    fn of(&mut self, all: &[u64]) -> u64 {
        all[self.below(all.len() as u64) as usize]
    }
    fn word(&mut self) -> u64 {
        let (low, high, any) = (self.below(16), 1 << self.below(64), self.0.next_u64());
        self.of(&[0, u64::MAX, low, high, low | high, any])
    }
    /// A command: mostly one that means something.
    fn command(&mut self) -> [u64; 2] {
        let opcode = self.below(6);
        let (tag, stream, flag) = (self.below(3) << 16, self.below(8) << 32, self.below(2) << 8);
        let field = [0, tag, tag, stream | flag, stream, flag][opcode as usize];
        let page = self.of(&[0, 1, 37, 511]) << 12;
        let noise = if self.below(32) == 0 { self.word() } else { 0 };
        [opcode | field | noise, if opcode == 1 || opcode == 3 || flag != 0 { page } else { 0 }]
    }
}

type Life = (Vec<Answer>, Vec<u64>, CacheStats, Vec<(u64, u64)>, u32);

/// All that a model says and does in a random life.
fn life(plugin: &Plugin, seed: u64, atc: bool) -> Life {
    let (board, mut draw) = (Board::default(), Draw(Pcg64::seed_from_u64(seed)));
    let config = ModelConfig { registers: &[], atc, tlb_capacity: 0 };
    let mut model = plugin.model(Box::new(board.clone()), config).expect("a model");
    let (mut answers, mut registers, mut tail) = (Vec::new(), Vec::new(), 0);
    for (index, word) in [0, 0, 0x30_0000, 3, 0x30_0000, 0x200_0000, 0x8_0000, 1].into_iter().enumerate() {
        board.set(RANGES + 8 * index as u64, word);
    }
    for (offset, value) in [(0x18, TABLE), (0x20, QUEUE), (0x40, EVENTS), (0x10, 7)] {
        model.mmio_write(offset, 8, value).expect("it takes writes");
    }
    for _ in 0..4_000 {
        match draw.below(8) {
            0 => {
                let flags = draw.of(&[0, 1, 3, 5, 7, 7, 7, 9]) | draw.below(3) << 48;
                let words = [flags, PAGE_TABLE * (flags >> 1 & 1), RANGES * (flags >> 2 & 1), 0];
                let stream = draw.below(8);
                (0..).zip(words).for_each(|(word, value)| board.set(TABLE + 32 * stream + 8 * word, value));
            }
            1 => {
                let leaf = draw.of(&[0, 1, 3, 3, 7]) | draw.below(0x400) << 12;
                board.set(PAGE_TABLE + 8 * draw.of(&[0, 1, 37, 511]), leaf);
            }
            2 | 3 => {
                let command = draw.command();
                (0..).zip(command).for_each(|(word, value)| board.set(QUEUE + tail * 16 + 8 * word, value));
                tail = (tail + 1) % 256;
                model.mmio_write(0x28, 4, tail).expect("it takes writes");
                registers.push(u64::from(model.step(draw.below(4) as u32).expect("it steps")));
            }
            4 => {
                let (stream, silent) = (draw.below(8) as u32, draw.below(8) == 0);
                model.atc_unresponsive(stream, silent).expect("it answers");
                model.mmio_write(0x38, 4, 1).expect("it takes writes");
                let offset = draw.below(0x60);
                let value = if offset == 0x50 { draw.word() } else { 0 };
                if offset == 0x50 {
                    model.mmio_write(offset, 8, value).expect("it takes writes");
                }
                registers.push(model.mmio_read(offset, draw.of(&[4, 8]) as u32).expect("it reads"));
            }
            _ => {
                let iova = draw.of(&[0, 1, 37, 511, 512, 0x301]) << 12 | draw.below(0x1000);
                let pasid = if draw.below(64) == 0 { 1 } else { u32::MAX };
                let (access, flags) = (draw.below(3) as u32, draw.of(&[0, 0, 0, 1]) as u32);
                let request = Request { stream: draw.below(9) as u32, pasid, iova, access, flags };
                let mut answer = [Answer::default()];
                model.translate(&[request], &mut answer).expect("it answers");
                answers.extend(answer);
            }
        }
    }
    let stats = model.stats().expect("it counts");
    let (memory, interrupts) = board.0.lock().expect("nobody panicked").clone();
    let mut memory: Vec<_> = memory.into_iter().collect();
    memory.sort_unstable();
    (answers, registers, stats, memory, interrupts)
}

fn plugins() -> Option<[Plugin; 2]> {
    Some([toy_c()?, toy_rust()].map(|path| Plugin::load(path).expect("it is a plugin")))
}

#[test]
fn the_models_answer_the_same() {
    let Some([c, rust]) = plugins() else { return };
    for round in 0..16 {
        let seed = SEED + round;
        for atc in [false, true] {
            let (one, other) = (life(&c, seed, atc), life(&rust, seed, atc));
            let first = one.0.iter().zip(&other.0).position(|(a, b)| a != b);
            assert_eq!(first.map(|at| (one.0[at], other.0[at])), None, "seed {seed}, ATC {atc}");
            assert_eq!((&one.1, one.2, one.4), (&other.1, other.2, other.4), "seed {seed}, ATC {atc}");
            assert_eq!(one.3, other.3, "seed {seed}, ATC {atc}: memory");
            let kinds: std::collections::HashSet<_> =
                one.0.iter().map(|answer| (answer.status.0, answer.fault)).collect();
            let hits = one.2.hits + one.2.stage2_hits + one.2.atc_hits;
            assert!(
                kinds.len() >= 5 && hits > 0 && one.2.evictions > 0 && one.4 > 0,
                "seed {seed}: a dull life: {kinds:?}, {:?}",
                one.2
            );
        }
    }
}

#[test]
fn the_codecs_answer_the_same() {
    let Some([c, rust]) = plugins() else { return };
    let mut draw = Draw(Pcg64::seed_from_u64(SEED));
    let streams = [0x300, NO_STREAM, 0x302, 0x303];
    let ids = HostIds { tag: 7, streams: &streams, domains: &[] };
    let codecs = [c, rust].map(|plugin| plugin.codec(&[]).expect("a codec"));
    for _ in 0..20_000 {
        let guest: Vec<u64> = (0..=draw.below(6)).flat_map(|_| draw.command()).collect();
        let (before, room) = (Classes(draw.below(8) as u32), 2 * draw.below(8) as usize);
        let entry: Vec<u64> =
            (0..4).map(|at| if at == 0 { draw.below(8) } else { draw.word() & draw.word() }).collect();
        let [one, other] = codecs.each_ref().map(|codec| -> (Rewritten, Vec<u64>, EntryKey, String) {
            let mut out = vec![0; room];
            let done = codec.rewrite(&guest, before, ids, &mut out).expect("it rewrites");
            let mut text = viommu_plugin::Message::default();
            codec.describe(&guest[..2], &mut text).expect("it describes");
            (done, out, codec.entry_key(&entry).expect("a key"), text.text())
        });
        assert_eq!(one, other, "seed {SEED}: {guest:x?}, {entry:x?}");
    }
}

#[test]
fn a_guest_may_move_from_one_to_the_other_and_back() {
    let Some(plugins) = plugins() else { return };
    let mut draw = Draw(Pcg64::seed_from_u64(SEED));
    let [mut c, mut rust] = plugins.each_ref().map(|plugin| plugin.frontend(&[]).expect("a frontend"));
    for _ in 0..20_000 {
        let (offset, size, value) = (draw.below(0x60), draw.of(&[4, 8, 8, 2]) as u32, draw.word());
        let (what, record) = (draw.below(16), [draw.word(), draw.word()]);
        let act = |frontend: &mut viommu_plugin_host::Frontend| -> (Effects, u64) {
            let effects = match what {
                0 => *frontend.event(value as u32, &record).expect("it takes events"),
                1 => *frontend.event_lost().expect("it takes losses"),
                2 => *frontend.fault(GuestFault((value % 9) as u32)).expect("it takes faults"),
                _ => *frontend.write(offset, size, value).expect("it takes writes"),
            };
            (effects, frontend.read(offset, size).expect("it reads"))
        };
        assert_eq!(act(&mut c), act(&mut rust), "seed {SEED}: {what} {offset:#x} {size} {value:#x}");
        assert_eq!((c.queue(), c.mode()), (rust.queue(), rust.mode()));
    }
    let state = c.save().expect("it saves");
    assert_eq!(rust.save().expect("it saves"), state);
    let mut moved = plugins[1].frontend(&[]).expect("a frontend");
    moved.restore(&state).expect("it is a state");
    plugins[0].frontend(&[]).expect("a frontend").restore(&moved.save().expect("it saves")).expect("it is a state");
}
