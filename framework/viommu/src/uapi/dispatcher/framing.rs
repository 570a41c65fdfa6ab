//! How an argument gets from the caller's bytes into a struct and back: the rule that lets old programs run on new
//! kernels and new programs on old ones.

use crate::uapi::{Command, Errno};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a command answers.
pub(super) struct Answer {
    /// Zero or the error.
    pub result: Result<(), Errno>,
    /// Whether the struct goes back to the caller. It does with success, and with the few errors that say more.
    pub reply: bool,
}

impl From<Result<(), Errno>> for Answer {
    fn from(result: Result<(), Errno>) -> Self {
        Self { result, reply: result.is_ok() }
    }
}

/// The size that the caller says its argument has; EFAULT if not even that can be read.
pub(super) fn size(argument: &[u8]) -> Result<usize, Errno> {
    let (size, _) = u32::read_from_prefix(argument).map_err(|_| Errno::FAULT)?;
    usize::try_from(size).map_err(|_| Errno::FAULT)
}

/// Takes the argument in, carries `execute` out on it and gives back what it wrote, cut to the caller's size.
///
/// `minimum` and the struct's own size are the command's. `argument` is what is behind the caller's pointer; if it is
/// shorter than its `size` says, the rest cannot be read.
pub(super) fn framed<T: FromBytes + IntoBytes + Immutable + Default>(
    minimum: usize,
    argument: &mut [u8],
    execute: impl FnOnce(&mut T) -> Answer,
) -> Result<(), Errno> {
    let size = size(argument)?;
    if size < minimum {
        return Err(Errno::INVAL);
    }
    let argument = argument.get_mut(..size).ok_or(Errno::FAULT)?;
    let mut own = T::default();
    let common = size.min(size_of::<T>());
    if argument[common..].iter().any(|byte| *byte != 0) {
        return Err(Errno::TOOBIG);
    }
    own.as_mut_bytes()[..common].copy_from_slice(&argument[..common]);
    let answer = execute(&mut own);
    if answer.reply {
        argument[..common].copy_from_slice(&own.as_bytes()[..common]);
    }
    answer.result
}

/// What a NULL pointer answers: the kernel reads the size before it looks the command up, but only for numbers that
/// could be one of its own.
pub(super) fn null(code: u32, last: Command) -> Errno {
    let numbers = Command::FIRST & 0xff..=last.code() & 0xff;
    if numbers.contains(&(code & 0xff)) { Errno::FAULT } else { Errno::NOTTY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uapi::layout::HwptAlloc;

    fn taken(argument: &mut [u8], seen: impl FnOnce(&mut HwptAlloc)) -> Result<(), Errno> {
        framed(24, argument, |own: &mut HwptAlloc| {
            seen(own);
            Ok(()).into()
        })
    }

    fn argument(size: u32, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..4].copy_from_slice(&size.to_ne_bytes());
        bytes
    }

    #[test]
    fn short_arguments_are_filled_with_zeros_and_the_reply_is_cut() {
        let mut bytes = argument(24, 24);
        taken(&mut bytes, |own| {
            assert_eq!((own.data_len, own.fault_id), (0, 0));
            (own.out_hwpt_id, own.fault_id) = (7, 9);
        })
        .unwrap();
        assert_eq!(bytes[16..20], 7u32.to_ne_bytes());
    }

    #[test]
    fn c1_sizes_outside_the_rule_are_refused() {
        assert_eq!(taken(&mut argument(23, 24), |_| panic!("not executed")), Err(Errno::INVAL));
        assert_eq!(taken(&mut argument(49, 49), |own| own.out_hwpt_id = 1), Ok(()), "zeros behind it are fine");
        let mut tail = argument(49, 49);
        tail[48] = 1;
        assert_eq!(taken(&mut tail, |_| panic!("not executed")), Err(Errno::TOOBIG));
        assert_eq!(taken(&mut argument(48, 40), |_| panic!("not executed")), Err(Errno::FAULT));
        assert_eq!(taken(&mut [1, 2], |_| panic!("not executed")), Err(Errno::FAULT));
    }

    #[test]
    fn errors_give_nothing_back_unless_they_say_so() {
        let mut bytes = argument(48, 48);
        let refused = framed(24, &mut bytes, |own: &mut HwptAlloc| {
            own.out_hwpt_id = 7;
            Err(Errno::INVAL).into()
        });
        assert_eq!((refused, &bytes[16..20]), (Err(Errno::INVAL), &[0; 4][..]));
        let told = framed(24, &mut bytes, |own: &mut HwptAlloc| {
            own.out_hwpt_id = 7;
            Answer { result: Err(Errno::INVAL), reply: true }
        });
        assert_eq!((told, &bytes[16..20]), (Err(Errno::INVAL), &7u32.to_ne_bytes()[..]));
    }
}
