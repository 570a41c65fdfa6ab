//! viommu keeps the nested-translation objects of Linux iommufd as supervised actors and moves guest invalidations from
//! a VM's command queue to the hardware queue in batches.
//!
//! ```text
//!  guest writes its doorbell                                        guest sees CONS move / its interrupt
//!    |                                                                        ^
//!  frontend -> guest_queue -> id_map -> rewrite -> shard -> sink -> hardware -> retire
//!   vendor       fetch        HostIds    vendor    one turn  backend
//! ```
//!
//! A [`Host`] owns one IOMMU through a [`backend`]; the vendor's part comes from a plugin. Control is [`objects`], one
//! module an iommufd object, async, or without async in [`blocking`]. Data is [`pipeline`], which runs on the thread that
//! trapped the guest.
//!
//! A guest on a software SMMUv3 puts an invalidation and a SYNC in its queue and rings its doorbell. It sees CONS behind
//! them when the hardware has finished both.
//!
//! ```
//! use std::sync::Arc;
//! use viommu::backend::direct::{Direct, DirectOptions, ModelHardware, ModelMode, PhysicalMemory};
//! use viommu::blocking::Host;
//! use viommu::objects::ViommuConfig;
//! use viommu::plugin::ModelConfig;
//! use viommu::vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
//! use viommu_plugin_host::Plugin;
//!
//! // The vendor: linked here, from a .so with `Plugin::find`. The hardware: the vendor's own model.
//! let plugin = Plugin::linked::<arm_smmuv3::ArmSmmuv3>();
//! let physical = PhysicalMemory::new();
//! physical.add_dma(0x1_0000_0000, 1 << 28)?;
//! let hardware = ModelHardware::new(&plugin, physical, ModelConfig::default(), ModelMode::Thread)?;
//! let backend = Direct::new(&plugin, hardware, DirectOptions::default())?;
//! let host: Host = viommu::Host::builder().backend(backend).plugin(plugin).build()?.into();
//!
//! // A VM with one device: stream 0x40 of the host, 3 in the guest.
//! let memory = Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0x4000_0000), 1 << 20)])?);
//! let viommu = host.ioas()?.nest_parent()?.viommu(ViommuConfig::new(Vec::new(), memory.clone()))?;
//! let vdevice = viommu.vdevice(&host.device(0x40)?, 3)?;
//!
//! // The guest: two commands in its memory, CMDQ_BASE with room for 2^8, CR0.CMDQEN, and the doorbell, CMDQ_PROD.
//! let (tlbi_nh_all, sync) = ([0x10_u64, 0], [0x46_u64, 0]);
//! for (at, word) in (0..).step_by(8).zip([tlbi_nh_all, sync].concat()) {
//!     memory.write_obj(word.to_le(), GuestAddress(0x4000_0000 + at))?;
//! }
//! viommu.mmio_write(0x90, 8, 0x4000_0000 | 8)?;
//! viommu.mmio_write(0x20, 4, 1 << 3)?;
//! viommu.mmio_write(0x98, 4, 2)?;
//! assert_eq!(viommu.mmio_read(0x9c, 4)?, 2, "CMDQ_CONS is behind the SYNC: the hardware has finished");
//!
//! drop((vdevice, viommu));
//! assert!(host.shutdown()?.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | founding proposal (2023) | Linux uAPI | type here |
//! |---|---|---|
//! | | IOAS | [`objects::Ioas`] |
//! | nesting parent, S2 domain | HWPT_PAGING with NEST_PARENT | [`objects::NestParent`] |
//! | virtual function; Tegra's virtual interface (VINTF) | VIOMMU | [`objects::Viommu`] |
//! | nested domain | HWPT_NESTED | [`objects::NestedHwpt`] |
//! | device | DEVICE (a bound VFIO cdev) | [`objects::Device`] |
//! | IOMMUFD_DEV_ASSIGN_VIRTUAL_ID and RESIGN, SET and UNSET_IDEV_DATA | VDEVICE_ALLOC, DESTROY | [`objects::Vdevice`] |
//! | HWPT invalidate, any HWPT as target | HWPT_INVALIDATE on a HWPT or vIOMMU | [`objects::Viommu::invalidate`] |
//! | IOMMUFD_DEV_INVALIDATE | HWPT_INVALIDATE on a vIOMMU; the command has the guest's stream | [`objects::Device::invalidate`] |
//! | mmapable queue, `iommu_hwpt_cache_config_tegra241_vcmdq` | HW_QUEUE_ALLOC and mmap | [`objects::HwQueue`] |
//! | vRID to pRID table | inside the kernel's driver | [`pipeline::IdMap`] |
//! | events | VEVENTQ, FAULT | [`objects::EventQueue`], [`objects::FaultQueue`] |
//!
//! The proposal's own calls are in [`proposal`]. Programs that embed this, each with a recorded guest, are in
//! `examples/`.

#![deny(unsafe_code)]

pub mod backend;
pub mod blocking;
mod error;
mod host;
pub mod metrics;
pub mod objects;
pub mod pipeline;
pub mod proposal;
pub mod save;
pub mod seams;
pub mod simulation;
pub mod uapi;

pub use error::{Cause, Error};
pub use host::{Host, HostBuilder, HostEvent, Leftovers};
pub use viommu_plugin as plugin;
pub use vm_memory;
