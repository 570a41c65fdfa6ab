//! The driver on the software SMMU, judged by what a device's DMA then does; and the tables it builds.

mod attach;
mod machine;
mod recordings;
mod stage2;
mod ste_update;
mod take_over;
