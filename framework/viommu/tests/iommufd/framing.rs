//! C1: how arguments are framed, options, and the end.

use crate::caller::Caller;
use viommu::uapi::{Command, Errno, ProcessMemory, flags, layout};

#[test]
fn c1_1_destroying_id_zero_is_enoent() {
    let caller = Caller::new();
    assert_eq!(caller.destroy(0), Err(Errno::NOENT));
    assert_eq!(caller.destroy(u32::MAX), Err(Errno::NOENT));
}

#[test]
fn c1_2_and_3_null_is_efault_and_unknown_numbers_are_enotty() {
    let caller = Caller::new();
    for command in Command::ALL {
        assert_eq!(caller.fd.null_ioctl(command.code()), Err(Errno::FAULT), "{command:?}");
    }
    assert_eq!([caller.fd.null_ioctl(0x3b96), caller.fd.null_ioctl(0x3b7f)], [Err(Errno::FAULT), Err(Errno::NOTTY)]);
    for code in [0x3b96, 0x3b7f, 0x3ba1, 0x4b80, 0x4008_3b80] {
        let answer = caller.fd.ioctl(code, &mut [64, 0, 0, 0].repeat(16), &ProcessMemory);
        assert_eq!(answer, Err(Errno::NOTTY), "{code:#x}");
    }
}

#[test]
fn c1_4_5_and_6_sizes() {
    let caller = Caller::new();
    let call = |command: Command, size: usize, tail: u8| {
        let mut bytes = vec![0; size.max(4)];
        bytes[..4].copy_from_slice(&(size as u32).to_ne_bytes());
        *bytes.last_mut().unwrap() |= tail;
        caller.fd.ioctl(command.code(), &mut bytes, &ProcessMemory)
    };
    for command in Command::ALL {
        assert_eq!(call(command, command.minimum() - 1, 0), Err(Errno::INVAL), "{command:?}");
        assert_eq!(call(command, command.size() + 1, 1), Err(Errno::TOOBIG), "{command:?}");
        assert_eq!(call(command, command.size() + 1, 0), call(command, command.size(), 0), "{command:?}");
    }
}

#[test]
fn c1_7_and_8_options() {
    let caller = Caller::new();
    let mut own = layout::OptionArgument { op: flags::OPTION_OP_GET, val64: 9, ..Default::default() };
    caller.call(Command::Option, &mut own).unwrap();
    assert_eq!(own.val64, 0);
    let set = |val64| {
        caller.call(
            Command::Option,
            &mut layout::OptionArgument { op: flags::OPTION_OP_SET, val64, ..Default::default() },
        )
    };
    assert_eq!([set(2), set(1)], [Err(Errno::INVAL), Ok(())]);
    let huge = |object_id| {
        let option_id = flags::OPTION_HUGE_PAGES;
        caller.call(Command::Option, &mut layout::OptionArgument { option_id, object_id, op: 1, ..Default::default() })
    };
    assert_eq!(huge(0), Err(Errno::NOENT));
    let ioas = caller.ioas();
    assert_eq!(huge(ioas), Ok(()));
    let mut late = layout::OptionArgument { op: flags::OPTION_OP_SET, val64: 0, ..Default::default() };
    assert_eq!(caller.call(Command::Option, &mut late), Err(Errno::BUSY), "only of an empty iommufd");
}

#[test]
fn the_selftest_command_is_there_only_if_asked_for() {
    use viommu::uapi::dispatcher::{Dispatcher, Options};
    let plain = Dispatcher::new(Options::default());
    let mut bytes = [72, 0, 0, 0].repeat(18);
    assert_eq!(plain.ioctl(Command::Test.code(), &mut bytes, &ProcessMemory), Err(Errno::NOTTY));
    assert_eq!(plain.null_ioctl(Command::Test.code()), Err(Errno::NOTTY));
}
