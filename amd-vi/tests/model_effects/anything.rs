//! Whatever a guest, a recording, or the memory behind them says: an answer, never a panic, never without end.

use amd_vi::model::Iommu;
use amd_vi::spec::registers::{CAPABILITY_HEADER, Control, FRAME_BYTES, offset};
use std::sync::{Arc, Mutex};
use viommu_plugin::{Answer, Message, Model, ModelConfig, ModelHost, Register, Request, Status, Unreadable};
use viommu_plugin_check::Random;

/// Memory full of noise, other noise at every look, that often looks like valid entries; sometimes there is none.
struct Noise {
    random: Mutex<Random>,
    reads: Arc<Mutex<u64>>,
}

impl ModelHost for Noise {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        *self.reads.lock().unwrap() += 1;
        let mut random = self.random.lock().unwrap();
        for (at, out) in (pa..).step_by(8).zip(bytes.chunks_mut(8)) {
            if random.below(64) == 0 {
                return Err(Unreadable);
            }
            let noise = random.next();
            let word = match (random.below(8), at % 32) {
                (7, _) => noise,
                // Present and permitted, host or guest, any Next Level; as an entry V, TV, mostly GV.
                (0..5, 0) => noise | 0x60c0_0000_0000_0007,
                (_, 0) => noise & 0x61c0_00ff_ffff_ff7f | 0x6000_0000_0000_0007,
                (_, 16) => noise & 0x1fff_ffff_ffff_ffff & !(0b11 << 54),
                (0..5, _) => noise & 0x000f_ffff_ffff_f07f | 0x6000_0000_0000_0007 | random.below(8) << 9,
                // A command.
                _ => noise & 0x0fff_ffff_ffff_ffff | (1 + random.below(9)) << 60,
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

/// Reads of memory that one look-up can need: a device table entry, and a GCR3 walk of 3 and a guest walk of 5, each
/// entry behind a host walk of 6, and the page behind one more.
const READS_MOST: u64 = 4 + (3 + 5) * 7 + 6;

#[test]
fn noise_gets_an_answer() {
    let mut seen = [0u32; 5];
    let (mut consumed, mut nested) = (0, 0);
    for seed in 1..600u64 {
        let mut random = Random::new(seed);
        // Half of the time the model's own features, else any.
        let registers: Vec<Register> = [offset::EFR, offset::EFR2, CAPABILITY_HEADER]
            .map(|offset| Register { offset, value: random.next() | 1 << 27 })
            .to_vec();
        let registers = if random.below(2) == 0 { &registers[..] } else { &[] };
        let config = ModelConfig { registers, atc: random.below(2) == 0, tlb_capacity: random.below(9) as u32 };
        let reads = Arc::new(Mutex::new(0));
        let noise = Noise { random: Mutex::new(Random::new(!seed)), reads: reads.clone() };
        let mut iommu = Iommu::new(Box::new(noise), config).unwrap();
        for _ in 0..40 {
            let at = match random.below(3) {
                0 => random.below(0x60) * 4,
                1 => 0x2000 + random.below(0x14) * 4,
                _ => random.below(2 * FRAME_BYTES),
            };
            iommu.mmio_write(at, 4 << random.below(2), random.next());
        }
        for round in 0..30 {
            let on = Control::new().with_iommu_en(true).with_cmd_buf_en(true).with_event_log_en(true).with_gt_en(true);
            iommu.mmio_write(offset::CONTROL, 8, 0);
            iommu.mmio_write(offset::CONTROL, 8, u64::from(on) | random.next());
            iommu.mmio_write(offset::COMMAND_TAIL, 4, random.next());
            let budget = random.below(20) as u32;
            let steps = iommu.step(budget);
            assert!(steps <= budget, "seed {seed} round {round}");
            consumed += steps;
            iommu.atc_unresponsive(random.below(4) as u32, random.below(2) == 0);
            let request = Request {
                stream: (random.next() as u32) >> (12 + random.below(20)),
                pasid: if random.below(2) == 0 { u32::MAX } else { random.below(1 << 17) as u32 },
                iova: random.next() >> random.below(64),
                access: random.below(4) as u32,
                flags: random.below(2) as u32,
            };
            *reads.lock().unwrap() = 0;
            let mut answers = [Answer::default()];
            iommu.translate(&[request], &mut answers);
            assert!(*reads.lock().unwrap() <= READS_MOST, "seed {seed} round {round}");
            seen[answers[0].status.0 as usize] += 1;
            nested += u32::from(answers[0].status == Status::OK && answers[0].stage == 1);
            let mut text = Message::default();
            iommu.explain(&request, &mut text);
            assert!(!text.text().is_empty(), "seed {seed} round {round}");
        }
    }
    assert!(
        seen[..3].iter().all(|&count| count > 20) && consumed > 200 && nested > 20,
        "{seen:?}, {consumed}, {nested}"
    );
}
