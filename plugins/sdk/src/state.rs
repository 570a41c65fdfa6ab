//! Bytes of a saved state: a version, then explicit little-endian fields. What a vendor writes with [`StateWriter`], a
//! [`StateReader`] reads back or refuses with a reason; no length in the bytes is believed before it is checked.

use crate::{Refusal, Register};
use std::fmt;

/// Why bytes are no saved state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateError {
    /// Of a version this reader does not know.
    Version {
        /// What was to be read.
        what: &'static str,
        /// The version found.
        found: u32,
        /// The newest version this reader knows.
        newest: u32,
    },
    /// They end within a field.
    CutShort {
        /// What was to be read.
        what: &'static str,
        /// The field they end in.
        field: &'static str,
        /// Where the field begins.
        at: usize,
    },
    /// They go on behind the last field.
    LeftOver {
        /// What was to be read.
        what: &'static str,
        /// Bytes behind the last field.
        bytes: usize,
    },
    /// A field holds what it cannot.
    Field {
        /// What was to be read.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { what, found, newest } => {
                write!(f, "{what}: version {found} is unknown, the newest known is {newest}")
            }
            Self::CutShort { what, field, at } => write!(f, "{what}: cut short in {field}, which begins at byte {at}"),
            Self::LeftOver { what, bytes } => write!(f, "{what}: {bytes} bytes behind the end"),
            Self::Field { what, field, why } => write!(f, "{what}: {field}: {why}"),
        }
    }
}

impl std::error::Error for StateError {}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        Self::new(Self::EINVAL, error.to_string())
    }
}

/// Writes a saved state.
///
/// ```
/// use viommu_plugin::{StateError, StateReader, StateWriter};
/// let mut state = StateWriter::new(1);
/// state.u32(0xcafe).u64(7);
/// let bytes = state.into_bytes();
/// assert_eq!(bytes[..8], [1, 0, 0, 0, 0xfe, 0xca, 0, 0]);
///
/// let (mut state, version) = StateReader::versioned("toy state", &bytes, 1)?;
/// assert_eq!((version, state.u32("CONTROL")?, state.u64("BASE")?), (1, 0xcafe, 7));
/// state.end()?;
/// let cut = StateReader::versioned("toy state", &bytes[..6], 1)?.0.u32("CONTROL").unwrap_err();
/// assert_eq!(cut.to_string(), "toy state: cut short in CONTROL, which begins at byte 4");
/// # Ok::<(), StateError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct StateWriter {
    bytes: Vec<u8>,
}

impl StateWriter {
    /// A state of this version, with no fields yet.
    pub fn new(version: u32) -> Self {
        Self { bytes: version.to_le_bytes().to_vec() }
    }
    /// Appends a field of 1 byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }
    /// Appends a field of 4 bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }
    /// Appends a field of 8 bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }
    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }
    /// Appends bytes behind their count, which has 4 bytes. What no count of 4 bytes can say is cut.
    pub fn counted(&mut self, bytes: &[u8]) -> &mut Self {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.u32(count).raw(&bytes[..count as usize])
    }
    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a saved state field by field.
#[derive(Debug, Clone)]
pub struct StateReader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> StateReader<'a> {
    /// A reader at the first byte. `what` is named in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// A reader behind the version, and the version: 1 to `newest`.
    ///
    /// # Errors
    /// If the version is cut short or is another.
    pub fn versioned(what: &'static str, bytes: &'a [u8], newest: u32) -> Result<(Self, u32), StateError> {
        let mut reader = Self::new(what, bytes);
        let version = reader.version(newest)?;
        Ok((reader, version))
    }

    /// The next field as a version: 1 to `newest`.
    ///
    /// # Errors
    /// If it is cut short or is another.
    pub fn version(&mut self, newest: u32) -> Result<u32, StateError> {
        match self.u32("version")? {
            version if (1..=newest).contains(&version) => Ok(version),
            found => Err(StateError::Version { what: self.what, found, newest }),
        }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes as they are.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn raw(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], StateError> {
        let next = self.bytes[self.at..].get(..count);
        let next = next.ok_or(StateError::CutShort { what: self.what, field, at: self.at })?;
        self.at += count;
        Ok(next)
    }

    fn fixed<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], StateError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.raw(N, field)?);
        Ok(bytes)
    }

    /// A field of 1 byte.
    ///
    /// # Errors
    /// If it is cut short.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, StateError> {
        self.fixed(field).map(u8::from_le_bytes)
    }
    /// A field of 4 bytes.
    ///
    /// # Errors
    /// If it is cut short.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, StateError> {
        self.fixed(field).map(u32::from_le_bytes)
    }
    /// A field of 8 bytes.
    ///
    /// # Errors
    /// If it is cut short.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, StateError> {
        self.fixed(field).map(u64::from_le_bytes)
    }

    /// A field of 4 bytes that only ever holds bits of `mask`.
    ///
    /// # Errors
    /// If it is cut short, or holds another bit.
    pub fn u32_within(&mut self, mask: u32, field: &'static str) -> Result<u32, StateError> {
        let value = self.u32(field)?;
        self.within(value.into(), mask.into(), field).map(|()| value)
    }
    /// A field of 8 bytes that only ever holds bits of `mask`.
    ///
    /// # Errors
    /// If it is cut short, or holds another bit.
    pub fn u64_within(&mut self, mask: u64, field: &'static str) -> Result<u64, StateError> {
        let value = self.u64(field)?;
        self.within(value, mask, field).map(|()| value)
    }
    fn within(&self, value: u64, mask: u64, field: &'static str) -> Result<(), StateError> {
        let held = value & !mask == 0;
        held.then_some(()).ok_or_else(|| self.wrong(field, format!("{value:#x}, of which only {mask:#x} can be set")))
    }

    /// A count of 4 bytes, of things of at least `size` bytes each that follow: never more than the bytes left hold,
    /// so that it may be allocated for.
    ///
    /// # Errors
    /// If it is cut short, or says more than there is.
    pub fn count(&mut self, size: usize, field: &'static str) -> Result<usize, StateError> {
        let count = self.u32(field)? as usize;
        let room = self.left() / size.max(1);
        if count > room {
            return Err(self.wrong(field, format!("counts {count}, with room for {room}")));
        }
        Ok(count)
    }

    /// Bytes behind their count of 4 bytes.
    ///
    /// # Errors
    /// If they are cut short.
    pub fn counted(&mut self, field: &'static str) -> Result<&'a [u8], StateError> {
        let count = self.count(1, field)?;
        self.raw(count, field)
    }

    /// The error of a field that holds what it cannot.
    pub fn wrong(&self, field: &'static str, why: impl Into<String>) -> StateError {
        StateError::Field { what: self.what, field, why: why.into() }
    }

    /// The end of the state.
    ///
    /// # Errors
    /// If bytes are left.
    pub fn end(self) -> Result<(), StateError> {
        match self.left() {
            0 => Ok(()),
            bytes => Err(StateError::LeftOver { what: self.what, bytes }),
        }
    }
}

/// Whether the ID registers that a guest was `shown` are this frontend's `own`, which are as many and in the same order.
/// What is more than this frontend offers is better said before, by the feature.
///
/// # Errors
/// `EINVAL` with the first that differs, by the name that `name` has for its offset.
pub fn same_registers(
    own: &[Register],
    shown: &[Register],
    name: impl Fn(u64) -> Option<&'static str>,
) -> Result<(), Refusal> {
    let other = own.iter().zip(shown).find(|(own, shown)| own.value != shown.value);
    other.map_or(Ok(()), |(own, shown)| {
        let name = name(own.offset).unwrap_or_default();
        let text = format!("{name}: the guest was shown {:#x}, this frontend shows {:#x}", shown.value, own.value);
        Err(Refusal::new(Refusal::EINVAL, text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_holds_no_other_bit_than_it_may() {
        let bytes = [0xf0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0x80];
        let mut reader = StateReader::new("x", &bytes);
        assert_eq!(reader.clone().u32_within(0xff, "A"), Ok(0xf0));
        let wrong = reader.clone().u32_within(0x7f, "A").unwrap_err();
        assert!(wrong.to_string().contains("0xf0, of which only 0x7f can be set"), "{wrong}");
        reader.u32("A").unwrap();
        assert!(reader.clone().u64_within(u64::MAX >> 1, "B").is_err());
        assert_eq!(reader.u64_within(1 << 63 | 0xff, "B"), Ok(1 << 63 | 0xff));
    }

    #[test]
    fn a_register_that_differs_is_named() {
        let register = |value| Register { offset: 4, value };
        assert_eq!(same_registers(&[register(1)], &[register(1)], |_| None), Ok(()));
        let refusal = same_registers(&[register(1)], &[register(3)], |at| (at == 4).then_some("ID")).unwrap_err();
        assert_eq!((refusal.errno, refusal.text.contains("ID: the guest was shown 0x3")), (Refusal::EINVAL, true));
    }

    #[test]
    fn no_count_is_believed_beyond_the_bytes_there_are() {
        let mut state = StateWriter::new(1);
        state.u32(u32::MAX).raw(&[0; 9]);
        let bytes = state.into_bytes();
        let reader = || StateReader::versioned("x", &bytes, 1).unwrap().0;
        let says = |error: StateError| error.to_string();
        assert_eq!(says(reader().count(4, "things").unwrap_err()), "x: things: counts 4294967295, with room for 2");
        assert!(matches!(reader().counted("bytes"), Err(StateError::Field { field: "bytes", .. })));
        assert_eq!(reader().raw(usize::MAX, "all"), Err(StateError::CutShort { what: "x", field: "all", at: 4 }));
    }

    #[test]
    fn an_unknown_version_and_left_over_bytes_are_refused() {
        for (version, known) in [(0, false), (1, true), (2, true), (3, false), (u32::MAX, false)] {
            let bytes = StateWriter::new(version).into_bytes();
            let read = StateReader::versioned("x", &bytes, 2).map(|(_, version)| version);
            assert_eq!(read.is_ok(), known, "{read:?}");
        }
        let bytes = StateWriter::new(1).u8(5).clone().into_bytes();
        let (reader, _) = StateReader::versioned("x", &bytes, 1).unwrap();
        assert_eq!(reader.end().unwrap_err().to_string(), "x: 1 bytes behind the end");
        assert_eq!(Refusal::from(StateReader::versioned("x", &[1], 1).unwrap_err()).errno, Refusal::EINVAL);
    }
}
