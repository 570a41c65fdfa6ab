//! QEMU's emulated SMMUv3 as physical hardware (evidence letter Q).
//!
//! ```text
//!   Host, pipeline, direct backend, Arm plugin          this process
//!        │ registers         │ tables, queues
//!        ▼ qtest socket      ▼ shared memory file
//!   ┌─ QEMU: machine virt, no guest, its CPU asleep ──────────────┐
//!   │  SMMUv3 (both stages, nested) ◄── DMA ── edu, one in a slot │
//!   └──────────────────────────────────────────────────────────────┘
//! ```
//! QEMU's SMMUv3 was written by others from the same manual, so it disagrees where this project misread something. The
//! `edu` devices are told by [`QemuHardware`] what to transfer; where the bytes arrived is looked up in memory.
#![forbid(unsafe_code)]

mod canvas;
mod edu;
mod error;
mod hardware;
mod process;
mod qmp;
mod qtest;
mod referee;
mod supervisor;

pub use canvas::tag;
pub use error::QemuError;
pub use hardware::{Got, Options, QemuHardware};
pub use process::PROGRAM;
pub use referee::{DEATHS, Death, EXCEPTIONS, Exception, Referee, Sabotage, Teller};
