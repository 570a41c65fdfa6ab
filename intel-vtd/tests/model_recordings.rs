//! The model as the recorded guest's own unit: the guest's registers and memory drive it, and every answer must be the
//! one that QEMU's independent model gave, as must every register read, status word and fault message. Its caches
//! forget only what descriptors name, so one that the model ignores shows, and where an independent replay (Python,
//! unlimited caches) counted the wrong answers of the same omission, the number is the same.

use intel_vtd::model::RemappingUnit;
use intel_vtd::spec::descriptors::DescriptorType;
use intel_vtd::spec::registers::offset;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use viommu_plugin::{Answer, Message, Model, ModelConfig, ModelHost, Register, Request, Status, Unreadable};
use viommu_trace::{Outcome, Record, Role, Scan, Trace, Translation};

const PAGE: u64 = 4096;
/// Bytes of the shortest descriptor: nothing else is read in pieces as long.
const DESCRIPTOR: usize = 16;

/// Guest memory as the recording's MEM records say; bytes that none mentions do not exist.
#[derive(Default)]
struct Image {
    pages: HashMap<u64, (Box<[u64; 512]>, [u64; 8])>,
    /// What the model stored, in order: address and bytes.
    stored: Vec<(u64, Vec<u8>)>,
    /// Descriptors of these types reach the model as ones without effect.
    ignored: Vec<DescriptorType>,
    ignored_count: u64,
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

    fn word(&self, at: u64) -> Result<u64, Unreadable> {
        let slot = (at % PAGE / 8) as usize;
        let (words, known) = self.pages.get(&(at / PAGE)).ok_or(Unreadable)?;
        if known[slot / 64] >> (slot % 64) & 1 == 0 { Err(Unreadable) } else { Ok(words[slot]) }
    }
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
        let mut image = self.image();
        for (at, out) in (pa..).step_by(8).zip(bytes.chunks_exact_mut(8)) {
            out.copy_from_slice(&image.word(at)?.to_le_bytes());
        }
        if bytes.len() >= DESCRIPTOR {
            let kind = DescriptorType::of(u64::from_le_bytes(bytes[..8].try_into().unwrap()));
            if image.ignored.contains(&kind) {
                bytes.fill(0);
                bytes[0] = DescriptorType::INTERRUPT_ENTRY_CACHE.0;
                image.ignored_count += 1;
            }
        }
        Ok(())
    }
    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        self.image().stored.push((pa, bytes.to_vec()));
        Ok(())
    }
    fn irq(&self, line: u32) {
        panic!("line {line}: the recorded guests program message addresses");
    }
}

#[derive(Default, Debug)]
struct Judged {
    translations: u64,
    wrong: Vec<String>,
    wrong_count: u64,
    /// Register reads compared.
    reads: u64,
    /// Stores compared: status words and messages.
    stores: usize,
    hits: u64,
    atc_hits: u64,
    evictions: u64,
    ignored: u64,
}

/// Replays a recording; descriptors of the types `ignored` have no effect.
fn replay(name: &str, atc: bool, ignored: &[DescriptorType]) -> Judged {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../traces").join(format!("{name}.gtrace.zst"));
    let registers: Vec<Register> = Scan::open(&path)
        .unwrap()
        .first_reads
        .iter()
        .filter(|read| read.offset <= offset::ECAP)
        .map(|read| Register { offset: read.offset, value: read.value })
        .collect();
    assert_eq!(registers.len(), 3, "VER, CAP and ECAP");
    let mut trace = Trace::open(&path).unwrap();
    let host = Host::default();
    host.image().ignored = ignored.to_vec();
    let config = ModelConfig { registers: &registers, atc, tlb_capacity: 0 };
    let mut unit = RemappingUnit::new(Box::new(host.clone()), config).unwrap();
    let mut judged = Judged::default();
    let mut stores = Vec::new();
    while let Some(entry) = trace.next().unwrap() {
        match entry.record {
            Record::Mem { gpa, bytes, .. } => host.image().put(gpa, bytes),
            Record::Reset => unit.reset(),
            Record::MmioWrite { offset, value, size } => {
                unit.mmio_write(offset, size.into(), value);
                while unit.step(64) != 0 {}
            }
            Record::MmioRead { offset, value, size } => {
                let got = unit.mmio_read(offset, size.into());
                if ignored.is_empty() {
                    assert_eq!(got, value, "{name}: record {}: register {offset:#x}", entry.number);
                }
                judged.reads += 1;
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
                assert_eq!(unit.translate(&[request], &mut answers), 1);
                judged.translations += 1;
                if !agrees(&recorded, &answers[0]) {
                    judged.wrong_count += 1;
                    if judged.wrong.len() < 3 {
                        let mut text = Message::default();
                        unit.explain(&request, &mut text);
                        let (number, got) = (entry.number, answers[0]);
                        judged.wrong.push(format!("{number}: {recorded:x?}\n got {got:x?}\n{}", text.text()));
                    }
                }
            }
            Record::IommuWrite { role: Role::STATUS, gpa, bytes } => stores.push((gpa, bytes.to_vec())),
            Record::Irq { message: Some((address, data)), .. } => {
                stores.push((address, (data as u32).to_le_bytes().to_vec()));
            }
            _ => {}
        }
    }
    let stats = unit.stats();
    (judged.hits, judged.evictions) = (stats.hits + stats.stage2_hits, stats.evictions);
    judged.atc_hits = stats.atc_hits;
    let image = host.image();
    judged.ignored = image.ignored_count;
    if ignored.is_empty() {
        for (place, (ours, theirs)) in image.stored.iter().zip(&stores).enumerate() {
            assert_eq!(ours, theirs, "{name}: store {place}");
        }
        assert_eq!(image.stored.len(), stores.len(), "{name}: stores");
        judged.stores = stores.len();
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
    let size = 1u64.checked_shl(answer.leaf_log2).unwrap_or(0).wrapping_sub(1);
    answer.status == status
        && match status {
            // A leaf that QEMU reports is the one that we walked to.
            Status::OK => answer.output == recorded.output && size == recorded.mask,
            Status::FAULT => answer.fault == recorded.fault,
            Status::BYPASS | Status::DISABLED => answer.output == recorded.output,
            _ => true,
        }
}

macro_rules! recordings {
    ($($test:ident = $name:literal, $translations:literal, $stores:literal;)*) => {$(
        #[test]
        fn $test() {
            let judged = replay($name, false, &[]);
            assert_eq!(judged.wrong_count, 0, "{}", judged.wrong.join("\n"));
            assert_eq!((judged.translations, judged.stores), ($translations, $stores));
            assert_eq!(judged.evictions, 0);
            assert!(judged.reads >= 15, "{} register reads", judged.reads);
        }
    )*};
}

recordings! {
    ats = "vtd73-ats-strict", 115_498, 20_875;
    boot = "vtd73-boot", 366, 129;
    churn = "vtd73-churn", 19_688, 5_298;
    lazy = "vtd73-fs-lazy", 294_078, 2_181;
    strict = "vtd73-fs-strict", 168_056, 30_487;
    huge = "vtd73-huge-strict", 84_055, 7_536;
    legacy = "vtd73-legacy-strict", 67_653, 16_707;
    passthrough = "vtd73-passthrough", 0, 122;
}

/// With device caches: what the guest's device-TLB invalidations name is enough, and without them it is not.
#[test]
fn device_caches() {
    let judged = replay("vtd73-ats-strict", true, &[]);
    assert_eq!(judged.wrong_count, 0, "{}", judged.wrong.join("\n"));
    assert!(judged.atc_hits > 9_000, "only {} answers of devices' own caches", judged.atc_hits);
    let stale = replay("vtd73-ats-strict", true, &[DescriptorType::DEVICE_TLB]);
    assert_eq!((stale.ignored, stale.wrong_count), (5_852, 8_473));
}

/// Ignoring a descriptor gives exactly the wrong answers that the independent replay counted; that replay forgets both
/// context and PASID entries at either descriptor, so the last two numbers are this model's alone.
#[test]
fn ignored_descriptors_show() {
    const CONTEXT: DescriptorType = DescriptorType::CONTEXT_CACHE;
    const PASID_CACHE: DescriptorType = DescriptorType::PASID_CACHE;
    for (name, ignored, count, wrong) in [
        ("vtd73-churn", &[DescriptorType::PASID_IOTLB][..], 3_561, 17_060),
        ("vtd73-fs-strict", &[DescriptorType::PASID_IOTLB], 30_319, 57_258),
        ("vtd73-fs-lazy", &[DescriptorType::PASID_IOTLB], 2_007, 96_239),
        ("vtd73-legacy-strict", &[DescriptorType::IOTLB], 15_953, 36_553),
        ("vtd73-legacy-strict", &[CONTEXT], 18, 3_776),
        ("vtd73-churn", &[PASID_CACHE, CONTEXT], 63, 16_435),
        ("vtd73-churn", &[PASID_CACHE], 39, 16_435),
        ("vtd73-churn", &[CONTEXT], 24, 13_903),
    ] {
        let judged = replay(name, false, ignored);
        assert_eq!((judged.ignored, judged.wrong_count), (count, wrong), "{name} without {ignored:?}");
    }
}
