//! Any bytes as a recording: read to the end or refused with a place, and what was read is written back and read again
//! as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Cursor;
use viommu_trace::{Header, Record, Scan, Trace, TraceError, Writer};

/// Bytes of a decompressed file looked at: zstd makes a few bytes into very many.
const ENOUGH: u64 = 16 << 20;

/// Every record as it is written, or the error that ends them.
fn read(bytes: &[u8]) -> Result<(Header, Vec<Vec<u8>>, Option<TraceError>), TraceError> {
    let mut trace = Trace::from_reader("input", Cursor::new(bytes.to_vec()))?;
    let header = trace.header().clone();
    let (mut records, mut expected, mut last) = (Vec::new(), 0, 0);
    let error = loop {
        match trace.next() {
            Ok(Some(entry)) => {
                assert_eq!(entry.number, expected, "records are counted one by one");
                assert!(entry.number == 0 || entry.offset >= last + 8, "each is behind the one before");
                (expected, last) = (expected + 1, entry.offset);
                // A record of a type that is not known is passed over: its payload is nobody's.
                if !matches!(entry.record, Record::Unknown { .. }) {
                    records.push(written(&header, &entry.record));
                }
                if last > ENOUGH {
                    break None;
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    if let Some(error) = &error {
        assert_eq!(error.record(), Some(expected), "an error is at the record that could not be read");
        assert!(error.offset() > last || expected == 0, "and behind the last that could");
        let text = error.to_string();
        assert!(text.starts_with(&format!("input: record {expected} at offset {:#x}: ", error.offset())), "{text}");
        assert!(trace.next().is_ok_and(|entry| entry.is_none()), "nothing comes after an error");
    } else if last <= ENOUGH {
        assert!(trace.ended(), "a recording without END is cut short");
    }
    Ok((header, records, error))
}

/// One record behind `header`, as bytes without the header's.
fn written(header: &Header, record: &Record<'_>) -> Vec<u8> {
    let empty = Writer::plain(Vec::new(), header).and_then(Writer::abandon).expect("memory takes everything");
    let mut writer = Writer::plain(Vec::new(), header).expect("memory takes everything");
    writer.write(record).expect("memory takes everything");
    writer.abandon().expect("memory takes everything").split_off(empty.len())
}

fuzz_target!(|bytes: &[u8]| {
    let (header, records, error) = match read(bytes) {
        Ok(read) => read,
        Err(error) => {
            assert_eq!((error.record(), error.offset(), error.file()), (None, 0, "input"), "{error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    // The same again from what was read. A header's own name and devices are said anew in its description.
    let mut again = Writer::plain(Vec::new(), &header).and_then(Writer::abandon).expect("memory takes everything");
    records.iter().for_each(|record| again.extend(record));
    let (header_again, records_again, error_again) = read(&again).expect("what was written can be read");
    assert_eq!((header_again.vendor, &header_again.devices), (header.vendor, &header.devices));
    assert_eq!((header_again.ram_base, header_again.ram_size), (header.ram_base, header.ram_size));
    assert_eq!((header_again.mmio_base, header_again.mmio_size), (header.mmio_base, header.mmio_size));
    assert_eq!(header_again.name, header.name);
    assert!(records == records_again, "records read, written and read again are the same");
    // A scan sees what reading sees.
    let scan = Scan::of(Trace::from_reader("again", Cursor::new(again)).expect("it was read before"));
    assert_eq!(scan.is_ok(), error_again.is_none());
    if let Ok(scan) = scan {
        assert_eq!(scan.records, records.len() as u64);
    }
    drop(error);
});
