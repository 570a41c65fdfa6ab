//! The rows on the software iommufd: the document says what it does, and a rule that is broken is noticed.

mod wrong;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use viommu::uapi::{Command, Errno};
use viommu_conformance::{
    Iommufd, Memory, Open, Ready, Software, all, compare, kernel_column, plan, replay, run, shrink, table,
    vendor_table, vendors, with_table,
};
use wrong::{With, Wrong};

#[test]
fn the_documents_tables_are_what_the_software_iommufd_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let document = fs::read_to_string(&path).unwrap();
    let (rows, memory) = (all(), Memory::new(200 << 20).unwrap());
    let about_vendors = vendors();
    let mut verdicts = run(&rows, &Software, &memory);
    verdicts.extend(run(&about_vendors, &Software, &memory));
    let failed: Vec<_> = verdicts.iter().filter(|verdict| !verdict.passed()).map(|v| (v.row.id, &v.got)).collect();
    let here: BTreeMap<_, _> =
        verdicts.iter().map(|verdict| (verdict.row.id.to_owned(), verdict.got.clone())).collect();
    let kernel = kernel_column(&rows, &document);
    let wanted = with_table(&document, &table(&rows, &here, &kernel));
    let wanted = with_table(&wanted, &vendor_table(&about_vendors, &here));
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(document, wanted, "viommu conformance --bless docs/conformance.md");
    let unlike = rows.iter().find(|row| kernel.get(row.id).map(String::as_str) != Some(row.expected));
    assert!(unlike.is_none(), "the kernel did not satisfy {:?}", unlike.map(|row| row.id));
}

/// A rule that somebody gets wrong.
#[derive(Clone, Copy, Debug)]
enum Lie {
    /// DESTROY of what is in use succeeds.
    Busy,
    /// An invalidation counts one more than it did.
    Count,
    /// ENOENT is EINVAL.
    Errno,
    /// An event queue forgets the record that says events were lost.
    Lost,
    /// Nothing is ever waiting.
    Poll,
    /// A VDEVICE_ALLOC that runs out of memory leaves an object.
    Leak,
    /// Being out of memory is EBUSY.
    Memory,
}

impl Wrong for Lie {
    fn ioctl(
        self,
        below: &dyn Iommufd,
        code: u32,
        argument: &mut [u8],
        answer: Result<(), Errno>,
    ) -> Result<(), Errno> {
        match (self, answer) {
            (Lie::Leak, Err(Errno::NOMEM)) if code == Command::VdeviceAlloc.code() => {
                let mut ioas = [12u32, 0, 0].map(u32::to_ne_bytes).concat();
                below.ioctl(Command::IoasAlloc.code(), &mut ioas, &mut []).unwrap();
                answer
            }
            (Lie::Memory, Err(Errno::NOMEM)) => Err(Errno::BUSY),
            (Lie::Busy, Err(Errno::BUSY)) => Ok(()),
            (Lie::Errno, Err(Errno::NOENT)) => Err(Errno::INVAL),
            (Lie::Count, answer) if code == Command::HwptInvalidate.code() && argument.len() >= 28 => {
                argument[24] += 1;
                answer
            }
            (_, answer) => answer,
        }
    }

    fn read(self, bytes: usize) -> usize {
        let is_lost = matches!(self, Lie::Lost) && bytes % 12 == 8;
        if is_lost { bytes - 8 } else { bytes }
    }

    fn poll(self, ready: Ready) -> Ready {
        if matches!(self, Lie::Poll) { Ready { readable: false, ..ready } } else { ready }
    }
}

#[test]
fn a_broken_rule_fails_the_rows_that_are_about_it() {
    let memory = Memory::new(200 << 20).unwrap();
    let about = [
        (Lie::Busy, "C6.4"),
        (Lie::Count, "C4.11"),
        (Lie::Errno, "C3.1"),
        (Lie::Lost, "C6.23"),
        (Lie::Poll, "C3.18"),
        (Lie::Leak, "C9.9"),
        (Lie::Memory, "C9.2"),
        (Lie::Memory, "C9.9"),
    ];
    for (lie, id) in about {
        let row: Vec<_> = all().into_iter().filter(|row| row.id == id).collect();
        assert!(run(&row, &Software, &memory)[0].passed(), "{id} without a lie");
        assert!(!run(&row, &With(lie), &memory)[0].passed(), "{id} believes {lie:?}");
    }
}

#[test]
fn a_broken_rule_is_found_by_sequences_and_shrunk_to_what_shows_it() {
    let memory = Memory::new(200 << 20).unwrap();
    let pair: [&dyn Open; 2] = [&Software, &With(Lie::Busy)];
    let found = (0..200).find_map(|number| compare(&plan(1, number), pair, &memory).unwrap());
    let short = shrink(found.expect("nobody noticed"), pair, &memory).unwrap();
    assert!(short.one.starts_with("EBUSY") && short.other.starts_with("ok"), "{short}");
    assert!(short.plan.len() <= 6, "{short}");
}

#[test]
fn the_same_sequence_is_the_same_twice() {
    let (memory, other) = (Memory::new(200 << 20).unwrap(), Memory::new(200 << 20).unwrap());
    for number in 0..100 {
        let plan = plan(3, number);
        let here = replay(&plan, &Software, &memory).unwrap();
        assert_eq!(here, replay(&plan, &Software, &other).unwrap(), "sequence {number}");
    }
}
