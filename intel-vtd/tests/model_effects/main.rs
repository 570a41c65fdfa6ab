//! The model judged by effect: a small machine with memory, tables and a queue drives it through its registers, and
//! asks it to translate.

mod anything;
mod atc;
mod configuration;
mod faults;
mod invalidation;
mod machine;
mod nesting;
mod queue;
mod reference;
mod registers;
mod speculation;
mod walks;
