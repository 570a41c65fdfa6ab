//! C1: how a command's bytes are taken.

use crate::row::Row;
use crate::session::{Failed, Session, word};
use viommu::uapi::layout::{IoasAlloc, OptionArgument};
use viommu::uapi::{Command, flags};
use zerocopy::IntoBytes;

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C1.1",
        stimulus: "DESTROY id 0",
        expected: "ENOENT",
        run: |s| {
            s.see(s.destroy(0));
            Ok(())
        },
    },
    Row {
        id: "C1.2",
        stimulus: "each command with a NULL argument",
        expected: "23 EFAULT",
        run: |s| {
            each(s, |s, command| {
                let result = s.iommufd().ioctl_null(command.code());
                result.map_err(|errno| Failed { command: command.name(), errno })
            });
            Ok(())
        },
    },
    Row {
        id: "C1.3",
        stimulus: "numbers behind the last command, behind the mock's, and far away",
        expected: "ENOTTY; ENOTTY; ENOTTY; ENOTTY",
        run: |s| {
            for code in [0x3b96, 0x3b9f, 0x3ba1, 0x3bff] {
                let result = s.iommufd().ioctl(code, &mut [0; 64], &mut []);
                s.see(result.map_err(|errno| Failed { command: "?", errno }));
            }
            Ok(())
        },
    },
    Row {
        id: "C1.4",
        stimulus: "each command with size = minimum - 1",
        expected: "23 EINVAL",
        run: |s| {
            each(s, |s, command| {
                let mut bytes = vec![0; command.minimum()];
                put_size(&mut bytes, command.minimum() - 1);
                s.raw(command, &mut bytes, &mut [])
            });
            Ok(())
        },
    },
    Row {
        id: "C1.5",
        stimulus: "each command one byte larger than the kernel's, that byte not zero",
        expected: "23 E2BIG",
        run: |s| {
            each(s, |s, command| {
                let mut bytes = vec![0; command.size() + 1];
                put_size(&mut bytes, command.size() + 1);
                bytes[command.size()] = 1;
                s.raw(command, &mut bytes, &mut [])
            });
            Ok(())
        },
    },
    Row {
        id: "C1.6",
        stimulus: "each command one byte larger than the kernel's, that byte zero: as with its own size",
        expected: "23 alike; IOAS_ALLOC ok",
        run: |s| {
            let mut alike = 0;
            for command in Command::ALL {
                let ends = [0, 1].map(|more| {
                    let mut bytes = vec![0; command.size() + more];
                    put_size(&mut bytes, command.size() + more);
                    let result = s.raw(command, &mut bytes, &mut []);
                    // What an IOAS_ALLOC or FAULT_QUEUE_ALLOC gave is not needed.
                    if command == Command::FaultQueueAlloc && result.is_ok() {
                        let file = u32::from_ne_bytes(bytes[12..16].try_into().unwrap_or_default());
                        return word(&s.close(file));
                    }
                    word(&result)
                });
                if ends[0] == ends[1] {
                    alike += 1;
                } else {
                    s.note(format!("{} {} but {}", command.name(), ends[0], ends[1]));
                }
            }
            s.note(format!("{alike} alike"));
            let mut bytes = [IoasAlloc::default().as_bytes(), &[0; 4]].concat();
            put_size(&mut bytes, 16);
            let result = s.raw(Command::IoasAlloc, &mut bytes, &mut []);
            s.note(format!("IOAS_ALLOC {}", word(&result)));
            Ok(())
        },
    },
    Row {
        id: "C1.7",
        stimulus: "OPTION RLIMIT_MODE: GET; SET 2; SET 1 while the iommufd has an object; GET with an object",
        expected: "0; EINVAL; EBUSY; EOPNOTSUPP",
        run: |s| {
            let value = s.option(flags::OPTION_RLIMIT_MODE, flags::OPTION_OP_GET, 0, 7)?;
            s.note(value.to_string());
            s.see(s.option(flags::OPTION_RLIMIT_MODE, flags::OPTION_OP_SET, 0, 2));
            let ioas = s.ioas()?;
            s.see(s.option(flags::OPTION_RLIMIT_MODE, flags::OPTION_OP_SET, 0, 1));
            s.see(s.option(flags::OPTION_RLIMIT_MODE, flags::OPTION_OP_GET, ioas, 0));
            Ok(())
        },
    },
    Row {
        id: "C1.8",
        stimulus: "OPTION HUGE_PAGES: object 0; GET of an IOAS; SET 0; GET; SET 2; an option that there is not",
        expected: "ENOENT; 1; ok; 0; EINVAL; EOPNOTSUPP",
        run: |s| {
            s.see(s.option(flags::OPTION_HUGE_PAGES, flags::OPTION_OP_GET, 0, 0));
            let ioas = s.ioas()?;
            let value = s.option(flags::OPTION_HUGE_PAGES, flags::OPTION_OP_GET, ioas, 7)?;
            s.note(value.to_string());
            s.see(s.option(flags::OPTION_HUGE_PAGES, flags::OPTION_OP_SET, ioas, 0));
            let value = s.option(flags::OPTION_HUGE_PAGES, flags::OPTION_OP_GET, ioas, 7)?;
            s.note(value.to_string());
            s.see(s.option(flags::OPTION_HUGE_PAGES, flags::OPTION_OP_SET, ioas, 2));
            let mut argument = OptionArgument { option_id: 9, object_id: ioas, ..Default::default() };
            s.see(s.call(Command::Option, &mut argument, &mut []));
            Ok(())
        },
    },
    Row {
        id: "C1.9",
        stimulus: "objects of every kind, mapped memory and an mmap are there; pins of the memory; close all; pins",
        expected: "1 pin; 0 pins",
        run: super::sequence::everything_then_close,
    },
];

/// Notes how many commands ended how.
fn each(s: &mut Session<'_>, mut stimulus: impl FnMut(&mut Session<'_>, Command) -> Result<(), Failed>) {
    let mut ends: Vec<(String, usize)> = Vec::new();
    for command in Command::ALL {
        let end = word(&stimulus(s, command));
        match ends.iter_mut().find(|(known, _)| *known == end) {
            Some((_, count)) => *count += 1,
            None => ends.push((end, 1)),
        }
    }
    let words: Vec<_> = ends.into_iter().map(|(end, count)| format!("{count} {end}")).collect();
    s.note(words.join(", "));
}

fn put_size(bytes: &mut [u8], size: usize) {
    bytes[..4].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_ne_bytes());
}
