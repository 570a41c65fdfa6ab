//! Whatever a guest, a recording, or the memory behind them says: an answer, never a panic, never without end.

use arm_smmuv3::model::Smmu;
use arm_smmuv3::spec::registers::{FRAME_BYTES, offset};
use std::cell::RefCell;
use viommu_plugin::{Answer, Message, Model, ModelConfig, ModelHost, Register, Request, Status, Unreadable};
use viommu_plugin_check::Random;

/// Opcodes of which most are legal.
const COMMANDS: [u64; 16] = [1, 2, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x28, 0x2a, 0x30, 0x40, 0x46, 0x44];

/// Memory full of noise, other noise at every look, that often looks like valid entries; sometimes there is none.
struct Noise(RefCell<Random>);

impl ModelHost for Noise {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        for (at, out) in (pa..).step_by(8).zip(bytes.chunks_mut(8)) {
            let mut random = self.0.borrow_mut();
            if random.below(64) == 0 {
                return Err(Unreadable);
            }
            let noise = random.next();
            let word = match (random.below(8), at % 64) {
                (7, _) => noise,
                // STE word 0 (Config 4 to 7), CD word 0 (T0SZ 25 to 31) and table descriptor at once.
                (which, 0) => {
                    noise & 0x0000_08ff_0000_0000 | 0x4205_c000_0400 | [0x19, 0x1b, 0x1d, 0x1f][which as usize % 4]
                }
                (_, 8) => noise & 0x0000_ffff_0000_0fff | 0x403,
                // STE word 2: stage 2 of 40 bits from level 1.
                (_, 16) => 0x000d_0058_0000_0403 | noise & 0xc000_0000_0000,
                (_, 32 | 48) => noise & !0x4ff | COMMANDS[random.below(16) as usize],
                _ => noise & 0x0000_ffff_ffff_ffff | 0x403,
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

#[test]
fn noise_gets_an_answer() {
    let mut seen = [0u32; 5];
    let mut consumed = 0;
    for seed in 1..2000u64 {
        let mut random = Random::new(seed);
        // Half of the time the model's own ID registers, else any that it accepts.
        let idr0 = random.next() | 0xb;
        let mut registers: Vec<Register> =
            (4..=offset::AIDR).step_by(4).map(|offset| Register { offset, value: random.next() }).collect();
        registers.push(Register { offset: offset::IDR0, value: idr0 });
        if random.below(2) == 0 {
            registers.clear();
        }
        let config =
            ModelConfig { registers: &registers, atc: random.below(2) == 0, tlb_capacity: random.below(9) as u32 };
        let mut smmu = Smmu::new(Box::new(Noise(RefCell::new(Random::new(!seed)))), config).unwrap();
        for _ in 0..40 {
            let at = match random.below(3) {
                0 => random.below(0x40) * 4,
                1 => 0x1_0000 + random.below(0x40) * 4,
                _ => random.below(2 * FRAME_BYTES),
            };
            smmu.mmio_write(at, 4 << random.below(2), random.next());
        }
        smmu.mmio_write(offset::CR0, 4, 0);
        smmu.mmio_write(offset::STRTAB_BASE_CFG, 4, random.below(2) << 16 | random.below(16) << 6 | random.below(32));
        for round in 0..30 {
            smmu.mmio_write(offset::CR0, 4, 0xd | random.next());
            smmu.mmio_write(offset::CMDQ_PROD, 4, random.next());
            let errors = smmu.mmio_read(offset::GERROR, 4);
            smmu.mmio_write(offset::GERRORN, 4, errors);
            let budget = random.below(20) as u32;
            let steps = smmu.step(budget);
            assert!(steps <= budget, "seed {seed} round {round}");
            consumed += steps;
            let request = Request {
                stream: (random.next() as u32) >> (10 + random.below(20)),
                pasid: if random.below(2) == 0 { u32::MAX } else { random.below(1 << 20) as u32 },
                iova: random.next() >> random.below(64),
                access: random.below(4) as u32,
                flags: random.below(2) as u32,
            };
            let mut answers = [Answer::default()];
            smmu.translate(&[request], &mut answers);
            seen[answers[0].status.0 as usize] += 1;
            let mut text = Message::default();
            smmu.explain(&request, &mut text);
            assert!(answers[0].status != Status::OK || !text.text().is_empty(), "seed {seed} round {round}");
        }
    }
    assert!(seen[..4].iter().all(|&count| count > 20) && consumed > 200, "{seen:?} and {consumed} commands say little");
}
