//! Where rewritten commands go, and types that say whose words they are.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use viommu_plugin::{Classes, GuestFault};

/// Words as a guest wrote them: no sink takes these.
#[derive(Debug, Clone, Copy)]
pub struct Guest;
/// Words whose every ID is this vIOMMU's, in guest numbers: for the kernel, which rewrites IDs itself.
#[derive(Debug, Clone, Copy)]
pub struct Checked;
/// Words with host IDs: for a queue that we own.
#[derive(Debug, Clone, Copy)]
pub struct Host;

/// Words that a rewrite made for the sink they go to: host numbers or checked guest numbers, as that sink accepts.
#[derive(Debug, Clone, Copy)]
pub struct Routed;

/// Command words of one run, and whose they are.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a, Whose> {
    words: &'a [u64],
    whose: PhantomData<Whose>,
}

impl<'a, Whose> Words<'a, Whose> {
    /// The words.
    pub fn as_slice(&self) -> &'a [u64] {
        self.words
    }
    /// The one constructor: private to the crate, called where the words became what the type says.
    pub(crate) fn of(words: &'a [u64]) -> Self {
        Self { words, whose: PhantomData }
    }
}

impl<'a> Words<'a, Host> {
    /// Host words made by a sink that wraps another to break it on purpose (fault injection in tests and `replay
    /// --inject`). Nothing else has a use for it.
    pub fn injected(words: &'a [u64]) -> Self {
        Self::of(words)
    }
}

impl<'a> Words<'a, Checked> {
    /// As [`Words::<Host>::injected`], for a sink that checks for itself.
    pub fn unchecked(words: &'a [u64]) -> Self {
        Self::of(words)
    }
}

/// Whose commands these are: one number a guest queue, never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner(pub u32);

impl Owner {
    /// The host itself: table changes, flushes.
    pub const HOST: Self = Self(0);
}

/// A place in a sink's queue: everything up to it was put there earlier. Only compared with places of the same sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// One run of commands for a sink.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, Whose> {
    /// Who sent it.
    pub owner: Owner,
    /// The commands; may be empty if `sync`.
    pub words: Words<'a, Whose>,
    /// What is among them.
    pub classes: Classes,
    /// Whether a SYNC follows them.
    pub sync: bool,
}

/// Why a sink could not take or finish commands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The hardware stopped on a command of this owner. It was repaired and goes on for the others.
    #[error("the hardware queue stopped on a command of this guest: {}", .0.name())]
    Fault(GuestFault),
    /// The hardware did not finish in time.
    #[error("SYNC did not complete within {0:?}")]
    TimedOut(Duration),
    /// The owner is out of service.
    #[error("quarantined")]
    Quarantined,
    /// The hardware is gone.
    #[error("{0}")]
    Gone(String),
}

/// Data half of a backend: one queue towards hardware.
pub trait Sink: Send + Sync + 'static {
    /// [`Host`] for a queue we own, [`Checked`] for the kernel. Words of a guest fit no sink.
    type Accepts;

    /// Puts a batch on the queue, whole and in order, and returns the place behind it. Waits for room. When this
    /// returns, every command is where the hardware fetches it.
    ///
    /// # Errors
    /// If the owner is quarantined, or the queue makes no room in time. Nothing of the batch is on the queue then.
    fn submit(&self, batch: Batch<'_, Self::Accepts>) -> Result<Position, SinkError>;

    /// Waits until the hardware has finished everything up to `position`, which is behind a SYNC of `owner`.
    ///
    /// # Errors
    /// If a command of `owner` made the hardware stop (others' troubles are theirs), or time ran out.
    fn wait(&self, owner: Owner, position: Position) -> Result<(), SinkError>;

    /// Whether [`Sink::wait`] for this position would return at once. A hint, asked once before a wait.
    fn is_done(&self, position: Position) -> bool {
        let _ = position;
        false
    }
}

/// The queue that takes a vIOMMU's invalidations, and what it accepts.
#[derive(Clone)]
pub enum SinkOf {
    /// A queue of ours: the rewrite puts the host's numbers into the words. All vIOMMUs of a backend share it.
    Host(Arc<dyn Sink<Accepts = Host>>),
    /// The kernel's interface, which replaces numbers itself: the rewrite checks the words and leaves the guest's numbers
    /// in them. Each vIOMMU has its own.
    Checked {
        /// The sink.
        sink: Arc<dyn Sink<Accepts = Checked>>,
        /// `false`: what the check refuses goes to the sink all the same, which must find it itself. For tests.
        precheck: bool,
    },
}

impl SinkOf {
    /// Puts a batch on the queue, as [`Sink::submit`].
    pub(crate) fn submit(&self, batch: Batch<'_, Routed>) -> Result<Position, SinkError> {
        match self {
            Self::Host(sink) => sink.submit(batch.becomes()),
            Self::Checked { sink, .. } => sink.submit(batch.becomes()),
        }
    }

    /// As [`Sink::wait`].
    pub(crate) fn wait(&self, owner: Owner, position: Position) -> Result<(), SinkError> {
        match self {
            Self::Host(sink) => sink.wait(owner, position),
            Self::Checked { sink, .. } => sink.wait(owner, position),
        }
    }

    /// As [`Sink::is_done`].
    pub(crate) fn is_done(&self, position: Position) -> bool {
        match self {
            Self::Host(sink) => sink.is_done(position),
            Self::Checked { sink, .. } => sink.is_done(position),
        }
    }

    /// Which numbers its words carry.
    pub(crate) fn numbers(&self) -> Numbers {
        match self {
            Self::Host(_) => Numbers::Host,
            Self::Checked { precheck: true, .. } => Numbers::Guest,
            Self::Checked { precheck: false, .. } => Numbers::GuestUnchecked,
        }
    }
}

/// Which numbers a rewrite leaves in the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// The host's.
    Host,
    /// The guest's own, checked.
    Guest,
    /// The guest's own, whatever they are.
    GuestUnchecked,
}

impl<'a> Batch<'a, Routed> {
    /// The rewrite made the words for this sink.
    fn becomes<Whose>(self) -> Batch<'a, Whose> {
        let Self { owner, words, classes, sync } = self;
        Batch { owner, words: Words::of(words.as_slice()), classes, sync }
    }
}
