//! QEMU's machine protocol, for what is asked once: version, where the interrupt controller is, reset.

use crate::QemuError;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The socket.
pub(crate) struct Qmp {
    stream: BufReader<UnixStream>,
    limit: Duration,
    /// QEMU's version, from its greeting.
    pub(crate) version: String,
}

impl Qmp {
    pub(crate) fn new(stream: UnixStream, limit: Duration) -> Result<Self, QemuError> {
        stream.set_read_timeout(Some(limit)).map_err(QemuError::os("time limit of the QMP socket"))?;
        let mut qmp = Self { stream: BufReader::new(stream), limit, version: String::new() };
        let greeting = qmp.message("the greeting")?;
        let part = |name: &str| greeting["QMP"]["version"]["qemu"][name].as_u64().unwrap_or(0);
        qmp.version = format!("{}.{}.{}", part("major"), part("minor"), part("micro"));
        qmp.ask(json!({"execute": "qmp_capabilities"}))?;
        Ok(qmp)
    }

    /// The path of the one child of `parent` of this type.
    pub(crate) fn child(&mut self, parent: &str, kind: &str) -> Result<String, QemuError> {
        let children = self.ask(json!({"execute": "qom-list", "arguments": {"path": parent}}))?;
        let found = children.as_array().into_iter().flatten().find(|child| {
            let name = child["type"].as_str().and_then(|name| name.strip_prefix("child<")?.strip_suffix(">"));
            name == Some(kind)
        });
        let name = found.and_then(|child| child["name"].as_str());
        let name = name.ok_or_else(|| QemuError::Start(format!("it has no {kind} in {parent}")))?;
        Ok(format!("{parent}/{name}"))
    }

    /// All devices as after power-on; memory keeps its bytes.
    pub(crate) fn reset(&mut self) -> Result<(), QemuError> {
        self.send(&json!({"execute": "system_reset"}))?;
        // The reset happens some time behind the answer.
        while self.message("the reset")?["event"] != "RESET" {}
        Ok(())
    }

    fn ask(&mut self, command: Value) -> Result<Value, QemuError> {
        self.send(&command)?;
        loop {
            let mut answer = self.message("an answer")?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if answer.get("error").is_some() {
                return Err(QemuError::Refused { command: command.to_string(), answer: answer.to_string() });
            }
        }
    }

    fn send(&mut self, command: &Value) -> Result<(), QemuError> {
        writeln!(self.stream.get_mut(), "{command}").map_err(QemuError::os("the QMP socket"))
    }

    fn message(&mut self, what: &str) -> Result<Value, QemuError> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        if read.is_ok_and(|bytes| bytes > 0) {
            let garbled = |_| QemuError::Start(format!("this is no QMP: {line}"));
            return serde_json::from_str(&line).map_err(garbled);
        }
        Err(QemuError::TimedOut { what: format!("QMP: {what}"), limit: self.limit })
    }
}
