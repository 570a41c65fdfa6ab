//! The model as the recorded guest's own IOMMU: the guest's registers and memory drive it, and every answer must be the
//! one that QEMU's independent model gave. Its caches forget only what commands name, so a guest's command that the
//! model ignores shows.

use amd_vi::model::Iommu;
use amd_vi::spec::commands::Opcode;
use amd_vi::spec::registers::offset;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu_cache::low_bits;
use viommu_plugin::{Answer, Message, Model, ModelConfig, ModelHost, Register, Request, Status, Unreadable};
use viommu_trace::{Outcome, Record, Role, Scan, Trace, Translation};

/// Guest memory as the recording's MEM records say, word by word; words that none mentions do not exist.
#[derive(Default)]
struct Image {
    words: HashMap<u64, u64>,
    /// Completion words that the model stored, in order.
    completions: Vec<(u64, Vec<u8>)>,
    events: u64,
    irqs: u64,
}

#[derive(Clone, Default)]
struct Host(Arc<Mutex<Image>>);

impl Host {
    fn image(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelHost for Host {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let image = self.image();
        for (at, out) in (pa..).step_by(8).zip(bytes.chunks_exact_mut(8)) {
            out.copy_from_slice(&image.words.get(&at).ok_or(Unreadable)?.to_le_bytes());
        }
        Ok(())
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        let mut image = self.image();
        match bytes.len() {
            8 => image.completions.push((pa, bytes.to_vec())),
            _ => image.events += 1,
        }
        Ok(())
    }
    fn irq(&self, _line: u32) {
        self.image().irqs += 1;
    }
}

#[derive(Default, Debug)]
struct Judged {
    translations: u64,
    faults: u64,
    completions: usize,
    events: u64,
    irqs: u64,
    hits: u64,
    evictions: u64,
    wrong_count: u64,
    wrong: Vec<String>,
}

/// Replays a recording; commands of opcode `ignored` become ones without effect.
fn replay(name: &str, ignored: Option<Opcode>) -> Judged {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(format!("{name}.gtrace.zst"));
    let features = [offset::EFR, offset::EFR2];
    let scan = Scan::open(&path).unwrap();
    let reads = scan.first_reads.iter().filter(|read| features.contains(&read.offset));
    let registers: Vec<_> = reads.map(|read| Register { offset: read.offset, value: read.value }).collect();
    assert_eq!(registers.len(), features.len(), "{name}: the guest read both feature registers");
    let host = Host::default();
    let config = ModelConfig { registers: &registers, atc: false, tlb_capacity: 0 };
    let mut iommu = Iommu::new(Box::new(host.clone()), config).unwrap();
    let (mut judged, mut expected) = (Judged::default(), Vec::new());
    let mut trace = Trace::open(&path).unwrap();
    while let Some(entry) = trace.next().unwrap() {
        match entry.record {
            Record::Mem { role, gpa, bytes } => {
                let mut image = host.image();
                for (at, (index, word)) in (gpa..).step_by(8).zip(bytes.chunks_exact(8).enumerate()) {
                    let mut word = u64::from_le_bytes(word.try_into().unwrap());
                    if role == Role::QUEUE && index % 2 == 0 && Some(Opcode::of(word)) == ignored {
                        word = u64::from(Opcode::INVALIDATE_INTERRUPT_TABLE.0) << 60;
                    }
                    image.words.insert(at, word);
                }
            }
            Record::Reset => iommu.reset(),
            Record::MmioWrite { offset, value, size } => {
                iommu.mmio_write(offset, size.into(), value);
                while iommu.step(64) != 0 {}
            }
            Record::MmioRead { offset, value, size } if features.contains(&offset) => {
                assert_eq!(iommu.mmio_read(offset, size.into()), value, "{name}: feature register {offset:#x}");
            }
            Record::Translation(recorded) => {
                let request = Request {
                    stream: recorded.stream,
                    pasid: recorded.pasid.unwrap_or(u32::MAX),
                    iova: recorded.iova,
                    access: recorded.access.into(),
                    flags: 0,
                };
                let mut answers = [Answer::default()];
                assert_eq!(iommu.translate(&[request], &mut answers), 1);
                judged.translations += 1;
                judged.faults += u64::from(recorded.outcome == Outcome::Fault);
                if !agrees(&recorded, &answers[0]) {
                    judged.wrong_count += 1;
                    if judged.wrong.len() < 3 {
                        let mut text = Message::default();
                        iommu.explain(&request, &mut text);
                        let (number, got) = (entry.number, answers[0]);
                        judged.wrong.push(format!("{number}: {recorded:x?}\n got {got:x?}\n{}", text.text()));
                    }
                }
            }
            Record::IommuWrite { role: Role::STATUS, gpa, bytes } => expected.push((gpa, bytes.to_vec())),
            _ => {}
        }
    }
    let stats = iommu.stats();
    (judged.hits, judged.evictions) = (stats.stage2_hits, stats.evictions);
    assert_eq!((stats.hits, stats.misses), (0, 0), "{name}: v1 tables only");
    let image = host.image();
    assert_eq!(image.completions, expected, "{name}: completion words, in order");
    (judged.completions, judged.events, judged.irqs) = (expected.len(), image.events, image.irqs);
    judged
}

fn agrees(recorded: &Translation, answer: &Answer) -> bool {
    let status = match recorded.outcome {
        Outcome::Ok => Status::OK,
        Outcome::Fault => Status::FAULT,
        Outcome::Bypass => Status::BYPASS,
        Outcome::Abort => Status::ABORT,
        Outcome::Disabled => Status::DISABLED,
    };
    let output = match recorded.page_start {
        true => answer.output & !low_bits(answer.leaf_log2 as u8),
        false => answer.output,
    };
    answer.status == status
        && match status {
            Status::OK | Status::BYPASS | Status::DISABLED => output == recorded.output,
            Status::FAULT => answer.fault == recorded.fault,
            _ => true,
        }
}

macro_rules! recordings {
    ($($test:ident = $name:literal, $translations:literal, $faults:literal, $completions:literal;)*) => {$(
        #[test]
        fn $test() {
            let judged = replay($name, None);
            assert_eq!(judged.wrong_count, 0, "{}", judged.wrong.join("\n"));
            assert_eq!(judged.translations, $translations);
            assert_eq!(judged.faults, $faults);
            assert_eq!(judged.completions, $completions);
            assert_eq!(judged.evictions, 0);
            assert!(judged.events == 0 || judged.irqs > 0);
        }
    )*};
}

recordings! {
    boot = "amd73-boot", 501, 14, 375;
    churn = "amd73-churn", 18_789, 206, 9_970;
    huge = "amd73-huge-strict", 38_711, 14, 16_348;
    lazy = "amd73-lazy", 284_990, 506, 2_985;
    passthrough = "amd73-passthrough", 0, 0, 248;
    strict = "amd73-strict", 158_199, 266, 67_067;
}

/// Ignoring a command gives wrong answers. An independent replay (Python, unlimited caches) counted 14 344 too for
/// amd73-churn without INVALIDATE_DEVTAB_ENTRY; and 14 202 without INVALIDATE_IOMMU_PAGES, fewer because it caches single
/// pages where this model caches whole leaves.
#[test]
fn ignored_commands_show() {
    for (name, opcode, wrong) in [
        ("amd73-churn", Opcode::INVALIDATE_IOMMU_PAGES, 14_650),
        ("amd73-churn", Opcode::INVALIDATE_DEVTAB_ENTRY, 14_344),
        ("amd73-huge-strict", Opcode::INVALIDATE_IOMMU_PAGES, 14_234),
        ("amd73-lazy", Opcode::INVALIDATE_IOMMU_PAGES, 92_423),
        ("amd73-strict", Opcode::INVALIDATE_IOMMU_PAGES, 47_179),
    ] {
        let judged = replay(name, Some(opcode));
        assert_eq!(judged.wrong_count, wrong, "{name} without {opcode:?}");
    }
}
