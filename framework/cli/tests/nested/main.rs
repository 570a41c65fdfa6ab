//! `viommu replay` through the framework, from outside: every recorded guest, in every way a host may run it, and
//! broken on purpose.

mod hostile;
mod injections;
mod machines;
mod metrics;
mod migrations;
mod own_queues;
mod precision;
mod run;
mod traces;
