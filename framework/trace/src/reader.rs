//! A trace, record by record.

use crate::header::{FIXED, Header, MAGIC};
use crate::record::Prefix;
use crate::{Problem, Record, TraceError};
use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;

/// Most bytes of payload accepted in one record. Recordings have at most one page-table page.
pub const MAX_RECORD: u32 = 64 << 20;
/// Payload capacity kept from one record to the next; a longer record's buffer is given back.
const KEEP: usize = 1 << 20;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BUFFER: usize = 256 << 10;

/// A record and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number, from 0 after the header.
    pub number: u64,
    /// Byte offset of the record in the decompressed file.
    pub offset: u64,
    /// What it says.
    pub record: Record<'a>,
}

/// An open trace. Holds one record in memory.
pub struct Trace {
    file: Box<str>,
    header: Header,
    source: Source,
    payload: Vec<u8>,
    number: u64,
    offset: u64,
    ended: bool,
    failed: bool,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").field("file", &self.file).field("record", &self.number).finish_non_exhaustive()
    }
}

impl Trace {
    /// Opens a trace file, compressed or not (its first bytes tell, not its name), and reads its header.
    ///
    /// # Errors
    /// [`TraceError`] with what is wrong with the file or its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let name = path.to_string_lossy();
        // Opening a directory succeeds; the first read then says what is wrong.
        let file = File::open(path).map_err(|e| TraceError::new(&name, None, 0, Problem::Open(e)))?;
        Self::from_reader(&name, file)
    }

    /// As [`Trace::open`], from any reader; `name` stands for the file in errors.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn from_reader(name: &str, reader: impl Read + Send + 'static) -> Result<Self, TraceError> {
        Self::start(name, reader).map_err(|problem| TraceError::new(name, None, 0, problem))
    }

    fn start(name: &str, reader: impl Read + Send + 'static) -> Result<Self, Problem> {
        let mut source = Source::new(reader)?;
        let mut fixed = [0; FIXED];
        let have = source.fill(&mut fixed)?;
        if !MAGIC.starts_with(&fixed[..have.min(MAGIC.len())]) || have == 0 && !source.cut {
            return Err(Problem::NotATrace);
        }
        if have < FIXED {
            return Err(Problem::CutInHeader);
        }
        let (mut header, json_length) = Header::parse_fixed(&fixed)?;
        let mut payload = Vec::new();
        if source.append(&mut payload, json_length)? < u64::from(json_length) {
            return Err(Problem::CutInHeader);
        }
        header.parse_json(&payload)?;
        let offset = FIXED as u64 + u64::from(json_length);
        Ok(Self { file: name.into(), header, source, payload, number: 0, offset, ended: false, failed: false })
    }

    /// What the trace says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the END record has been read.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next record; `None` after the last, or after an error.
    ///
    /// # Errors
    /// [`TraceError`] if the record is malformed or the file ends before its END record.
    #[expect(clippy::should_implement_trait, reason = "an Iterator cannot lend the record's bytes")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, TraceError> {
        if self.failed {
            return Ok(None);
        }
        let (number, offset) = (self.number, self.offset);
        let parsed = match self.advance() {
            Ok(None) => return Ok(None),
            Ok(Some(prefix)) => Record::parse(prefix, &self.payload),
            Err(problem) => Err(problem),
        };
        match parsed {
            Ok(record) => {
                self.ended |= record == Record::End;
                Ok(Some(Entry { number, offset, record }))
            }
            Err(problem) => {
                self.failed = true;
                Err(TraceError::new(&self.file, Some(number), offset, problem))
            }
        }
    }

    /// Reads the next record's bytes: its prefix is returned, its payload is in `self.payload`.
    fn advance(&mut self) -> Result<Option<Prefix>, Problem> {
        let mut prefix = [0; 8];
        match self.source.fill(&mut prefix)? {
            8 => {}
            _ if self.source.cut => return Err(Problem::CutInCompression),
            0 if self.ended => return Ok(None),
            0 => return Err(Problem::NoEnd),
            have => return Err(Problem::CutInRecord { have }),
        }
        let prefix = Prefix::parse(prefix);
        self.payload.clear();
        self.payload.shrink_to(KEEP);
        let length = prefix.length;
        let left = if length <= MAX_RECORD {
            self.source.append(&mut self.payload, length)?
        } else {
            self.source.skip(length)?
        };
        if left < u64::from(length) {
            return Err(Problem::LongerThanFile { length, left });
        }
        if length > MAX_RECORD {
            return Err(Problem::TooLong { length, limit: MAX_RECORD });
        }
        self.number += 1;
        self.offset += 8 + u64::from(length);
        Ok(Some(prefix))
    }
}

/// The decompressed bytes of a file.
struct Source {
    reader: BufReader<Box<dyn Read + Send>>,
    /// The compressed stream ended early.
    cut: bool,
}

impl Source {
    fn new(mut reader: impl Read + Send + 'static) -> Result<Self, Problem> {
        let mut start = Vec::new();
        reader.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut start).map_err(Problem::Read)?;
        let compressed = start == ZSTD_MAGIC;
        let whole = Cursor::new(start).chain(reader);
        let reader: Box<dyn Read + Send> =
            if compressed { Box::new(zstd::Decoder::new(whole).map_err(Problem::Read)?) } else { Box::new(whole) };
        Ok(Self { reader: BufReader::with_capacity(BUFFER, reader), cut: false })
    }

    /// An early end of the compressed stream is an end, and remembered.
    fn end<T: Default>(&mut self, outcome: io::Result<T>) -> Result<T, Problem> {
        match outcome {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                self.cut = true;
                Ok(T::default())
            }
            other => other.map_err(Problem::Read),
        }
    }

    /// Fills `bytes` as far as there are any; how many.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, Problem> {
        let mut have = 0;
        while have < bytes.len() {
            let outcome = match self.reader.read(&mut bytes[have..]) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                outcome => outcome,
            };
            match self.end(outcome)? {
                0 => break,
                read => have += read,
            }
        }
        Ok(have)
    }

    /// Appends up to `length` bytes to `out`, which grows no faster than there are bytes; how many.
    fn append(&mut self, out: &mut Vec<u8>, length: u32) -> Result<u64, Problem> {
        let before = out.len();
        let outcome = self.reader.by_ref().take(length.into()).read_to_end(out);
        self.end(outcome)?;
        Ok((out.len() - before) as u64)
    }

    /// Passes over up to `length` bytes; how many there were.
    fn skip(&mut self, length: u32) -> Result<u64, Problem> {
        let mut scratch = [0; 4096];
        let mut left = length as usize;
        while left > 0 {
            let piece = left.min(scratch.len());
            let have = self.fill(&mut scratch[..piece])?;
            left -= have;
            if have < piece {
                break;
            }
        }
        Ok(u64::from(length) - left as u64)
    }
}
