//! What a translation costs in the model: a TLB hit, and a miss that walks both stages.

use arm_smmuv3::model::Smmu;
use arm_smmuv3::spec::cd::CdWord0;
use arm_smmuv3::spec::commands::{Opcode, Tlbi};
use arm_smmuv3::spec::registers::offset;
use arm_smmuv3::spec::ste::{Config, SteWord0, SteWord2};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use viommu_plugin::{Answer, Model, ModelConfig, ModelHost, Request, Status, Unreadable};

/// Memory from 0, in words.
struct Memory(Vec<u64>);

impl ModelHost for Memory {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        for (word, out) in (pa as usize / 8..).zip(bytes.chunks_exact_mut(8)) {
            out.copy_from_slice(&self.0.get(word).ok_or(Unreadable)?.to_le_bytes());
        }
        Ok(())
    }
    fn write(&self, _pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        Ok(())
    }
    fn irq(&self, _line: u32) {}
}

const STREAM: u32 = 8;
const STREAM_TABLE: u64 = 0x1_0000;
const CD: u64 = 0x2_0000;
const STAGE2: u64 = 0x3_0000;
const STAGE1: u64 = 0x4_0000;
const COMMANDS: u64 = 0x8_0000;
const PAGES: u64 = 512;

/// Stream 8 maps `PAGES` pages of 4 KiB, through four levels of stage 1; nested, also three of stage 2 (2 MiB blocks,
/// identity).
fn smmu(nested: bool) -> Smmu {
    let mut memory = vec![0u64; 1 << 18];
    let mut put = |address: u64, word: u64| memory[address as usize / 8] = word;
    let config = if nested { Config::NESTED } else { Config::S1_TRANSLATE };
    let ste = STREAM_TABLE + 64 * u64::from(STREAM);
    put(ste, SteWord0::new().with_v(true).with_config(config.0).with_s1_context_ptr(CD >> 6).into());
    put(
        ste + 16,
        SteWord2::new().with_s2_vmid(1).with_s2_t0sz(24).with_s2_sl0(1).with_s2_ps(5).with_s2_aa64(true).into(),
    );
    put(ste + 24, STAGE2);
    let cd = CdWord0::new().with_v(true).with_t0sz(16).with_epd1(true).with_ips(5).with_aa64(true).with_r(true);
    put(CD, cd.with_asid(1).into());
    put(CD + 8, STAGE1);
    put(STAGE2, (STAGE2 + 0x2000) | 3);
    for block in 0..512 {
        put(STAGE2 + 0x2000 + 8 * block, block << 21 | 1 << 10 | 3 << 6 | 1);
    }
    for level in 0..3 {
        put(STAGE1 + 0x1000 * level, (STAGE1 + 0x1000 * (level + 1)) | 3);
    }
    for page in 0..PAGES {
        put(STAGE1 + 0x3000 + 8 * page, page << 12 | 1 << 11 | 1 << 10 | 1 << 6 | 3);
    }
    put(COMMANDS, Tlbi::new().with_opcode(Opcode::TLBI_NSNH_ALL.0).words()[0]);
    let mut smmu = Smmu::new(Box::new(Memory(memory)), ModelConfig::default()).unwrap();
    smmu.mmio_write(offset::STRTAB_BASE, 8, STREAM_TABLE);
    smmu.mmio_write(offset::STRTAB_BASE_CFG, 4, 8);
    smmu.mmio_write(offset::CMDQ_BASE, 8, COMMANDS);
    smmu.mmio_write(offset::CR0, 4, 0b1001);
    smmu
}

fn requests() -> Vec<Request> {
    let page = |n: u64| (n * 37 % PAGES) << 12;
    (0..PAGES).map(|n| Request { stream: STREAM, pasid: u32::MAX, iova: page(n), access: 0, flags: 0 }).collect()
}

fn translate(c: &mut Criterion) {
    let requests = requests();
    let mut answers = vec![Answer::default(); requests.len()];
    for (name, nested) in [("stage 1", false), ("nested", true)] {
        let mut warm = smmu(nested);
        warm.translate(&requests, &mut answers);
        assert!(answers.iter().all(|answer| answer.status == Status::OK));
        let mut at = 0;
        c.bench_function(&format!("TLB hit, {name}"), |b| {
            b.iter(|| {
                at = (at + 1) % requests.len();
                warm.translate(black_box(&requests[at..=at]), &mut answers[..1]);
                black_box(answers[0].output)
            });
        });
        c.bench_function(&format!("TLB miss, {name}, {PAGES} pages"), |b| {
            b.iter_batched(
                || {
                    let mut cold = smmu(nested);
                    // The configuration cache stays warm: a table walk is what is measured.
                    cold.translate(&requests[..1], &mut answers.clone());
                    cold.mmio_write(offset::CMDQ_PROD, 4, 1);
                    assert_eq!(cold.step(1), 1);
                    cold
                },
                |mut cold| {
                    let mut answers = [Answer::default(); PAGES as usize];
                    cold.translate(&requests, &mut answers);
                    (cold, answers)
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, translate);
criterion_main!(benches);
