//! The backend with calls that fail and change nothing, and, for injections, with calls that lie.

use super::taking_memory;
use crate::inject::Injection;
use crate::oracle::Oracle;
use crate::plan::{Call, Errno, Fault, STREAMS};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use viommu::Cause;
use viommu::backend::ViommuAlloc;
use viommu::backend::direct::Direct;
use viommu::backend::{BackendEvent, BackendInfo, GuestPage, Mapping, NestedAlloc, ObjectKind, Objects, SinkOf};
use viommu::simulation::{self, Simulation};
use viommu_plugin::{EntryKey, GuestMapping, HwQueueRequest, KeyKind};

/// A backend around another.
pub(crate) struct FaultyBackend {
    pub(crate) inner: Arc<Direct>,
    pub(crate) oracle: Oracle,
    pub(crate) faults: Vec<Fault>,
    pub(crate) injection: Option<Injection>,
    pub(crate) state: State,
}

/// What it remembers.
#[derive(Default)]
pub(crate) struct State {
    calls: Mutex<BTreeMap<Call, u32>>,
    done: AtomicBool,
    /// Objects that are not shown.
    leaked: Mutex<Vec<u32>>,
    made: Mutex<Vec<ViommuAlloc>>,
    /// HWPTs that let DMA pass, with their vIOMMU.
    passing: Mutex<BTreeMap<u32, u32>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FaultyBackend {
    /// Fails if the plan says so.
    fn call(&self, call: Call) -> Result<(), Cause> {
        let nth = {
            let mut calls = lock(&self.state.calls);
            let count = calls.entry(call).or_default();
            *count += 1;
            *count
        };
        let planned = |fault: &Fault| match *fault {
            Fault::Backend { call: of, nth: at, errno } if of == call && at == nth => Some(errno),
            _ => None,
        };
        let Some(errno) = self.faults.iter().find_map(planned) else { return Ok(()) };
        let (what, cause) = match errno {
            Errno::NoMemory => ("fault.backend.enomem", Cause::Os(std::io::Error::from_raw_os_error(12))),
            Errno::Busy => ("fault.backend.ebusy", Cause::Busy { users: "the simulation".into() }),
            Errno::TimedOut => ("fault.backend.etimedout", Cause::TimedOut(Duration::from_millis(1))),
        };
        self.oracle.count(what);
        simulation::note(|| format!("{call:?} {nth} fails: {cause}"));
        Err(cause)
    }

    fn breaks(&self, injection: Injection) -> bool {
        self.injection == Some(injection)
    }

    /// Whether this is the first time that `injection` is asked about.
    fn once(&self, injection: Injection) -> bool {
        self.breaks(injection) && !self.state.done.swap(true, Ordering::Relaxed)
    }

    /// Stage 2 alone of another machine, instead of a HWPT that lets DMA pass.
    fn foreign(&self, hwpt: u32) -> Option<u32> {
        let own = *lock(&self.state.passing).get(&hwpt)?;
        let live = self.inner.live();
        let alive = |made: &&ViommuAlloc| made.id != own && live.iter().any(|(id, _)| *id == made.id);
        lock(&self.state.made).iter().find(alive).map(|made| made.bypass)
    }
}

#[async_trait]
impl Objects for FaultyBackend {
    fn describe(&self) -> BackendInfo {
        self.inner.describe()
    }

    async fn ioas_alloc(&self) -> Result<u32, Cause> {
        self.call(Call::IoasAlloc)?;
        self.inner.ioas_alloc().await
    }

    async fn ioas_map(&self, ioas: u32, mapping: Mapping) -> Result<(), Cause> {
        self.call(Call::Map)?;
        self.inner.ioas_map(ioas, mapping).await
    }

    async fn ioas_unmap(&self, ioas: u32, iova: u64, length: u64) -> Result<u64, Cause> {
        self.call(Call::Unmap)?;
        if self.breaks(Injection::KeepMemory) {
            return Ok(length);
        }
        taking_memory(true);
        let unmapped = self.inner.ioas_unmap(ioas, iova, length).await;
        taking_memory(false);
        unmapped
    }

    async fn nest_parent_alloc(&self, ioas: u32) -> Result<u32, Cause> {
        self.call(Call::ParentAlloc)?;
        if self.once(Injection::LeakTag) {
            let nobodys = self.inner.ioas_alloc().await?;
            let parent = self.inner.nest_parent_alloc(nobodys).await?;
            lock(&self.state.leaked).extend([nobodys, parent]);
        }
        self.inner.nest_parent_alloc(ioas).await
    }

    async fn viommu_alloc(&self, parent: u32) -> Result<ViommuAlloc, Cause> {
        self.call(Call::ViommuAlloc)?;
        let made = self.inner.viommu_alloc(parent).await?;
        lock(&self.state.made).push(made);
        lock(&self.state.passing).insert(made.bypass, made.id);
        Ok(made)
    }

    async fn device_bind(&self, stream: u32) -> Result<u32, Cause> {
        self.call(Call::Bind)?;
        self.inner.device_bind(stream).await
    }

    async fn vdevice_alloc(&self, viommu: u32, device: u32, virt_id: u32) -> Result<u32, Cause> {
        self.call(Call::VdeviceAlloc)?;
        self.inner.vdevice_alloc(viommu, device, virt_id).await
    }

    async fn nested_hwpt_alloc(&self, viommu: u32, key: &EntryKey) -> Result<NestedAlloc, Cause> {
        self.call(Call::NestedAlloc)?;
        let made = self.inner.nested_hwpt_alloc(viommu, key).await?;
        if key.kind == KeyKind::TRANSLATE {
            lock(&self.state.passing).insert(made.id, viommu);
        }
        Ok(made)
    }

    async fn shadow_hwpt_alloc(&self, viommu: u32, key: &EntryKey) -> Result<u32, Cause> {
        self.call(Call::NestedAlloc)?;
        let made = self.inner.shadow_hwpt_alloc(viommu, key).await?;
        lock(&self.state.passing).insert(made, viommu);
        Ok(made)
    }

    fn shadow_leaves(&self, hwpt: u32, first: u64, last: u64) -> Result<Vec<GuestMapping>, Cause> {
        self.inner.shadow_leaves(hwpt, first, last)
    }

    fn shadow_change(&self, hwpt: u32, gone: &[GuestMapping], new: &[GuestMapping]) -> Result<(), Cause> {
        self.call(Call::ShadowChange)?;
        if !gone.is_empty() && self.breaks(Injection::KeepShadow) {
            return Ok(());
        }
        self.inner.shadow_change(hwpt, gone, new)
    }

    async fn attach(&self, device: u32, hwpt: u32) -> Result<(), Cause> {
        self.call(Call::Attach)?;
        let aborts = lock(&self.state.made).iter().any(|made| made.abort == hwpt);
        if aborts && (self.breaks(Injection::KeepRemoved) || self.breaks(Injection::KeepQuarantined)) {
            return Ok(());
        }
        if self.breaks(Injection::Gap) {
            self.inner.detach(device).await?;
            simulation::sleep(Duration::from_micros(100));
        }
        if self.breaks(Injection::ForeignTables)
            && let Some(other) = self.foreign(hwpt)
        {
            return self.inner.attach(device, other).await;
        }
        self.inner.attach(device, hwpt).await
    }

    async fn reload(&self, device: u32) -> Result<(), Cause> {
        self.call(Call::Reload)?;
        self.inner.reload(device).await
    }

    async fn detach(&self, device: u32) -> Result<(), Cause> {
        self.call(Call::Detach)?;
        if self.breaks(Injection::KeepRemoved) {
            return Ok(());
        }
        self.inner.detach(device).await
    }

    async fn event_queue_alloc(&self, viommu: u32) -> Result<u32, Cause> {
        self.inner.event_queue_alloc(viommu).await
    }

    async fn fault_queue_alloc(&self) -> Result<u32, Cause> {
        self.inner.fault_queue_alloc().await
    }

    async fn hw_queue_alloc(&self, viommu: u32, queue: &HwQueueRequest) -> Result<u32, Cause> {
        self.inner.hw_queue_alloc(viommu, queue).await
    }

    async fn interface_give(&self, viommu: u32) -> Result<(), Cause> {
        self.inner.interface_give(viommu).await
    }

    fn guest_page(&self, viommu: u32) -> Result<Option<Arc<dyn GuestPage>>, Cause> {
        self.inner.guest_page(viommu)
    }

    async fn flush(&self, viommu: u32) -> Result<(), Cause> {
        self.call(Call::Flush)?;
        self.inner.flush(viommu).await
    }

    async fn destroy(&self, id: u32) -> Result<(), Cause> {
        self.call(Call::Destroy)?;
        let kind = self.inner.live().into_iter().find(|(live, _)| *live == id).map(|(_, kind)| kind);
        if kind == Some(ObjectKind::NestedHwpt) && self.once(Injection::LeakObject) {
            return Ok(());
        }
        self.inner.destroy(id).await
    }

    fn live(&self) -> Vec<(u32, ObjectKind)> {
        let leaked = lock(&self.state.leaked);
        self.inner.live().into_iter().filter(|(id, _)| !leaked.contains(id)).collect()
    }

    fn sink(&self, viommu: u32) -> Result<SinkOf, Cause> {
        self.inner.sink(viommu)
    }

    fn events(&self) -> flume::Receiver<BackendEvent> {
        let events = self.inner.events();
        match Simulation::current().filter(|_| self.breaks(Injection::MisrouteEvent)) {
            Some(simulation) => misrouted(&simulation, events),
            None => events,
        }
    }
}

/// The events, each of the other machine's device with the same place.
fn misrouted(simulation: &Simulation, events: flume::Receiver<BackendEvent>) -> flume::Receiver<BackendEvent> {
    let (sender, receiver) = flume::unbounded();
    simulation.spawn("misroute", move || {
        loop {
            match events.try_recv() {
                Ok(BackendEvent::Guest { stream, record, words }) => {
                    let stream = (stream + STREAMS) % (2 * STREAMS);
                    let _ = sender.send(BackendEvent::Guest { stream, record, words });
                }
                Ok(other) => {
                    let _ = sender.send(other);
                }
                Err(flume::TryRecvError::Empty) => simulation::sleep(Duration::from_micros(20)),
                Err(flume::TryRecvError::Disconnected) => return,
            }
        }
    });
    receiver
}
