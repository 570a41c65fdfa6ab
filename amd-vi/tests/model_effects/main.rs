//! The model judged by effect: a small machine with memory, tables and rings drives it through its registers, and asks
//! it to translate.

mod anything;
mod atc;
mod configuration;
mod invalidation;
mod machine;
mod nesting;
mod queues;
mod reference;
mod registers;
mod speculation;
mod walks;
