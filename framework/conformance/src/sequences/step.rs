//! One step of a plan.

use std::fmt;
use viommu::uapi::Command;

/// Kinds of objects that steps name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Ioas,
    /// What makes a mock device.
    Stdev,
    /// The device itself.
    Idev,
    Paging,
    Parent,
    Nested,
    Viommu,
    Vdevice,
    Veventq,
    Fault,
    HwQueue,
    /// Every object that ever was.
    Any,
}

/// What stands in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    /// Of all objects of the kind that are there, this one, counted round and round.
    Object(Kind, u32),
    /// Of all accesses, this one.
    Access(u32),
    /// An offset in the memory that is mapped.
    Memory(u64),
}

/// A field of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) offset: usize,
    pub(super) bytes: usize,
    pub(super) value: Value,
    /// Nothing else depends on it: it may be replaced by nonsense.
    pub(super) free: bool,
}

/// How long an argument says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Full,
    Minimum,
    TooSmall,
    /// So much longer, filled with this.
    Longer(usize, u8),
    /// Not there at all.
    Null,
}

/// A command with its argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ioctl {
    pub(super) command: Command,
    pub(super) size: Size,
    pub(super) fields: Vec<Field>,
    /// What is lent behind pointers.
    pub(super) lent: Vec<(usize, Vec<u8>)>,
    /// The kind of what it makes.
    pub(super) makes: Option<Kind>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    #[doc(hidden)]
    Ioctl(IoctlStep),
    /// Reads so many bytes from an event queue.
    Read(u32, usize),
    /// Answers a page request: queue, cookie, code.
    Write(u32, u32, u32),
    /// Polls an event queue.
    Poll(u32),
    /// Closes an event queue's file.
    Close(u32),
}

/// A command, opaque outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoctlStep(pub(super) Ioctl);

/// A whole sequence.
pub type Plan = Vec<Step>;

impl Ioctl {
    pub(super) fn of(command: Command) -> Self {
        Self { command, size: Size::Full, fields: Vec::new(), lent: Vec::new(), makes: None }
    }

    /// A 32-bit field that nothing else depends on.
    pub(super) fn id(self, offset: usize, value: Value) -> Self {
        self.with(offset, 4, value, true)
    }

    /// The same with a number.
    pub(super) fn word(self, offset: usize, value: u32) -> Self {
        self.with(offset, 4, Value::Number(value.into()), true)
    }

    /// A 32-bit field that says how much is lent.
    pub(super) fn length(self, offset: usize, value: u32) -> Self {
        self.with(offset, 4, Value::Number(value.into()), false)
    }

    pub(super) fn half(self, offset: usize, value: u16) -> Self {
        self.with(offset, 2, Value::Number(value.into()), false)
    }

    pub(super) fn long(self, offset: usize, value: u64) -> Self {
        self.with(offset, 8, Value::Number(value), false)
    }

    pub(super) fn memory(self, offset: usize, at: u64) -> Self {
        self.with(offset, 8, Value::Memory(at), false)
    }

    /// A file that there is not: which other numbers are files is the process's affair, not the sequence's.
    pub(super) fn no_file(self, offset: usize) -> Self {
        self.with(offset, 4, Value::Number(u32::MAX.into()), false)
    }

    fn with(mut self, offset: usize, bytes: usize, value: Value, free: bool) -> Self {
        self.fields.push(Field { offset, bytes, value, free });
        self
    }

    pub(super) fn lend(mut self, offset: usize, bytes: Vec<u8>) -> Self {
        self.lent.push((offset, bytes));
        self
    }

    pub(super) fn makes(mut self, kind: Kind) -> Self {
        self.makes = Some(kind);
        self
    }

    pub(super) fn step(self) -> Step {
        Step::Ioctl(IoctlStep(self))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IoctlStep(ioctl) = match self {
            Self::Ioctl(ioctl) => ioctl,
            Self::Read(file, bytes) => return write!(f, "read event[{file}] {bytes}"),
            Self::Write(file, cookie, code) => return write!(f, "write event[{file}] cookie {cookie} code {code}"),
            Self::Poll(file) => return write!(f, "poll event[{file}]"),
            Self::Close(file) => return write!(f, "close event[{file}]"),
        };
        write!(f, "{}", ioctl.command.name())?;
        if ioctl.size != Size::Full {
            write!(f, " {:?}", ioctl.size)?;
        }
        for Field { offset, value, .. } in &ioctl.fields {
            match value {
                Value::Number(number) => write!(f, " {offset}:{number:#x}")?,
                Value::Object(kind, pick) => write!(f, " {offset}:{kind:?}[{pick}]")?,
                Value::Access(pick) => write!(f, " {offset}:access[{pick}]")?,
                Value::Memory(at) => write!(f, " {offset}:memory+{at:#x}")?,
            }
        }
        for (offset, bytes) in &ioctl.lent {
            write!(f, " {offset}->[{}]", hex(bytes))?;
        }
        Ok(())
    }
}

/// Bytes, without the zeros at their end.
pub(super) fn hex(bytes: &[u8]) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let digits: String = bytes[..end].iter().map(|byte| format!("{byte:02x}")).collect();
    if end < bytes.len() { format!("{digits}+{}", bytes.len() - end) } else { digits }
}
