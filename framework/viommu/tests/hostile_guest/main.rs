//! Guest-made trouble stays with that guest: what hardware would do to *it*, and nothing to another.
//!
//! Two guests on one software SMMUv3, A hostile and B not. Every story makes its trouble inside [`world::World::trouble`],
//! which checks that B's DMA, TLB entries, registers, doorbells and interrupts are as if A were not there.

mod commands;
mod endless;
#[allow(dead_code)] // each test program uses a part
#[path = "../objects/guest.rs"]
mod guest;
mod interrupts;
mod panics;
mod queues;
mod random;
mod slow;
mod tables;
mod world;
