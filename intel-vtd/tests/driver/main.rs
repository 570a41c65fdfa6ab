//! The driver against the software VT-d, judged by what a DMA sees.

mod attach;
mod machine;
mod recordings;
mod second_stage;
mod take_over;
