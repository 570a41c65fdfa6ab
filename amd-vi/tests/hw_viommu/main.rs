//! The hardware vIOMMU: guests with rings of their own, the driver that lends them, and the model that serves them. Judged
//! by what DMA sees. Evidence M: nothing of this was ever compared with silicon.

mod errors;
mod guest;
mod histories;
mod lending;
#[path = "../driver/machine.rs"]
#[expect(dead_code, reason = "the driver's tests use the rest")]
mod machine;
mod own_log;
