//! The rows on the software iommufd: the document says what it does, and a rule that is broken is noticed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use viommu::uapi::{Command, Errno};
use viommu_conformance::{
    Iommufd, Lent, Mapped, Memory, Open, Ready, Software, all, compare, kernel_column, plan, replay, run, shrink,
    table, with_table,
};

#[test]
fn the_documents_table_is_what_the_software_iommufd_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/conformance.md");
    let document = fs::read_to_string(&path).unwrap();
    let (rows, memory) = (all(), Memory::new(200 << 20).unwrap());
    let verdicts = run(&rows, &Software, &memory);
    let failed: Vec<_> = verdicts.iter().filter(|verdict| !verdict.passed()).map(|v| (v.row.id, &v.got)).collect();
    let here: BTreeMap<_, _> =
        verdicts.iter().map(|verdict| (verdict.row.id.to_owned(), verdict.got.clone())).collect();
    let kernel = kernel_column(&rows, &document);
    let wanted = with_table(&document, &table(&rows, &here, &kernel));
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
}

struct Liar(Lie);
struct Lying(Box<dyn Iommufd>, Lie);

impl Open for Liar {
    fn open(&self) -> Result<Box<dyn Iommufd>, Errno> {
        Ok(Box::new(Lying(Software.open()?, self.0)))
    }
}

impl Iommufd for Lying {
    fn ioctl(&self, code: u32, argument: &mut [u8], lent: &mut [Lent<'_>]) -> Result<(), Errno> {
        match (self.1, self.0.ioctl(code, argument, lent)) {
            (Lie::Busy, Err(Errno::BUSY)) => Ok(()),
            (Lie::Errno, Err(Errno::NOENT)) => Err(Errno::INVAL),
            (Lie::Count, result) if code == Command::HwptInvalidate.code() && argument.len() >= 28 => {
                argument[24] += 1;
                result
            }
            (_, result) => result,
        }
    }
    fn ioctl_null(&self, code: u32) -> Result<(), Errno> {
        self.0.ioctl_null(code)
    }
    fn read(&self, file: u32, bytes: &mut [u8]) -> Result<usize, Errno> {
        let read = self.0.read(file, bytes)?;
        let is_lost = matches!(self.1, Lie::Lost) && read % 12 == 8;
        Ok(if is_lost { read - 8 } else { read })
    }
    fn write(&self, file: u32, bytes: &[u8]) -> Result<usize, Errno> {
        self.0.write(file, bytes)
    }
    fn poll(&self, file: u32) -> Result<Ready, Errno> {
        let ready = self.0.poll(file)?;
        Ok(if matches!(self.1, Lie::Poll) { Ready { readable: false, ..ready } } else { ready })
    }
    fn close(&self, file: u32) -> Result<(), Errno> {
        self.0.close(file)
    }
    fn mmap(&self, offset: u64, length: u64) -> Result<Box<dyn Mapped>, Errno> {
        self.0.mmap(offset, length)
    }
    fn fail_nth(&self, nth: u32) -> bool {
        self.0.fail_nth(nth)
    }
    fn failed(&self) -> bool {
        self.0.failed()
    }
}

#[test]
fn a_broken_rule_fails_the_rows_that_are_about_it() {
    let memory = Memory::new(200 << 20).unwrap();
    let about =
        [(Lie::Busy, "C6.4"), (Lie::Count, "C4.11"), (Lie::Errno, "C3.1"), (Lie::Lost, "C6.23"), (Lie::Poll, "C3.18")];
    for (lie, id) in about {
        let row: Vec<_> = all().into_iter().filter(|row| row.id == id).collect();
        assert!(run(&row, &Software, &memory)[0].passed(), "{id} without a lie");
        assert!(!run(&row, &Liar(lie), &memory)[0].passed(), "{id} believes {lie:?}");
    }
}

#[test]
fn a_broken_rule_is_found_by_sequences_and_shrunk_to_what_shows_it() {
    let memory = Memory::new(200 << 20).unwrap();
    let pair: [&dyn Open; 2] = [&Software, &Liar(Lie::Busy)];
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
