//! The same objects without async, for VMMs that run no tokio.
//!
//! Every call may block its thread. On a thread that runs actors, where that would deadlock, a call answers
//! [`Cause::WouldDeadlock`] instead. The data path (registers, doorbells, invalidations) runs on the calling thread.
//!
//! ```
//! # fn show(host: viommu::Host) -> Result<(), viommu::Error> {
//! let host = viommu::blocking::Host::from(host);
//! let ioas = host.ioas()?;
//! let parent = ioas.nest_parent()?;
//! parent.destroy()?;
//! # Ok(()) }
//! ```

use crate::backend::{Mapping, ObjectKind, PagePlace};
use crate::objects::{self, MappedPage, NestedCounters, ObjectInfo, RestoreConfig, ViommuConfig};
use crate::pipeline::{Invalidated, Pipeline};
use crate::save::SavedViommu;
use crate::seams::{on_actor_thread, wait};
use crate::{Cause, Error, HostEvent, Leftovers};
use std::sync::Arc;
use viommu_plugin::EntryKey;

/// Waits for an operation, unless this thread is one that would carry it out.
fn run<T>(
    kind: ObjectKind,
    operation: &'static str,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    may_block(kind, operation)?;
    wait(future)
}

fn may_block(kind: ObjectKind, operation: &'static str) -> Result<(), Error> {
    if on_actor_thread() { Err(Cause::WouldDeadlock.of(kind, None, operation)) } else { Ok(()) }
}

/// See [`crate::Host`].
#[derive(Debug)]
pub struct Host(crate::Host);

impl From<crate::Host> for Host {
    fn from(host: crate::Host) -> Self {
        Self(host)
    }
}

impl Host {
    /// The async API of the same host.
    pub fn handle(&self) -> &crate::Host {
        &self.0
    }

    /// See [`crate::Host::ioas`].
    ///
    /// # Errors
    /// As there, or [`Cause::WouldDeadlock`]; so for every call here.
    pub fn ioas(&self) -> Result<Ioas, Error> {
        run(ObjectKind::Ioas, "alloc", self.0.ioas()).map(Ioas)
    }
    /// See [`crate::Host::device`].
    ///
    /// # Errors
    /// As there.
    pub fn device(&self, stream: u32) -> Result<Device, Error> {
        run(ObjectKind::Device, "bind", self.0.device(stream)).map(Device)
    }
    /// See [`crate::Host::fault_queue`].
    ///
    /// # Errors
    /// As there.
    pub fn fault_queue(&self) -> Result<FaultQueue, Error> {
        run(ObjectKind::FaultQueue, "alloc", self.0.fault_queue()).map(FaultQueue)
    }
    /// See [`crate::Host::objects`].
    pub fn objects(&self) -> Vec<ObjectInfo> {
        self.0.objects()
    }
    /// See [`crate::Host::events`].
    pub fn events(&self) -> flume::Receiver<HostEvent> {
        self.0.events()
    }
    /// The host with its async API.
    pub fn host(&self) -> &crate::Host {
        &self.0
    }
    /// See [`crate::Host::settle`].
    ///
    /// # Errors
    /// Only [`Cause::WouldDeadlock`].
    pub fn settle(&self) -> Result<(), Error> {
        may_block(ObjectKind::Host, "settle")?;
        wait(self.0.settle());
        Ok(())
    }
    /// See [`crate::Host::shutdown`].
    ///
    /// # Errors
    /// Only [`Cause::WouldDeadlock`].
    pub fn shutdown(self) -> Result<Leftovers, Error> {
        may_block(ObjectKind::Host, "shutdown")?;
        Ok(wait(self.0.shutdown()))
    }
}

/// A handle of the async API as one of this: same object, same ownership.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(objects::$name);

        impl From<objects::$name> for $name {
            fn from(handle: objects::$name) -> Self {
                Self(handle)
            }
        }

        impl $name {
            /// Its ID.
            pub fn id(&self) -> u32 {
                self.0.id()
            }
            /// The handle of the async API.
            pub fn handle(&self) -> &objects::$name {
                &self.0
            }
            /// Destroys it.
            ///
            /// # Errors
            /// As the async handle's.
            pub fn destroy(self) -> Result<(), Error> {
                run(ObjectKind::$kind, "destroy", self.0.destroy())
            }
        }
    };
}

handle!(
    /// See [`objects::Ioas`].
    Ioas, Ioas
);
handle!(
    /// See [`objects::NestParent`].
    NestParent, NestParent
);
handle!(
    /// See [`objects::Viommu`].
    Viommu, Viommu
);
handle!(
    /// See [`objects::Device`].
    Device, Device
);
handle!(
    /// See [`objects::Vdevice`].
    Vdevice, Vdevice
);
handle!(
    /// See [`objects::EventQueue`].
    EventQueue, EventQueue
);
handle!(
    /// See [`objects::FaultQueue`].
    FaultQueue, FaultQueue
);
handle!(
    /// See [`objects::HwQueue`].
    HwQueue, HwQueue
);

impl Ioas {
    /// See [`objects::Ioas::map`].
    ///
    /// # Errors
    /// As there.
    pub fn map(&self, mapping: Mapping) -> Result<(), Error> {
        run(ObjectKind::Ioas, "map", self.0.map(mapping))
    }
    /// See [`objects::Ioas::unmap`].
    ///
    /// # Errors
    /// As there.
    pub fn unmap(&self, iova: u64, length: u64) -> Result<u64, Error> {
        run(ObjectKind::Ioas, "unmap", self.0.unmap(iova, length))
    }
    /// See [`objects::Ioas::nest_parent`].
    ///
    /// # Errors
    /// As there.
    pub fn nest_parent(&self) -> Result<NestParent, Error> {
        run(ObjectKind::NestParent, "alloc", self.0.nest_parent()).map(NestParent)
    }
}

impl NestParent {
    /// See [`objects::NestParent::restore_viommu`].
    ///
    /// # Errors
    /// As there.
    pub fn restore_viommu(&self, config: RestoreConfig, saved: &SavedViommu) -> Result<RestoredViommu, Error> {
        let restored = run(ObjectKind::Viommu, "restore", self.0.restore_viommu(config, saved))?;
        Ok(RestoredViommu {
            viommu: Viommu(restored.viommu),
            vdevices: restored.vdevices.into_iter().map(Vdevice).collect(),
            event_queue: restored.event_queue.map(EventQueue),
            hw_queues: restored.hw_queues.into_iter().map(HwQueue).collect(),
        })
    }
    /// See [`objects::NestParent::viommu`].
    ///
    /// # Errors
    /// As there.
    pub fn viommu(&self, config: ViommuConfig) -> Result<Viommu, Error> {
        run(ObjectKind::Viommu, "alloc", self.0.viommu(config)).map(Viommu)
    }
}

/// See [`objects::RestoredViommu`].
#[derive(Debug)]
pub struct RestoredViommu {
    /// The vIOMMU.
    pub viommu: Viommu,
    /// Its vdevices, by ascending guest ID.
    pub vdevices: Vec<Vdevice>,
    /// Its event queue, if it had one.
    pub event_queue: Option<EventQueue>,
    /// Its HW queues, by index.
    pub hw_queues: Vec<HwQueue>,
}

impl FaultQueue {
    /// See [`objects::FaultQueue::respond`].
    ///
    /// # Errors
    /// As there.
    pub fn respond(&self, cookie: u32, success: bool) -> Result<(), Error> {
        run(ObjectKind::FaultQueue, "respond", self.0.respond(cookie, success))
    }
}

impl Device {
    /// See [`objects::Device::invalidate`].
    ///
    /// # Errors
    /// As there.
    pub fn invalidate(&self, words: &[u64]) -> Result<Invalidated, Error> {
        run(ObjectKind::Device, "invalidate", self.0.invalidate(words))
    }
}

impl Viommu {
    /// See [`objects::Viommu::vdevice`].
    ///
    /// # Errors
    /// As there.
    pub fn vdevice(&self, device: &Device, virt_id: u32) -> Result<Vdevice, Error> {
        run(ObjectKind::Vdevice, "alloc", self.0.vdevice(&device.0, virt_id)).map(Vdevice)
    }
    /// See [`objects::Viommu::event_queue`].
    ///
    /// # Errors
    /// As there.
    pub fn event_queue(&self) -> Result<EventQueue, Error> {
        run(ObjectKind::EventQueue, "alloc", self.0.event_queue()).map(EventQueue)
    }
    /// See [`objects::Viommu::hw_queue`].
    ///
    /// # Errors
    /// As there.
    pub fn hw_queue(&self, index: u32, iova: u64, length: u64) -> Result<HwQueue, Error> {
        run(ObjectKind::HwQueue, "alloc", self.0.hw_queue(index, iova, length)).map(HwQueue)
    }
    /// See [`objects::Viommu::page`].
    pub fn page(&self) -> Option<PagePlace> {
        self.0.page()
    }
    /// See [`objects::Viommu::map_page`].
    ///
    /// # Errors
    /// As there.
    pub fn map_page(&self, offset: u64, length: u64) -> Result<MappedPage, Error> {
        self.0.map_page(offset, length)
    }
    /// See [`objects::Viommu::install_entry`].
    ///
    /// # Errors
    /// As there.
    pub fn install_entry(&self, virt_id: u32, words: &[u64]) -> Result<(), Error> {
        run(ObjectKind::Viommu, "install", self.0.install_entry(virt_id, words))
    }
    /// See [`objects::Viommu::set_passthrough`].
    ///
    /// # Errors
    /// As there.
    pub fn set_passthrough(&self, virt_id: u32) -> Result<(), Error> {
        run(ObjectKind::Viommu, "install", self.0.set_passthrough(virt_id))
    }
    /// See [`objects::Viommu::set_blocking`].
    ///
    /// # Errors
    /// As there.
    pub fn set_blocking(&self, virt_id: u32) -> Result<(), Error> {
        run(ObjectKind::Viommu, "install", self.0.set_blocking(virt_id))
    }
    /// See [`objects::Viommu::invalidate`]; runs on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn invalidate(&self, words: &[u64]) -> Result<Invalidated, Error> {
        self.here("invalidate", |pipeline| pipeline.invalidate(words))
    }
    /// See [`objects::Viommu::mmio_read`]; runs on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn mmio_read(&self, offset: u64, size: u32) -> Result<u64, Error> {
        self.here("mmio_read", |pipeline| pipeline.mmio_read(offset, size))
    }
    /// See [`objects::Viommu::mmio_write`]; runs on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn mmio_write(&self, offset: u64, size: u32, value: u64) -> Result<(), Error> {
        self.here("mmio_write", |pipeline| pipeline.mmio_write(offset, size, value))
    }
    /// See [`objects::Viommu::watched_pages`]; runs on this thread.
    ///
    /// # Errors
    /// As there.
    pub fn watched_pages(&self) -> Result<Vec<u64>, Error> {
        self.0.watched_pages()
    }
    /// See [`objects::Viommu::memory_written`].
    ///
    /// # Errors
    /// As there.
    pub fn memory_written(&self, gpa: u64, length: u64) -> Result<u32, Error> {
        run(ObjectKind::Viommu, "attach_late", self.0.memory_written(gpa, length))
    }
    /// See [`objects::Viommu::reset`].
    ///
    /// # Errors
    /// As there.
    pub fn reset(&self) -> Result<(), Error> {
        self.here("reset", Pipeline::reset)
    }
    /// See [`objects::Viommu::save`].
    ///
    /// # Errors
    /// As there.
    pub fn save(&self) -> Result<SavedViommu, Error> {
        run(ObjectKind::Viommu, "save", self.0.save())
    }
    /// See [`objects::Viommu::resume`].
    pub fn resume(&self) {
        self.0.resume();
    }
    /// See [`objects::Viommu::nested_hwpts`].
    pub fn nested_hwpts(&self) -> Vec<objects::NestedHwpt> {
        self.0.nested_hwpts()
    }
    /// See [`objects::Viommu::counters`].
    pub fn counters(&self) -> NestedCounters {
        self.0.counters()
    }
    /// See [`objects::Viommu::key_of`].
    pub fn key_of(&self, virt_id: u32) -> Option<EntryKey> {
        self.0.key_of(virt_id)
    }
    /// See [`objects::Viommu::pipeline`].
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        self.0.pipeline()
    }

    /// The data path, on this thread.
    fn here<T>(
        &self,
        operation: &'static str,
        job: impl FnOnce(&Arc<Pipeline>) -> Result<T, Cause>,
    ) -> Result<T, Error> {
        may_block(ObjectKind::Viommu, operation)?;
        self.0.0.alive(operation)?;
        job(self.pipeline()).map_err(|cause| self.0.0.error(operation, cause))
    }
}
