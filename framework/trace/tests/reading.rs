//! Traces that are right, and every way in which they can be wrong.

use proptest::prelude::*;
use std::io::Cursor;
use viommu_trace::{Header, Outcome, Problem, Record, Role, Scan, Trace, TraceError, Translation, Vendor, Writer};

const PAGE: [u8; 64] = [0x5a; 64];

fn header() -> Header {
    Header::new(Vendor::ARM_SMMUV3).ram(0x4000_0000, 0x2000_0000).frame(0x0905_0000, 0x2_0000).device("nvme", 0x100)
}

fn translation() -> Translation {
    Translation {
        stream: 0x100,
        pasid: None,
        iova: 0xffff_f123,
        output: 0x4567_8123,
        mask: 0,
        outcome: Outcome::Ok,
        access: 0,
        permissions: Some(3),
        stage: 1,
        fault: 0,
        cached: true,
        page_start: false,
    }
}

fn records() -> Vec<Record<'static>> {
    let fault = Translation {
        pasid: Some(7),
        output: 0,
        outcome: Outcome::Fault,
        access: 2,
        permissions: None,
        fault: 0x10,
        cached: false,
        page_start: true,
        ..translation()
    };
    vec![
        Record::Reset,
        Record::MmioRead { offset: 0, value: 0x0d44_101b, size: 4 },
        Record::Mark(b"boot"),
        Record::Time(1_000_000_007),
        Record::Mem { role: Role::QUEUE, gpa: 0x4000_1000, bytes: &PAGE },
        Record::MmioWrite { offset: 0x90, value: 0x4000_1008, size: 8 },
        Record::Translation(translation()),
        Record::Translation(fault),
        Record::IommuWrite { role: Role::EVENT, gpa: 0x4000_2001, bytes: &PAGE[..3] },
        Record::Irq { line: 3, message: None },
        Record::Irq { line: 0, message: Some((0xfee0_0000, 0x21)) },
        Record::Note(b"smmuv3_cmdq_tlbi_nh \xff"),
        Record::Unknown { kind: 200 },
        Record::MmioRead { offset: 0, value: 1, size: 4 },
    ]
}

fn plain(records: &[Record<'_>]) -> Vec<u8> {
    let mut writer = Writer::plain(Vec::new(), &header()).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn zstd(records: &[Record<'_>]) -> Vec<u8> {
    let mut writer = Writer::zstd(Vec::new(), &header()).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

fn open(bytes: &[u8]) -> Result<Trace, TraceError> {
    Trace::from_reader("test.gtrace", Cursor::new(bytes.to_vec()))
}

/// Reads to the end; how many records there were.
fn read(bytes: &[u8]) -> Result<u64, TraceError> {
    let mut trace = open(bytes)?;
    let mut records = 0;
    while trace.next()?.is_some() {
        records += 1;
    }
    Ok(records)
}

fn with(position: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = plain(&records());
    bytes[position..position + value.len()].copy_from_slice(value);
    bytes
}

#[test]
fn every_record_comes_back_with_its_number_and_offset_compressed_or_not() {
    for bytes in [plain(&records()), zstd(&records())] {
        let mut trace = open(&bytes).unwrap();
        assert_eq!(trace.header().devices[0].sid, 0x100);
        assert_eq!(trace.header().ram_base, 0x4000_0000);
        let mut offset = plain(&[]).len() as u64 - 8;
        for (number, expected) in records().into_iter().enumerate() {
            let entry = trace.next().unwrap().unwrap();
            assert_eq!((entry.number, entry.offset, entry.record), (number as u64, offset, expected));
            offset += plain(&[expected]).len() as u64 - plain(&[]).len() as u64;
        }
        assert!(!trace.ended());
        assert_eq!(trace.next().unwrap().unwrap().record, Record::End);
        assert!(trace.ended());
        assert!(trace.next().unwrap().is_none());
    }
}

#[test]
fn a_trace_cut_anywhere_is_cut_short() {
    let bytes = plain(&records());
    for length in 1..bytes.len() {
        let error = read(&bytes[..length]).expect_err("a cut trace");
        assert!(error.problem().is_cut_short(), "cut at {length}: {error}");
        assert!(error.to_string().contains("cut short"), "cut at {length}: {error}");
    }
    assert_eq!(read(&bytes).unwrap(), records().len() as u64 + 1);
}

#[test]
fn a_compressed_trace_cut_anywhere_is_cut_short() {
    let bytes = zstd(&records());
    for length in 4..bytes.len() {
        let error = read(&bytes[..length]).expect_err("a cut trace");
        assert!(error.problem().is_cut_short(), "cut at {length}: {error}");
    }
}

#[test]
fn a_trace_without_its_end_record_is_cut_short() {
    let mut writer = Writer::zstd(Vec::new(), &header()).unwrap();
    writer.write(&Record::Reset).unwrap();
    let error = read(&writer.abandon().unwrap()).unwrap_err();
    assert!(matches!(error.problem(), Problem::NoEnd), "{error}");
    assert_eq!(error.record(), Some(1));
}

#[test]
fn damaged_compression_is_an_error() {
    let mut bytes = zstd(&records());
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8].fill(0xff);
    assert!(read(&bytes).is_err());
}

#[test]
fn what_is_not_a_trace_is_said_to_be_none() {
    for bytes in [&b""[..], b"G!", b"GIOMMUTX", b"\x7fELF and more", &[0; 4096]] {
        let error = read(bytes).unwrap_err();
        assert!(matches!(error.problem(), Problem::NotATrace), "{error}");
        assert!(error.to_string().contains("test.gtrace: not a trace"), "{error}");
    }
}

#[test]
fn the_header_is_checked() {
    let says = |bytes: Vec<u8>, expected: &str| {
        let error = open(&bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
    };
    says(with(8, &[2, 0]), "version 2");
    says(with(10, &[4, 0]), "unknown vendor 4");
    says(with(10, &[0, 0]), "unknown vendor 0");
    says(with(12, &[1, 2]), "its length is not 56 plus");
    says(with(48, &[0xff; 4]), "longer than 1 MiB");
    says(with(24, &[0xff; 8]), "RAM ends beyond");
    says(with(56, b"[1]"), "not a JSON object");
    assert_eq!(open(&with(10, &[1, 0x80])).unwrap().header().vendor, Vendor(0x8001));
}

#[test]
fn a_record_longer_than_the_file_says_how_much_there_is() {
    let first = plain(&[]).len() - 8;
    for length in [1000_u32, u32::MAX] {
        let bytes = with(first + 4, &length.to_le_bytes());
        let left = (bytes.len() - first - 8) as u64;
        let error = read(&bytes).unwrap_err();
        assert!(matches!(error.problem(), Problem::LongerThanFile { left: l, .. } if *l == left), "{error}");
        assert_eq!((error.record(), error.offset()), (Some(0), first as u64));
    }
}

#[test]
fn a_record_over_the_limit_is_refused_without_being_read_into_memory() {
    let mut bytes = plain(&[]);
    bytes.truncate(bytes.len() - 8);
    bytes.extend([9, 0, 0, 0]);
    bytes.extend((viommu_trace::MAX_RECORD + 8).to_le_bytes());
    let start = Cursor::new(bytes);
    let zeros = std::io::Read::take(std::io::repeat(0), u64::from(viommu_trace::MAX_RECORD) * 2);
    let mut trace = Trace::from_reader("long", std::io::Read::chain(start, zeros)).unwrap();
    let error = trace.next().unwrap_err();
    assert!(matches!(error.problem(), Problem::TooLong { .. }), "{error}");
    assert!(trace.next().unwrap().is_none(), "nothing comes after an error");
}

#[test]
fn payloads_are_checked_against_their_type() {
    let mut translation_bytes = plain(&[Record::Translation(translation())]);
    let start = plain(&[]).len();
    for (at, value) in [(32, 5), (33, 3), (34, 4)] {
        let before = std::mem::replace(&mut translation_bytes[start + at], value);
        let error = read(&translation_bytes).unwrap_err();
        assert!(matches!(error.problem(), Problem::Field { record: "TRANSLATION", .. }), "{error}");
        translation_bytes[start + at] = before;
    }
    assert!(read(&translation_bytes).is_ok());

    let cases = [
        plain(&[Record::Mem { role: Role::OTHER, gpa: 4, bytes: &PAGE }]),
        plain(&[Record::Mem { role: Role::OTHER, gpa: 0u64.wrapping_sub(8), bytes: &PAGE }]),
        plain(&[Record::Mem { role: Role::OTHER, gpa: 8, bytes: &PAGE[..7] }]),
        plain(&[Record::MmioWrite { offset: 0, value: 0, size: 3 }]),
    ];
    for bytes in cases {
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains("record 0 at offset") && error.contains("malformed M"), "{error}");
    }
}

#[test]
fn a_scan_knows_first_reads_and_streams() {
    let scan = Scan::of(open(&zstd(&records())).unwrap()).unwrap();
    assert_eq!(scan.first_reads.len(), 1);
    assert_eq!(scan.first_reads[0].value, 0x0d44_101b);
    assert_eq!((scan.records, scan.translations), (records().len() as u64 + 1, 2));
    assert_eq!((scan.streams[&0x100].translations, scan.streams[&0x100].stage1), (2, 1));
}

#[test]
fn files_are_opened_by_their_first_bytes_not_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("compressed.gtrace");
    std::fs::write(&path, zstd(&records())).unwrap();
    assert_eq!(Scan::open(&path).unwrap().records, records().len() as u64 + 1);

    let missing = folder.path().join("missing");
    let error = Trace::open(&missing).unwrap_err();
    assert!(matches!(error.problem(), Problem::Open(_)), "{error}");
    assert!(Trace::open(folder.path()).is_err(), "a folder is not a trace");
}

/// Any record, from the bytes that it borrows.
fn any_record(pool: &'static [u8]) -> impl Strategy<Value = Record<'static>> {
    let bytes = (0..=pool.len()).prop_map(|length| &pool[..length]);
    let words = (0..=pool.len() / 8).prop_map(|words| &pool[..words * 8]);
    let size = prop_oneof![Just(1_u8), Just(2), Just(4), Just(8)];
    let gpa = (0..u64::MAX >> 4).prop_map(|word| word * 8);
    let outcome = prop_oneof![
        Just(Outcome::Ok),
        Just(Outcome::Fault),
        Just(Outcome::Bypass),
        Just(Outcome::Abort),
        Just(Outcome::Disabled)
    ];
    let fields = (any::<(u32, u64, u64, u64, u8, u32, bool, bool)>(), outcome, 0..3_u8, 0..4_u8);
    let pasid = prop::option::of(0..u32::MAX);
    let translation = (fields, pasid, any::<bool>()).prop_map(|((values, outcome, access, granted), pasid, known)| {
        let (stream, iova, output, mask, stage, fault, cached, page_start) = values;
        let permissions = known.then_some(granted);
        Record::Translation(Translation {
            stream,
            pasid,
            iova,
            output,
            mask,
            outcome,
            access,
            permissions,
            stage,
            fault,
            cached,
            page_start,
        })
    });
    prop_oneof![
        (any::<u64>(), any::<u64>(), size.clone()).prop_map(|(offset, value, size)| Record::MmioWrite {
            offset,
            value,
            size
        }),
        (any::<u64>(), any::<u64>(), size).prop_map(|(offset, value, size)| Record::MmioRead { offset, value, size }),
        (any::<u16>(), gpa, words).prop_map(|(role, gpa, bytes)| Record::Mem { role: Role(role), gpa, bytes }),
        (any::<u16>(), any::<u64>(), bytes.clone()).prop_map(|(role, gpa, bytes)| Record::IommuWrite {
            role: Role(role),
            gpa,
            bytes
        }),
        translation,
        bytes.clone().prop_map(Record::Mark),
        bytes.prop_map(Record::Note),
        any::<u64>().prop_map(Record::Time),
        (any::<u16>(), any::<Option<(u64, u64)>>()).prop_map(|(line, message)| Record::Irq { line, message }),
        Just(Record::Reset),
        (12..=u8::MAX).prop_map(|kind| Record::Unknown { kind }),
    ]
}

static POOL: [u8; 96] = [0xc3; 96];

proptest! {
    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(any_record(&POOL), 0..20), compressed: bool) {
        let bytes = if compressed { zstd(&records) } else { plain(&records) };
        let mut trace = open(&bytes).unwrap();
        for expected in &records {
            prop_assert_eq!(trace.next().unwrap().unwrap().record, *expected);
        }
        prop_assert_eq!(trace.next().unwrap().unwrap().record, Record::End);
        prop_assert!(trace.next().unwrap().is_none());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn arbitrary_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 0..13_u8) {
        let mut file = plain(&[]);
        file.truncate(file.len() - 8);
        file.extend([kind, 0, 4, 0]);
        file.extend(&bytes);
        let _ = read(&file);
    }

    #[test]
    fn a_changed_byte_never_panics(position in 0..500_usize, value: u8) {
        for mut bytes in [plain(&records()), zstd(&records())] {
            let position = position % bytes.len();
            bytes[position] = value;
            let _ = read(&bytes);
        }
    }
}
