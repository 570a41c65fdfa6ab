//! The bits of Intel VT-d, as the manual (order number D51397, revision 4.x) names them. No algorithms.
//!
//! Each file is one chapter: invalidation descriptors (§6.5), fault reasons (§7, appendix), root, context and PASID
//! structures (§9.1 to §9.6), paging structures (§9.7 to §9.9) and registers (§11.4). All little-endian 64-bit words.

pub mod context;
pub mod descriptors;
pub mod fault_reason;
pub mod pasid;
pub mod pte;
pub mod registers;
