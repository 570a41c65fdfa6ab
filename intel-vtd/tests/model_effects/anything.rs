//! Whatever a guest, a recording, or the memory behind them says: an answer, never a panic, never without end.

use intel_vtd::model::RemappingUnit;
use intel_vtd::spec::registers::{FRAME_BYTES, offset};
use proptest::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use viommu_plugin::{Answer, Message, Model, ModelConfig, ModelHost, Register, Request, Status, Unreadable};
use viommu_plugin_check::Random;

/// Memory full of noise, other noise at every look, that often looks like valid entries; sometimes there is none.
struct Noise {
    random: RefCell<Random>,
    reads: Arc<AtomicU64>,
}

impl ModelHost for Noise {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.fetch_add(1, Relaxed);
        let long = bytes.len() > 8;
        let mut random = self.random.borrow_mut();
        for (index, out) in bytes.chunks_mut(8).enumerate() {
            let (noise, which) = (random.next(), random.next());
            if which % 64 == 0 {
                return Err(Unreadable);
            }
            let (choice, address) = ((which >> 8) % 16, noise & 0x0000_ffff_ffff_f000);
            let small = 1 + (noise >> 60) % 3;
            let word = match (choice, pa >> 12) {
                (0, _) => noise,
                // A descriptor of a type that exists, with few reserved bits; nothing in its upper half.
                _ if long && index == 0 => noise & 0x0000_0003_01ff_0030 | (1 + (noise >> 60) % 9),
                (1..=6, _) if long && index == 1 => noise & 0xffff_f000,
                _ if long => 0,
                // Root, context and PASID tables, each of which leads to the next, in either mode.
                (_, 1) => [0x2001, choice % 2 * 0x2001][(pa / 8 % 2) as usize],
                (_, 2 | 3) => [0x4001 | noise & 0xc, small | noise & 0x300, choice % 2 * 0x4001, choice % 4 / 2]
                    [(pa / 8 % 4) as usize],
                (_, 4) => 0x5003,
                (_, 5) => [address | 1 | small << 2 | (1 + (noise >> 56) % 4) << 6, noise & 0xffff, address, 0]
                    [(pa / 8 % 4) as usize],
                (1, _) => address,
                (2, _) => address & !0x3fff_ffff | 0x87,
                _ => address | 7,
            };
            out.copy_from_slice(&word.to_le_bytes()[..out.len()]);
        }
        Ok(())
    }
    fn write(&self, pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        if pa.is_multiple_of(3) { Err(Unreadable) } else { Ok(()) }
    }
    fn irq(&self, _line: u32) {}
}

/// One thing that software or a device does.
#[derive(Debug, Clone)]
enum Act {
    Write(u64, u32, u64),
    Read(u64, u32),
    /// Queue on, a tail, and errors cleared.
    Doorbell(u64),
    Step(u32),
    Request(Request),
    Silent(u32, bool),
    Reset,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let at = prop_oneof![4 => (0..0x40u64).prop_map(|word| word * 4), 1 => 0x200..0x300u64, 1 => any::<u64>()];
    let size = prop_oneof![Just(4u32), Just(4), Just(8), any::<u32>()];
    let request = (0..0x1_0100u32, prop_oneof![Just(u32::MAX), 0..8u32, any::<u32>()], any::<u64>(), 17..52u32);
    let request = (request, 0..4u32, 0..2u32).prop_map(|((stream, pasid, iova, shift), access, flags)| Request {
        stream,
        pasid,
        iova: iova >> shift,
        access,
        flags,
    });
    let act = prop_oneof![
        1 => (at.clone(), size.clone(), any::<u64>()).prop_map(|(at, size, value)| Act::Write(at, size, value)),
        1 => (at, size).prop_map(|(at, size)| Act::Read(at, size)),
        4 => (0..0x1000u64).prop_map(|tail| Act::Doorbell(tail & !31)),
        4 => (0..50u32).prop_map(Act::Step),
        8 => request.prop_map(Act::Request),
        1 => (0..0x1_0000u32, any::<bool>()).prop_map(|(stream, silent)| Act::Silent(stream, silent)),
    ];
    let act = prop_oneof![100 => act, 1 => Just(Act::Reset)];
    proptest::collection::vec(act, 1..120)
}

/// Reads of one step or one request: a nested walk of five levels over five, its tables, and a descriptor.
const READS_MAX: u64 = 64;

/// A unit, and what happens to it.
#[derive(Debug)]
struct Life {
    seed: u64,
    /// With the model's own CAP and ECAP.
    own: bool,
    cap: u64,
    ecap: u64,
    atc: bool,
    capacity: u32,
    acts: Vec<Act>,
}

fn live(life: &Life, seen: &mut [u64; 6]) {
    let Life { seed, own, cap, ecap, atc, capacity, ref acts } = *life;
    let registers = [Register { offset: offset::CAP, value: cap }, Register { offset: offset::ECAP, value: ecap }];
    let reads = Arc::new(AtomicU64::new(0));
    let noise = Noise { random: RefCell::new(Random::new(seed)), reads: reads.clone() };
    let config = ModelConfig { registers: if own { &[] } else { &registers }, atc, tlb_capacity: capacity };
    let Ok(mut unit) = RemappingUnit::new(Box::new(noise), config) else { return };
    for mode in [0, 1 << 10] {
        unit.mmio_write(offset::RTADDR, 8, 0x1000 | mode);
        unit.mmio_write(offset::IQA, 8, 0x10_0000 | mode << 1);
        unit.mmio_write(offset::GCMD, 4, 0xc400_0000);
        for act in acts {
            let before = reads.load(Relaxed);
            let work = match *act {
                Act::Write(at, size, value) => {
                    unit.mmio_write(at, size, value);
                    0
                }
                Act::Read(at, size) => {
                    unit.mmio_read(at, size);
                    0
                }
                Act::Doorbell(tail) => {
                    unit.mmio_write(offset::FSTS, 4, 0xff);
                    unit.mmio_write(offset::IQT, 4, tail);
                    0
                }
                Act::Step(budget) => {
                    let consumed = unit.step(budget);
                    assert!(consumed <= budget);
                    seen[5] += u64::from(consumed);
                    budget
                }
                Act::Request(request) => {
                    let mut answers = [Answer::default()];
                    assert_eq!(unit.translate(&[request], &mut answers), 1);
                    seen[answers[0].status.0 as usize] += 1;
                    let mut text = Message::default();
                    unit.explain(&request, &mut text);
                    assert!(answers[0].status != Status::OK || !text.text().is_empty());
                    2
                }
                Act::Silent(stream, silent) => {
                    unit.atc_unresponsive(stream, silent);
                    0
                }
                Act::Reset => {
                    unit.reset();
                    0
                }
            };
            let done = reads.load(Relaxed) - before;
            assert!(done <= READS_MAX * u64::from(work), "{act:?} read {done} times");
        }
    }
    for at in (0..FRAME_BYTES).step_by(4) {
        unit.mmio_read(at, 4);
    }
}

#[test]
fn noise_gets_an_answer() {
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let seen = std::cell::RefCell::new([0u64; 6]);
    let strategy = (any::<u64>(), prop::bool::weighted(0.7), any::<(u64, u64)>(), any::<bool>(), 0..9u32, acts());
    runner
        .run(&strategy, |(seed, own, (cap, ecap), atc, capacity, acts)| {
            live(&Life { seed, own, cap, ecap, atc, capacity, acts }, &mut seen.borrow_mut());
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.into_inner();
    eprintln!("answers by status, descriptors consumed: {seen:?}");
    assert!(seen[..3].iter().all(|&count| count > 50) && seen[5] > 500, "{seen:?} say little");
}
