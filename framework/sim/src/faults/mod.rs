//! What goes wrong: a backend whose calls fail, a plugin that panics, a queue that is broken on purpose.

mod backend;
mod driver;
mod plugin;
mod sink;

pub(crate) use backend::FaultyBackend;
pub(crate) use driver::{enter_world, taking_memory};
pub(crate) use plugin::{Panicking, plan_panics};
pub(crate) use sink::Watched;
