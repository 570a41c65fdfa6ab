//! Random command sequences, the same for everything that is compared.
//!
//! ```text
//!   seed, number ─► plan: steps that name objects by kind and order ─► replay on a fresh iommufd ─► a line a step ─► hash
//! ```
//!
//! A plan does not depend on what is answered, so any part of it can be left out: that is how a difference is shrunk.
//! What is compared of a step is its errno, the argument as it came back, and what was written behind its pointers;
//! addresses and numbers of files are left out.

mod commands;
mod compare;
mod draw;
mod generate;
mod mock;
mod replay;
mod step;

pub use compare::{Difference, compare, shrink};
pub use generate::plan;
pub(crate) use replay::hash;
pub use replay::replay;
pub use step::{Plan, Step};
