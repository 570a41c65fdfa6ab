//! Guests that drive queues of their own, judged by what their devices' DMA then does.

mod allocation;
mod effects;
mod errors;
mod isolation;
mod machine;
