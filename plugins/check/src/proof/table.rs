//! What a codec must do, as data: the table that it is judged against.

use super::WORDS_MAX;
use viommu_plugin::{Classes, GuestFault, HostIds, Rewritten, Stop};

/// Bits `first..=last` of a command or entry; bit 64 is bit 0 of the second word. A field lies in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Lowest bit.
    pub first: u32,
    /// Highest bit.
    pub last: u32,
}

impl Field {
    /// Bits `first..=last`.
    pub const fn new(first: u32, last: u32) -> Self {
        assert!(first <= last && first / 64 == last / 64);
        Self { first, last }
    }
    /// One bit.
    pub const fn bit(at: u32) -> Self {
        Self::new(at, at)
    }
    /// How many bits.
    pub const fn width(self) -> u32 {
        self.last - self.first + 1
    }
    /// The word it lies in.
    pub const fn word(self) -> usize {
        (self.first / 64) as usize
    }
    /// Its bits in its word.
    pub const fn mask(self) -> u64 {
        (u64::MAX >> (64 - self.width())) << (self.first % 64)
    }
    /// Its value.
    pub fn get(self, words: &[u64]) -> u64 {
        (words[self.word()] & self.mask()) >> (self.first % 64)
    }
    /// Sets its value; bits that do not fit are cut.
    pub fn put(self, words: &mut [u64], value: u64) {
        let word = &mut words[self.word()];
        *word = *word & !self.mask() | value << (self.first % 64) & self.mask();
    }
}

/// The bits of all `fields`, by word.
pub(super) fn masks(fields: &[Field]) -> [u64; WORDS_MAX] {
    let mut masks = [0; WORDS_MAX];
    fields.iter().for_each(|field| masks[field.word()] |= field.mask());
    masks
}

/// What becomes of a legal command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Becomes {
    /// It goes to the hardware with this opcode and the host's tag and stream in their fields. If the stream has no
    /// vdevice, it is complete instead.
    Host {
        /// Its class.
        class: Classes,
        /// Its opcode on the way out, as bits of word 0.
        opcode: u64,
        /// Where the guest's tag stands in the host's words.
        tag: Option<Field>,
        /// Where the stream stands.
        stream: Option<Field>,
    },
    /// It goes to the hardware with this opcode and the host's tag of the guest's domain in that domain's place. If no
    /// nested HWPT has the domain, it is complete instead.
    Domain {
        /// Its class.
        class: Classes,
        /// Its opcode on the way out, as bits of word 0.
        opcode: u64,
        /// Where the domain stands.
        domain: Field,
    },
    /// As [`Becomes::Host`] with a stream that stands in two places: the first says which device, both become its stream.
    Device {
        /// Its class.
        class: Classes,
        /// Its opcode on the way out, as bits of word 0.
        opcode: u64,
        /// Where the stream stands.
        stream: Field,
        /// Where it stands again.
        copy: Field,
    },
    /// A hint: complete. If it names a stream without a vdevice, it counts as local.
    Hint {
        /// Where the stream stands.
        stream: Option<Field>,
    },
    /// The rewrite stops with [`Stop::SYNC`].
    Sync,
    /// The rewrite stops with [`Stop::SHADOW`].
    Shadow,
    /// The rewrite stops with [`Stop::CONFIGURATION`], unless it names a stream without a vdevice.
    Configuration {
        /// Where the stream stands, if it names one.
        stream: Option<Field>,
    },
}

impl Becomes {
    /// Where the stream stands, if it names one.
    pub(super) fn stream(&self) -> Option<Field> {
        match *self {
            Self::Host { stream, .. } | Self::Hint { stream } | Self::Configuration { stream } => stream,
            Self::Device { stream, .. } => Some(stream),
            Self::Domain { .. } | Self::Sync | Self::Shadow => None,
        }
    }
    /// Where the guest's domain stands, if it names one that is looked up.
    pub(super) fn domain(&self) -> Option<Field> {
        match *self {
            Self::Domain { domain, .. } => Some(domain),
            _ => None,
        }
    }
}

/// Whether the values of a row's restricted fields are legal together.
pub type Legal = Box<dyn Fn(&[u64]) -> bool + Send + Sync>;

/// One opcode.
pub struct Row {
    /// The manual's name.
    pub name: &'static str,
    /// A legal command of this opcode.
    pub base: Vec<u64>,
    /// Bits the guest may set beside the opcode.
    pub allowed: Vec<Field>,
    /// Fields, all of them allowed, of which some values are reserved.
    pub restricted: Vec<Field>,
    /// Whether the values of `restricted` are legal together. Looks at nothing else.
    pub legal: Legal,
    /// What becomes of it.
    pub becomes: Becomes,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").field("name", &self.name).field("becomes", &self.becomes).finish_non_exhaustive()
    }
}

impl Row {
    /// A row in which no value is reserved.
    pub fn new(name: &'static str, base: Vec<u64>, allowed: Vec<Field>, becomes: Becomes) -> Self {
        Self { name, base, allowed, restricted: Vec::new(), legal: Box::new(|_| true), becomes }
    }

    /// With values of `fields` that are reserved where `legal` says no.
    #[must_use]
    pub fn restricted(self, fields: Vec<Field>, legal: impl Fn(&[u64]) -> bool + Send + Sync + 'static) -> Self {
        Self { restricted: fields, legal: Box::new(legal), ..self }
    }
}

/// Everything a guest may command with one set of ID registers. An opcode without a row is illegal.
#[derive(Debug)]
pub struct CommandTable {
    /// Words of a command.
    pub words: usize,
    /// Bits of word 0 that choose the row.
    pub opcode: u64,
    /// The opcodes.
    pub rows: Vec<Row>,
    /// By opcode: its row, and the bits allowed there.
    index: Vec<Option<(usize, [u64; WORDS_MAX])>>,
    /// By opcode: it has no row, as part of it is a field with a reserved value.
    reserved: Vec<bool>,
}

/// What becomes of one command.
enum Step {
    Host(Classes, [u64; WORDS_MAX]),
    LocalStream,
    LocalDomain,
    Hint,
    Stop(Stop, GuestFault),
}

impl CommandTable {
    /// A table of commands of `words` words, told apart by the bits `opcode` of word 0.
    ///
    /// # Panics
    /// If two rows have the same opcode, or the opcode has more than 12 bits.
    pub fn new(words: usize, opcode: u64, rows: Vec<Row>) -> Self {
        assert!(opcode.count_ones() <= 12 && words <= WORDS_MAX);
        let mut index = vec![None; 1 << opcode.count_ones()];
        for (at, row) in rows.iter().enumerate() {
            let slot = &mut index[pack(opcode, row.base[0])];
            assert!(slot.is_none(), "{} has the opcode of another row", row.name);
            let mut allowed = masks(&row.allowed);
            allowed[0] |= opcode;
            *slot = Some((at, allowed));
        }
        let reserved = vec![false; index.len()];
        Self { words, opcode, rows, index, reserved }
    }

    /// With opcodes, as bits of word 0, that have no row but are not unknown: part of what chooses a row is a field of the
    /// command, and its value is reserved there. They are [`GuestFault::RESERVED_BITS`].
    ///
    /// # Panics
    /// If one of them has a row.
    #[must_use]
    pub fn reserving(mut self, opcodes: impl IntoIterator<Item = u64>) -> Self {
        for opcode in opcodes {
            let packed = pack(self.opcode, opcode);
            assert!(self.index[packed].is_none(), "{opcode:#x} has a row");
            self.reserved[packed] = true;
        }
        self
    }

    /// Whether the table keeps its own rules: bases are legal, restricted fields allowed, opcodes stay apart, and every
    /// command that reaches hardware is bound to a tag or a stream.
    ///
    /// # Errors
    /// Which row does not, and why.
    pub fn check(&self) -> Result<(), String> {
        for row in &self.rows {
            let wrong = |what: &str| Err(format!("table: {} {what}", row.name));
            let allowed = masks(&row.allowed);
            if allowed[0] & self.opcode != 0 {
                return wrong("allows bits of the opcode");
            }
            if row
                .base
                .iter()
                .zip(allowed)
                .enumerate()
                .any(|(at, (base, allowed))| base & !allowed & if at == 0 { !self.opcode } else { u64::MAX } != 0)
                || !(row.legal)(&row.base)
            {
                return wrong("has a base that is not legal");
            }
            if masks(&row.restricted).iter().zip(allowed).any(|(field, allowed)| field & !allowed != 0) {
                return wrong("restricts bits that it does not allow");
            }
            if let Becomes::Host { class, tag, stream, .. } = row.becomes {
                let bound = if class == Classes::TLB { tag.is_some() } else { stream.is_some() };
                if !bound {
                    return wrong("reaches the hardware without a tag or stream of its guest");
                }
            }
        }
        Ok(())
    }

    /// Every value of the opcode bits, as bits of word 0.
    pub fn opcodes(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.index.len()).map(|packed| unpack(self.opcode, packed))
    }

    /// The row of a command.
    pub fn row(&self, command: &[u64]) -> Option<&Row> {
        self.index[pack(self.opcode, command[0])].map(|(at, _)| &self.rows[at])
    }

    fn step(&self, command: &[u64], ids: &HostIds<'_>) -> Step {
        let opcode = pack(self.opcode, command[0]);
        let Some((at, allowed)) = &self.index[opcode] else {
            let unknown = !self.reserved[opcode];
            let fault = if unknown { GuestFault::ILLEGAL_OPCODE } else { GuestFault::RESERVED_BITS };
            return Step::Stop(Stop::FAULT, fault);
        };
        let row = &self.rows[*at];
        if command.iter().zip(allowed).any(|(word, allowed)| word & !allowed != 0) || !(row.legal)(command) {
            return Step::Stop(Stop::FAULT, GuestFault::RESERVED_BITS);
        }
        let host_stream = match row.becomes.stream() {
            None => 0,
            Some(field) => match ids.stream(field.get(command) as u32) {
                None => return Step::LocalStream,
                Some(stream) => stream,
            },
        };
        let with_opcode = |opcode: u64| {
            let mut words = [0; WORDS_MAX];
            words[..self.words].copy_from_slice(command);
            words[0] = words[0] & !self.opcode | opcode;
            words
        };
        match row.becomes {
            Becomes::Hint { .. } => Step::Hint,
            Becomes::Sync => Step::Stop(Stop::SYNC, GuestFault::NONE),
            Becomes::Shadow => Step::Stop(Stop::SHADOW, GuestFault::NONE),
            Becomes::Configuration { .. } => Step::Stop(Stop::CONFIGURATION, GuestFault::NONE),
            Becomes::Host { class, opcode, tag, stream } => {
                let mut words = with_opcode(opcode);
                if let Some(tag) = tag {
                    tag.put(&mut words, ids.tag.into());
                }
                if let Some(stream) = stream {
                    stream.put(&mut words, host_stream.into());
                }
                Step::Host(class, words)
            }
            Becomes::Device { class, opcode, stream, copy } => {
                let mut words = with_opcode(opcode);
                stream.put(&mut words, host_stream.into());
                copy.put(&mut words, host_stream.into());
                Step::Host(class, words)
            }
            Becomes::Domain { class, opcode, domain } => match ids.domain(domain.get(command) as u32) {
                None => Step::LocalDomain,
                Some(tag) => {
                    let mut words = with_opcode(opcode);
                    domain.put(&mut words, tag.into());
                    Step::Host(class, words)
                }
            },
        }
    }

    /// What [`viommu_plugin::Codec::rewrite`] must do, command by command. One that does not reach the hardware needs
    /// neither order nor room; one that needs both is told of the order first.
    pub fn rewrite(&self, guest: &[u64], before: Classes, ids: HostIds<'_>, out: &mut [u64]) -> Rewritten {
        let mut done = Rewritten::default();
        let mut unsynced = before;
        for command in guest.chunks_exact(self.words) {
            match self.step(command, &ids) {
                Step::Stop(stop, fault) => return Rewritten { stop, fault, ..done },
                Step::LocalStream => done.local_stream += 1,
                Step::LocalDomain => done.local_domain += 1,
                Step::Hint => done.hints += 1,
                Step::Host(class, words) => {
                    if class == Classes::ATC && unsynced.any(Classes::TLB) {
                        return Rewritten { stop: Stop::ORDER, ..done };
                    }
                    let at = done.written as usize * self.words;
                    let Some(slot) = out.get_mut(at..at + self.words) else {
                        return Rewritten { stop: Stop::ROOM, ..done };
                    };
                    slot.copy_from_slice(&words[..self.words]);
                    unsynced = unsynced.with(class);
                    done.classes = done.classes.with(class);
                    done.written += 1;
                    *match class {
                        Classes::TLB => &mut done.tlb,
                        Classes::CONFIG => &mut done.config,
                        _ => &mut done.atc,
                    } += 1;
                }
            }
            done.taken += 1;
        }
        done
    }
}

/// The bits of `word` under `mask`, moved together.
fn pack(mask: u64, word: u64) -> usize {
    // The opcode of most formats is one run of bits.
    let run = mask.checked_shr(mask.trailing_zeros()).unwrap_or(0);
    if run & run.wrapping_add(1) == 0 {
        return (word.checked_shr(mask.trailing_zeros()).unwrap_or(0) & run) as usize;
    }
    let bits = (0..64).filter(|bit| mask >> bit & 1 != 0);
    bits.enumerate().fold(0, |packed, (to, from)| packed | ((word >> from & 1) as usize) << to)
}

/// The opposite of [`pack`].
fn unpack(mask: u64, packed: usize) -> u64 {
    let bits = (0..64).filter(|bit| mask >> bit & 1 != 0);
    bits.enumerate().fold(0, |word, (from, to)| word | ((packed >> from & 1) as u64) << to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_are_packed_and_unpacked() {
        for mask in [0xff, 0xf000_0000_0000_0000, 0xe3f] {
            for packed in 0..1 << u64::count_ones(mask) {
                let word = unpack(mask, packed);
                assert_eq!((word & !mask, pack(mask, word | !mask)), (0, packed));
            }
        }
    }

    #[test]
    fn fields_are_read_and_written_in_place() {
        let mut words = [u64::MAX, u64::MAX];
        Field::new(72, 75).put(&mut words, 0x15);
        assert_eq!(words, [u64::MAX, 0xffff_ffff_ffff_f5ff]);
        assert_eq!(Field::new(72, 75).get(&words), 5);
        assert_eq!(Field::new(0, 63).mask(), u64::MAX);
    }
}
