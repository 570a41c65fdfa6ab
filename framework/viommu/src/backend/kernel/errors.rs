//! What the kernel's errnos mean here: object, operation, number, in words.

use crate::Cause;
use crate::uapi::Errno;

/// `command` on `object` failed.
pub(super) fn cause(command: &'static str, object: &str, errno: Errno) -> Cause {
    let what = || format!("{command} on {object}: {}", name(errno));
    match errno {
        Errno::BUSY => {
            Cause::Busy { users: format!("something that {command} on {object} does not tell ({})", name(errno)) }
        }
        Errno::NOENT => Cause::Absent(what()),
        Errno::EXIST => Cause::Exists(what()),
        Errno::INVAL => Cause::Invalid(what()),
        Errno::FAULT => Cause::Fault(what()),
        Errno::NXIO => Cause::NoRange(what()),
        Errno::OPNOTSUPP => Cause::Unsupported(format!("{} by the running kernel or this hardware", what())),
        Errno::NOTTY => Cause::Unsupported(format!("{}: the running kernel has no such command", what())),
        Errno::TIMEDOUT => {
            let what = format!("{}: the hardware did not answer the kernel in time", what());
            Cause::Kernel { what, errno: errno.raw_os_error() }
        }
        _ => Cause::Kernel { what: what(), errno: errno.raw_os_error() },
    }
}

/// The C library's name of an errno, as far as the uAPI gives it.
pub(super) fn name(errno: Errno) -> String {
    let known = match errno {
        Errno::PERM => "EPERM",
        Errno::NOENT => "ENOENT",
        Errno::INTR => "EINTR",
        Errno::IO => "EIO",
        Errno::NXIO => "ENXIO",
        Errno::TOOBIG => "E2BIG",
        Errno::BADF => "EBADF",
        Errno::AGAIN => "EAGAIN",
        Errno::NOMEM => "ENOMEM",
        Errno::ACCESS => "EACCES",
        Errno::FAULT => "EFAULT",
        Errno::BUSY => "EBUSY",
        Errno::EXIST => "EEXIST",
        Errno::NODEV => "ENODEV",
        Errno::INVAL => "EINVAL",
        Errno::NOTTY => "ENOTTY",
        Errno::NOSPC => "ENOSPC",
        Errno::SPIPE => "ESPIPE",
        Errno::RANGE => "ERANGE",
        Errno::DEADLK => "EDEADLOCK",
        Errno::OVERFLOW => "EOVERFLOW",
        Errno::BADFD => "EBADFD",
        Errno::MSGSIZE => "EMSGSIZE",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::ADDRINUSE => "EADDRINUSE",
        Errno::TIMEDOUT => "ETIMEDOUT",
        _ => return errno.to_string(),
    };
    known.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_are_kept_and_busy_absent_and_late_are_told_apart() {
        for errno in
            [Errno::BUSY, Errno::NOENT, Errno::TIMEDOUT, Errno::PERM, Errno::MSGSIZE, Errno::NOSPC, Errno::INVAL]
        {
            let cause = cause("DESTROY", "vIOMMU 7", errno);
            assert_eq!(cause.errno(), errno.raw_os_error(), "{cause}");
            assert!(cause.to_string().contains("DESTROY on vIOMMU 7"), "{cause}");
            assert!(cause.to_string().contains(&name(errno)), "{cause}");
        }
        assert!(matches!(cause("A", "b", Errno::BUSY), Cause::Busy { .. }));
        assert!(matches!(cause("A", "b", Errno::NOENT), Cause::Absent(_)));
        assert!(matches!(cause("A", "b", Errno::TIMEDOUT), Cause::Kernel { errno: 110, .. }));
    }
}
