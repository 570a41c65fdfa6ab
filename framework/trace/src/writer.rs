//! Writes traces: for tests, and for recordings made up of nothing.

use crate::{Header, Record};
use std::io::{self, Write};

/// Writes a trace to `W`. Without [`Writer::finish`] the trace is cut short.
pub struct Writer<W: Write> {
    output: Output<W>,
    record: Vec<u8>,
}

enum Output<W: Write> {
    Plain(W),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Writer<W> {
    /// Starts an uncompressed trace.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn plain(output: W, header: &Header) -> io::Result<Self> {
        Self::start(Output::Plain(output), header)
    }

    /// Starts a compressed trace.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn zstd(output: W, header: &Header) -> io::Result<Self> {
        Self::start(Output::Zstd(zstd::Encoder::new(output, zstd::DEFAULT_COMPRESSION_LEVEL)?), header)
    }

    fn start(output: Output<W>, header: &Header) -> io::Result<Self> {
        let mut writer = Self { output, record: header.emit() };
        writer.put()?;
        Ok(writer)
    }

    /// Writes one record.
    ///
    /// # Errors
    /// Those of the output.
    pub fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        record.emit(&mut self.record);
        self.put()
    }

    /// Writes the END record and gives the output back.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.write(&Record::End)?;
        self.abandon()
    }

    /// Gives the output back without an END record: a recording that was interrupted between two records.
    ///
    /// # Errors
    /// Those of the output.
    pub fn abandon(self) -> io::Result<W> {
        match self.output {
            Output::Plain(mut output) => output.flush().map(|()| output),
            Output::Zstd(encoder) => encoder.finish(),
        }
    }

    fn put(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Plain(output) => output.write_all(&self.record)?,
            Output::Zstd(encoder) => encoder.write_all(&self.record)?,
        }
        self.record.clear();
        Ok(())
    }
}
