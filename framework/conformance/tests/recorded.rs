//! What a real kernel answered in random sequences, kept as a file: the software iommufd answers the same.

mod wrong;

use std::fs;
use std::path::Path;
use viommu::uapi::{Command, Errno};
use viommu_conformance::{Iommufd, Log, Logged, Memory, Software, Stale, plan};
use wrong::{With, Wrong};

/// Written in the kernel lab's VM: `viommu conformance --kernel /dev/iommu --sequences N --seed 1 --log FILE`.
const KEPT: &str = "kernel/linux-7.3.log";

fn kept() -> Log {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    Log::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn the_software_iommufd_answers_as_the_kernel_did() {
    let (log, memory) = (kept(), Memory::new(200 << 20).unwrap());
    assert!(log.whose.starts_with("Linux 7.3."), "{}", log.whose);
    assert!(log.sequences.len() >= 1000, "only {} sequences", log.sequences.len());
    let differing = log.differing(&Software, &memory).unwrap();
    assert!(differing.is_empty(), "seed {}, sequences {differing:?}", log.seed);
}

/// One command answers one errno wrongly.
#[derive(Clone, Copy)]
struct Errnos {
    command: Command,
    errno: Errno,
    instead: Errno,
}

impl Wrong for Errnos {
    fn ioctl(self, _: &dyn Iommufd, code: u32, _: &mut [u8], answer: Result<(), Errno>) -> Result<(), Errno> {
        let is_it = code == self.command.code() && answer == Err(self.errno);
        if is_it { Err(self.instead) } else { answer }
    }
}

#[test]
fn one_wrong_errno_is_noticed() {
    let (mut log, memory) = (kept(), Memory::new(200 << 20).unwrap());
    log.sequences.retain(|number, _| *number < 200);
    let wrong = [
        (Command::VdeviceAlloc, Errno::EXIST, Errno::INVAL),
        (Command::HwptInvalidate, Errno::INVAL, Errno::IO),
        (Command::Destroy, Errno::BUSY, Errno::NOENT),
        (Command::HwQueueAlloc, Errno::NOENT, Errno::INVAL),
    ];
    for (command, errno, instead) in wrong {
        let differing = log.differing(&With(Errnos { command, errno, instead }), &memory).unwrap();
        assert!(!differing.is_empty(), "{} with {instead} for {errno}", command.name());
    }
}

#[test]
fn a_log_of_other_sequences_is_stale_and_not_a_difference() {
    let (mut log, memory) = (kept(), Memory::new(200 << 20).unwrap());
    let first = *log.sequences.keys().next().unwrap();
    log.sequences.retain(|number, _| *number == first);
    let now = Logged::of(&plan(log.seed, first), &[]);
    assert_eq!(log.agrees(log.seed + 1, first, now), Err(Stale::Seed(log.seed)));
    assert_eq!(log.agrees(log.seed, first + 1, now), Err(Stale::Missing(first + 1)));
    assert_eq!(log.agrees(log.seed, first, now), Ok(false), "the same sequence, answered otherwise");
    let mut shorter = plan(log.seed, first);
    shorter.pop();
    assert_eq!(log.agrees(log.seed, first, Logged::of(&shorter, &[])), Err(Stale::Plan(first)));
    log.sequences.get_mut(&first).unwrap().plan ^= 1;
    let said = log.differing(&Software, &memory).unwrap_err();
    assert!(said.starts_with(&format!("the log is stale: sequence {first} ")), "{said}");
}

#[test]
fn a_log_is_read_as_it_is_written_and_nothing_else_is() {
    let mut log = kept();
    log.sequences.retain(|number, _| *number < 20);
    let text = log.to_string();
    assert_eq!(Log::parse(&text), Ok(log));
    for (from, to) in [("format 1", "format 0"), ("seed 1", "seed x"), ("\n0 ", "\n0 z"), ("# viommu", "# other")] {
        assert!(matches!(Log::parse(&text.replacen(from, to, 1)), Err(Stale::Format(_))), "{from} as {to}");
    }
}
