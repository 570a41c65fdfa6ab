//! QEMU's qtest socket: registers read and written from outside, interrupt lines told.
//!
//! A command is a line, its answer a line that begins with `OK`. Between two answers there may be lines that tell of
//! interrupts. Commands may be sent ahead of the answers to earlier ones: that saves a change of processes each.

use crate::QemuError;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Lines of commands that go out together, and how many.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    text: String,
    count: usize,
}

impl Commands {
    pub(crate) fn line(&mut self, line: &str) -> &mut Self {
        self.text.push_str(line);
        self.text.push('\n');
        self.count += 1;
        self
    }

    /// Writes `size` bytes (2, 4 or 8) at a physical address.
    pub(crate) fn write(&mut self, at: u64, size: u32, value: u64) -> &mut Self {
        let letter = letter(size);
        let _ = writeln!(self.text, "write{letter} {at:#x} {value:#x}");
        self.count += 1;
        self
    }

    /// Reads `size` bytes; the answer is the value.
    pub(crate) fn read(&mut self, at: u64, size: u32) -> &mut Self {
        let letter = letter(size);
        let _ = writeln!(self.text, "read{letter} {at:#x}");
        self.count += 1;
        self
    }
}

fn letter(size: u32) -> char {
    match size {
        2 => 'w',
        8 => 'q',
        _ => 'l',
    }
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Qtest {
    stream: UnixStream,
    limit: Duration,
    buffer: Vec<u8>,
    /// How far the buffer was taken.
    taken: usize,
    /// Interrupt lines that were raised and not fetched since.
    raised: Vec<u32>,
}

impl Qtest {
    pub(crate) fn new(stream: UnixStream, limit: Duration) -> Result<Self, QemuError> {
        stream.set_read_timeout(Some(limit)).map_err(QemuError::os("time limit of the qtest socket"))?;
        Ok(Self { stream, limit, buffer: Vec::new(), taken: 0, raised: Vec::new() })
    }

    /// Carries the commands out; the value that each answered, 0 if none.
    pub(crate) fn run(&mut self, commands: &Commands) -> Result<Vec<u64>, QemuError> {
        self.stream.write_all(commands.text.as_bytes()).map_err(QemuError::os("the qtest socket"))?;
        let mut values = Vec::with_capacity(commands.count);
        let mut lines = commands.text.lines();
        while values.len() < commands.count {
            let answer = self.answer(&commands.text)?;
            if let Some(interrupt) = answer.strip_prefix("IRQ raise ") {
                self.raised.extend(interrupt.trim().parse::<u32>());
                continue;
            }
            if answer.starts_with("IRQ ") {
                continue;
            }
            let command = lines.next().unwrap_or_default();
            let refused = || QemuError::Refused { command: command.into(), answer: answer.clone() };
            let rest = answer.strip_prefix("OK").ok_or_else(refused)?.trim();
            let number = rest.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
            values.push(number.transpose().map_err(|_| refused())?.unwrap_or(0));
        }
        Ok(values)
    }

    /// Interrupt lines raised since the last time.
    pub(crate) fn take_raised(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.raised)
    }

    /// The next line.
    fn answer(&mut self, to: &str) -> Result<String, QemuError> {
        loop {
            if let Some(end) = self.buffer[self.taken..].iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.buffer[self.taken..self.taken + end]).into_owned();
                self.taken += end + 1;
                return Ok(line);
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) => return Err(QemuError::os("the qtest socket")(ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.buffer.extend(&more[..count]),
                Err(cause) if matches!(cause.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    let what = to.lines().next().unwrap_or_default().to_owned();
                    return Err(QemuError::TimedOut { what, limit: self.limit });
                }
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(cause) => return Err(QemuError::os("the qtest socket")(cause)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;
    use std::io::BufReader;

    /// A QEMU that answers each line with these.
    fn answering(answers: &'static [&'static str]) -> Qtest {
        let (here, there) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(there.try_clone().unwrap()).lines();
            let mut there = there;
            for answer in answers {
                lines.next();
                there.write_all(answer.as_bytes()).unwrap();
            }
            // Silent from here on, until nobody is there.
            while lines.next().is_some() {}
        });
        Qtest::new(here, Duration::from_millis(300)).unwrap()
    }

    #[test]
    fn values_and_interrupts_are_told_apart() {
        let mut qtest = answering(&["OK\n", "IRQ raise 74\nIRQ lower 74\nOK 0x1f\n"]);
        let values = qtest.run(Commands::default().write(0x10, 4, 1).read(0x10, 8)).unwrap();
        assert_eq!(values, [0, 0x1f]);
        assert_eq!(qtest.take_raised(), [74]);
        assert!(qtest.take_raised().is_empty());
    }

    #[test]
    fn refusals_and_silence_are_errors_with_the_command_in_them() {
        let refused = answering(&["FAIL Unknown command\n"]).run(Commands::default().line("nonsense")).unwrap_err();
        assert!(refused.to_string().contains("\"nonsense\""), "{refused}");
        let silent = answering(&[]).run(Commands::default().read(0x40, 4)).unwrap_err();
        assert!(matches!(&silent, QemuError::TimedOut { what, .. } if what == "readl 0x40"), "{silent}");
    }
}
