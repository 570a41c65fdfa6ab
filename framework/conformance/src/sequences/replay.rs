//! A plan on a fresh iommufd, written down.

use super::step::{Field, Ioctl, IoctlStep, Kind, Size, Step, Value, hex};
use crate::iommufd::{Iommufd, Lent, Open, errno_name};
use crate::memory::Memory;
use std::collections::HashMap;
use std::fmt::Write;
use viommu::uapi::payload::HwptPageResponse;
use viommu::uapi::selftest::{TestCommand, op};
use viommu::uapi::{Command, Errno, flags};
use zerocopy::IntoBytes;

/// A number that no object ever has.
const NOBODY: u32 = 0x7000;
/// A number that no file ever has.
const NO_FILE: u32 = 0x3fff;
/// Memory that sequences map, cleared before each.
pub(super) const WINDOW: u64 = 64 << 10;

/// What is there while a plan is replayed.
struct Replay<'a> {
    iommufd: Box<dyn Iommufd>,
    memory: &'a Memory,
    objects: HashMap<Kind, Vec<u32>>,
    events: Vec<u32>,
    accesses: Vec<u32>,
    /// What to detach before its device goes: the mock does not.
    pasids: Vec<(u32, u32)>,
}

/// Replays a plan on a fresh iommufd: a line a step.
///
/// # Errors
/// The errno of the open.
pub fn replay(plan: &[Step], open: &dyn Open, memory: &Memory) -> Result<Vec<String>, Errno> {
    memory.store(0, &[0; WINDOW as usize]);
    let iommufd = open.open()?;
    let mut replay = Replay {
        iommufd,
        memory,
        objects: HashMap::new(),
        events: Vec::new(),
        accesses: Vec::new(),
        pasids: Vec::new(),
    };
    let lines = plan.iter().map(|step| replay.step(step)).collect();
    replay.detach(None);
    Ok(lines)
}

/// A number for what a replay wrote down (FNV-1a).
pub(crate) fn hash(lines: &[String]) -> u64 {
    let bytes = lines.iter().flat_map(|line| line.bytes().chain([b'\n']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl Replay<'_> {
    fn step(&mut self, step: &Step) -> String {
        match step {
            Step::Ioctl(IoctlStep(ioctl)) => self.ioctl(ioctl),
            Step::Read(file, length) => {
                let mut bytes = vec![0; *length];
                let result = self.iommufd.read(picked(&self.events, *file).unwrap_or(NO_FILE), &mut bytes);
                // Which device's IDs, sequence and cookie: all of it is compared.
                result.map_or_else(errno_name, |read| format!("{read} [{}]", hex(&bytes[..read.min(*length)])))
            }
            Step::Write(file, cookie, code) => {
                let response = HwptPageResponse { cookie: *cookie, code: *code };
                let file = picked(&self.events, *file).unwrap_or(NO_FILE);
                self.iommufd.write(file, response.as_bytes()).map_or_else(errno_name, |taken| taken.to_string())
            }
            Step::Poll(file) => {
                let result = self.iommufd.poll(picked(&self.events, *file).unwrap_or(NO_FILE));
                result.map_or_else(errno_name, |ready| ready.to_string())
            }
            Step::Close(file) => {
                let Some(number) = picked(&self.events, *file) else { return errno_name(Errno::BADF) };
                self.events.retain(|open| *open != number);
                self.iommufd.close(number).map_or_else(errno_name, |()| "ok".into())
            }
        }
    }

    fn ioctl(&mut self, ioctl: &Ioctl) -> String {
        let Ioctl { command, size, fields, lent, makes } = ioctl;
        if *size == Size::Null {
            return self.iommufd.ioctl_null(command.code()).map_or_else(errno_name, |()| "ok".into());
        }
        let (length, fill) = match size {
            Size::Full | Size::Null => (command.size(), 0),
            Size::Minimum => (command.minimum(), 0),
            Size::TooSmall => (command.minimum() - 1, 0),
            Size::Longer(more, fill) => (command.size() + more, *fill),
        };
        // As long as the kernel's at least, so that no pointer is cut in two.
        let mut argument = vec![0; length.max(command.size())];
        argument[command.size().min(length)..].fill(fill);
        argument[..4].copy_from_slice(&u32::try_from(length).unwrap_or(0).to_ne_bytes());
        for Field { offset, bytes, value, .. } in fields {
            argument[*offset..offset + bytes].copy_from_slice(&self.resolve(*value).to_ne_bytes()[..*bytes]);
        }
        if *command == Command::Destroy {
            self.detach(Some(word(&argument, 4)));
        }
        let mut buffers: Vec<_> = lent.clone();
        let mut lent: Vec<Lent<'_>> = buffers.iter_mut().map(|(at, bytes)| (*at, bytes.as_mut_slice())).collect();
        let result = self.iommufd.ioctl(command.code(), &mut argument, &mut lent);
        let mut line = result.map_or_else(errno_name, |()| "ok".into());
        if result.is_ok() {
            self.remember(*command, &mut argument, *makes);
        }
        for (at, _) in &buffers {
            argument[*at..at + 8].fill(0);
        }
        for Field { offset, value, .. } in fields {
            if let Value::Memory(_) = value {
                argument[*offset..offset + 8].fill(0);
            } else if let Value::Access(_) = value {
                argument[*offset..offset + 4].fill(0);
            }
        }
        let _ = write!(line, " [{}]", hex(&argument[4..]));
        for (_, bytes) in &buffers {
            let _ = write!(line, " [{}]", hex(bytes));
        }
        line
    }

    fn resolve(&self, value: Value) -> u64 {
        match value {
            Value::Number(number) => number,
            Value::Object(kind, pick) => {
                u64::from(self.objects.get(&kind).and_then(|ids| picked(ids, pick)).unwrap_or(NOBODY))
            }
            Value::Access(pick) => u64::from(picked(&self.accesses, pick).unwrap_or(NO_FILE)),
            Value::Memory(at) => self.memory.address(at),
        }
    }

    /// Keeps what a command gave, and takes numbers of files out of its argument.
    fn remember(&mut self, command: Command, argument: &mut [u8], makes: Option<Kind>) {
        let test_op = word(argument, 4);
        let (id, file) = match command {
            Command::IoasAlloc => (8, None),
            Command::HwptAlloc => (16, None),
            Command::FaultQueueAlloc => (8, Some(12)),
            Command::ViommuAlloc => (20, None),
            Command::VdeviceAlloc => (12, None),
            Command::VeventqAlloc => (20, Some(24)),
            Command::HwQueueAlloc => (20, None),
            Command::Destroy => {
                let gone = word(argument, 4);
                let live = self.objects.iter_mut().filter(|(kind, _)| **kind != Kind::Any);
                live.for_each(|(_, ids)| ids.retain(|id| *id != gone));
                return;
            }
            Command::Test => match test_op {
                op::MOCK_DOMAIN | op::MOCK_DOMAIN_FLAGS => {
                    let (stdev, idev) = (word(argument, 16), word(argument, 24));
                    self.made(Kind::Stdev, stdev);
                    self.made(Kind::Idev, idev);
                    return;
                }
                op::PASID_ATTACH => {
                    self.pasids.push((word(argument, 8), word(argument, 16)));
                    return;
                }
                op::CREATE_ACCESS => {
                    self.accesses.push(word(argument, 16));
                    argument[16..20].fill(0);
                    return;
                }
                _ => return,
            },
            _ => return,
        };
        let made = word(argument, id);
        if let Some(kind) = makes {
            self.made(kind, made);
        }
        if let Some(at) = file {
            self.events.push(word(argument, at));
            argument[at..at + 4].fill(0);
        }
        if command == Command::IoasAlloc {
            self.without_huge_pages(made);
        }
    }

    fn made(&mut self, kind: Kind, id: u32) {
        self.objects.entry(kind).or_default().push(id);
        self.objects.entry(Kind::Any).or_default().push(id);
    }

    /// With huge pages, what a dirty bit stands for depends on where the kernel has its pages.
    fn without_huge_pages(&self, ioas: u32) {
        let mut argument = [0; 24];
        let words = [(0, 24), (4, flags::OPTION_HUGE_PAGES), (12, ioas)];
        for (at, value) in words {
            argument[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        self.iommufd.ioctl(Command::Option.code(), &mut argument, &mut []).ok();
    }

    /// Detaches the PASIDs of a device, or all.
    fn detach(&mut self, stdev: Option<u32>) {
        let (gone, kept) = self.pasids.iter().partition(|(id, _)| stdev.is_none_or(|stdev| stdev == *id));
        self.pasids = kept;
        let gone: Vec<(u32, u32)> = gone;
        for (id, pasid) in gone {
            let mut command = TestCommand { size: 72, op: op::PASID_DETACH, id, ..Default::default() };
            command.set_u32_at(16, pasid);
            self.iommufd.ioctl(Command::Test.code(), command.as_mut_bytes(), &mut []).ok();
        }
    }
}

fn picked(all: &[u32], pick: u32) -> Option<u32> {
    all.get((pick as usize).checked_rem(all.len())?).copied()
}

fn word(argument: &[u8], at: usize) -> u32 {
    argument.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
