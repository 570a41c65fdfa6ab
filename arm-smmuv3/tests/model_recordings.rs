//! The model as the recorded guest's own SMMU: the guest's registers and memory drive it, and every answer must be the
//! one that QEMU's independent model gave. Its caches forget only what commands name, so a guest's command that the
//! model ignores shows, and the number of wrong answers is the one an independent replay (Python, unlimited caches)
//! counted for the same omission.

use arm_smmuv3::model::Smmu;
use arm_smmuv3::spec::registers::offset;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use viommu_plugin::{Answer, Model, ModelConfig, ModelHost, Register, Request, Status, Unreadable};
use viommu_trace::{Outcome, Record, Role, Scan, Trace, Translation};

const PAGE: u64 = 4096;

/// Guest memory as the recording's MEM records say; bytes that none mentions do not exist.
#[derive(Default)]
struct Image {
    pages: HashMap<u64, (Box<[u64; 512]>, [u64; 8])>,
    /// What the model stored, in order: address and bytes.
    stored: Vec<(u64, Vec<u8>)>,
    irqs: HashMap<u32, u64>,
}

impl Image {
    fn put(&mut self, gpa: u64, bytes: &[u8]) {
        for (at, word) in (gpa..).step_by(8).zip(bytes.chunks_exact(8)) {
            let slot = (at % PAGE / 8) as usize;
            let (words, known) = self.pages.entry(at / PAGE).or_insert_with(|| (Box::new([0; 512]), [0; 8]));
            words[slot] = u64::from_le_bytes(word.try_into().unwrap());
            known[slot / 64] |= 1 << (slot % 64);
        }
    }
}

#[derive(Clone, Default)]
struct Host(Arc<Mutex<Image>>);

impl Host {
    fn image(&self) -> std::sync::MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModelHost for Host {
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let image = self.image();
        for (at, out) in (pa..).step_by(8).zip(bytes.chunks_exact_mut(8)) {
            let slot = (at % PAGE / 8) as usize;
            let (words, known) = image.pages.get(&(at / PAGE)).ok_or(Unreadable)?;
            if known[slot / 64] >> (slot % 64) & 1 == 0 {
                return Err(Unreadable);
            }
            out.copy_from_slice(&words[slot].to_le_bytes());
        }
        Ok(())
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.image().stored.push((pa, bytes.to_vec()));
        Ok(())
    }
    fn irq(&self, line: u32) {
        *self.image().irqs.entry(line).or_default() += 1;
    }
}

#[derive(Default, Debug)]
struct Judged {
    translations: u64,
    wrong: Vec<String>,
    wrong_count: u64,
    events: u64,
    hits: u64,
    evictions: u64,
    event_irqs: u64,
}

/// Replays a recording; commands of opcode `ignored` become hints.
fn replay(name: &str, atc: bool, ignored: Option<u8>) -> Judged {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(format!("{name}.gtrace.zst"));
    let scan = Scan::open(&path).unwrap();
    let registers: Vec<Register> = scan
        .first_reads
        .iter()
        .filter(|read| read.offset <= offset::AIDR)
        .map(|read| Register { offset: read.offset, value: read.value })
        .collect();
    let mut trace = Trace::open(&path).unwrap();
    let host = Host::default();
    let config = ModelConfig { registers: &registers, atc, tlb_capacity: 0 };
    let mut smmu = Smmu::new(Box::new(host.clone()), config).unwrap();
    let mut judged = Judged::default();
    let mut expected_events = Vec::new();
    while let Some(entry) = trace.next().unwrap() {
        match entry.record {
            Record::Mem { role, gpa, bytes } => {
                let mut bytes = bytes.to_vec();
                if role == Role::QUEUE {
                    for command in bytes.chunks_exact_mut(16).filter(|command| Some(command[0]) == ignored) {
                        command[0] = 1;
                    }
                }
                host.image().put(gpa, &bytes);
            }
            Record::Reset => smmu.reset(),
            Record::MmioWrite { offset, value, size } => {
                smmu.mmio_write(offset, size.into(), value);
                while smmu.step(64) != 0 {}
            }
            Record::MmioRead { offset, value, size } if offset <= offset::AIDR => {
                assert_eq!(smmu.mmio_read(offset, size.into()), value, "{name}: ID register {offset:#x}");
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
                assert_eq!(smmu.translate(&[request], &mut answers), 1);
                judged.translations += 1;
                if !agrees(&recorded, &answers[0]) {
                    judged.wrong_count += 1;
                    if judged.wrong.len() < 3 {
                        let mut text = viommu_plugin::Message::default();
                        smmu.explain(&request, &mut text);
                        let (number, got) = (entry.number, answers[0]);
                        judged.wrong.push(format!("{number}: {recorded:x?}\n got {got:x?}\n{}", text.text()));
                    }
                }
            }
            Record::IommuWrite { role: Role::EVENT, gpa, bytes } => expected_events.push((gpa, bytes.to_vec())),
            _ => {}
        }
    }
    let stats = smmu.stats();
    (judged.hits, judged.evictions) = (stats.hits + stats.stage2_hits + stats.atc_hits, stats.evictions);
    let image = host.image();
    judged.event_irqs = image.irqs.get(&0).copied().unwrap_or(0);
    if judged.wrong_count == 0 {
        assert_eq!(image.stored.len(), expected_events.len(), "{name}: events stored");
        for (ours, theirs) in image.stored.iter().zip(&expected_events) {
            let mut theirs = theirs.clone();
            // QEMU reports the IPA of a stage-2 fault with its low bits, the manual without.
            theirs.1[24] = 0;
            theirs.1[25] &= 0xf0;
            assert_eq!(ours, &theirs, "{name}: event record");
        }
        judged.events = expected_events.len() as u64;
    }
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
    let permissions = recorded.permissions.is_none_or(|granted| u32::from(granted) == answer.permissions);
    let stage = recorded.stage == 0 || u32::from(recorded.stage) == answer.stage;
    answer.status == status
        && match status {
            Status::OK => answer.output == recorded.output && permissions && stage,
            Status::FAULT => answer.fault == recorded.fault,
            Status::BYPASS | Status::DISABLED => answer.output == recorded.output,
            _ => true,
        }
}

macro_rules! recordings {
    ($($test:ident = $name:literal, $translations:literal;)*) => {$(
        #[test]
        fn $test() {
            let judged = replay($name, false, None);
            assert_eq!(judged.wrong_count, 0, "{}", judged.wrong.join("\n"));
            assert_eq!(judged.translations, $translations);
            assert_eq!(judged.evictions, 0);
            assert!(judged.events == 0 || judged.event_irqs > 0);
        }
    )*};
}

recordings! {
    pages_of_16k = "arm73-16k-strict", 37_441;
    ats = "arm73-ats-strict", 193_274;
    bigmem = "arm73-bigmem-strict", 143_568;
    boot = "arm73-boot", 317;
    churn = "arm73-churn", 23_597;
    huge = "arm73-huge-strict", 85_359;
    lazy = "arm73-lazy-blk", 355_249;
    many_lazy = "arm73-many-lazy", 399_086;
    no_range_invalidation = "arm73-noril-strict", 119_730;
    passthrough = "arm73-passthrough", 56_342;
    reboot = "arm73-reboot", 53_272;
    stage2_only = "arm73-s2-strict", 109_350;
    small_queues = "arm73-smallq-noril", 137_470;
    strict = "arm73-strict-blk", 340_821;
}

/// With device caches: what the guest's ATC_INVs name is enough, and without them it is not.
#[test]
fn device_caches() {
    let judged = replay("arm73-ats-strict", true, None);
    assert_eq!(judged.wrong_count, 0, "{}", judged.wrong.join("\n"));
    let stale = replay("arm73-ats-strict", true, Some(0x40)).wrong_count;
    assert!(stale > 10_000, "only {stale} wrong without ATC_INV");
}

/// Ignoring a command gives exactly the wrong answers that the independent replay counted.
#[test]
fn ignored_commands_show() {
    for (name, opcode, wrong) in [
        ("arm73-churn", 0x12, 6_026),
        ("arm73-churn", 0x11, 2_448),
        ("arm73-churn", 0x03, 17_350),
        ("arm73-passthrough", 0x03, 2_660),
        ("arm73-s2-strict", 0x2a, 51_973),
        ("arm73-s2-strict", 0x28, 31),
        ("arm73-lazy-blk", 0x11, 87_430),
        ("arm73-lazy-blk", 0x12, 14_530),
    ] {
        let judged = replay(name, false, Some(opcode));
        assert_eq!(judged.wrong_count, wrong, "{name} without {opcode:#x}");
    }
}
