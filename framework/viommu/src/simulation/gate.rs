//! The gate before the actors: every message waits here until it is drawn. Messages to one actor keep their order.

use super::here;
use std::cell::RefCell;
use std::fmt;
use tokio::sync::oneshot;

#[derive(Default)]
pub(super) struct Gate(RefCell<Vec<Message>>);

/// A message that has not reached its actor.
pub(super) struct Message {
    to: u32,
    what: &'static str,
    how: How,
}

enum How {
    /// Its sender waits.
    Pass(oneshot::Sender<()>),
    /// It is sent here.
    Post(Box<dyn FnOnce()>),
}

impl Message {
    pub(super) fn open(self) {
        match self.how {
            // A sender that has gone sends nothing.
            How::Pass(open) => drop(open.send(())),
            How::Post(send) => send(),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> object {}", self.what, self.to)
    }
}

impl Gate {
    /// For each actor, where its oldest message is.
    pub(super) fn heads(&self) -> Vec<usize> {
        let messages = self.0.borrow();
        let is_first = |index: usize| !messages[..index].iter().any(|earlier| earlier.to == messages[index].to);
        (0..messages.len()).filter(|&index| is_first(index)).collect()
    }

    pub(super) fn take(&self, index: usize) -> Option<Message> {
        let mut messages = self.0.borrow_mut();
        (index < messages.len()).then(|| messages.remove(index))
    }

    pub(super) fn describe(&self) -> String {
        let messages: Vec<_> = self.0.borrow().iter().map(Message::to_string).collect();
        messages.join("; ")
    }

    pub(super) fn close(&self) {
        self.0.take();
    }

    fn add(&self, to: u32, what: &'static str, how: How) {
        self.0.borrow_mut().push(Message { to, what, how });
    }
}

/// Waits until the gate lets a message to object `to` through: at once, but in a simulation.
pub(crate) async fn pass(to: u32, what: &'static str) {
    let opened = here().map(|core| {
        let (open, opened) = oneshot::channel();
        core.gate.add(to, what, How::Pass(open));
        opened
    });
    if let Some(opened) = opened {
        drop(opened.await);
    }
}

/// Sends a message to object `to` when the gate lets it through: at once, but in a simulation.
pub(crate) fn post(to: u32, what: &'static str, send: impl FnOnce() + 'static) {
    match here() {
        Some(core) => core.gate.add(to, what, How::Post(Box::new(send))),
        None => send(),
    }
}
